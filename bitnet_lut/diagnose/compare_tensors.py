"""Which weights of two models differ, and how."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.ternary_hash import TernaryHash, permutation, without_dead_rows
from bitnet_lut.diagnose.judging import relative
from bitnet_lut.diagnose.sources import Weights
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.reference import dense_weights

__all__ = ["TensorComparison", "TensorDifference", "compare_tensors"]

_ROWS = 4096  # of a matrix compared at once
_ROUNDED = 4e-3  # scales that differ by less were rounded to another type, bfloat16 at worst
_BLOCK_ROUNDED = 0.15  # the same of floats: Q4_0 at worst

Kind: TypeAlias = Literal["ternary", "scale", "values", "kind", "shape", "not in A", "not in B"]


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs.

    kind: "ternary" if ternary values differ, "scale" if only their scale does, "values" for floats,
    "kind" if one side is ternary and the other not. share: of ternary values that differ. ratio:
    of scales, B to A. relative: root mean square of the difference, relative to the larger. All
    are None where they do not apply. rounded: whether that is what rounding to another type does.
    """

    name: str
    kind: Kind
    share: float | None = None
    ratio: float | None = None
    relative: float | None = None
    rounded: bool = False


@dataclass(frozen=True)
class TensorComparison:
    """The tensors of two models.

    a_sha256, b_sha256: of all ternary values, see ``checkpoint.ternary_hash``; None without any.
    count: how many tensors both have. differences: of those that are not the same.
    """

    a_sha256: str | None
    b_sha256: str | None
    count: int
    differences: tuple[TensorDifference, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs by more than rounding does."""
        return all(difference.rounded for difference in self.differences)


def compare_tensors(
    a: Weights, b: Weights, progress: Callable[[int, int], None] = lambda done, total: None
) -> TensorComparison:
    """Compare all tensors; rows of q and k in one order, whatever order the files have.

    progress: called with the tensors compared so far and in all.
    """
    names = list(dict.fromkeys([*a.tensors, *b.tensors]))
    differences: list[TensorDifference] = []
    for done, name in enumerate(names, 1):
        differences += _compare(name, a, b)
        progress(done, len(names))
    common = len(a.tensors.keys() & b.tensors.keys())
    return TensorComparison(_hash(a), _hash(b), common, tuple(differences))


def _hash(weights: Weights) -> str | None:
    found = TernaryHash(weights.config)
    for name, tensor in weights.tensors.items():
        if isinstance(tensor, TernaryMatrix):
            found.add(name, tensor)
    return found.hexdigest()


def _compare(name: str, a: Weights, b: Weights) -> Iterator[TensorDifference]:
    if name not in a.tensors or name not in b.tensors:
        yield TensorDifference(name, "not in A" if name not in a.tensors else "not in B")
        return
    left, right = a.tensors[name], b.tensors[name]
    if _shape(left) != _shape(right):
        yield TensorDifference(name, "shape")
        return
    orders = _order(name, a.config), _order(name, b.config)
    if isinstance(left, TernaryMatrix) and isinstance(right, TernaryMatrix):
        yield from _compare_ternary(name, left, right, orders)
        return
    difference = _floats_apart(left, right, orders)
    if isinstance(left, TernaryMatrix) != isinstance(right, TernaryMatrix):
        yield TensorDifference(name, "kind", relative=difference)
    elif difference:
        same_type = _type(left) == _type(right)
        rounded = difference <= (0 if same_type else _BLOCK_ROUNDED)
        yield TensorDifference(name, "values", relative=difference, rounded=rounded)


Order: TypeAlias = NDArray[np.intp] | None


def _order(name: str, config: ModelConfig) -> Order:
    """Where the rows of a tensor of Hugging Face's order are in the file; None: in the same."""
    order = permutation(name, config)
    return None if order is None else np.argsort(order)


def _compare_ternary(
    name: str, a: TernaryMatrix, b: TernaryMatrix, orders: tuple[Order, Order]
) -> Iterator[TensorDifference]:
    left, right = (
        _ordered(without_dead_rows(one).packed, order)
        for one, order in zip((a, b), orders, strict=True)
    )
    scales = [
        _ordered(np.broadcast_to(one.scale, one.rows), order).astype(np.float64)
        for one, order in zip((a, b), orders, strict=True)
    ]
    norms = [float(np.linalg.norm(scale)) for scale in scales]
    ratio = norms[1] / norms[0] if norms[0] else float("inf")
    apart = relative(*scales)
    if not np.array_equal(left, right):
        different = sum(
            int(np.count_nonzero(_unpack(left, at, a.cols) != _unpack(right, at, a.cols)))
            for at in range(0, a.rows, _ROWS)
        )
        yield TensorDifference(name, "ternary", different / (a.rows * a.cols), ratio, apart)
    elif apart:
        yield TensorDifference(
            name, "scale", ratio=ratio, relative=apart, rounded=apart <= _ROUNDED
        )


def _unpack(packed: NDArray[np.uint8], start: int, cols: int) -> NDArray[np.int8]:
    return i2_s.unpack_rows(packed[start : start + _ROWS], cols)


def _floats_apart(a: Any, b: Any, orders: tuple[Order, Order]) -> float:
    """The relative difference of any two tensors of one shape."""
    squares = np.zeros(3)
    for at in range(0, _shape(a)[0], _ROWS):
        x, y = (
            _floats(one, order, slice(at, at + _ROWS)).astype(np.float64)
            for one, order in zip((a, b), orders, strict=True)
        )
        squares += [float((v * v).sum()) for v in (x - y, x, y)]
    size = max(squares[1:])
    return float(np.sqrt(squares[0] / size)) if size else 0.0


def _floats(tensor: Any, order: Order, part: slice) -> NDArray[np.float32]:
    """Some rows, in the order of Hugging Face, as float32."""
    rows = np.arange(_shape(tensor)[0])[part] if order is None else order[part]
    if isinstance(tensor, TernaryMatrix):
        scale = np.broadcast_to(tensor.scale, tensor.rows)[rows]
        return i2_s.unpack_rows(tensor.packed[rows], tensor.cols) * scale[:, None]
    if isinstance(tensor, DenseMatrix):
        return dense_weights(tensor, rows)
    return np.asarray(tensor[rows], np.float32)


def _ordered(array: NDArray[Any], order: Order) -> NDArray[Any]:
    return array if order is None else array[order]


def _type(tensor: Any) -> str:
    return tensor.type if isinstance(tensor, DenseMatrix) else "f32"


def _shape(tensor: Any) -> tuple[int, ...]:
    if isinstance(tensor, TernaryMatrix | DenseMatrix):
        return tensor.rows, tensor.cols
    shape: tuple[int, ...] = tensor.shape
    return shape
