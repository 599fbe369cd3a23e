import struct

import numpy as np
import pytest
from model_files import QUERY, TILES, linears, rewritten

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml, i2_s, ternary, tl1, tl2
from bitnet_lut.formats.tensors import DenseMatrix

BASE = "malformed/base.gguf"


def retyped(data, name, type_id):
    """The bytes of a GGUF file in which one tensor has another type id."""
    data = bytearray(data)
    start = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    n_dims = struct.unpack_from("<I", data, start)[0]
    struct.pack_into("<I", data, start + 4 + 8 * n_dims, type_id)
    return bytes(data)


# Type ids of more than one meaning


@pytest.fixture
def tl2_file(golden):
    return golden / "llama-1.58/model-tl2-id39.gguf"


def test_id_42_is_tl2(tl2_file):
    exact = linears(open_checkpoint(tl2_file, tiles=TILES))
    data = tl2_file.read_bytes()
    for name in exact:
        data = retyped(data, name, 42)
    for name, (weights, _) in linears(open_checkpoint(data, tiles=TILES)).items():
        np.testing.assert_array_equal(weights, exact[name][0])


def test_mxfp4_is_refused(tl2_file, tmp_path):
    size = 512 * 256 // 32 * 17
    changed = {QUERY: ((512, 256), 39, np.zeros(size, np.uint8))}
    path = rewritten(tl2_file, tmp_path / "a.gguf", changes=changed)
    with pytest.raises(FormatError, match=r"attn_q.weight': type 39 \(mxfp4\) is not supported"):
        open_checkpoint(path, tiles=TILES)


@pytest.mark.parametrize("extra", [-32, 32])
@pytest.mark.parametrize(("type_id", "codec"), [(36, i2_s), (38, tl1), (39, tl2), (42, tl2)])
def test_sizes_that_fit_no_meaning_are_refused(tl2_file, tmp_path, type_id, codec, extra):
    data = np.zeros(codec.nbytes(512, 256) + extra, np.uint8)
    path = rewritten(tl2_file, tmp_path / "a.gguf", changes={QUERY: ((512, 256), type_id, data)})
    with pytest.raises(FormatError, match=f"type {type_id} of shape .* another program's type"):
        open_checkpoint(path, tiles=TILES)


def test_unknown_tiles_are_asked_for(tl2_file):
    checkpoint = open_checkpoint(tl2_file)
    with pytest.raises(
        FormatError, match=r"attn_q.weight': the tile sizes .* tiles=\{\(512, 256\)"
    ):
        checkpoint.matrix(QUERY)


def test_tl1_by_tiles(golden, tmp_path):
    source = golden / BASE
    weights, scale = linears(open_checkpoint(source))[QUERY]
    tile = (weights.shape[0], 64, 32)
    data = tl1.pack(weights, scale[0], tile=tile)
    path = rewritten(source, tmp_path / "a.gguf", changes={QUERY: (weights.shape, 38, data)})
    matrix = open_checkpoint(path, tiles={weights.shape: tile}).matrix(QUERY)
    np.testing.assert_array_equal(i2_s.unpack_rows(matrix.packed, matrix.cols), weights)


@pytest.mark.parametrize("layout", ["64x16", "1x4", "sequential"])
def test_i2_s_layout_by_option(golden, tmp_path, layout):
    source = golden / BASE
    exact = linears(open_checkpoint(source))
    changes = {
        name: (weights.shape, 36, i2_s.pack(weights, scale[0], layout=layout))
        for name, (weights, scale) in exact.items()
    }
    path = rewritten(source, tmp_path / "a.gguf", changes=changes)
    for name, (weights, scale) in linears(open_checkpoint(path, i2_s_layout=layout)).items():
        np.testing.assert_array_equal(weights, exact[name][0])
        np.testing.assert_array_equal(scale, exact[name][1])


# Other tensors that a file may hold


@pytest.mark.parametrize(("type", "type_id"), [("f32", 0), ("f16", 1), ("bf16", 30)])
def test_float_linears_of_bitnet_become_ternary(golden, tmp_path, type, type_id):
    source = golden / BASE
    weights, scale = linears(open_checkpoint(source))[QUERY]
    masters = np.random.default_rng(0).standard_normal(weights.shape, np.float32)
    for values in (weights * scale, masters):
        data = ggml.quantize(type, values)
        expected, expected_scale = (
            (weights, ggml.dequantize(type, ggml.quantize(type, scale[None]), 1)[0])
            if values is not masters
            else ternary.absmean(ggml.dequantize(type, data, weights.shape[1]))
        )
        changed = {QUERY: (weights.shape, type_id, data.reshape(-1))}
        path = rewritten(source, tmp_path / "a.gguf", changes=changed)
        found, found_scale = linears(open_checkpoint(path))[QUERY]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found_scale, expected_scale)


