"""The roofs of this machine: reading memory and multiply-adds, which nothing on it can exceed."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native, huge_pages
from bitnet_lut.runtime.cpu import choose_isa

__all__ = ["ReadRoof", "Roof", "integer_gmac_s", "roof"]

# Far larger than any cache.
READ_BYTES = 2**29
_LEAST_BYTES = 2**28  # read in one timed run: some hundredths of a second
_MACS = {"scalar": 2**28}  # in one timed run; wide instructions do more
_MACS_OF_VECTORS = 2**32


@dataclass(frozen=True)
class Roof:
    """The highest speeds of this machine with one tier and a number of threads.

    read_gb_s: bytes read from memory, integer_gmac_s: multiply-adds of bytes; both in 1e9 per
    second.
    """

    isa: str
    threads: int
    read_gb_s: float
    integer_gmac_s: float


class ReadRoof:
    """Measures how fast *nbytes* are read repeatedly: from memory if no cache holds them.

    They are on huge pages where the system gives them. The widest loads need not be the fastest, so
    each run takes the best tier of this machine.
    """

    def __init__(self, nbytes: int = READ_BYTES) -> None:
        """Fill a buffer of *nbytes*, rounded up to whole pages and at most READ_BYTES."""
        nbytes = min(max(nbytes, 1), READ_BYTES)
        self._data = _buffer(-(-nbytes // _native.READ_UNIT) * _native.READ_UNIT)
        self._isas = [isa for isa in _native.tier_names() if not _native.missing_features(isa)]

    def gb_s(self, threads: int) -> float:
        """One run: 1e9 bytes per second."""
        passes = -(-_LEAST_BYTES // self._data.size)
        seconds = min(
            _native.read_roof(self._data, isa=isa, threads=threads, passes=passes)[0]
            for isa in self._isas
        )
        return self._data.size * passes / seconds / 1e9


def _buffer(nbytes: int) -> NDArray[np.uint8]:
    data = huge_pages.allocate(nbytes)
    data[:] = 1  # a page that was never written is the one page of zeros, which is in the cache
    return data


def integer_gmac_s(isa: str, threads: int) -> float:
    """One run of multiply-adds in registers, 1e9 per second on all threads together."""
    seconds, macs = _native.multiply_roof(
        _MACS.get(isa, _MACS_OF_VECTORS), isa=isa, threads=threads
    )
    return macs / seconds / 1e9


def roof(isa: str = "auto", threads: int = 1, *, runs: int = 7) -> Roof:
    """Measure the roofs: the medians of *runs* runs.

    Raises ValueError for a tier that is unknown or missing here.
    """
    isa = choose_isa(isa)
    memory = ReadRoof()
    return Roof(
        isa,
        threads,
        read_gb_s=_median(runs, lambda: memory.gb_s(threads)),
        integer_gmac_s=_median(runs, lambda: integer_gmac_s(isa, threads)),
    )


def _median(runs: int, measure: Callable[[], float]) -> float:
    measure()
    return statistics.median(measure() for _ in range(runs))
