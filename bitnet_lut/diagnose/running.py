"""Running a model that exists only in memory, one that no file holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native, reference
from bitnet_lut.errors import NumericsError
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.runtime.cpu import choose_isa, default_threads
from bitnet_lut.runtime.engine import Engine, Probe
from bitnet_lut.runtime.session import Session
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Arithmetic", "Runner", "Variant", "float_linear"]

Floats: TypeAlias = NDArray[np.float32]
# "int8": linear layers take activations rounded to int8, as BitNet defines them. "float": they take
# them as they are.
Arithmetic: TypeAlias = Literal["int8", "float"]
_ROWS_AT_ONCE = 1024  # of a matrix as floats


@dataclass(frozen=True, eq=False)
class Variant:
    """A model in memory: the subject's own, or one that differs from it.

    tensors: by their GGUF names, whatever kind of source they come from: TernaryMatrix for linear
        layers, DenseMatrix, float32 vectors. A linear layer that was never rounded may be a float32
        array (rows, cols) or anything that gives one by slices of rows, if arithmetic is "float".
    arithmetic: "int8" runs on the engine; "float" in NumPy, for short texts.
    """

    config: ModelConfig
    tensors: Mapping[str, Any]
    tokenizer: Tokenizer
    arithmetic: Arithmetic = "int8"

    def changed(self, tensors: Mapping[str, Any] | None = None, **config: Any) -> "Variant":
        """This model with other *tensors*, by name, and other values of the config."""
        return replace(
            self,
            tensors={**self.tensors, **(tensors or {})},
            config=replace(self.config, **config),
        )


class Runner:
    """Runs variants of models with the threads and the tier it is made with."""

    def __init__(self, threads: int | None = None, isa: str = "auto") -> None:
        """threads: default: the cores this process may use. isa: a tier; "auto" chooses."""
        self.threads = default_threads() if threads is None else threads
        self.isa = choose_isa(isa)
        self.pool = _native.Pool(self.threads)

    def session(self, variant: Variant, context: int) -> Session:
        """Start a sequence of an "int8" variant on the engine, with float32 keys and values."""
        weights = _native.Weights(
            variant.config, variant.tensors, isa=self.isa, threads=self.threads
        )
        engine = Engine(weights, self.pool, kind="f32", context=context)
        return Session(engine, engine.cache(context))

    def logits(self, variant: Variant, ids: Sequence[int], *, probe: Probe | None = None) -> Floats:
        """Logits after each of *ids* (n), float32 (n, vocab).

        probe: called as ``probe(layer, op, array)`` with each result, as `Session.trace` does.
        Raises NumericsError where they are NaN or infinite.
        """
        if variant.arithmetic == "float":
            with np.errstate(over="ignore", invalid="ignore"):
                found, _ = reference.forward(
                    variant.config, variant.tensors, ids, probe=probe, multiply=float_linear
                )
            if not np.isfinite(found).all():
                raise NumericsError("the logits hold NaN or infinity")
            return found
        session = self.session(variant, len(ids))
        if probe is not None:
            session.trace(ids, probe)
            session.rewind(0)
        return session.step(ids, logits="all")


def float_linear(matrix: Any, x: Floats) -> Floats:
    """``x @ matrix.T`` in float32 without rounding activations: (n, K) to (n, M).

    matrix: TernaryMatrix, DenseMatrix, or whatever gives float32 rows (n, K) by slices.
    """
    rows = matrix.rows if isinstance(matrix, TernaryMatrix | DenseMatrix) else matrix.shape[0]
    out = np.empty((len(x), rows), np.float32)
    read = _row_reader(matrix)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, rows))
        np.matmul(x, read(part).T, out=out[:, part])
    if isinstance(matrix, TernaryMatrix):
        out *= matrix.scale
    return out


def _row_reader(matrix: Any) -> Callable[[slice], Floats]:
    """Reads some rows of a matrix of any kind as float32, without the scale of ternary ones."""
    if isinstance(matrix, DenseMatrix):
        dense = matrix
        return lambda part: reference.dense_weights(dense, np.arange(part.start, part.stop))
    if isinstance(matrix, TernaryMatrix):
        ternary = matrix
        return lambda part: i2_s.unpack_rows(ternary.packed[part], ternary.cols).astype(np.float32)
    return lambda part: np.asarray(matrix[part], np.float32)
