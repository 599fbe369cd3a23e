"""Proof that a kernel is correct on a tier, by running it and by the bounds of its sums."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.formats import i2_s
from bitnet_lut.kernels.kernel import Kernel

__all__ = ["Fault", "Proof", "prove"]

_GROUP = 6  # columns: at least as many as any byte holds weights of
_STRIDES = (1, 2, 4, 8, 16, 32, 64)  # columns from one weight of a byte to the next
_COLS = (1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 240, 255, 256, 257, 384, 513)
_TOKENS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 65, 129)
_LAYERS = ((70, 2560), (70, 6912), (9, 14336))
_WORKERS = (2, 5)  # who share out columns
_CANARY = 0xA5


class Fault(ValueError):
    """A kernel is wrong; the text says on what input, and where its result differs."""


@dataclass(frozen=True)
class Proof:
    """A kernel that passed. products: how many were compared. largest_cols: None if unknown."""

    kernel: str
    isa: str
    products: int
    largest_cols: int | None


def prove(kernel: Kernel) -> Proof:
    """Run every check; raises Fault at the first one that fails."""
    largest_cols = None if kernel.sums is None else kernel.sums.largest_cols
    if largest_cols is not None and largest_cols < _native.MAX_COLS:
        raise Fault(f"bounds: {kernel.sums} overflow beyond {largest_cols} columns, of 2**22")
    rng = np.random.default_rng(0)
    checks: dict[str, Callable[[], Iterator[_Case]]] = {
        "every group of weights": lambda: _groups(rng),
        "shapes": lambda: _shapes(kernel, rng),
        "tokens": lambda: _tokens(kernel, rng),
        "saturated sums": lambda: _saturated(rng),
        "the longest row": _longest,
    }
    products = 0
    for what, cases in checks.items():
        for weights, q in cases():
            with _Place(what, weights, q):
                products += _check(kernel, weights, q)
    weights, q = _random(rng, 5 * kernel.panel + (kernel.panel + 1) // 2, 300, 3)
    with _Place("ranges of rows", weights, q):
        products += _check_ranges(kernel, weights, q)
    return Proof(kernel.name, kernel.isa, products, largest_cols)


_Case = tuple[NDArray[np.int8], NDArray[np.int8]]  # weights (rows, cols) and activations (n, cols)


class _Place:
    """Says where a fault is; turns any exception of a kernel's functions into a Fault."""

    def __init__(self, what: str, weights: NDArray[np.int8], q: NDArray[np.int8]) -> None:
        rows, cols = weights.shape
        self._text = f"{what}, {rows} x {cols}, {len(q)} tokens"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Fault):
            raise Fault(f"{self._text}: {error}") from None
        if isinstance(error, Exception):
            raise Fault(f"{self._text}: {type(error).__name__}: {error}") from error


def _random(rng: np.random.Generator, rows: int, cols: int, n: int) -> _Case:
    weights = rng.integers(-1, 2, (rows, cols), np.int8)
    return weights, rng.integers(-128, 128, (n, cols), np.int8)


