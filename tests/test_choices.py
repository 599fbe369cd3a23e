"""Log-probabilities, several texts of one prompt, stop tokens and least lengths."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Generation, Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.drawer import drawer
from bitnet_lut.runtime.logprobs import Scoring, TokenLogprob

STORY = "Once upon a time there was a young mouse named Leo."
WARM = Sampling(temperature=0.9, top_k=40, seed=11)


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


def token_logprob(logits: np.ndarray, id: int, top: int) -> TokenLogprob:
    scoring = Scoring(np.ascontiguousarray(logits), min(top, logits.size))
    return scoring.token(id, *drawer().score([scoring]))


def plain_logprobs(row: np.ndarray) -> list[float]:
    """The definition, in Python's own numbers."""
    values = [float(x) for x in row]
    peak = max(values)
    total = math.log(math.fsum(math.exp(x - peak) for x in values)) + peak
    return [x - total for x in values]


@settings(deadline=None)
@given(
    st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=1, max_size=200),
    st.integers(0, 210),
    st.data(),
)
def test_scores_by_the_definition(logits: list[float], top: int, data: Any) -> None:
    id = data.draw(st.integers(0, len(logits) - 1))
    expected = plain_logprobs(np.array(logits))
    found = token_logprob(np.array(logits, np.float32), id, top)
    assert found.id == id
    assert found.logprob == pytest.approx(expected[id], abs=1e-6)
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top]
    assert [i for i, _ in found.top] == ranked
    assert [value for _, value in found.top] == pytest.approx(
        [expected[i] for i in ranked], abs=1e-6
    )


def test_a_forbidden_token_has_no_chance() -> None:
    row = np.array([0.0, -np.inf, 0.0], np.float32)
    assert token_logprob(row, 1, 3).top == (
        (0, pytest.approx(math.log(0.5))),
        (2, pytest.approx(math.log(0.5))),
        (1, -math.inf),
    )
    assert token_logprob(row, 1, 0).logprob == -math.inf


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=1.3, logit_bias={7: 3}), WARM])
def test_scores_are_those_of_forward(demo: Model, sampling: Sampling) -> None:
    """They come from the model's own logits, before penalties, bias and temperature."""
    ids = demo.tokenize(STORY)
    found = demo.generate(
        ids, max_tokens=30, sampling=sampling, logprobs=3, prompt_logprobs=2, ignore_eos=True
    )
    rows = demo.forward([*ids, *found.ids])[:, : demo.tokenizer.vocab_size]
    assert found.logprobs is not None
    assert [one.id for one in found.logprobs] == list(found.ids)
    for one, row in zip(found.logprobs, rows[len(ids) - 1 :], strict=False):
        assert one == token_logprob(row, one.id, 3)
        assert one.logprob == pytest.approx(plain_logprobs(row)[one.id], abs=1e-6)
    assert found.prompt_logprobs is not None
    assert found.prompt_logprobs[0] is None
    assert len(found.prompt_logprobs) == len(ids)
    for id, one, row in zip(ids[1:], found.prompt_logprobs[1:], rows, strict=False):
        assert one == token_logprob(row, id, 2)


def test_a_long_prompt_is_scored_piece_by_piece(demo: Model) -> None:
    ids = np.random.default_rng(1).integers(0, 4096 % demo.config.vocab_size, 300).tolist()
    found = demo.generate(ids, max_tokens=0, prompt_logprobs=0)
    rows = demo.forward(ids)[:, : demo.tokenizer.vocab_size]
    expected = [token_logprob(row, id, 0) for row, id in zip(rows, ids[1:], strict=False)]
    assert found.prompt_logprobs == (None, *expected)
    assert (found.ids, found.logprobs) == ((), None)


def scores(found: Generation) -> tuple[Any, ...]:
    return found.text, found.ids, found.finish_reason, found.logprobs, found.prompt_logprobs


def test_scores_are_the_same_alone_together_and_with_guesses(demo: Model) -> None:
    prompts = [STORY, "The capital of France is", f"{STORY} {STORY}"]
    for sampling in (Sampling(), WARM):
        options: Any = {"max_tokens": 25, "sampling": sampling, "logprobs": 2, "prompt_logprobs": 1}
        alone = [scores(demo.generate(prompt, **options, speculate=False)) for prompt in prompts]
        assert [scores(one) for one in demo.generate(prompts, **options)] == alone
        assert [scores(demo.generate(prompt, **options)) for prompt in prompts] == alone


def test_scores_end_where_the_ids_end(demo: Model) -> None:
    found = demo.generate("The capital of France is", logprobs=1)
    assert found.finish_reason == "eos"
    assert found.logprobs is not None
    assert len(found.logprobs) == len(found.ids)
    stopped = demo.generate(STORY, logprobs=0, stop="the")
    assert stopped.finish_reason == "stop"
    assert [one.id for one in stopped.logprobs or ()] == list(stopped.ids)


@pytest.mark.parametrize("most", [0, 1, 30])
def test_choices_are_each_text_alone(demo: Model, most: int) -> None:
    found = demo.generate(STORY, n=5, sampling=WARM, max_tokens=most, logprobs=1, stop="cat")
    assert len(found.choices) == 5
    assert found.choices[0].ids == found.ids
    for index, one in enumerate(found.choices):
        sampling = replace(WARM, seed=11 + index)
        alone = demo.generate(STORY, sampling=sampling, max_tokens=most, logprobs=1, stop="cat")
        assert scores(one) == scores(alone)
        assert one.timings.prompt_tokens == alone.timings.prompt_tokens
    if most == 30:
        assert len({one.ids for one in found.choices}) > 1


