"""A hash of a model's ternary weights that does not depend on the format they are stored in.

It is the SHA-256 of a text with one line for each ternary matrix, sorted by name:
``blk.0.attn_q.weight 2560x2560 <SHA-256 of its weights>``. Weights are hashed in the layout of
``i2_s.pack_rows``, with rows in the order of Hugging Face checkpoints, even if the file orders them
for another RoPE. Scales are not hashed, but weights whose scale is 0 count as zeros.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import TERNARY_HASH_KEY, Checkpoint
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.formats.tensors import TernaryMatrix

__all__ = ["TERNARY_HASH_KEY", "TernaryHash", "permutation", "ternary_sha256", "without_dead_rows"]

_ZEROS = 0x55  # four weights 0


class TernaryHash:
    """Takes the ternary matrices of a model in any order."""

    def __init__(self, config: ModelConfig) -> None:
        """config: config of the checkpoint whose matrices follow."""
        self._config = config
        self._lines: list[str] = []

    def add(self, name: str, matrix: TernaryMatrix) -> None:
        """Hash one matrix, as ``Checkpoint.matrix`` returns it."""
        packed = without_dead_rows(matrix).packed
        order = permutation(name, self._config)
        if order is not None:
            packed = packed[np.argsort(order)]
        digest = hashlib.sha256(np.ascontiguousarray(packed).data).hexdigest()
        self._lines.append(f"{name} {matrix.rows}x{matrix.cols} {digest}\n")

    def hexdigest(self) -> str | None:
        """64 hexadecimal digits; None if there was no ternary matrix."""
        if not self._lines:
            return None
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()


def ternary_sha256(
    checkpoint: Checkpoint, progress: Callable[[int, int], None] = lambda done, total: None
) -> str | None:
    """Hash all ternary matrices of a model; None if it has none.

    progress: called with the tensors read so far and in all.
    """
    found = TernaryHash(checkpoint.config)
    shapes = tensor_shapes(checkpoint.config)
    for done, (name, shape) in enumerate(shapes.items(), 1):
        if len(shape) == 2:
            matrix = checkpoint.matrix(name)
            if isinstance(matrix, TernaryMatrix):
                found.add(name, matrix)
            checkpoint.release()
        progress(done, len(shapes))
    return found.hexdigest()


def permutation(name: str, config: ModelConfig) -> NDArray[np.intp] | None:
    """Row i of a q or k tensor ordered for RoPE "norm" is row permutation[i] of it for "neox".

    None for other tensors, and for a config whose RoPE is "neox". Each head's two halves become
    pairs of rows.
    """
    part = name.split(".")[2] if name.startswith("blk.") else ""
    heads = {"attn_q": config.head_count, "attn_k": config.head_count_kv}.get(part)
    if heads is None or config.rope_kind == "neox":
        return None
    rows = np.arange(heads * config.head_dim).reshape(heads, 2, -1)
    return rows.swapaxes(1, 2).reshape(-1)


def without_dead_rows(matrix: TernaryMatrix) -> TernaryMatrix:
    """*matrix* with zeros for the weights of rows whose scale is 0."""
    if matrix.scale.all():
        return matrix
    packed = np.where(matrix.scale[:, None] == 0, np.uint8(_ZEROS), matrix.packed)
    return TernaryMatrix(matrix.rows, matrix.cols, packed, matrix.scale)
