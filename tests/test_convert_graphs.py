"""Converted models give the logits of the model they were made of, whatever their graph."""

from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits
from golden_models import results
from tiny_model import tiny_config, tiny_tensors
from tiny_models import load_model

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.ternary_hash import TERNARY_HASH_KEY, permutation
from bitnet_lut.convert import TARGETS, convert
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.formats.ternary import scale_bytes
from bitnet_lut.model import Model

FILES = [type for type in TARGETS if type != "hf"]
SIZES = {
    "embedding_length": 256,
    "feed_forward_length": 512,
    "head_count": 8,
    "head_count_kv": 2,
    "head_dim": 32,
    "rope_dim": 32,
    "sub_norms": False,
    "activation": "silu",
}
GRAPHS = {
    "llama": {"architecture": "llama", "rope_kind": "norm", "qkv_bias": True, "rope_dim": 12},
    "qwen2": {"architecture": "qwen2"},
    "untied": {"architecture": "bitnet-b1.58", "sub_norms": True, "qkv_bias": False},
    "relu2": {"architecture": "llama", "rope_kind": "norm", "activation": "relu2"},
}


def logits(path, ids):
    return Model(path, kv="f32").forward(ids.tolist())


@pytest.mark.parametrize("type", TARGETS)
@pytest.mark.parametrize("source", ["bitnet-b1.58/model-i2_s.gguf", "bitnet-b1.58/hf-packed"])
def test_logits_are_the_same_bit_for_bit(golden, tmp_path, source, type):
    ids = results("bitnet-b1.58/model-i2_s.gguf")["ids__40"]
    done = convert(golden / source, tmp_path / "out", type=type)
    assert not done.rounded  # the scales are bfloat16, which float16 happens to hold
    assert_same_bits(logits(tmp_path / "out", ids), logits(golden / source, ids))


@pytest.mark.parametrize("type", TARGETS)
@pytest.mark.parametrize("source", ["model-i2_s.gguf", "hf-packed"])
def test_logits_of_the_llama_graph(golden, tmp_path, source, type):
    """Rows of q and k change places between a folder and GGUF, and with them sums their order."""
    ids = results("llama-1.58/model-i2_s.gguf")["ids__40"]
    done = convert(golden / "llama-1.58" / source, tmp_path / "out", type=type)
    before = logits(golden / "llama-1.58" / source, ids)
    after = logits(tmp_path / "out", ids)
    if done.rounded:  # a scale that is off by 2**-12 moves an activation over a rounding tie
        assert np.sqrt(np.mean((after - before) ** 2)) < 0.2
    elif (type == "hf") == (source == "hf-packed"):
        assert_same_bits(after, before)
    else:
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("type", ["i2_s", "hf"])
def test_1bitllm_keeps_its_activation(golden, tmp_path, type):
    model = "bitnet-1bitllm/model-i2_s.gguf"
    convert(golden / model, tmp_path / "out", type=type)
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.config.activation == "silu"
    ids, expected = (results(model)[key] for key in ("ids__40", "logits_bitnetcpp__40"))
    np.testing.assert_allclose(logits(tmp_path / "out", ids), expected, rtol=0, atol=1e-4)


def test_f16_keeps_dense_models_dense(golden, tmp_path):
    source = golden / "qwen2-plain/model-q8_0.gguf"
    done = convert(source, tmp_path / "out", type="f16", head="f16")
    assert done.ternary_sha256 is None
    assert not done.ternarized
    assert not done.warnings
    assert max(tensor.relative_error for tensor in done.rounded) < 1e-3
    with open_checkpoint(source) as old, open_checkpoint(tmp_path / "out") as new:
        assert TERNARY_HASH_KEY not in new.metadata
        for name in filter(is_linear, tensor_shapes(new.config)):
            assert new.matrix(name).type == "f16"
            np.testing.assert_allclose(new.stored(name)[:], old.stored(name)[:], rtol=1e-3)


def test_f16_of_a_ternary_llama_runs_as_a_ternary_one(golden, tmp_path):
    convert(golden / "llama-1.58/model-i2_s.gguf", tmp_path / "out", type="f16")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert all(
            isinstance(checkpoint.matrix(name), TernaryMatrix)
            for name in filter(is_linear, tensor_shapes(checkpoint.config))
        )


