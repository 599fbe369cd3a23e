"""DRY, "don't repeat yourself": a penalty for tokens that would make a repeat longer.

The definition and the names are those of llama.cpp.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Breakers", "dry_penalties", "sequence_breakers"]

# By the first token of a sequence that breaks repeats: the ways in which it may go on.
Breakers = Mapping[int, frozenset[tuple[int, ...]]]

_LOG_OF_LARGEST = 88.7228391  # of float32: penalties stay finite


def dry_penalties(
    history: Sequence[int],
    breakers: Breakers,
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
) -> dict[int, float]:
    """What is taken off the logits of the tokens that would continue a repeat.

    Where the last n tokens of *history* stood before, the token that followed them there loses
    multiplier * base ** (n - allowed_length), for the longest such n of at least allowed_length.
    No repeat reaches back to a sequence of *breakers*, and those of a single token lose nothing.
    """
    most = _since_breaker(history, breakers)
    if base > 1.000001:
        most = min(most, allowed_length + int(_LOG_OF_LARGEST / math.log(base)))
    return {
        id: multiplier * base ** (length - allowed_length)
        for id, length in _repeats(history, allowed_length, most).items()
        if () not in breakers.get(id, ())
    }


def _since_breaker(history: Sequence[int], breakers: Breakers) -> int:
    """How many tokens follow the last sequence that breaks repeats."""
    for after, id in enumerate(reversed(history)):
        if id not in breakers:
            continue
        begin = len(history) - after
        found = [
            len(tail)
            for tail in breakers[id]
            if len(tail) <= after and tuple(history[begin : begin + len(tail)]) == tail
        ]
        if found:
            return after - max(found)
    return len(history)


def _repeats(history: Sequence[int], least: int, most: int) -> dict[int, int]:
    """By token: the longest repeat, of *least* to *most* tokens, that it would continue."""
    backward = np.array(history[::-1], np.int64)
    places = np.arange(1, backward.size)  # where a repeat may end
    found: dict[int, int] = {}
    for length in range(1, most + 1):
        places = places[places + length <= backward.size]
        places = places[backward[places + length - 1] == backward[length - 1]]
        if not places.size:
            break
        if length >= least:
            found.update(dict.fromkeys(backward[places - 1].tolist(), length))
    return found


def sequence_breakers(tokenizer: "Tokenizer", strings: Sequence[str]) -> Breakers:
    """The tokens that spell one of *strings*.

    That is each token which holds it, and each that ends with a beginning of it, followed by the
    tokens of its rest.
    """
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    found: dict[int, set[tuple[int, ...]]] = {}
    for string in strings:
        spelled = string.encode()
        for id, piece in enumerate(pieces):
            if spelled in piece:
                found.setdefault(id, set()).add(())
        for cut in range(1, len(string)):
            begin = string[:cut].encode()
            rest = tuple(tokenizer.encode(string[cut:], add_bos=False, special=False))
            for id, piece in enumerate(pieces):
                if piece.endswith(begin) and spelled not in piece:
                    found.setdefault(id, set()).add(rest)
    return {id: frozenset(tails) for id, tails in found.items()}
