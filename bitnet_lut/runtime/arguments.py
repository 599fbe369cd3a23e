"""Checks of what callers pass in: each says what is expected."""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bad_words",
    "callables",
    "int32_ids",
    "is_many",
    "named",
    "prompt_ids",
    "refuse_beside_format",
    "stop_strings",
    "token_set",
    "whole_number",
]


def is_many(prompt: Any) -> TypeGuard[Sequence[Any]]:
    """Whether these are prompts, and not one."""
    if not isinstance(prompt, list | tuple) or not prompt:
        return False
    return not isinstance(prompt[0], int | np.integer | np.bool_)


def named(error: Exception, name: str) -> Exception:
    """*error* with *name*, which may be empty, before its text; once, if called again."""
    if not str(error).startswith(name):
        error.args = (f"{name}{error}",)
    return error


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """*value* as an int.

    Raises TypeError if it is not a whole number (a bool is not), ValueError if it is out of range.
    """
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}, it must be a whole number")
    number = int(value.__index__())
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {number}, it must be {limits}")
    return number


def int32_ids(ids: Any) -> NDArray[np.int32]:
    """Token ids as the engine takes them, int32 (n,).

    Raises TypeError for anything but a sequence of whole numbers, ValueError for one that does not
    fit 32 bits.
    """
    if type(ids) in (list, tuple) and set(map(type, ids)) == {int}:  # the usual case, at once
        try:
            return np.array(ids, np.int32)
        except OverflowError:
            place, id = next(found for found in enumerate(ids) if not _fits(found[1]))
            raise ValueError(f"token {place} is {id}, outside any vocabulary") from None
    if not hasattr(ids, "__array__"):
        if not isinstance(ids, Sequence) or isinstance(ids, str | bytes | bytearray | memoryview):
            raise TypeError(f"ids must be a sequence of whole numbers, not {type(ids).__name__}")
        if any(isinstance(id, bool | np.bool_) for id in ids):
            raise TypeError("ids must be a sequence of whole numbers, but one is a bool")
    try:
        array = np.asarray(ids)
    except ValueError:  # lists of different lengths
        raise TypeError("ids must be one sequence of whole numbers, not several") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        what = f"{array.dtype} of shape {array.shape}"
        raise TypeError(f"ids must be a sequence of whole numbers, not {what}")
    if array.size and not (_fits(array.min()) and _fits(array.max())):
        place, id = next(found for found in enumerate(array.tolist()) if not _fits(found[1]))
        raise ValueError(f"token {place} is {id}, outside any vocabulary")
    return np.ascontiguousarray(array, dtype=np.int32)


def _fits(id: Any) -> bool:
    return -(2**31) <= int(id) < 2**31


def prompt_ids(ids: Any, vocab_size: int) -> list[int]:
    """The ids of a prompt, each of them in the vocabulary; errors as those of `int32_ids`."""
    if not (isinstance(ids, Sequence) or hasattr(ids, "__array__")) or isinstance(
        ids, bytes | bytearray | memoryview
    ):
        raise TypeError(
            f"a prompt must be a text, a sequence of ids, or a list of those, not "
            f"{type(ids).__name__}"
        )
    found: list[int] = int32_ids(ids).tolist()
    for place, id in enumerate(found):
        if not 0 <= id < vocab_size:
            raise ValueError(f"token {place} is {id}, the vocabulary has {vocab_size} ids")
    return found


def token_set(name: str, ids: Any, vocab_size: int) -> frozenset[int]:
    """The tokens of *ids*, an iterable; errors say *name* and what is expected."""
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | bytearray | memoryview):
        raise TypeError(f"{name} is {ids!r}, it must hold token ids")
    return frozenset(whole_number(f"an id of {name}", id, 0, vocab_size - 1) for id in ids)


def stop_strings(stop: Any) -> tuple[str, ...]:
    """The stop strings of *stop*, one text or several.

    Raises TypeError for anything but texts, ValueError for an empty one.
    """
    strings = (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, Sequence | Set) or isinstance(strings, bytes | bytearray):
        raise TypeError(f"stop must be a text or a sequence of texts, not {type(stop).__name__}")
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"stop holds {string!r}, it must hold texts")
        if not string:
            raise ValueError("stop holds an empty text, which would end every text at once")
    return tuple(strings)


def bad_words(words: Any, vocab_size: int) -> tuple[str | tuple[int, ...], ...]:
    """The bad words of *words*: a text, or a sequence of texts and sequences of ids.

    Raises TypeError for anything else, ValueError for an empty one or an id that is none.
    """
    words = (words,) if isinstance(words, str) else words
    if not isinstance(words, Sequence | Set) or isinstance(words, bytes | bytearray):
        raise TypeError(f"bad_words must be a sequence, not {type(words).__name__}")
    found: list[str | tuple[int, ...]] = []
    for word in words:
        if not isinstance(word, str | Sequence) or isinstance(word, bytes | bytearray):
            raise TypeError(f"bad_words holds {word!r}, it must hold texts and sequences of ids")
        if not len(word):
            raise ValueError("bad_words holds an empty one, which would forbid every token")
        found.append(word if isinstance(word, str) else tuple(prompt_ids(word, vocab_size)))
    return tuple(found)


def callables(name: str, values: Any) -> tuple[Callable[..., Any], ...]:
    """Functions, of a sequence of them; TypeError for anything else."""
    if not isinstance(values, Sequence) or not all(map(callable, values)):
        raise TypeError(f"{name} is {values!r}, it must be a sequence of callables")
    return tuple(values)


def refuse_beside_format(ends: object, chooses: object) -> None:
    """ValueError for what a response format leaves no room for, where it is given."""
    if ends:
        raise ValueError(
            "ignore_eos and min_tokens do not go with a response_format, which ends the text"
        )
    if chooses:
        raise ValueError(
            "bad_words and logits_processors do not go with a response_format, which says what "
            "may come"
        )
