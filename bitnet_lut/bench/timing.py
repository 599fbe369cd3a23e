"""How long a kernel takes with its weights in the cache, or streaming from memory."""

import statistics
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import huge_pages
from bitnet_lut.bench.counters import Counts, count
from bitnet_lut.bench.machine import machine
from bitnet_lut.kernels.kernel import Kernel, Packed, Prepared

__all__ = ["Timer", "prepare_seconds", "ring", "ring_bytes", "take_turns"]

_LEAST_BYTES = 2**27
_LEAST_SECONDS = 0.04  # one timed run takes at least this
_MOST_MATRICES = 10**6  # in the shortest run
_RUNS = 5
_MOST_SECONDS = 1.0  # for all runs of a kernel except the first


def ring_bytes() -> int:
    """Bytes of packed weights, so many that no cache still holds those whose turn comes again."""
    return max(_LEAST_BYTES, 4 * max(machine().caches.values(), default=0))


def ring(packed: Packed, nbytes: int) -> NDArray[np.uint8]:
    """Copies of a packed matrix, at least *nbytes* in total: uint8 (copies, bytes of one)."""
    size = packed.packed.size
    copies = max(1, -(-nbytes // size))
    matrices = huge_pages.allocate(copies * size).reshape(copies, size)
    matrices[:] = packed.packed
    return matrices


class Timer:
    """Times a kernel on the matrices of a ring; each run continues where the last one ended.

    threads: how many threads share each matrix, as those of a model do.
    """

    def __init__(
        self,
        kernel: Kernel,
        matrices: NDArray[np.uint8],
        rows: int,
        prepared: Prepared,
        threads: int,
    ) -> None:
        """Nothing runs yet."""
        self._kernel, self._ring, self._rows, self._prepared = kernel, matrices, rows, prepared
        self._threads, self._next, self._count = threads, 0, 1

    def warm_up(self) -> int:
        """Find how many matrices make a run; returns how many runs to measure."""
        count = 1
        while (seconds := self._run(count)) < _LEAST_SECONDS / 4 and count < _MOST_MATRICES:
            count *= 4
        self._count = max(1, round(count * _LEAST_SECONDS / seconds))
        return max(1, min(_RUNS, int(_MOST_SECONDS * count / (self._count * seconds))))

    def run(self) -> float:
        """Seconds per matrix in one run."""
        return self._run(self._count) / self._count

    def counts(self) -> Counts:
        """What the processor counts per matrix in one run; raises what `count` raises."""
        found = count(self.run)
        return Counts(*(value / self._count for value in astuple(found)))

    def _run(self, count: int) -> float:
        """Seconds of *count* matrices, from the first thread that starts to the last that ends."""
        first = self._next
        self._next = (first + count) % len(self._ring)
        if self._threads == 1:
            return self._share(first, count, 0)
        start = threading.Barrier(self._threads)

        def share(worker: int) -> tuple[float, float]:
            start.wait()
            began = perf_counter()
            self._share(first, count, worker)
            return began, perf_counter()

        with ThreadPoolExecutor(self._threads) as pool:
            times = list(pool.map(share, range(self._threads)))
        return max(ended for _, ended in times) - min(began for began, _ in times)

    def _share(self, first: int, count: int, worker: int) -> float:
        return self._kernel.time(
            self._ring,
            self._prepared,
            self._rows,
            first=first,
            count=count,
            worker=worker,
            workers=self._threads,
        )


def take_turns(timers: Sequence[Timer]) -> list[float]:
    """Seconds per matrix of each timer: medians of runs in turn, as the machine's speed varies."""
    runs = [timer.warm_up() for timer in timers]
    times: list[list[float]] = [[] for _ in timers]
    for turn in range(_RUNS):
        for timer, most, found in zip(timers, runs, times, strict=True):
            if turn < most:
                found.append(timer.run())
    return [statistics.median(found) for found in times]


def prepare_seconds(kernel: Kernel, q: NDArray[np.int8]) -> float:
    """Seconds to prepare tokens (n, K): the median of several runs, including Python."""
    kernel.prepare(q)
    times = []
    for _ in range(_RUNS):
        start = perf_counter()
        kernel.prepare(q)
        times.append(perf_counter() - start)
    return statistics.median(times)
