"""Caches of texts that have ended, for texts that begin in the same way."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache

__all__ = ["Prefix", "Prefixes"]

# Fewer tokens are computed as fast as the part of a page that holds them is copied.
_LEAST = 16


class Prefix(NamedTuple):
    """The first *length* positions of *cache*."""

    cache: Cache
    length: int


class Prefixes:
    """Keeps the keys and values of texts, those used last, within a limit of memory.

    They stay in the pages in which they were computed, which texts share: nothing is copied.
    One thread at a time may use it. A text goes on from a prefix with the same bits as if it had
    run the prefix itself. Every entry has an owner, and only that owner's texts find it: the time
    to the first token tells whether a prefix was there, and so what others have asked.
    """

    def __init__(self, most_bytes: int) -> None:
        """Keep at most *most_bytes* of keys and values."""
        self._most = most_bytes
        self._kept: OrderedDict[tuple[str, bytes], Cache] = OrderedDict()
        self._pages: Counter[int] = Counter()  # by how many of the texts each is held
        self._page_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the pages of all texts; those that several of them share count once."""
        return len(self._pages) * self._page_bytes

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

        Texts that *ids* begins with are replaced.
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
        kept = cache.fork(context=len(held), position=len(held))
        self._kept[owner, held.tobytes()] = kept
        self._pages.update(kept.held_pages)
        self._page_bytes = kept.pages.page_bytes
        while self.nbytes > self._most and self.drop_oldest():
            pass

    def drop_oldest(self) -> bool:
        """Forget the text that was used the longest ago; False if there is none."""
        if not self._kept:
            return False
        self._drop(next(iter(self._kept)))
        return True

    def _drop(self, key: tuple[str, bytes]) -> None:
        for page in self._kept.pop(key).held_pages:
            self._pages[page] -= 1
            if not self._pages[page]:
                del self._pages[page]


def _common(kept: bytes, ids: NDArray[np.int32]) -> int:
    """How many ids are the same from the first on."""
    other = np.frombuffer(kept, np.int32)
    most = min(len(other), len(ids))
    differ = np.flatnonzero(other[:most] != ids[:most])
    return int(differ[0]) if differ.size else most
