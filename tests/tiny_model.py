"""Small models of random weights, of any shape."""

import numpy as np

from bitnet_lut import _native
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix


def tiny_config(**changes: object) -> ModelConfig:
    """Sizes that are multiples of nothing, with every feature on; *changes* replace any of them."""
    settings: dict = {
        "architecture": "bitnet-b1.58",
        "vocab_size": 53,
        "context_length": 64,
        "embedding_length": 72,
        "feed_forward_length": 139,
        "block_count": 2,
        "head_count": 6,
        "head_count_kv": 2,
        "head_dim": 20,
        "rope_dim": 12,
        "rope_theta": 10000.0,
        "rope_kind": "neox",
        "rms_eps": 1e-5,
        "activation": "relu2",
        "sub_norms": True,
        "qkv_bias": True,
        "tied_head": False,
    }
    return ModelConfig(**settings | changes)


def ternary_matrix(rng: np.random.Generator, rows: int, cols: int) -> TernaryMatrix:
    """Random weights with one scale, or with one per row for every second shape."""
    ternary = rng.integers(-1, 2, (rows, cols), dtype=np.int8)
    scales = rows if (rows + cols) % 2 else 1
    scale = rng.uniform(0.5, 2.0, scales).astype(np.float32) / np.float32(np.sqrt(cols))
    return TernaryMatrix(rows, cols, i2_s.pack_rows(ternary), scale)


def dense_matrix(rng: np.random.Generator, type: str, rows: int, cols: int) -> DenseMatrix:
    """Random weights of any ggml type the engine computes with."""
    weights = rng.normal(0, 1 / np.sqrt(cols), (rows, cols)).astype(np.float32)
    return DenseMatrix(type, rows, cols, ggml.quantize(type, weights))


def dense_product(matrix: DenseMatrix, x: np.ndarray, *, isa: str) -> np.ndarray:
    """``x @ matrix.T`` by the engine's functions: (n, K) to (n, M)."""
    packed = _native.pack_dense(matrix.type, matrix.data, matrix.cols)
    return _native.dense_gemm(matrix.type, packed, x, matrix.rows, isa=isa)


def tiny_tensors(
    config: ModelConfig, *, seed: int = 0, linear: str = "ternary", embedding: str = "f16"
) -> dict:
    """Random tensors: *linear* and *embedding* are the types of the layers and the rest."""
    rng = np.random.default_rng(seed)
    tensors: dict = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("norm.weight"):
            tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) == 1:
            tensors[name] = rng.normal(size=shape).astype(np.float32)
        elif name.startswith("blk.") and linear == "ternary":
            tensors[name] = ternary_matrix(rng, *shape)
        else:
            tensors[name] = dense_matrix(
                rng, linear if name.startswith("blk.") else embedding, *shape
            )
    return tensors
