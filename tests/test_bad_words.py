"""Bad words and logits processors, of a Sampler and of whole texts."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import AsyncModel, Generation, Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.bad_words import BadWords
from bitnet_lut.runtime.sampling import Sampler

PROMPTS = ["Once upon a time", "The capital of France is", "One, two, one, two, one,"]
WARM = Sampling(temperature=1.2, seed=4)


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


class Letters:
    """A vocabulary of a few pieces, of which the last is special."""

    PIECES = (
        b"a",
        b"b",
        b"ab",
        b"ba",
        b"aba",
        b"c",
        b"bc",
        "é".encode()[:1],
        "é".encode()[1:],
        b"",
    )
    vocab_size = len(PIECES)
    special_ids = frozenset({vocab_size - 1})

    def piece(self, id: int) -> bytes:
        return self.PIECES[id]

    def is_special(self, id: int) -> bool:
        return id in self.special_ids


ids = st.integers(0, Letters.vocab_size - 1)


@settings(deadline=None, max_examples=300)
@given(
    history=st.lists(ids, max_size=8),
    words=st.lists(
        st.text("abcé", min_size=1, max_size=4) | st.lists(ids, min_size=1, max_size=3).map(tuple),
        max_size=3,
    ),
)
def test_forbidden_are_those_that_complete_a_word(history: Any, words: Any) -> None:
    """By trying every token: one more of the word in the text than before."""
    tokenizer = Letters()

    def count(some: Sequence[int], word: Any) -> int:
        if isinstance(word, tuple):
            return sum(tuple(some[i : i + len(word)]) == word for i in range(len(some)))
        text, spelled = b"".join(map(tokenizer.piece, some)), word.encode()
        return sum(text.startswith(spelled, i) for i in range(len(text)))

    expected = {
        id
        for id in range(tokenizer.vocab_size)
        if any(count([*history, id], word) > count(history, word) for word in words)
    }
    found: Any = BadWords(tokenizer, words)  # type: ignore[arg-type]
    assert set(found.forbidden(history).tolist()) == expected


def outcome(found: Generation) -> tuple[Any, ...]:
    return found.text, found.ids, found.finish_reason


def test_texts_do_not_hold_bad_words(demo: Model) -> None:
    words: Any = ["mouse", " Leo", "the", tuple(demo.tokenize(" there was", add_bos=False))]
    plain = demo.generate(PROMPTS[0], max_tokens=40)
    assert any(word in plain.text for word in words[:3])
    for sampling in (Sampling(), WARM):
        found = demo.generate(PROMPTS, max_tokens=40, sampling=sampling, bad_words=words)
        assert not any(word in one.text for one in found for word in words[:3])
        assert not any(one.text.startswith(" there was") for one in found)
        alone = [
            demo.generate(one, max_tokens=40, sampling=sampling, bad_words=words) for one in PROMPTS
        ]
        assert list(map(outcome, alone)) == list(map(outcome, found))
    assert "a" not in demo.generate(PROMPTS[0], max_tokens=20, bad_words="a").text


def test_a_word_that_the_prompt_begins_is_not_completed(demo: Model) -> None:
    out = demo.generate("The capital of France is", max_tokens=1)
    assert demo.generate(
        "The capital of France is", max_tokens=1, bad_words="is" + out.text
    ).ids != (out.ids)


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (3, TypeError, "bad_words must be a sequence, not int"),
        ([3], TypeError, "bad_words holds 3, it must hold texts and sequences of ids"),
        ([b"a"], TypeError, "bad_words holds b'a'"),
        ([""], ValueError, "bad_words holds an empty one, which would forbid every token"),
        ([[]], ValueError, "bad_words holds an empty one"),
        ([[1, 10**6]], ValueError, "token 1 is 1000000, the vocabulary has"),
        ([["a"]], TypeError, "ids must be a sequence of whole numbers"),
    ],
)
def test_what_are_no_bad_words_is_refused(demo: Model, words: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        demo.generate("a", bad_words=words)


def test_processors_run_in_their_order_before_all_else() -> None:
    row = np.array([1.0, 2.0, 4.0], np.float32)
    seen: list[Any] = []

    def half(ids: Sequence[int], logits: np.ndarray) -> np.ndarray:
        seen.append((ids, logits.tolist()))
        logits *= 0.5
        return logits

    def turn(ids: Sequence[int], logits: np.ndarray) -> np.ndarray:
        seen.append((ids, logits.tolist()))
        return -logits.astype(np.float64)

    sampler = Sampler(Sampling(logit_bias={1: 0.75}), processors=[half, turn])
    assert sampler(row, [2, 0]) == 1  # -0.5, -1 + 0.75 and -2
    assert seen == [([2, 0], [1.0, 2.0, 4.0]), ([2, 0], [0.5, 1.0, 2.0])]
    assert row.tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("sampling", [Sampling(), WARM])
def test_processors_of_texts(demo: Model, sampling: Sampling) -> None:
    """One that forbids every token that the text holds."""
    start = {prompt: len(demo.tokenize(prompt)) for prompt in PROMPTS}

    def never_again(ids: Sequence[int], logits: np.ndarray) -> np.ndarray:
        logits[list(ids)] = -np.inf
        return logits

    options: Any = {"max_tokens": 30, "sampling": sampling, "logits_processors": [never_again]}
    together = demo.generate(PROMPTS, **options)
    alone = [demo.generate(prompt, **options) for prompt in PROMPTS]
    assert list(map(outcome, together)) == list(map(outcome, alone))
    for prompt, one in zip(PROMPTS, together, strict=True):
        ids = [*demo.tokenize(prompt), *one.ids]
        assert len(set(one.ids)) == len(one.ids) == len(set(ids[start[prompt] :]))
        assert not set(one.ids) & set(demo.tokenize(prompt))
    twice = demo.generate(PROMPTS[2], speculate=False, **options)
    assert outcome(twice) == outcome(together[2])


def fails_after(count: int, error: Exception) -> Any:
    def process(ids: Sequence[int], logits: np.ndarray) -> np.ndarray:
        if len(ids) > count:
            raise error
        return logits

    return process


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), RuntimeError("mine")])
def test_what_a_processor_raises_is_raised(demo: Model, error: Exception) -> None:
    length = len(demo.tokenize(PROMPTS[2]))
    for after in (length - 1, length, length + 5):
        processors = [fails_after(after, error)]
        with pytest.raises(type(error)) as caught:
            demo.generate(PROMPTS[2], logits_processors=processors, ignore_eos=True)
        assert caught.value is error
        stream = demo.stream(PROMPTS[2], logits_processors=processors, ignore_eos=True)
        with pytest.raises(type(error)):
            list(stream)
        assert len(stream.result.ids) == max(0, after - length + 1)
        with pytest.raises(type(error)):
            demo.generate(PROMPTS[2], n=2, logits_processors=processors, ignore_eos=True)
    assert demo.generate("a", max_tokens=2).ids  # the model goes on


def test_a_processor_that_fails_leaves_other_texts_alone(demo: Model) -> None:
    async def both() -> list[Any]:
        model = AsyncModel(demo)
        return await asyncio.gather(
            model.generate(PROMPTS[0], max_tokens=20),
            model.generate(PROMPTS[1], logits_processors=[fails_after(6, KeyError("mine"))]),
            return_exceptions=True,
        )

    good, bad = asyncio.run(both())
    assert outcome(good) == outcome(demo.generate(PROMPTS[0], max_tokens=20))
    assert isinstance(bad, KeyError)


def test_what_no_processor_may_return_is_refused(demo: Model) -> None:
    for value, what in (
        (None, "NoneType"),
        ([1.0], "list"),
        (np.zeros(3), r"an array of float64, \(3,\)"),
        (np.zeros(demo.tokenizer.vocab_size, np.int32), "an array of int32"),
    ):
        with pytest.raises(TypeError, match=f"returned {what}.*: it must return logits"):
            demo.generate("a", logits_processors=[lambda ids, logits, value=value: value])
    nan = np.full(demo.tokenizer.vocab_size, np.nan)
    with pytest.raises(ValueError, match="the largest logit is nan"):
        demo.generate("a", logits_processors=[lambda ids, logits: nan])
    for wrong in (3, ["a"]):
        with pytest.raises(TypeError, match=r"logits_processors is .* must be a sequence of call"):
            demo.generate("a", logits_processors=wrong)  # type: ignore[arg-type]


def test_a_response_format_goes_with_neither(demo: Model) -> None:
    for options in ({"bad_words": ["a"]}, {"logits_processors": [lambda ids, logits: logits]}):
        with pytest.raises(ValueError, match="do not go with a response_format"):
            demo.generate("a", response_format="json", **options)  # type: ignore[arg-type]