def test_choices_of_a_list_run_each_prompt_once(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[int] = []
    engine = demo._engine
    step = engine.step
    monkeypatch.setattr(
        engine,
        "step",
        lambda chunks, *a: (tokens.append(sum(len(i) for _, i in chunks)), step(chunks, *a))[1],
    )
    prompts = [[5] * 200, [6] * 100]
    found = demo.generate(prompts, n=3, sampling=WARM, max_tokens=4, ignore_eos=True)
    assert sum(tokens) == 300 + 6 * 3
    monkeypatch.undo()
    for prompt, one in zip(prompts, found, strict=True):
        for index, choice in enumerate(one.choices):
            alone = demo.generate(
                prompt, sampling=replace(WARM, seed=11 + index), max_tokens=4, ignore_eos=True
            )
            assert choice.ids == alone.ids
    assert demo.generate([5], max_tokens=1).choices == ()


def test_more_choices_than_run_at_once(demo: Model) -> None:
    found = demo.generate([[5, 6]] * 2, n=100, sampling=WARM, max_tokens=2, ignore_eos=True)
    alone = demo.generate(
        [5, 6], sampling=replace(WARM, seed=11 + 99), max_tokens=2, ignore_eos=True
    )
    assert [one.choices[99].ids for one in found] == [alone.ids] * 2


def test_stop_tokens(demo: Model) -> None:
    plain = demo.generate(STORY, max_tokens=30, ignore_eos=True)
    for at in (0, 3, 11):
        token = plain.ids[at]
        first = plain.ids.index(token)
        for speculate in (True, False):
            found = demo.generate(
                STORY, max_tokens=30, stop_token_ids=[token], ignore_eos=True, speculate=speculate
            )
            assert (found.ids, found.finish_reason) == (plain.ids[:first], "stop")
            assert found.text == demo.tokenizer.decode(found.ids, start=False)


def test_ends_are_not_chosen_before_the_least_length(demo: Model) -> None:
    prompt = "The capital of France is"
    plain = demo.generate(prompt)
    assert (len(plain.ids), plain.finish_reason) == (3, "eos")
    ends = demo.tokenizer.eos_ids
    for least in (0, 3, 4, 9):
        for many in (False, True):
            options: Any = {"min_tokens": least, "max_tokens": 40}
            found = (
                demo.generate([prompt], **options)[0] if many else demo.generate(prompt, **options)
            )
            assert len(found.ids) >= least
            assert found.ids[: min(3, least)] == plain.ids[: min(3, least)]
            assert not ends & set(found.ids)
    # By definition: the best token that is not an end.
    row = demo.session().step([*demo.tokenize(prompt), *plain.ids]).copy()
    row[list(ends)] = -np.inf
    assert demo.generate(prompt, min_tokens=4).ids[3] == int(
        row[: demo.tokenizer.vocab_size].argmax()
    )


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 0}, ValueError, "n is 0, it must be 1 to 128"),
        ({"n": 129}, ValueError, "n is 129"),
        ({"n": True}, TypeError, "n is True, it must be a whole number"),
        ({"logprobs": -1}, ValueError, "logprobs is -1, it must be 0 to"),
        ({"logprobs": 10**9}, ValueError, "logprobs is 1000000000"),
        ({"logprobs": True}, TypeError, "logprobs is True"),
        ({"prompt_logprobs": 1.5}, TypeError, "prompt_logprobs is 1.5"),
        ({"min_tokens": -1}, ValueError, "min_tokens is -1"),
        (
            {"stop_token_ids": [True]},
            TypeError,
            "stop_token_ids is True, it must be a whole number",
        ),
        ({"stop_token_ids": [10**6]}, ValueError, "is 1000000, it must be 0 to"),
        ({"stop_token_ids": ["a"]}, TypeError, "stop_token_ids is 'a', it must be a whole number"),
        ({"sampling": Sampling(logit_bias={10**6: 1})}, ValueError, "is 1000000, it must be 0 to"),
        ({"temperature": 0.5}, TypeError, r"part of sampling: sampling=Sampling\(temperature="),
        ({"max_token": 5}, TypeError, "'max_token' is not one of the arguments max_tokens, "),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_options_that_make_no_sense(demo: Model, options: Any, error: Any, text: str) -> None:
    for prompt in ("a", ["a", "b"]):
        with pytest.raises(error, match=text):
            demo.generate(prompt, **options)


def test_a_stream_is_one_text(demo: Model) -> None:
    with pytest.raises(ValueError, match="n is for generate: a stream is one text"):
        demo.stream("a", n=2)
    stream = demo.stream(STORY, max_tokens=5, logprobs=1, ignore_eos=True)
    next(stream)
    assert len(stream.result.logprobs or ()) == len(stream.result.ids) == 1
    assert "".join(stream)
    assert (
        stream.result.logprobs
        == demo.generate(STORY, max_tokens=5, logprobs=1, ignore_eos=True).logprobs
    )
