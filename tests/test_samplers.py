"""DRY, XTC and the two orders, against their definitions written out in plain Python."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Generation, Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.dry import dry_penalties, sequence_breakers
from bitnet_lut.runtime.filters import without_top_choices
from bitnet_lut.runtime.sampling import Sampler

PROMPTS = ["Once upon a time", "The capital of France is", "One, two, one, two, one,"]
logit_lists = st.lists(st.integers(-12, 12).map(lambda n: n / 2), min_size=2, max_size=30)


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


def since_breaker(history: list[int], sequences: list[list[int]]) -> int:
    """How many tokens follow the last token that begins a whole sequence, and the longest such."""
    for start in reversed(range(len(history))):
        ends = [start + len(s) for s in sequences if history[start : start + len(s)] == s]
        if ends:
            return len(history) - max(ends)
    return len(history)


def penalties(
    history: list[int], sequences: list[list[int]], multiplier: float, base: float, allowed: int
) -> dict[int, float]:
    """DRY: of every token, the longest end of the history that stood before it elsewhere."""
    most = since_breaker(history, sequences)
    found: dict[int, float] = {}
    for place in range(1, len(history)):
        longest = 0
        for length in range(1, min(place, most) + 1):
            if history[place - length : place] == history[len(history) - length :]:
                longest = length
        if longest >= allowed and [history[place]] not in sequences:
            penalty = multiplier * base ** (longest - allowed)
            found[history[place]] = max(penalty, found.get(history[place], 0.0))
    return found


@settings(deadline=None, max_examples=300)
@given(
    history=st.lists(st.integers(0, 3), max_size=25),
    sequences=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=3),
    base=st.sampled_from([1.0, 1.75, 3.0]),
    allowed=st.integers(1, 4),
)
def test_dry_by_its_definition(
    history: list[int], sequences: list[list[int]], base: float, allowed: int
) -> None:
    breakers = {
        head: frozenset(tuple(s[1:]) for s in sequences if s[0] == head)
        for head in {s[0] for s in sequences}
    }
    found = dry_penalties(history, breakers, multiplier=0.8, base=base, allowed_length=allowed)
    assert found == penalties(history, sequences, 0.8, base, allowed)


def test_the_example_of_llama_cpp() -> None:
    """Of the comment in its source: c would make 3 tokens 4, y 2 tokens 3, b 1 token 2."""
    a, b, c, y = range(4)
    history = [a, b, c, c, b, c, y, a, b, c]
    found = dry_penalties(history, {}, multiplier=1, base=2, allowed_length=1)
    assert found == {c: 4, y: 2, b: 1}


def test_dry_is_a_step_of_the_sampler() -> None:
    row = np.array([3.0, 2.5, 0.0], np.float32)
    history = [1, 2, 0, 1, 2]  # 0 would repeat
    assert Sampler(Sampling())(row, history) == 0
    dry = {"dry_multiplier": 0.8}
    assert Sampler(Sampling(**dry))(row, history) == 1
    assert Sampler(Sampling(**dry, dry_allowed_length=3))(row, history) == 0
    assert Sampler(Sampling(**dry, dry_penalty_last_n=0))(row, history) == 0
    assert Sampler(Sampling(**dry, dry_penalty_last_n=4))(row, history) == 0
    assert Sampler(Sampling(**dry), breakers={2: frozenset({()})})(row, history) == 0
    assert row.tolist() == [3.0, 2.5, 0.0]
    with pytest.raises(ValueError, match="history holds id 3, the vocabulary has 3"):
        Sampler(Sampling(**dry))(row, [1, 2, 3, 1, 2])


def test_a_long_repeat_loses_a_finite_number() -> None:
    found = dry_penalties([7] * 4000, {}, multiplier=1, base=1.75, allowed_length=2)
    assert found[7] == pytest.approx(1.75**158)
    assert found[7] < np.finfo(np.float32).max


def test_breakers_are_the_tokens_that_spell_them(demo: Model) -> None:
    tokenizer = demo.tokenizer
    found = sequence_breakers(tokenizer, ["\n", " Leo"])
    assert [id for id in found if b"\n" in tokenizer.piece(id)] == [
        id for id in range(tokenizer.vocab_size) if b"\n" in tokenizer.piece(id)
    ]
    for id, tails in found.items():
        piece = tokenizer.piece(id)
        if () in tails:
            assert b"\n" in piece or b" Leo" in piece
        for tail in tails - {()}:
            spelled = b"".join(map(tokenizer.piece, tail))
            assert piece.endswith(b" Leo"[: -len(spelled)])
            assert b" Leo".endswith(spelled)


@settings(deadline=None, max_examples=200)
@given(logit_lists, st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5]))
def test_xtc_by_its_definition(logits: list[float], threshold: float) -> None:
    total = sum(math.exp(x) for x in logits)
    ranked = sorted(range(len(logits)), key=lambda id: (-logits[id], id))
    likely = [id for id in ranked if math.exp(logits[id]) / total >= threshold]
    expected = [id for id in range(len(logits)) if id not in likely[:-1]]
    row = np.array(logits, np.float32)
    assert without_top_choices(row, np.arange(len(row)), threshold).tolist() == expected


def test_xtc_takes_place_as_often_as_it_should() -> None:
    row = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    sampling = Sampling(temperature=1, xtc_probability=0.25, xtc_threshold=0.2, seed=3)
    sampler, count = Sampler(sampling), 20_000
    seen = Counter(sampler(row, []) for _ in range(count))
    expected = {0: 0.75 * 0.6, 1: 0.75 * 0.3 + 0.25 * 0.75, 2: 0.75 * 0.1 + 0.25 * 0.25}
    for id, p in expected.items():
        assert abs(seen[id] - p * count) < 5 * math.sqrt(count * p * (1 - p))
    assert sampler(row, []) in expected
    always = Sampler(Sampling(temperature=1, xtc_probability=1, xtc_threshold=0.2, seed=3))
    assert {always(row, []) for _ in range(100)} == {1, 2}


def test_xtc_that_has_no_effect_leaves_the_seed_alone() -> None:
    row = np.random.default_rng(1).normal(size=50).astype(np.float32)
    plain = Sampler(Sampling(temperature=1, seed=3))
    above = Sampler(Sampling(temperature=1, xtc_probability=1, xtc_threshold=0.6, seed=3))
    assert [plain(row, []) for _ in range(20)] == [above(row, []) for _ in range(20)]
    greedy = Sampler(Sampling(xtc_probability=1, xtc_threshold=0, seed=3))
    assert greedy(row, []) == row.argmax()


@pytest.mark.parametrize("seed", range(8))
def test_the_other_order_is_that_of_transformers(seed: int) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    random = np.random.default_rng(seed)
    row = (random.normal(size=200) * 3).astype(np.float32)
    options: Any = {
        "temperature": random.choice([0.4, 1.7]),
        "top_k": int(random.integers(5, 60)),
        "top_p": random.choice([0.7, 0.9]),
        "min_p": random.choice([0.01, 0.2]),
        "typical_p": random.choice([0.5, 0.95]),
    }
    scores = torch.from_numpy(row[None].copy())
    for warper in (
        process.TemperatureLogitsWarper(options["temperature"]),
        process.TopKLogitsWarper(options["top_k"]),
        process.TopPLogitsWarper(options["top_p"]),
        process.MinPLogitsWarper(options["min_p"]),
        process.TypicalLogitsWarper(options["typical_p"]),
    ):
        scores = warper(None, scores)
    expected = torch.softmax(scores[0].double(), 0).numpy()
    sampler, count = Sampler(Sampling(**options, order="transformers", seed=seed)), 4000
    seen = Counter(sampler(row, []) for _ in range(count))
    assert set(seen) <= set(np.flatnonzero(expected))
    for id in np.flatnonzero(expected):
        p = expected[id]
        assert abs(seen[int(id)] - p * count) <= 5 * math.sqrt(count * p * (1 - p)) + 1


def test_the_orders_differ_where_temperature_meets_top_p() -> None:
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    hot = {"temperature": 4.0, "top_p": 0.75, "seed": 1}
    last, first = Sampler(Sampling(**hot)), Sampler(Sampling(**hot, order="transformers"))
    assert {last(row, []) for _ in range(200)} == {0, 1}
    assert {first(row, []) for _ in range(200)} == {0, 1, 2}
    cold = Sampling(temperature=1e-320, order="transformers", top_n_sigma=1.0, top_p=0.9, seed=1)
    assert Sampler(cold)(row, []) == 0


def outcome(found: Generation) -> tuple[Any, ...]:
    return found.text, found.ids, found.finish_reason


@pytest.mark.parametrize(
    "options",
    [
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 20.0, "dry_allowed_length": 1, "temperature": 0.9},
        {"xtc_probability": 0.5, "temperature": 0.9, "min_p": 0.01},
        {"order": "transformers", "temperature": 1.3, "top_p": 0.8},
    ],
)
def test_texts_are_the_same_alone_and_in_a_list(demo: Model, options: Any) -> None:
    sampling = Sampling(**options, seed=5)
    alone = [demo.generate(one, max_tokens=30, sampling=sampling) for one in PROMPTS]
    together = demo.generate(PROMPTS, max_tokens=30, sampling=sampling)
    assert [outcome(one) for one in alone] == [outcome(one) for one in together]
    plain = demo.generate(PROMPTS, max_tokens=30, sampling=Sampling(temperature=1, seed=5))
    assert [one.ids for one in plain] != [one.ids for one in together]


def test_guesses_do_not_change_a_text_with_dry(demo: Model) -> None:
    sampling = Sampling(dry_multiplier=20.0, dry_allowed_length=1)
    options: Any = {"max_tokens": 60, "ignore_eos": True}
    found = demo.generate(PROMPTS[0], sampling=sampling, **options)
    assert found.text != demo.generate(PROMPTS[0], **options).text
    plain = demo.generate(PROMPTS[0], sampling=sampling, speculate=False, **options)
    assert outcome(found) == outcome(plain)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dry_multiplier": -1}, ValueError, "dry_multiplier is -1: it must be finite"),
        ({"dry_base": 0.5}, ValueError, "dry_base is 0.5: it must be finite and at least 1"),
        ({"dry_allowed_length": 0}, ValueError, "dry_allowed_length is 0"),
        ({"dry_penalty_last_n": -2}, ValueError, "dry_penalty_last_n is -2"),
        ({"dry_penalty_last_n": math.nan}, ValueError, "dry_penalty_last_n is nan"),
        ({"dry_sequence_breakers": "ab"}, TypeError, "dry_sequence_breakers is 'ab'"),
        ({"dry_sequence_breakers": [""]}, ValueError, "dry_sequence_breakers holds ''"),
        ({"dry_sequence_breakers": [1]}, ValueError, "dry_sequence_breakers holds 1"),
        ({"xtc_probability": 1.5}, ValueError, "xtc_probability is 1.5: it must be between 0 and"),
        ({"xtc_threshold": math.nan}, ValueError, "xtc_threshold is nan"),
        ({"order": "vllm"}, ValueError, "order is 'vllm': it must be llama.cpp or transformers"),
    ],
)
def test_values_out_of_range_are_refused(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        Sampling(**options)
    assert hash(Sampling(dry_sequence_breakers=["a"])) is not None
