"""Arguments that make no sense: each is refused in words, for one prompt and for a list alike."""

import array
import re
from collections import deque
from typing import Any

import numpy as np
import pytest

from bitnet_lut import Model
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.arguments import int32_ids, stop_strings, whole_number


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


NOT_IDS = [
    (b"\5\6", TypeError, "not bytes"),
    (bytearray(b"\5"), TypeError, "not bytearray"),
    ({5, 6}, TypeError, "not set"),
    ({5: 6}, TypeError, "not dict"),
    (iter([5]), TypeError, "not list_iterator"),
    (5, TypeError, "not int"),
    (None, TypeError, "not NoneType"),
    ([True, False], TypeError, "one is a bool"),
    ([5, np.True_], TypeError, "one is a bool"),
    (np.array([True]), TypeError, "not bool of shape"),
    ([5, 1.5], TypeError, "not float64 of shape"),
    ([5, None], TypeError, "not object of shape"),
    ([5, "a"], TypeError, "whole numbers, not <U"),
    ([5, [6]], TypeError, "one sequence of whole numbers, not several"),
    (np.zeros((2, 2), np.int64), TypeError, r"not int64 of shape \(2, 2\)"),
    ([2**31], ValueError, "token 0 is 2147483648, outside any vocabulary"),
    ([5, 2**80], ValueError, f"token 1 is {2**80}, outside any vocabulary"),
    (np.array([5, -(2**40)]), ValueError, f"token 1 is -{2**40}, outside any vocabulary"),
]


