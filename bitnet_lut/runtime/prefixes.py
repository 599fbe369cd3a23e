"""Caches of texts that have ended, for texts that begin in the same way."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache

__all__ = ["Prefix", "Prefixes"]

# Fewer tokens are computed as fast as their keys and values are copied.
_LEAST = 16


class Prefix(NamedTuple):
    """The first *length* positions of *cache*."""

    cache: Cache
    length: int


class Prefixes:
    """Keeps the keys and values of texts, those used last, within a limit of memory.

    One thread at a time may use it. A text goes on from a prefix with the same bits as if it had
    run the prefix itself. Every entry has an owner, and only that owner's texts find it: the time
    to the first token tells whether a prefix was there, and so what others have asked.
    """

    def __init__(self, most_bytes: int) -> None:
        """Keep at most *most_bytes* of keys and values."""
        self._most = most_bytes
        self._kept: OrderedDict[tuple[str, bytes], Cache] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        """How many texts are kept."""
        return len(self._kept)

    def find(self, owner: str, ids: Sequence[int]) -> Prefix | None:
        """The longest prefix of *ids*, without the last of them, that *owner* has."""
        wanted = np.array(ids[:-1], np.int32)
        best, length = None, _LEAST - 1
        for key in self._kept:
            if key[0] == owner and (common := _common(key[1], wanted)) > length:
                best, length = key, common
        if best is None:
            return None
        self._kept.move_to_end(best)
        return Prefix(self._kept[best], length)

    def keep(self, owner: str, ids: Sequence[int], cache: Cache) -> None:
        """Keep what *cache* holds: the keys and values of *ids*.

        It is copied without the room that was not used. Texts that *ids* begins with are replaced.
        Nothing is kept if there is no memory for it.
        """
        held = np.array(ids[: cache.position], np.int32)
        if len(held) < _LEAST:
            return
        for key in [key for key in self._kept if key[0] == owner]:
            common = _common(key[1], held)
            if common == len(held):
                self._kept.move_to_end(key)
                return  # a longer text has it
            if 4 * common == len(key[1]):
                self._drop(key)
        try:
            kept = cache.fork(context=len(held), position=len(held))
        except MemoryError:
            return
        self._kept[owner, held.tobytes()] = kept
        self.nbytes += kept.nbytes
        while self.nbytes > self._most and self.drop_oldest():
            pass

    def drop_oldest(self) -> bool:
        """Forget the text that was used the longest ago; False if there is none."""
        if not self._kept:
            return False
        self._drop(next(iter(self._kept)))
        return True

    def _drop(self, key: tuple[str, bytes]) -> None:
        self.nbytes -= self._kept.pop(key).nbytes


def _common(kept: bytes, ids: NDArray[np.int32]) -> int:
    """How many ids are the same from the first on."""
    other = np.frombuffer(kept, np.int32)
    most = min(len(other), len(ids))
    differ = np.flatnonzero(other[:most] != ids[:most])
    return int(differ[0]) if differ.size else most
