import contextlib
import json
import re

import numpy as np
import pytest
from golden_data import GOLDEN
from model_files import QUERY, TILES, linears

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.tensors import TernaryMatrix

FILES = [
    "bitnet-1bitllm/model-i2_s.gguf",
    "bitnet-b1.58/hf-master-bf16",
    "bitnet-b1.58/hf-packed",
    "bitnet-b1.58/model-i2_s.gguf",
    "ik-bn/model-i2_s.gguf",
    "ik-bn/model-iq1_bn.gguf",
    "ik-bn/model-iq2_bn.gguf",
    "llama-1.58/hf-packed",
    "llama-1.58/model-i2_s.gguf",
    "llama-1.58/model-tl2-id39.gguf",
    "llama-1.58/model-tq1_0.gguf",
    "llama-1.58/model-tq2_0.gguf",
    "qwen2-plain/model-q4_0.gguf",
    "qwen2-plain/model-q8_0.gguf",
]
HF_LINEARS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def rounded(scale):
    return scale.astype(np.float16).astype(np.float32)


def permuted(weights, heads):
    """Rows of q or k as the llama converter orders them: halves of a head become pairs."""
    rows, cols = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, cols)
    return halves.swapaxes(1, 2).reshape(rows, cols)


# Golden models


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_of_golden_models_is_read(golden, file):
    with open_checkpoint(golden / file, tiles=TILES) as checkpoint:
        assert checkpoint.kind == ("gguf" if file.endswith(".gguf") else "hf")
        assert (checkpoint.folder is None) == (checkpoint.kind == "gguf")
        assert ("tokenizer.ggml.tokens" in checkpoint.metadata) == (checkpoint.kind == "gguf")
        shapes = tensor_shapes(checkpoint.config)
        assert checkpoint.nbytes.keys() == shapes.keys()
        for name, shape in shapes.items():
            if len(shape) == 1:
                vector = checkpoint.vector(name)
                assert vector.shape == shape
                assert vector.dtype == np.float32
                assert vector.flags.writeable
                continue
            matrix = checkpoint.matrix(name)
            assert (matrix.rows, matrix.cols) == shape
            if isinstance(matrix, TernaryMatrix):
                assert matrix.packed.shape == (shape[0], -(-shape[1] // 128) * 32)
                assert matrix.packed.flags.c_contiguous
                assert not i2_s.has_code_3(matrix.packed)
                assert matrix.scale.dtype == np.float32
                assert matrix.scale.shape == (1,)
            else:
                assert matrix.data.shape == (shape[0], ggml.row_bytes(matrix.type, shape[1]))


def test_bitnet_files_agree(golden):
    folder = golden / "bitnet-b1.58"
    gguf = linears(open_checkpoint(folder / "model-i2_s.gguf"))
    packed = linears(open_checkpoint(folder / "hf-packed"))
    master = linears(open_checkpoint(folder / "hf-master-bf16"))
    with np.load(folder / "reference.npz") as reference:
        for key in (key for key in reference if key.startswith("absmean__")):
            layer, linear = key.removeprefix("absmean__").split("_")
            name = f"blk.{layer}.{HF_LINEARS[linear]}.weight"
            weights, scale = gguf.pop(name)
            for others, exact in ((packed, scale), (master, reference[key])):
                np.testing.assert_array_equal(others[name][0], weights)
                np.testing.assert_allclose(others[name][1], exact, rtol=2e-7)
            np.testing.assert_array_equal(packed[name][1], scale)
    assert not gguf


def test_llama_files_agree(golden):
    folder = golden / "llama-1.58"
    exact = linears(open_checkpoint(folder / "model-i2_s.gguf"))
    tl2_file = linears(open_checkpoint(folder / "model-tl2-id39.gguf", tiles=TILES))
    tq1_file = linears(open_checkpoint(folder / "model-tq1_0.gguf"))
    tq2_file = linears(open_checkpoint(folder / "model-tq2_0.gguf"))
    packed = open_checkpoint(folder / "hf-packed")
    config = packed.config
    heads = {"attn_q": config.head_count, "attn_k": config.head_count_kv}
    folder_weights = linears(packed)
    for name, (weights, scale) in exact.items():
        for others, expected in (
            (tl2_file, scale),
            (tq1_file, rounded(scale)),
            (tq2_file, rounded(scale)),
        ):
            np.testing.assert_array_equal(others[name][0], weights)
            np.testing.assert_array_equal(others[name][1], expected)
        ours, found = folder_weights[name]
        linear = name.split(".")[2]
        in_order = permuted(ours, heads[linear]) if linear in heads else ours
        np.testing.assert_array_equal(in_order, weights)
        np.testing.assert_array_equal(found, scale)


def test_ik_files_agree(golden):
    files = [
        open_checkpoint(golden / f"ik-bn/model-{t}.gguf") for t in ("i2_s", "iq1_bn", "iq2_bn")
    ]
    exact, iq1, iq2 = map(linears, files)
    for name, (weights, scale) in exact.items():
        np.testing.assert_array_equal(iq1[name][0], weights)
        np.testing.assert_array_equal(iq2[name][0], weights)
        np.testing.assert_array_equal(iq1[name][1], rounded(scale))
        np.testing.assert_array_equal(iq2[name][1], scale)


def test_embeddings_of_folder_and_gguf_agree(golden):
    for model in ("bitnet-b1.58", "llama-1.58"):
        ours = open_checkpoint(golden / model / "hf-packed")
        theirs = open_checkpoint(golden / model / "model-i2_s.gguf")
        for name in set(tensor_shapes(ours.config)) - set(linears(ours)):
            if name.endswith("norm.weight"):
                np.testing.assert_array_equal(ours.vector(name), theirs.vector(name))
                continue
            left, right = ours.matrix(name), theirs.matrix(name)
            assert (left.type, right.type) == ("bf16", "f16")
            values = [ggml.dequantize(m.type, m.data, m.cols) for m in (left, right)]
            np.testing.assert_allclose(*values, rtol=2**-11, atol=2**-24)


def test_canonical_i2_s_is_used_in_place(golden):
    checkpoint = open_checkpoint(golden / "bitnet-b1.58/model-i2_s.gguf")
    first, second = (checkpoint.matrix(QUERY).packed for _ in range(2))
    assert np.shares_memory(first, second)
    assert not first.flags.writeable
    checkpoint.close()
    assert first.any()  # stays mapped


# Damaged models


MALFORMED = {
    "missing_tensor": "tensor 'blk.0.ffn_sub_norm.weight' is missing",
    "wrong_shape_norm": r"'blk.0.attn_norm.weight' has shape \(64,\), not \(128,\)",
    "vocab_mismatch": r"'token_embd.weight' has shape \(56, 128\), not \(64, 128\)",
    "nan_scale": "'blk.0.attn_q.weight': weight scale nan",
    "overlap": "'blk.0.ffn_down.weight'|'blk.0.attn_q.weight'",
    "bad_type_id": "type 999 is unknown",
    "removed_type_id": "type 4 is unknown",
    "truncated_data": "at offset .* there are|past its end",
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_models_are_refused(golden, fault):
    path = golden / "malformed" / f"{fault}.gguf"
    with pytest.raises(FormatError, match=MALFORMED[fault]) as error:
        linears(open_checkpoint(path))
    assert str(error.value).startswith(str(path))


def test_code_3_in_place_does_no_harm(golden):
    checkpoint = open_checkpoint(golden / "malformed/i2s_code_3.gguf")
    names = filter(is_linear, tensor_shapes(checkpoint.config))
    assert any(i2_s.has_code_3(checkpoint.matrix(name).packed) for name in names)


@pytest.mark.parametrize("name", json.loads((GOLDEN / "malformed/malformed.json").read_text()))
def test_no_malformed_file_is_more_than_refused(golden, name):
    path = golden / f"malformed/{name}.gguf"
    with contextlib.suppress(FormatError), open_checkpoint(path) as checkpoint:
        for tensor, shape in tensor_shapes(checkpoint.config).items():
            read = checkpoint.matrix if len(shape) == 2 else checkpoint.vector
            read(tensor)


@pytest.mark.parametrize("layout", ["8x8", [], None])
def test_layouts_of_i2_s_that_there_are_not(layout):
    with pytest.raises(
        ValueError, match=re.escape(f"i2_s_layout is {layout!r}: it must be one of 128x32, ")
    ):
        open_checkpoint(b"GGUF", i2_s_layout=layout)