# Random models of other graphs


def write_model(path: Path, config) -> Path:
    """A GGUF file in I2_S of random tensors, without a vocabulary."""
    tensors = tiny_tensors(config)
    prefix = config.architecture
    metadata = {
        "general.architecture": prefix,
        f"{prefix}.vocab_size": config.vocab_size,
        f"{prefix}.context_length": config.context_length,
        f"{prefix}.embedding_length": config.embedding_length,
        f"{prefix}.feed_forward_length": config.feed_forward_length,
        f"{prefix}.block_count": config.block_count,
        f"{prefix}.attention.head_count": config.head_count,
        f"{prefix}.attention.head_count_kv": config.head_count_kv,
        f"{prefix}.attention.key_length": config.head_dim,
        f"{prefix}.attention.layer_norm_rms_epsilon": config.rms_eps,
        f"{prefix}.rope.dimension_count": config.rope_dim,
        f"{prefix}.hidden_activation": config.activation,
    }
    data = {}
    for name, shape in tensor_shapes(config).items():
        tensor = tensors[name]
        if isinstance(tensor, TernaryMatrix):
            tail = scale_bytes(float(tensor.scale[0]))
            data[name] = (shape, 36, np.concatenate([tensor.packed.reshape(-1), tail]))
        else:
            dense = isinstance(tensor, DenseMatrix)
            data[name] = (shape, int(dense), tensor.data if dense else tensor)
    table = [(name, shape, type_id, t.nbytes) for name, (shape, type_id, t) in data.items()]
    with GGUFWriter(path, metadata, table) as writer:
        for name, (_, _, tensor) in data.items():
            writer.write(name, tensor)
    return path


@pytest.fixture(params=GRAPHS)
def random_model(request, tmp_path):
    settings = {**SIZES, **GRAPHS[request.param]}
    return write_model(tmp_path / "in.gguf", tiny_config(**settings))


def tiny_logits(path):
    return load_model(path).logits(12, isa="scalar", kind="f32")


def test_random_models_in_every_format_and_back(random_model, tmp_path):
    """Scales are rounded to float16 first, so that every format can hold them."""
    source = tmp_path / "half.gguf"
    convert(random_model, source, type="tq2_0")
    expected = tiny_logits(source)
    for type in FILES:
        done = convert(source, tmp_path / type, type=type)
        back = convert(tmp_path / type, tmp_path / f"back-{type}", type="iq2_bn")
        assert not done.rounded + back.rounded
        assert_same_bits(tiny_logits(tmp_path / type), expected, type)
        assert_same_bits(tiny_logits(tmp_path / f"back-{type}"), expected, type)


def test_random_models_as_folders(random_model, tmp_path):
    with open_checkpoint(random_model) as checkpoint:
        config = checkpoint.config
    if config.architecture == "llama" and (config.qkv_bias or config.rope_dim < config.head_dim):
        with pytest.raises(FormatError, match="a folder for transformers cannot have"):
            convert(random_model, tmp_path / "folder", type="hf")
        return
    done = convert(random_model, tmp_path / "folder", type="hf")
    back = convert(tmp_path / "folder", tmp_path / "back.gguf", type="i2_s")
    assert done.ternary_sha256 == back.ternary_sha256
    before, after = tiny_logits(random_model), tiny_logits(tmp_path / "back.gguf")
    if not done.rounded:
        assert_same_bits(after, before)
    assert {tensor.what for tensor in done.rounded} <= {"scale"}
    assert all(tensor.relative_error < 2**-22 for tensor in done.rounded)


def test_biases_are_permuted_with_their_rows(tmp_path):
    """As convert_hf_to_gguf.py of llama.cpp does."""
    config = tiny_config(**{**SIZES, "architecture": "llama", "rope_kind": "norm"})
    for name, rows in (("blk.1.attn_q.bias", 256), ("blk.1.attn_k.weight", 64)):
        order = permutation(name, config)
        heads = rows // config.head_dim
        expected = np.arange(rows).reshape(heads, 2, 16).swapaxes(1, 2).reshape(-1)
        np.testing.assert_array_equal(order, expected)
    assert permutation("blk.1.attn_v.weight", config) is None
    assert permutation("token_embd.weight", config) is None
    assert permutation("blk.1.attn_q.weight", tiny_config()) is None
