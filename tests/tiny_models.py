"""Small models for tests that compare engines, processors or processes with each other."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from alone import Alone
from numpy.typing import NDArray

from bitnet_lut._native import Pool, Weights
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix

_TYPES = ("ternary", "f32", "f16", "bf16", "q8_0", "q4_0", "q6_k")  # bl_type of bitnet_lut.h
_VECTORS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")
_MATRICES = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


@dataclass(frozen=True)
class TinyModel:
    """What the engine takes: a config, and tensors by their GGUF names."""

    config: ModelConfig
    tensors: dict[str, Any]

    def ids(self, n: int) -> NDArray[np.int32]:
        """Repeatable token ids, as many as asked for."""
        return np.random.default_rng(n).integers(0, self.config.vocab_size, n, dtype=np.int32)

    def logits(
        self, n: int, *, isa: str, kind: str, threads: int = 1, batch: int = 64
    ) -> NDArray[np.float32]:
        """Logits (n, vocab) of ``ids(n)``."""
        weights = Weights(self.config, self.tensors, isa=isa)
        session = Alone(weights, Pool(threads), n, kind=kind, batch=batch)
        logits = np.zeros((n, self.config.vocab_size), np.float32)
        session.step(self.ids(n), logits)
        return logits

    def dump(self, path: Path, n: int) -> None:
        """Write model and ``ids(n)`` as selftest_model.h describes it."""
        c = self.config
        exponents = np.arange(0, c.rope_dim, 2) / c.rope_dim
        flags = (c.activation == "relu2", c.rope_kind == "norm", c.tied_head)
        sizes = (
            c.block_count,
            c.embedding_length,
            c.feed_forward_length,
            c.head_count,
            c.head_count_kv,
            c.head_dim,
            c.rope_dim,
            c.vocab_size,
        )
        parts = [
            b"bitnet_lut dump 1\n",
            struct.pack("<11q", *sizes, *flags),
            _array(np.float32(c.rms_eps)),
            _array((1.0 / c.rope_theta**exponents).astype(np.float32)),
            _array(self.ids(n)),
            _array(self.tensors["output_norm.weight"]),
            self._matrix("token_embd"),
        ]
        if not c.tied_head:
            parts.append(self._matrix("output"))
        for block in range(c.block_count):
            prefix = f"blk.{block}."
            parts += [_array(self.tensors.get(f"{prefix}{name}.weight")) for name in _VECTORS]
            parts += [self._matrix(prefix + name) for name in _MATRICES]
        path.write_bytes(b"".join(parts))

    def _matrix(self, name: str) -> bytes:
        matrix = self.tensors[f"{name}.weight"]
        ternary = isinstance(matrix, TernaryMatrix)
        kind = "ternary" if ternary else matrix.type
        header = struct.pack("<3q", _TYPES.index(kind), matrix.rows, matrix.cols)
        data = _array(matrix.packed if ternary else matrix.data)
        scale = _array(matrix.scale if ternary else None)
        return header + data + scale + _array(self.tensors.get(f"{name}.bias"))


def _array(values: NDArray[Any] | np.float32 | None) -> bytes:
    data = b"" if values is None else values.tobytes()
    return struct.pack("<q", len(data)) + data


def load_model(path: Path) -> TinyModel:
    """Read a whole model file."""
    with open_checkpoint(path) as checkpoint:
        tensors = {
            name: checkpoint.matrix(name) if len(shape) == 2 else checkpoint.vector(name)
            for name, shape in tensor_shapes(checkpoint.config).items()
        }
        return TinyModel(checkpoint.config, tensors)


def odd_model() -> TinyModel:
    """Make a random ternary model none of whose sizes fills a block, a lane or a vector."""
    config = ModelConfig(
        architecture="bitnet-b1.58",
        vocab_size=93,
        context_length=64,
        embedding_length=101,
        feed_forward_length=331,
        block_count=2,
        head_count=6,
        head_count_kv=2,
        head_dim=20,
        rope_dim=12,
        rope_theta=10000.0,
        rope_kind="norm",
        rms_eps=1e-5,
        activation="relu2",
        sub_norms=True,
        qkv_bias=True,
        tied_head=False,
    )
    rng = np.random.default_rng(20)
    tensors = {name: _random(rng, name, shape) for name, shape in tensor_shapes(config).items()}
    return TinyModel(config, tensors)


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    """Norms near 1, small biases, float embeddings, ternary matrices with one or many scales."""
    floats = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("bias"):
        return floats * np.float32(0.1)
    if len(shape) == 1:
        return 1 + floats * np.float32(0.1)
    if name == "token_embd.weight":
        return DenseMatrix("f16", *shape, floats.astype(np.float16).view(np.uint8))
    if name == "output.weight":
        return DenseMatrix("f32", *shape, floats.view(np.uint8))
    rows, cols = shape
    scales = rows if "ffn" in name else 1
    scale = rng.uniform(0.5, 1.5, scales).astype(np.float32) / np.float32(cols**0.5)
    ternary = rng.integers(-1, 2, shape, dtype=np.int8)
    return TernaryMatrix(rows, cols, i2_s.pack_rows(ternary), scale)