def test_float_linears_of_llama_stay_dense(golden, tmp_path):
    source = golden / "llama-1.58/model-i2_s.gguf"
    data = ggml.quantize("f16", np.ones((512, 256), np.float32)).reshape(-1)
    path = rewritten(source, tmp_path / "a.gguf", changes={QUERY: ((512, 256), 1, data)})
    assert open_checkpoint(path).matrix(QUERY).type == "f16"


def test_a_separate_scale_multiplies(golden, tmp_path):
    source = golden / BASE
    scale = np.array([3], "<f4").view(np.uint8)
    path = tmp_path / "a.gguf"
    rewritten(source, path, changes={"blk.0.attn_q.scale": ((1,), 0, scale)})
    before, after = open_checkpoint(source).matrix(QUERY), open_checkpoint(path).matrix(QUERY)
    np.testing.assert_array_equal(after.scale, before.scale * np.float32(3))
    rewritten(source, path, changes={"blk.0.attn_q.scale": ((2,), 0, scale.repeat(2))})
    with pytest.raises(FormatError, match=r"attn_q.scale' has shape \(2,\) and type 0, not \(1,\)"):
        open_checkpoint(path).matrix(QUERY)


def test_rope_factors_must_be_ones(golden, tmp_path):
    source = golden / BASE
    half = open_checkpoint(source).config.rope_dim // 2
    factors = np.ones(half, "<f4")
    path = tmp_path / "a.gguf"
    changes = {"rope_freqs.weight": ((half,), 0, factors.view(np.uint8))}
    open_checkpoint(rewritten(source, path, changes=changes))
    factors[1] = 8
    with pytest.raises(FormatError, match=r"scaled RoPE \(factors up to 8.0\)"):
        open_checkpoint(rewritten(source, path, changes=changes))


def test_unknown_tensors(golden, tmp_path):
    source = golden / BASE
    extra = ((32,), 0, np.zeros(128, np.uint8))
    path = tmp_path / "a.gguf"
    open_checkpoint(rewritten(source, path, changes={"some.note": extra}))
    rewritten(source, path, changes={"blk.0.attn_output.bias": extra})
    with pytest.raises(FormatError, match=r"'blk.0.attn_output.bias' is not used by the graph"):
        open_checkpoint(path)


@pytest.mark.parametrize("type_id", [36, 35, 12, 16, 24])
def test_types_where_they_do_not_belong_are_refused(golden, tmp_path, type_id):
    source = golden / BASE
    data = np.zeros(1 << 16, np.uint8)
    norm = {"blk.0.attn_norm.weight": ((128,), type_id, data)}
    with pytest.raises(FormatError, match=r"attn_norm.weight': type .*(not supported|matrices)"):
        open_checkpoint(rewritten(source, tmp_path / "a.gguf", changes=norm))
    if type_id != 12:
        size = i2_s.nbytes(64, 128)
        embedding = {"token_embd.weight": ((64, 128), type_id, data[:size])}
        with pytest.raises(FormatError, match=r"token_embd.weight': type .* not supported"):
            open_checkpoint(rewritten(source, tmp_path / "a.gguf", changes=embedding))


def test_k_quants_are_widened(golden, tmp_path):
    source = golden / "bitnet-b1.58/model-i2_s.gguf"
    with np.load(golden / "codecs_ggml.npz") as reference:
        block = reference["q4_k__random_packed"][:144]
    data = np.tile(block, 640)
    path = rewritten(
        source, tmp_path / "a.gguf", changes={"token_embd.weight": ((640, 256), 12, data)}
    )
    matrix = open_checkpoint(path).matrix("token_embd.weight")
    assert matrix.type == "f32"
    expected = ggml.dequantize("q4_k", block[None], 256)
    np.testing.assert_array_equal(matrix.data.view("<f4"), expected.repeat(640, axis=0))


def test_dense_data_is_aligned(golden):
    data = b"x" + (golden / BASE).read_bytes()
    checkpoint = open_checkpoint(memoryview(data)[1:])
    matrix = checkpoint.matrix("token_embd.weight")
    assert isinstance(matrix, DenseMatrix)
    assert matrix.data.ctypes.data % 4 == 0


def test_a_closed_checkpoint_says_so(golden):
    for file in (BASE, "bitnet-b1.58/hf-packed"):
        checkpoint = open_checkpoint(golden / file)
        checkpoint.close()
        with pytest.raises(ValueError, match="is closed"):
            checkpoint.matrix(QUERY)
