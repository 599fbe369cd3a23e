"""The tensors of a checkpoint as a conversion reads them: made ternary if asked for, in pieces.

A piece is some rows of a matrix, so no model is too large for the memory.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import (
    TERNARY_HASH_KEY,
    Checkpoint,
    StoredMatrix,
    ternary_matrix,
)
from bitnet_lut.checkpoint.ternary_hash import TernaryHash, permutation, without_dead_rows
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig, is_linear
from bitnet_lut.formats import ggml, i2_s, strips
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.formats.ternary import (
    Bytes,
    Scale,
    Ternary,
    Weights,
    absmean,
    from_scaled,
    row_blocks,
)

__all__ = [
    "Options",
    "Rounded",
    "TensorReader",
    "Ternarized",
    "blocks",
    "dense_pieces",
    "may_be_ternary",
    "rounding",
]

_RELEASE_AFTER = 2**26  # bytes of a mapped file that may stay in memory
_WEIGHTS_AT_ONCE = 2**22
_ROWS_OF_A_GROUP = 128  # this many rows of any length fill whole groups of I2_S


@dataclass(frozen=True)
class Options:
    """The arguments of ``convert.convert``, which says what they mean."""

    type: str
    head: str | None = None
    pre_tokenizer: str | None = None
    chat_template: str | None = None
    activation: Literal["silu", "relu2"] | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class Ternarized:
    """How much a tensor changed when real weights W were rounded to ternary ones T times a scale s.

    relative_error: norm of W - s T, divided by that of W; norms are Frobenius norms.
    """

    name: str
    relative_error: float
    norm_before: float
    norm_after: float


@dataclass(frozen=True)
class Rounded:
    """A tensor that a conversion could not keep exactly.

    what: "scale" or "weights".
    old, new: for "scale" the scales of the row that changed most, for "weights" the types.
    relative_error: of that scale, or of all weights.
    """

    name: str
    what: str
    old: str
    new: str
    relative_error: float


class TensorReader:
    """Reads the tensors of a checkpoint for a target graph, and records what happens to them.

    ternarized: the linear layers that were rounded, in the order in which they were read.
    scales: scale of each ternary matrix read, (1,) or (rows,); hash: hash of their weights.
    """

    def __init__(self, checkpoint: Checkpoint, target: ModelConfig, *, all_ternary: bool) -> None:
        """target: a config with the RoPE to permute for.

        all_ternary: round all linear layers; else only those that are masters of ternary ones.
        """
        self._checkpoint = checkpoint
        self._target = target
        self._all_ternary = all_ternary
        self.ternarized: list[Ternarized] = []
        self.scales: dict[str, Scale] = {}
        self.hash = TernaryHash(target)

    def vector(self, name: str) -> NDArray[np.float32]:
        """Read a norm or bias."""
        vector = self._checkpoint.vector(name)
        order = self._order(name)
        return vector if order is None else vector[order]

    def matrix(self, name: str) -> TernaryMatrix | StoredMatrix:
        """Read a matrix; a linear layer is made ternary if the target wants that."""
        self._checkpoint.release()  # the pages of the previous matrix
        stored = self._stored(name)
        if stored is not None and not is_linear(name):
            return stored
        try:
            matrix = self._ternary(name, stored)
        except FormatError as error:
            prefix = "" if str(error).startswith(self._checkpoint.name) else self._where(name)
            raise FormatError(f"{prefix}{error}") from None
        order = self._order(name)
        if matrix is None:
            assert stored is not None
            if order is None:
                return stored
            return replace(stored, raw=stored.raw(slice(None))[order].__getitem__)
        if order is not None:
            scale = matrix.scale if matrix.scale.size == 1 else matrix.scale[order]
            matrix = TernaryMatrix(matrix.rows, matrix.cols, matrix.packed[order], scale)
        self.scales[name] = matrix.scale
        self.hash.add(name, matrix)
        return matrix

    def _ternary(self, name: str, stored: StoredMatrix | None) -> TernaryMatrix | None:
        """A linear layer with ternary weights; None if it is to stay as it is stored."""
        if stored is None:
            matrix = self._checkpoint.matrix(name)
            assert isinstance(matrix, TernaryMatrix)
            if i2_s.has_code_3(matrix.packed):
                raise FormatError("a weight has code 3, which no writer makes: the data is damaged")
            return without_dead_rows(matrix)
        if not (self._all_ternary or may_be_ternary(self._checkpoint)):
            return None
        exact = from_scaled(stored)
        if exact is not None:
            return ternary_matrix(exact)
        if not (self._all_ternary or self._checkpoint.ternary_masters):
            return None
        rounded = absmean(stored)
        self.ternarized.append(rounding(name, stored, rounded))
        return ternary_matrix(rounded)

    def _stored(self, name: str) -> StoredMatrix | None:
        """A matrix that releases the pages of its file after every _RELEASE_AFTER bytes."""
        stored = self._checkpoint.stored(name)
        if stored is None:
            return None
        (count, cols), raw = stored.shape, stored.raw
        row = ggml.row_bytes(stored.type, cols)

        def released(rows: slice) -> Bytes:
            start, stop, _ = rows.indices(count)
            if start * row // _RELEASE_AFTER != stop * row // _RELEASE_AFTER:
                self._checkpoint.release()
            return raw(rows)

        return replace(stored, raw=released)

    def _order(self, name: str) -> NDArray[np.intp] | None:
        """The order in which the target wants the rows of the file; None if it is the same."""
        source = permutation(name, self._checkpoint.config)
        target = permutation(name, self._target)
        if (source is None) == (target is None):
            return None
        return target if source is None else np.argsort(source)

    def _where(self, name: str) -> str:
        return f"{self._checkpoint.name}: tensor {name!r}: "


def may_be_ternary(checkpoint: Checkpoint) -> bool:
    """Whether linear layers held as floats are ternary, as far as their values allow it."""
    return checkpoint.ternary_masters or TERNARY_HASH_KEY in checkpoint.metadata


def blocks(matrix: TernaryMatrix, *, whole: bool) -> Iterator[tuple[slice, Weights]]:
    """Weights int8 (n, cols) of some rows at a time, a multiple of 128 except at the end.

    whole: all rows at once.
    """
    step = max(1, _WEIGHTS_AT_ONCE // matrix.cols // _ROWS_OF_A_GROUP) * _ROWS_OF_A_GROUP
    if whole:
        step = matrix.rows
    for start in range(0, matrix.rows, step):
        rows = slice(start, min(start + step, matrix.rows))
        yield rows, i2_s.unpack_rows(matrix.packed[rows], matrix.cols)


def dense_pieces(
    name: str, matrix: StoredMatrix, type: str, rounded: Callable[[Rounded], None]
) -> Iterator[Bytes]:
    """The bytes of a matrix in a type of ``formats.ggml``, some rows at a time, in whole strips.

    rounded: called at the end if the weights are not the same.
    Raises FormatError if they overflow the type, or are not finite.
    """
    rows, cols = matrix.shape
    step = max(1, _WEIGHTS_AT_ONCE // cols // strips.ROWS) * strips.ROWS
    error = norm = 0.0
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        if type == matrix.type and matrix.factor == 1:
            yield matrix.raw(part)
            continue
        weights = matrix[part]
        with np.errstate(all="ignore"):
            data = ggml.quantize(type, weights)
        found = ggml.dequantize(type, data, cols)
        if not np.isfinite(found).all():
            raise FormatError(
                f"tensor {name!r}: weights up to {np.abs(weights).max()} do not fit in {type}"
            )
        error += _squares(found - weights)
        norm += _squares(weights)
        yield data
    if error:
        rounded(Rounded(name, "weights", matrix.type, type, math.sqrt(error / norm)))


def rounding(name: str, weights: StoredMatrix, rounded: Ternary) -> Ternarized:
    """How much real-valued *weights* differ from the ternary ones they were rounded to."""
    ternary, scale = rounded
    error = before = after = 0.0
    for rows in row_blocks(*weights.shape):
        real, near = weights[rows], ternary[rows] * scale
        error += _squares(real - near)
        before += _squares(real)
        after += _squares(near)
    return Ternarized(name, math.sqrt(error / before), math.sqrt(before), math.sqrt(after))


def _squares(values: NDArray[np.float32]) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return float(flat @ flat)
