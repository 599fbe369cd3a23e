"""The speed of kernels, compared with the roofs of the machine, which nothing may exceed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bitnet_lut import _native
from bitnet_lut.bench.counters import Counts
from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.roofs import ReadRoof, integer_gmac_s
from bitnet_lut.bench.timing import Timer, ring, ring_bytes, take_turns
from bitnet_lut.convert.synth import SHAPES
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.kernels.kernel import Kernel, Packed

__all__ = [
    "KernelFigure",
    "Roofs",
    "bench",
    "cached_shape",
    "figure_of",
    "matrix_shapes",
]

TOLERANCE = 1.05  # a figure this far above a roof was measured wrongly
_ROOF_RUNS = 5


@dataclass(frozen=True)
class KernelFigure:
    """The speed of a kernel on a matrix (rows, cols) with *tokens* tokens at once.

    cached: whether the weights stayed in the cache or streamed from memory.
    gmac_s: multiply-adds, gb_s: bytes of packed weights read; both in 1e9 per second.
    weights_per_lookup: see `kernels.Sums`.
    read_gb_s, integer_gmac_s: the roofs, in the same units, with as many threads. cache_gb_s: that
        of reading from the second caches; infinite where their size is unknown.
    counts: what the processor counted for one product, if it was asked.
    """

    kernel: str
    isa: str
    rows: int
    cols: int
    tokens: int
    threads: int
    cached: bool
    gmac_s: float
    gb_s: float
    weights_per_lookup: int
    read_gb_s: float = math.inf
    integer_gmac_s: float = math.inf
    cache_gb_s: float = math.inf
    counts: Counts | None = None

    @property
    def intensity(self) -> float:
        """Multiply-adds per byte of packed weights."""
        return self.gmac_s / self.gb_s

    @property
    def roof_gmac_s(self) -> float:
        """What the machine could reach at this intensity."""
        read = self.cache_gb_s if self.cached else self.read_gb_s
        return min(self.integer_gmac_s, read * self.intensity)

    @property
    def share(self) -> float:
        """Fraction of the roof reached."""
        return self.gmac_s / self.roof_gmac_s

    @property
    def is_possible(self) -> bool:
        """Whether no roof is exceeded.

        A kernel that looks up sums is not bound by multiply-adds: two look-ups of bytes replace
        the multiply-adds of several weights, and issue as often as one of those.
        """
        most = self.integer_gmac_s * max(1.0, self.weights_per_lookup / 2)
        read = self.cache_gb_s if self.cached else self.read_gb_s
        return self.gmac_s <= TOLERANCE * most and self.gb_s <= TOLERANCE * read


class Roofs:
    """The roofs of this machine, measured when first needed: the best of several runs."""

    def __init__(self, threads: int, nbytes: int) -> None:
        """nbytes: size of the buffer that is read."""
        self._threads = threads
        self._memory = ReadRoof(nbytes)
        cache = machine().caches.get("L2", 0)
        self._cache = ReadRoof(threads * cache // 2) if cache else None
        self._read = 0.0
        self._cache_read = 0.0 if cache else math.inf
        self._integer: dict[str, float] = {}

    def above(self, figure: KernelFigure) -> KernelFigure:
        """The same figure with its roofs."""
        if figure.isa not in self._integer:
            self.measure(figure.isa)
        return replace(
            figure,
            read_gb_s=self._read,
            integer_gmac_s=self._integer[figure.isa],
            cache_gb_s=self._cache_read,
        )

    def measure(self, isa: str) -> None:
        """Measure again, and keep the better result."""
        for _ in range(_ROOF_RUNS):
            self._read = max(self._read, self._memory.gb_s(self._threads))
            if self._cache is not None:
                self._cache_read = max(self._cache_read, self._cache.gb_s(self._threads))
            integer = integer_gmac_s(_roof_tier(isa), self._threads)
            self._integer[isa] = max(self._integer.get(isa, 0.0), integer)


def _roof_tier(isa: str) -> str:
    """The tier whose instructions *isa* is compared with: itself, or the best known one."""
    known = _native.tier_names()
    if isa in known:
        return isa
    return next(tier for tier in known if not _native.missing_features(tier))


def cached_shape(threads: int) -> tuple[int, int]:
    """The shape (rows, cols) of a matrix of which each thread has what, as i2_s, takes half of a
    core's second cache.
    """
    cols = 2560
    fitting = machine().caches.get("L2", 0) // 2 // (cols // 4)
    return threads * min(1024, max(256, fitting // 256 * 256)), cols


def matrix_shapes(shape: str) -> list[tuple[int, int]]:
    """The different matrices (rows, cols) of a model of `synth.SHAPES`, or of "ROWSxCOLS"."""
    if shape in SHAPES:
        shapes = tensor_shapes(SHAPES[shape].config)
        return sorted({dims for name, dims in shapes.items() if is_linear(name)})  # type: ignore[misc]
    rows, _, cols = shape.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols)):
        raise ValueError(f"shape {shape!r} is neither ROWSxCOLS nor one of {', '.join(SHAPES)}")
    return [(int(rows), int(cols))]


def bench(
    kernels: Sequence[Kernel],
    shapes: Sequence[tuple[int, int]],
    *,
    tokens: Sequence[int] = (1, 4, 128),
    threads: int = 1,
    nbytes: int | None = None,
    counters: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[KernelFigure]:
    """Measure each kernel on a matrix in the second caches, and on *shapes* streaming from memory.

    nbytes: packed weights to stream; default: several times the caches.
    counters: run each once more for what the processor counts; needs `counters.why_not` to be None.
    progress: called with the figures measured so far and the total.
    A figure that is above a roof in two measurements is not `KernelFigure.is_possible`: it was
    measured wrongly, or some work was left out. Raises what a kernel from outside raises.
    """
    nbytes = ring_bytes() if nbytes is None else nbytes
    roofs = Roofs(threads, nbytes)
    figures: list[KernelFigure] = []
    total = len(kernels) * len(tokens) * (1 + len(shapes))
    for shape, cached in ((cached_shape(threads), True), *((shape, False) for shape in shapes)):
        where = 0 if cached else nbytes
        for figure, timer in _measure(kernels, shape, tokens, threads, where, roofs):
            figures.append(replace(figure, counts=timer.counts()) if counters else figure)
            progress(len(figures), total)
    return [roofs.above(figure) for figure in figures]


def _measure(
    kernels: Sequence[Kernel],
    shape: tuple[int, int],
    tokens: Sequence[int],
    threads: int,
    nbytes: int,
    roofs: Roofs,
) -> Iterator[tuple[KernelFigure, Timer]]:
    """Figures of one shape, each with its timer; the kernels take turns.

    A layout is the same on all tiers.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, shape, np.int8)
    packed = {kernel.name: kernel.pack(weights) for kernel in kernels}
    rings = {name: ring(one, nbytes) for name, one in packed.items()}
    for n in tokens:
        q = rng.integers(-127, 128, (n, shape[1]), np.int8)
        timers = [
            Timer(kernel, rings[kernel.name], shape[0], kernel.prepare(q), threads)
            for kernel in kernels
        ]
        for kernel, timer, seconds in zip(kernels, timers, take_turns(timers), strict=True):
            figure = partial(figure_of, kernel, packed[kernel.name], n, threads, nbytes == 0)
            yield _believable(figure, seconds, timer, roofs), timer


def figure_of(
    kernel: Kernel, packed: Packed, n: int, threads: int, cached: bool, seconds: float
) -> KernelFigure:
    """The figure of *n* tokens in *seconds*, without the roofs."""
    return KernelFigure(
        kernel=kernel.name,
        isa=kernel.isa,
        rows=packed.rows,
        cols=packed.cols,
        tokens=n,
        threads=threads,
        cached=cached,
        gmac_s=packed.rows * packed.cols * n / seconds / 1e9,
        gb_s=packed.packed.nbytes / seconds / 1e9,
        weights_per_lookup=kernel.sums.weights_per_lookup if kernel.sums else 0,
    )


def _believable(
    figure: Callable[[float], KernelFigure], seconds: float, timer: Timer, roofs: Roofs
) -> KernelFigure:
    """A figure with its roofs, measured a second time if it is above one."""
    found = roofs.above(figure(seconds))
    if found.is_possible:
        return found
    roofs.measure(found.isa)
    found = figure(*take_turns([timer]))
    roofs.measure(found.isa)
    return roofs.above(found)
