"""A kernel on a tier, with its functions on plain arrays."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native, _registry
from bitnet_lut.formats import i2_s
from bitnet_lut.kernels.bounds import Sums, sums_of
from bitnet_lut.runtime.cpu import choose_isa

__all__ = ["Kernel", "Packed", "PackedWeights", "Prepared", "get", "names"]


class PackedWeights(Protocol):
    """A packed matrix: one of `Kernel.pack`, or of a model."""

    @property
    def kernel(self) -> str:
        """Name of the kernel whose layout it is in."""

    @property
    def rows(self) -> int:
        """Its rows."""

    @property
    def cols(self) -> int:
        """Its columns."""

    @property
    def packed(self) -> NDArray[np.uint8]:
        """Its bytes, C-contiguous."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Ternary weights in the layout of a kernel. packed: uint8 (bytes,)."""

    kernel: str
    rows: int
    cols: int
    packed: NDArray[np.uint8] = field(repr=False)

    @property
    def bits_per_weight(self) -> float:
        """Bits for each of these weights, padding included."""
        return 8 * self.packed.nbytes / (self.rows * self.cols)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Tokens in the form that a kernel reads on a tier. data: uint8 (tokens, bytes)."""

    kernel: str
    isa: str
    cols: int
    data: NDArray[np.uint8] = field(repr=False)


class Kernel:
    """A ternary kernel on a tier of instruction sets; made by `get`.

    name, isa: which kernel on which tier.
    outside: whether it was registered from outside; such a kernel is the same on every tier.
    own: whether this tier has its own functions for it; if not, it uses those of "scalar".
    panel: rows that are packed together.
    sums: how large its sums get, None if unknown.
    """

    def __init__(self, name: str, isa: str) -> None:
        """Find the functions; `get` checks the tier first."""
        self._cell = _native.Cell(name, isa=isa)
        self.name, self.isa = name, isa
        self.outside = name in _registry.functions
        self.own = self._cell.own
        self.panel = self._cell.panel
        self.sums: Sums | None
        if self.outside:
            self.sums = _registry.functions[name]["sums"]
        else:
            self.sums = sums_of(name, isa if self.own else "scalar")

    def __repr__(self) -> str:
        """Name and tier."""
        return f"Kernel({self.name!r}, isa={self.isa!r})"

    def packed_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a packed matrix (rows, cols)."""
        return self._cell.packed_bytes(rows, cols)

    def bits_per_weight(self, rows: int = 2560, cols: int = 2560) -> float:
        """Bits for each weight of a matrix (rows, cols), padding included."""
        return 8 * self.packed_bytes(rows, cols) / (rows * cols)

    def pack(self, weights: NDArray[np.int8]) -> Packed:
        """Pack weights (M, K) of -1, 0 and +1; ValueError for any other value."""
        if weights.ndim != 2:
            raise ValueError(f"weights have shape {weights.shape}, they must be a matrix")
        rows, cols = weights.shape
        canonical = i2_s.pack_rows(np.ascontiguousarray(weights))
        return Packed(self.name, rows, cols, self._cell.pack(canonical, cols))

    def unpack(self, packed: PackedWeights) -> NDArray[np.int8]:
        """Undo `pack`: int8 (M, K)."""
        canonical = self._cell.unpack(self._bytes(packed), packed.rows, packed.cols)
        return i2_s.unpack_rows(canonical, packed.cols)

    def prepare(self, q: NDArray[np.int8]) -> Prepared:
        """Arrange int8 activations (n, K) or (K,), once for any number of matrices."""
        tokens = np.ascontiguousarray(np.atleast_2d(q))
        if tokens.dtype != np.int8 or tokens.ndim != 2:
            raise ValueError(f"q is {q.dtype}{q.shape}, it must be int8 (n, K) or (K,)")
        return Prepared(self.name, self.isa, tokens.shape[1], self._cell.prepare(tokens))

    def gemv(self, packed: PackedWeights, q: NDArray[np.int8] | Prepared) -> NDArray[np.int32]:
        """Multiply with one token (K,): int32 (M,), exact."""
        prepared = self._prepared(packed, q)
        if len(prepared.data) != 1:
            raise ValueError(f"gemv takes one token, not {len(prepared.data)}: use gemm")
        return self.gemm(packed, prepared).reshape(-1)

    def gemm(
        self,
        packed: PackedWeights,
        q: NDArray[np.int8] | Prepared,
        *,
        lo: int = 0,
        hi: int | None = None,
        out: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int32]:
        """Multiply with tokens (n, K): int32 (n, M), exact.

        lo, hi: compute only these rows; they begin and end at a panel or the last row. Other rows
            of *out* stay as they are; without *out* they are zero.
        """
        prepared = self._prepared(packed, q)
        data, rows, cols = self._bytes(packed), packed.rows, packed.cols
        return self._cell.gemm(data, prepared.data, rows, cols, lo=lo, hi=hi, out=out)

    def time(
        self,
        ring: NDArray[np.uint8],
        prepared: Prepared,
        rows: int,
        *,
        first: int = 0,
        count: int = 1,
        worker: int = 0,
        workers: int = 1,
    ) -> float:
        """Seconds for *count* matrices of *ring*, uint8 (matrices, bytes of one).

        It starts at matrix *first* and returns to matrix 0 after the last one. No Python runs in
        between.

        worker, workers: time only what this one of so many threads of a model would do, without
            waiting for the others.
        """
        return self._cell.time(
            ring,
            prepared.data,
            rows,
            prepared.cols,
            first=first,
            count=count,
            worker=worker,
            workers=workers,
        )

    def _bytes(self, packed: PackedWeights) -> NDArray[Any]:
        if packed.kernel != self.name:
            raise ValueError(f"the matrix is packed for {packed.kernel}, not for {self.name}")
        return packed.packed.reshape(-1)

    def _prepared(self, packed: PackedWeights, q: NDArray[np.int8] | Prepared) -> Prepared:
        prepared = q if isinstance(q, Prepared) else self.prepare(q)
        if (prepared.kernel, prepared.isa) != (self.name, self.isa):
            raise ValueError(f"q is prepared for {prepared.kernel} on {prepared.isa}, not {self}")
        if prepared.cols != packed.cols:
            raise ValueError(f"q has {prepared.cols} activations, the matrix {packed.cols} columns")
        return prepared


def names() -> list[str]:
    """Every kernel: those compiled in, then those registered from outside."""
    return [*_native.kernel_names(), *_registry.functions]


def get(name: str, isa: str = "auto") -> Kernel:
    """The kernel *name* on the tier *isa*; "auto" is the best tier of this machine.

    Raises ValueError for a name that `names` does not list, or a tier that does not run here.
    """
    if name not in names():
        raise ValueError(f"kernel {name!r} is not one of {', '.join(names())}")
    return Kernel(name, choose_isa(isa))