def _groups(rng: np.random.Generator) -> Iterator[_Case]:
    """All combinations of six weights at any distance and place: every code of a byte."""
    digits = (np.arange(3**_GROUP)[:, None] // 3 ** np.arange(_GROUP) % 3 - 1).astype(np.int8)
    for stride in _STRIDES:
        columns = np.arange(max(30, 2 * _GROUP * stride)) // stride % _GROUP
        for shift in range(_GROUP) if stride == 1 else (0,):
            weights = np.roll(digits, shift, axis=1).take(columns, axis=1)
            for n in (1, 2):
                yield weights, rng.integers(-128, 128, (n, len(columns)), np.int8)


def _shapes(kernel: Kernel, rng: np.random.Generator) -> Iterator[_Case]:
    panel = kernel.panel
    for rows in sorted({1, 3, 4, 5, max(panel - 1, 1), panel, panel + 1, 2 * panel + 3}):
        for cols in _COLS:
            for n in (1, 2, 5):
                yield _random(rng, rows, cols, n)


def _tokens(kernel: Kernel, rng: np.random.Generator) -> Iterator[_Case]:
    for n in _TOKENS:
        yield _random(rng, kernel.panel + 5, 161, n)


def _saturated(rng: np.random.Generator) -> Iterator[_Case]:
    """The largest activations, with and against the signs of the weights."""
    for rows, cols in _LAYERS:
        signs = np.where(rng.random(cols) < 0.5, -1, 1).astype(np.int8)
        alternating = np.where(np.arange(cols) % 2, 1, -1).astype(np.int8)
        weights = rng.integers(-1, 2, (rows, cols), np.int8)
        patterns = np.stack([signs, alternating, np.ones(cols, np.int8)])
        weights[:6] = np.concatenate([patterns, -patterns])
        constant = [np.full(cols, value) for value in (127, -128)]
        mixed = [np.where(sign > 0, 127, -128) for sign in (signs, alternating)]
        q = np.array([*constant, *mixed, 127 * signs, 127 * alternating], np.int8)
        yield weights, q
        for token in q:
            yield weights, token[None]


def _longest() -> Iterator[_Case]:
    for sign in (1, -1):
        yield (
            np.full((1, _native.MAX_COLS), sign, np.int8),
            np.full((1, _native.MAX_COLS), -128, np.int8),
        )


def _expected(weights: NDArray[np.int8], q: NDArray[np.int8]) -> NDArray[np.int32]:
    """The exact products: float64 holds these whole numbers. Blocks of columns save memory."""
    cols = weights.shape[1]
    total = np.zeros((len(q), len(weights)))
    for k in range(0, cols, 2**16):
        part = slice(k, k + 2**16)
        total += q[:, part].astype(np.float64) @ weights[:, part].astype(np.float64).T
    return total.astype(np.int32)


def _check(kernel: Kernel, weights: NDArray[np.int8], q: NDArray[np.int8]) -> int:
    """Check pack, unpack, prepare and gemm; returns the number of products, or raises Fault."""
    rows, cols = weights.shape
    n = len(q)
    cell = _native.Cell(kernel.name, isa=kernel.isa)
    canonical = i2_s.pack_rows(weights)
    room = np.full(cell.packed_bytes(rows, cols) + 64, _CANARY, np.uint8)
    packed = cell.pack(canonical, cols, out=room[:-64])
    if (room[-64:] != _CANARY).any():
        raise Fault("pack wrote beyond the packed matrix")
    if n == 1 and not np.array_equal(cell.unpack(packed, rows, cols), canonical):
        raise Fault("unpack does not give the weights that were packed")
    out = np.full((n + 1, rows), _CANARY, np.int32)
    cell.gemm(packed, cell.prepare(q), rows, cols, out=out[:n])
    if (out[n] != _CANARY).any():
        raise Fault("gemm wrote beyond the last row of the last token")
    expected = _expected(weights, q)
    _compare(out[:n], expected)
    for workers in _WORKERS:
        parts = cell.parts(packed, q, rows, workers)
        if parts is not None:
            _compare(parts.sum(0, np.int32)[:, :rows], expected)
    return out[:n].size


def _check_ranges(kernel: Kernel, weights: NDArray[np.int8], q: NDArray[np.int8]) -> int:
    """Check that each range of panels is computed and no other row is touched; else Fault."""
    rows = len(weights)
    ends = [*range(0, rows, kernel.panel), rows]
    expected, packed = _expected(weights, q), kernel.pack(weights)
    products = 0
    for n in (1, len(q)):
        prepared = kernel.prepare(q[:n])
        for i, lo in enumerate(ends[:-1]):
            for hi in ends[i:]:
                out = np.full((n, rows), _CANARY, np.int32)
                kernel.gemm(packed, prepared, lo=lo, hi=hi, out=out)
                wanted = np.full((n, rows), _CANARY, np.int32)
                wanted[:, lo:hi] = expected[:n, lo:hi]
                _compare(out, wanted)
                products += n * (hi - lo)
    return products


def _compare(found: NDArray[np.int32], expected: NDArray[np.int32]) -> None:
    wrong = np.argwhere(found != expected)
    if len(wrong):
        token, row = wrong[0]
        raise Fault(
            f"{len(wrong)} of {found.size} products are wrong, first that of row {row} and token "
            f"{token}: {found[token, row]}, not {expected[token, row]}"
        )
