"""The kinds of weight matrix that every file format is read into."""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DenseMatrix",
    "Matrix",
    "PackedMatrix",
    "StripMatrix",
    "Tensor",
    "TernaryMatrix",
    "moved",
    "weights_of",
]


@dataclass(frozen=True, eq=False)
class TernaryMatrix:
    """Ternary weights with a scale: ``weight = ternary * scale``.

    packed: uint8 (rows, ceil(cols / 128) * 32), C-contiguous, the canonical I2_S layout with every
    row padded to whole blocks of 128 columns by zeros (code 1). May view a mapped file.
    scale: float32 of shape (1,) for the whole tensor, or (rows,).
    kernel: the one that computes with this layout.
    """

    kernel: ClassVar[str] = "i2_s"
    rows: int
    cols: int
    packed: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights and their scales."""
        return self.packed.nbytes + self.scale.nbytes


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A ternary matrix in the layout of a kernel other than i2_s.

    kernel: its name, as `bitnet_lut.kernels` lists it.
    packed: uint8 (bytes,), the output of the kernel's pack for the canonical rows. May view a file.
    scale: float32 of shape (1,) for the whole tensor, or (rows,).
    """

    kernel: str
    rows: int
    cols: int
    packed: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights and their scales."""
        return self.packed.nbytes + self.scale.nbytes


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """Weights that are not ternary, in one of the ggml types of ``formats.ggml``.

    type: "f32", "f16", "bf16", "q8_0", "q4_0" or "q6_k".
    data: uint8 (rows, bytes per row), C-contiguous. May view a mapped file.
    """

    type: str
    rows: int
    cols: int
    data: NDArray[np.uint8]

    @property
    def in_strips(self) -> bool:
        """Whether its type is a block type, which is multiplied in strips instead of rows."""
        return self.type in ("q8_0", "q4_0", "q6_k")

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.data.nbytes


@dataclass(frozen=True, eq=False)
class StripMatrix:
    """Weights of a block type in strips of 32 rows, as they are multiplied.

    type: "q8_0", "q4_0" or "q6_k".
    strips: uint8 (bytes,), as ``formats.strips`` packs them. May view a mapped file.
    """

    type: str
    rows: int
    cols: int
    strips: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.strips.nbytes


Matrix: TypeAlias = TernaryMatrix | PackedMatrix | DenseMatrix | StripMatrix
# A matrix, or a vector of float32.
Tensor: TypeAlias = Matrix | NDArray[np.float32]


def weights_of(matrix: Matrix) -> NDArray[np.uint8]:
    """The bytes of a matrix, without scales that stand beside them."""
    match matrix:
        case DenseMatrix():
            return matrix.data
        case StripMatrix():
            return matrix.strips
        case _:
            return matrix.packed


def moved(matrix: Matrix, to: NDArray[np.uint8]) -> Matrix:
    """The same matrix, whose bytes lie in *to* (bytes,)."""
    to = to.reshape(weights_of(matrix).shape)
    match matrix:
        case DenseMatrix():
            return replace(matrix, data=to)
        case StripMatrix():
            return replace(matrix, strips=to)
        case _:
            return replace(matrix, packed=to)
