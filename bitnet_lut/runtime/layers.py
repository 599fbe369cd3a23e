"""The linear layers of a model as its packed weights lie in memory."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import PackedMatrix, Tensor, TernaryMatrix
from bitnet_lut.runtime.packing import INPUT_GROUPS, unpack_matrix

__all__ = ["Layer", "Linear", "kernel_names", "make_layers"]

LINEARS = tuple(linear for linears in INPUT_GROUPS.values() for linear in linears)
_NAME = re.compile(rf"blk\.(\d+)\.({'|'.join(LINEARS)})\.weight")


@dataclass(frozen=True, eq=False)
class Linear:
    """A ternary matrix, rows x cols, in the layout of a kernel.

    packed: uint8, read-only: a view of what the kernel computes with, not a copy.
    scale: float32 of shape (1,) for the whole matrix, or (rows,).
    """

    kernel: str
    rows: int
    cols: int
    packed: NDArray[np.uint8]
    scale: NDArray[np.float32]

    def unpack(self) -> NDArray[np.int8]:
        """The weights, -1, 0 and 1, as int8 (rows, cols)."""
        canonical = self.packed
        if self.kernel != TernaryMatrix.kernel:
            canonical = unpack_matrix(
                PackedMatrix(self.kernel, self.rows, self.cols, self.packed, self.scale)
            ).packed
        return i2_s.unpack_rows(canonical.reshape(self.rows, -1), self.cols)


@dataclass(frozen=True, eq=False)
class Layer:
    """The ternary matrices of one transformer layer; None where one is not ternary."""

    attn_q: Linear | None = None
    attn_k: Linear | None = None
    attn_v: Linear | None = None
    attn_output: Linear | None = None
    ffn_gate: Linear | None = None
    ffn_up: Linear | None = None
    ffn_down: Linear | None = None


def make_layers(tensors: Mapping[str, Tensor]) -> tuple[Layer, ...]:
    """View the linear layers among *tensors*, which have their GGUF names."""
    found: dict[int, dict[str, Linear]] = {}
    for name, tensor in tensors.items():
        if not (match := _NAME.fullmatch(name)):
            continue
        layer = found.setdefault(int(match[1]), {})
        if isinstance(tensor, TernaryMatrix | PackedMatrix):
            packed = tensor.packed.view()
            packed.flags.writeable = False
            layer[match[2]] = Linear(tensor.kernel, tensor.rows, tensor.cols, packed, tensor.scale)
    return tuple(Layer(**found[index]) for index in sorted(found))


def kernel_names(layers: Iterable[Layer]) -> set[str]:
    """Every kernel that the layers use."""
    linears = (getattr(layer, name) for layer in layers for name in LINEARS)
    return {linear.kernel for linear in linears if linear is not None}
