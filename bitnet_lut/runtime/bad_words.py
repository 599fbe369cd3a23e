"""Texts and sequences of ids that must not be generated."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["BadWords"]

Ids = NDArray[np.int64]


class BadWords:
    """Says which tokens would complete a bad word, by the text of tokens or by their ids."""

    def __init__(self, tokenizer: "Tokenizer", words: Sequence[str | tuple[int, ...]]) -> None:
        """*words*: texts, however they are cut into tokens, and sequences of ids; none is empty."""
        self._tokenizer = tokenizer
        texts = [word.encode() for word in words if isinstance(word, str)]
        self._sequences = [word for word in words if not isinstance(word, str)]
        self._longest = max(map(len, texts), default=1) - 1
        ids = sorted(set(range(tokenizer.vocab_size)) - tokenizer.special_ids, key=tokenizer.piece)
        pieces = [tokenizer.piece(id) for id in ids]
        holding = {id for id, piece in zip(ids, pieces, strict=True) for t in texts if t in piece}
        self._always = np.array(sorted(holding), np.int64)
        # By the beginning of a text: the tokens that begin with the rest of it.
        self._endings: list[tuple[bytes, Ids]] = []
        for text in texts:
            for cut in range(1, len(text)):
                span = _beginning_with(text[cut:], pieces)
                self._endings.append((text[:cut], np.array(ids[span], np.int64)))

    def forbidden(self, history: Sequence[int]) -> Ids:
        """The ids that may not follow *history*, prompt and text."""
        tail = self._tail(history)
        found = [self._always, *(ids for begin, ids in self._endings if tail.endswith(begin))]
        last = [
            sequence[-1]
            for sequence in self._sequences
            if len(sequence) <= len(history) + 1
            and tuple(history[len(history) + 1 - len(sequence) :]) == sequence[:-1]
        ]
        return np.concatenate([*found, np.array(last, np.int64)])

    def _tail(self, history: Sequence[int]) -> bytes:
        """The end of the text of *history*, as long as the longest beginning of a bad word."""
        tail = b""
        for id in reversed(history):
            if len(tail) >= self._longest:
                break
            if not self._tokenizer.is_special(id):
                tail = self._tokenizer.piece(id) + tail
        return tail


def _beginning_with(text: bytes, pieces: Sequence[bytes]) -> slice:
    """Where in the sorted *pieces* those stand that begin with *text*."""
    size = len(text)
    return slice(
        bisect_left(pieces, text), bisect_right(pieces, text, key=lambda piece: piece[:size])
    )