@pytest.mark.parametrize(("ids", "error", "text"), NOT_IDS, ids=lambda value: repr(value)[:20])
def test_what_is_no_sequence_of_ids(demo: Model, ids: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        int32_ids(ids)
    for use in (demo.session().step, demo.forward, demo.generate, demo.stream):
        with pytest.raises(error):
            use(ids)
    for many in ([ids, [5]], [[5], ids], ([5], ids)):
        with pytest.raises(error):
            demo.generate(many)


@pytest.mark.parametrize(
    "ids",
    [
        [5, 6],
        (5, 6),
        range(5, 7),
        np.array([5, 6], np.uint8),
        np.array([5, 0, 6])[::2],
        array.array("h", [5, 6]),
        deque([5, 6]),
        [np.int64(5), 6],
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_what_is_a_sequence_of_ids(demo: Model, ids: Any) -> None:
    expected = demo.generate([5, 6], max_tokens=3).ids
    assert int32_ids(ids).tolist() == [5, 6]
    assert demo.generate(ids, max_tokens=3).ids == expected
    assert [one.ids for one in demo.generate([ids, ids], max_tokens=3)] == [expected] * 2
    assert np.array_equal(demo.session().step(ids), demo.session().step([5, 6]))


def test_a_tuple_of_prompts_is_many_and_a_tuple_of_ids_is_one(demo: Model) -> None:
    texts = ("2 + 2 =", "a")
    found = demo.generate(texts, max_tokens=4)
    assert [one.ids for one in found] == [demo.generate(text, max_tokens=4).ids for text in texts]
    assert demo.generate((5, 6), max_tokens=4).ids == demo.generate([5, 6], max_tokens=4).ids
    assert len(demo.generate(((5, 6), [7]), max_tokens=1)) == 2


OPTIONS = [
    ({"max_tokens": -1}, ValueError, "max_tokens is -1, it must be at least 0"),
    ({"max_tokens": 1.5}, TypeError, "max_tokens is 1.5, it must be a whole number"),
    ({"max_tokens": True}, TypeError, "max_tokens is True"),
    ({"max_tokens": "9"}, TypeError, "max_tokens is '9'"),
    ({"stop": [""]}, ValueError, "stop holds an empty text"),
    ({"stop": ""}, ValueError, "stop holds an empty text"),
    ({"stop": ["a", 5]}, TypeError, "stop holds 5, it must hold texts"),
    ({"stop": [b"a"]}, TypeError, "stop holds b'a'"),
    ({"stop": b"a"}, TypeError, "stop must be a text or a sequence of texts, not bytes"),
    ({"stop": 5}, TypeError, "not int"),
    ({"stop": None}, TypeError, "not NoneType"),
    ({"stop_token_ids": 5}, TypeError, "stop_token_ids is 5, it must hold token ids"),
    ({"stop_token_ids": None}, TypeError, "stop_token_ids is None"),
    ({"stop_token_ids": b"ab"}, TypeError, "stop_token_ids is b'ab'"),
    ({"stop_token_ids": "ab"}, TypeError, "stop_token_ids is 'ab'"),
    ({"stop_token_ids": [5, True]}, TypeError, "an id of stop_token_ids is True"),
    ({"stop_token_ids": [-1]}, ValueError, "an id of stop_token_ids is -1, it must be 0 to 1535"),
    ({"stop_token_ids": [2**80]}, ValueError, "it must be 0 to 1535"),
    ({"sampling": 5}, TypeError, "sampling is 5: it must be a Sampling"),
    ({"sampling": {}}, TypeError, "sampling is {}: it must be a Sampling"),
    ({"n": 1.5}, TypeError, "n is 1.5, it must be a whole number"),
    ({"n": True}, TypeError, "n is True"),
]


@pytest.mark.parametrize(("options", "error", "text"), OPTIONS, ids=lambda value: repr(value)[:30])
def test_options_that_make_no_sense(demo: Model, options: Any, error: Any, text: str) -> None:
    for prompt in ("a", ["a", "b"], [5], ("a",)):
        with pytest.raises(error, match=re.escape(text)):
            demo.generate(prompt, **options)
    with pytest.raises(error, match=re.escape(text)):
        demo.stream("a", **options)


def test_prompts_that_make_no_sense(demo: Model) -> None:
    size = demo.config.vocab_size
    for bad, error, text in (
        ([], ValueError, "the prompt is empty"),
        ((), ValueError, "the prompt is empty"),
        ([5, size], ValueError, f"token 1 is {size}, the vocabulary has {size} ids"),
        ([-1], ValueError, "token 0 is -1"),
        (1.5, TypeError, "a prompt must be a text, a sequence of ids, or a list of those"),
        ([1.5], TypeError, "a prompt must be a text, a sequence of ids, or a list of those"),
        ([5] * 512, ValueError, "the prompt has 512 tokens, the context holds 512"),
    ):
        with pytest.raises(error, match=text):
            demo.generate(bad)
        with pytest.raises(error, match=r"^prompt 1: "):
            demo.generate([[5], bad, []])


def test_a_list_is_not_streamed(demo: Model) -> None:
    for many in (["a", "b"], ("a",), [[5], [6]]):
        with pytest.raises(TypeError, match="a list of prompts is for generate"):
            demo.stream(many)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [5, None, b"a", ["a"]], ids=repr)
def test_what_is_no_text(demo: Model, text: Any) -> None:
    with pytest.raises(TypeError, match="a text must be a str, not "):
        demo.tokenize(text)


@pytest.mark.parametrize("id", [1.5, True, None, "a", [5]], ids=repr)
def test_what_is_no_id(demo: Model, id: Any) -> None:
    with pytest.raises(TypeError, match="it must be a whole number"):
        demo.detokenize([5, id])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"context": 1.5}, TypeError, "context is 1.5, it must be a whole number"),
        ({"context": True}, TypeError, "context is True"),
        ({"context": 0}, ValueError, "context is 0, this model allows 1 to 512"),
        ({"context": 2**80}, ValueError, "this model allows 1 to 512"),
        ({"threads": 1.5}, TypeError, "threads is 1.5, it must be a whole number"),
        ({"threads": 0}, ValueError, "threads is 0, it must be 1 to 256"),
        ({"threads": 257}, ValueError, "threads is 257, it must be 1 to 256"),
        ({"threads": 2**80}, ValueError, "it must be 1 to 256"),
        ({"threads": "2"}, TypeError, "threads is '2'"),
        ({"kv": "f8"}, ValueError, "kv is 'f8', it must be 'f16' or 'f32' or 'q8'"),
        ({"kv": 16}, ValueError, "kv is 16"),
        ({"tiles": 5}, TypeError, "tiles is 5, it must map shapes to tiles"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_model_is_not_opened_for_nonsense(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        Model(MODEL, **options)


def test_sessions_for_nonsense(demo: Model) -> None:
    session = demo.session()
    session.step([5, 6])
    for position, error, text in (
        (2**63, ValueError, f"cannot rewind to {2**63}, the session is at 2"),
        (3, ValueError, "cannot rewind to 3, the session is at 2"),
        (-1, ValueError, "position is -1, it must be at least 0"),
        (-(2**70), ValueError, "must be at least 0"),
        (1.0, TypeError, "position is 1.0, it must be a whole number"),
        (True, TypeError, "position is True"),
        (None, TypeError, "position is None"),
    ):
        with pytest.raises(error, match=text):
            session.rewind(position)
    session.rewind(np.int64(1))
    assert session.position == 1
    for logits in ("every", True, None):
        with pytest.raises(ValueError, match="it must be 'last' or 'all'"):
            session.step([5], logits=logits)
    for context, error in ((1.5, TypeError), (0, ValueError), (2**64, ValueError)):
        with pytest.raises(error, match="context is"):
            demo.session(context=context)
    for count, error in ((1.5, TypeError), (True, TypeError), (2**64, ValueError)):
        with pytest.raises(error):
            demo.session_batch(count)
    with pytest.raises(ValueError, match="3 ids for 2 sessions"):
        demo.session_batch(2).step([1, 2, 3])


def test_whole_numbers() -> None:
    assert whole_number("n", np.uint8(7), 0) == 7
    assert type(whole_number("n", np.uint8(7), 0)) is int
    assert stop_strings("abc") == ("abc",)
    assert set(stop_strings({"a", "b"})) == {"a", "b"}
