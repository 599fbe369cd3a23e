"""Optional parts of a graph: engine and reference agree in every bit, and with other engines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alone import Alone
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import _native, reference
from bitnet_lut._native import Pool, Weights
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.runtime.packing import pack_matrix

TIERS = [name for name in _native.tier_names() if not _native.missing_features(name)]
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
OPTIONAL = (
    *(f"{linear}_norm_in" for linear in LINEARS),
    *("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
)


def length_of(config: ModelConfig, name: str, tensors: dict[str, Any]) -> int:
    if name.endswith("_norm_in"):
        return tensors[f"blk.0.{name.removesuffix('_norm_in')}.weight"].cols
    return config.embedding_length if name.startswith("post") else config.head_dim


def run(weights: Weights, ids: NDArray[np.int32], kind: str, cuts: list[int], threads: int) -> Any:
    """Logits and hidden states of *ids* in steps that end at *cuts*; and names of the ops."""
    config = weights.config
    session = Alone(weights, Pool(threads), len(ids), kind=kind)
    logits = np.zeros((len(ids), config.vocab_size), np.float32)
    hidden = []
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        states = np.zeros((config.block_count + 1, end - start, config.embedding_length), "f4")
        session.step(ids[start:end], logits[start:end], states)
        hidden.append(states)
    return logits, np.concatenate(hidden, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.sampled_from(OPTIONAL)),
    st.sampled_from([1.0, 16.0, 0.3]),
    st.sampled_from([None, 0.25]),
    st.sampled_from(TIERS),
    st.sampled_from(_native.kernel_names()),
    st.integers(1, 3),
    st.sampled_from(["silu", "relu2"]),
    st.booleans(),
)
def test_any_optional_parts(
    parts: set[str],
    embedding_scale: float,
    attention_scale: float | None,
    isa: str,
    kernel: str,
    threads: int,
    activation: str,
    sub_norms: bool,
) -> None:
    config = tiny_config(
        embedding_scale=embedding_scale,
        attention_scale=attention_scale,
        activation=activation,
        sub_norms=sub_norms,
    )
    tensors = tiny_tensors(config)
    rng = np.random.default_rng(len(parts))
    for block in range(config.block_count):
        for name in sorted(parts):
            length = length_of(config, name, tensors)
            tensors[f"blk.{block}.{name}.weight"] = rng.uniform(0.5, 1.5, length).astype("f4")
    cell = _native.Cell(kernel, isa=isa)
    packed = {
        name: pack_matrix(tensor, cell) if isinstance(tensor, TernaryMatrix) else tensor
        for name, tensor in tensors.items()
    }
    ids = rng.integers(0, config.vocab_size, 17, dtype=np.int32)
    expected, states = reference.forward(config, tensors, ids, kv="f32")
    logits, hidden = run(Weights(config, packed, isa=isa), ids, "f32", [8, 9, 11], threads)
    assert_same_bits(hidden, states)
    assert_same_bits(logits, expected)


def test_a_norm_of_the_wrong_length_is_refused() -> None:
    config = tiny_config()
    tensors = tiny_tensors(config) | {"blk.1.attn_k_norm.weight": np.ones(21, np.float32)}
    with pytest.raises(ValueError, match=r"blk\.1\.attn_k_norm\.weight has shape \(21,\)"):
        Weights(config, tensors, isa="scalar")


def test_probes_see_the_same_ops() -> None:
    config = tiny_config()
    tensors = tiny_tensors(config)
    for block in range(2):
        for name in ("post_attention_norm", "post_ffw_norm"):
            tensors[f"blk.{block}.{name}.weight"] = np.full(72, 0.5, np.float32)
    ids = np.arange(5, dtype=np.int32)
    expected: list[Any] = []
    reference.forward(config, tensors, ids, kv="f16", probe=lambda *seen: expected.append(seen))
    found: list[Any] = []
    session = Alone(Weights(config, tensors, isa=TIERS[0]), Pool(2), 5)
    logits = np.zeros((5, config.vocab_size), np.float32)
    session.step(ids, logits, probe=lambda *seen: found.append(seen))
    assert [seen[:2] for seen in found] == [seen[:2] for seen in expected]
    for (layer, op, array), (*_, right) in zip(found, expected, strict=True):
        assert_same_bits(array, right, f"layer {layer}, {op}")


def embedding_model(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """A model of BitNet-embedding: norms in front of every ternary matrix, and of q and k."""
    file = GGUFFile(path)
    keys = {key.partition(".")[2]: value for key, value in file.metadata.items()}
    tensors: dict[str, Any] = {}
    for name, info in file.tensors.items():
        if len(info.shape) == 1:
            tensors[name] = file.data(name, 2 * info.shape[0]).view(np.float16).astype("f4")
        elif name == "token_embd.weight":
            rows, cols = info.shape
            data = file.data(name, 2 * rows * cols).reshape(rows, -1)
            tensors[name] = DenseMatrix("f16", rows, cols, data)
        else:
            data = file.data(name, i2_s.nbytes(*info.shape))
            tensors[name] = TernaryMatrix(*info.shape, *i2_s.read_rows(data, *info.shape))
    config = ModelConfig(
        architecture="qwen3",
        vocab_size=tensors["token_embd.weight"].rows,
        context_length=keys["context_length"],
        embedding_length=keys["embedding_length"],
        feed_forward_length=keys["feed_forward_length"],
        block_count=keys["block_count"],
        head_count=keys["attention.head_count"],
        head_count_kv=keys["attention.head_count_kv"],
        head_dim=keys["attention.key_length"],
        rope_dim=keys["attention.key_length"],
        rope_theta=keys["rope.freq_base"],
        rope_kind="neox",
        rms_eps=keys["attention.layer_norm_rms_epsilon"],
        activation="silu",
        sub_norms=False,
        qkv_bias=False,
        tied_head=True,
    )
    return config, tensors


@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_graph_with_norms_before_matrices_as_transformers(golden: Path, isa: str, n: int) -> None:
    """Final hidden states of Qwen3Model with AutoBitLinear, within the tolerance of golden."""
    folder = golden / "embedding-qwen3"
    config, tensors = embedding_model(folder / "model-i2_s.gguf")
    assert "blk.0.attn_q_norm_in.weight" in tensors
    assert "blk.0.attn_k_norm.weight" in tensors
    results = np.load(folder / "reference.npz")
    seen: list[NDArray[np.float32]] = []

    def probe(layer: int, op: str, array: NDArray[np.float32]) -> None:
        if op == "output_norm":
            seen.append(array)

    logits = np.zeros((n, config.vocab_size), np.float32)
    session = Alone(Weights(config, tensors, isa=isa), Pool(2), n, kind="f32")
    session.step(results[f"ids__{n}"], logits, probe=probe)
    expected = results[f"final_hidden_transformers__{n}"]
    np.testing.assert_allclose(np.concatenate(seen), expected, rtol=0, atol=2e-5)
    right, _ = reference.forward(config, tensors, results[f"ids__{n}"])
    assert_same_bits(logits, right)
