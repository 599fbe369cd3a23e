"""Heads in strips: the layout, GGUF files that hold it, and damaged files."""

import numpy as np
import pytest
from compare import assert_same_bits
from golden_models import results
from hypothesis import given
from hypothesis import strategies as st
from model_files import QUERY, rewritten

from bitnet_lut import _native, reference
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert import convert
from bitnet_lut.diagnose import inspect_model
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml, strips
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tensors import DenseMatrix, StripMatrix
from bitnet_lut.model import Model

COLS = {"q6_k_r32": (256, 512, 2560), "q8_0_r32": (32, 320, 2560), "q4_0_r32": (32, 320, 2560)}
IDS = {"q6_k_r32": 1506, "q8_0_r32": 1507, "q4_0_r32": 1508}
TIED, UNTIED = "bitnet-b1.58/model-i2_s.gguf", "llama-1.58/model-i2_s.gguf"
HEAD = {TIED: "token_embd.weight", UNTIED: "output.weight"}


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(32)


def blocks(rng, type, rows, cols):
    """Any bytes, as rows of the block type."""
    size = ggml.row_bytes(strips.TYPES[type], cols)
    return rng.integers(0, 256, (rows, size), np.uint8)


def with_head(golden, path, model, head):
    """A file whose head is of a block type, in the common layout and in strips."""
    convert(golden / model, path / "plain.gguf", type="i2_s", head=head)
    convert(path / "plain.gguf", path / "native.gguf", type="tl5")
    return path / "plain.gguf", path / "native.gguf"


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("type", COLS)
def test_what_is_packed_is_unpacked(rng, type, rows):
    for cols in COLS[type]:
        data = blocks(rng, type, rows, cols)
        packed = strips.pack(type, data, cols)
        assert packed.shape == (strips.nbytes(type, rows, cols),)
        np.testing.assert_array_equal(strips.unpack(type, packed, rows, cols), data)


def by_the_document(type, data, rows, cols):
    """Codes (rows, groups, 16) and the scale of every 16 as docs/tl5.md says they lie."""
    block = 256 if type == "q6_k_r32" else 32
    groups, stored = cols // 16, {"q6_k_r32": 3, "q8_0_r32": 4, "q4_0_r32": 2}[type]
    per_unit = 32 * (type == "q6_k_r32") + 128 * stored
    count = -(-rows // 32)
    codes = np.zeros((count, 32, groups, 16), np.uint8)
    scales = np.zeros((count, 32, groups), np.float32)
    order = [g for place in range(16) for g in range(place, groups, 16)]
    for s, strip in enumerate(data.reshape(count, -1)):
        halves = strip[: cols // block * 64].view("<f2").reshape(-1, 32).astype(np.float32)
        units = strip[cols // block * 64 :].reshape(groups, per_unit)
        for unit, g in zip(units, order, strict=True):
            scales[s, :, g] = halves[16 * g // block]
            if type == "q6_k_r32":
                scales[s, :, g] *= unit[:32].view(np.int8)
            kept = unit[-128 * stored :].reshape(2, stored, 16, 4)
            registers = np.zeros((2, 4, 16, 4), np.uint8)
            if type == "q8_0_r32":
                registers[:] = kept
            elif type == "q4_0_r32":
                registers[:, :2], registers[:, 2:] = kept & 15, kept >> 4
            else:
                registers[:, :3] = kept & 63
                registers[:, 3] = sum((kept[:, q] >> 6) << 2 * q for q in range(3))
            codes[s, :, g] = registers.transpose(0, 2, 1, 3).reshape(32, 16)
    return codes.reshape(-1, groups, 16)[:rows], scales.reshape(-1, groups)[:rows]


@pytest.mark.parametrize("rows", [3, 70])
@pytest.mark.parametrize("type", COLS)
def test_bytes_lie_as_the_document_says(rng, type, rows):
    offset = {"q6_k_r32": 32, "q8_0_r32": 128, "q4_0_r32": 8}[type]
    for cols in COLS[type][:2]:
        weights = rng.normal(size=(rows, cols)).astype(np.float32)
        data = ggml.quantize(strips.TYPES[type], weights)
        codes, scales = by_the_document(type, strips.pack(type, data, cols), rows, cols)
        expected, expected_scales = ggml.codes(strips.TYPES[type], data, cols)
        np.testing.assert_array_equal(codes.astype(int) - offset, expected)
        assert_same_bits(scales, expected_scales)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 70), type=st.sampled_from(list(COLS)))
def test_any_byte_is_safe_to_compute_with(seed, rows, type):
    rng = np.random.default_rng(seed)
    cols = COLS[type][seed % 2]
    data = rng.integers(0, 256, strips.nbytes(type, rows, cols), np.uint8)
    x = rng.normal(size=(3, cols)).astype(np.float32)
    found = [
        _native.dense_gemm(strips.TYPES[type], data, x, rows, isa=isa)
        for isa in _native.tier_names()
        if not _native.missing_features(isa)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    again = strips.pack(type, strips.unpack(type, data, rows, cols), cols)
    if rows % 32 == 0:
        np.testing.assert_array_equal(again, data)


def test_what_has_no_whole_blocks_or_bytes_is_refused():
    with pytest.raises(FormatError, match="q6_k holds blocks of 256 weights, a row has 320"):
        strips.nbytes("q6_k_r32", 1, 320)
    with pytest.raises(FormatError, match="q4_0_r32 of 3x32 takes 576 bytes, not 54"):
        strips.unpack("q4_0_r32", np.zeros(54, np.uint8), 3, 32)


# Files


@pytest.mark.parametrize("head", ["q6_k", "q8_0", "q4_0"])
@pytest.mark.parametrize("model", HEAD)
def test_there_and_back(golden, tmp_path, model, head):
    plain, native = with_head(golden, tmp_path, model, head)
    with GGUFFile(native) as file:
        types = {name: info.type_id for name, info in file.tensors.items()}
    assert types[HEAD[model]] == IDS[f"{head}_r32"]
    assert set(types.values()) <= {0, 1505, IDS[f"{head}_r32"], *others(plain)}
    report = convert(native, tmp_path / "back.gguf", type="i2_s")
    assert not report.rounded
    assert (tmp_path / "back.gguf").read_bytes() == plain.read_bytes()
    again = convert(native, tmp_path / "again.gguf", type="tl5")
    assert not again.rounded
    assert (tmp_path / "again.gguf").read_bytes() == native.read_bytes()
    assert not inspect_model(native).odd


def others(plain):
    with GGUFFile(plain) as file:
        return {info.type_id for info in file.tensors.values()} - {36}


@pytest.mark.parametrize("head", ["q6_k", "q8_0", "q4_0"])
@pytest.mark.parametrize("model", HEAD)
def test_the_same_logits_without_a_copy(golden, tmp_path, isa, model, head):
    plain, native = with_head(golden, tmp_path, model, head)
    ids = results(model)["ids__40"].tolist()
    expected = Model(plain, isa=isa, kernel="tl5")
    for source in (native, native.read_bytes()):
        found = Model(source, isa=isa, kernel="tl5", mmap=True)
        assert_same_bits(found.forward(ids), expected.forward(ids))
        sizes = found.info.weight_bytes
        assert found.info.mapped_bytes == sum(sizes.values()) - sizes["vectors"]
    if model == TIED:  # one copy serves look-ups and the head
        assert expected.info.weight_bytes["head"] <= found.info.weight_bytes["embedding"]
        assert "head" not in found.info.weight_bytes
    assert_same_bits(Model(native, isa=isa, kernel="i2_s").forward(ids), expected.forward(ids))


def test_matrices_are_rows_for_all_others(golden, tmp_path):
    plain, native = with_head(golden, tmp_path, TIED, "q6_k")
    name = HEAD[TIED]
    with open_checkpoint(plain) as before, open_checkpoint(native) as checkpoint:
        expected = before.matrix(name)
        assert checkpoint.strips == {name}
        found, kept = checkpoint.matrix(name), checkpoint.tensors(as_packed=[name])[name]
        stored = checkpoint.stored(name)
    assert isinstance(found, DenseMatrix)
    assert found.type == stored.type == "q6_k"
    np.testing.assert_array_equal(found.data, expected.data)
    for rows in (slice(None), slice(5, 6), slice(31, 70), slice(-9, None), slice(3, 3)):
        np.testing.assert_array_equal(stored.raw(rows), expected.data[rows])
    assert isinstance(kept, StripMatrix)
    x = np.random.default_rng(0).normal(size=(2, kept.cols)).astype(np.float32)
    logits = _native.dense_gemm("q6_k", kept.strips, x, kept.rows, isa="scalar")
    assert_same_bits(logits, reference.linear(expected, x))


# Damage


def test_only_matrices_that_are_not_ternary_can_be_of_these_types(golden, tmp_path):
    _, native = with_head(golden, tmp_path, TIED, "q6_k")
    with GGUFFile(native) as file:
        shape, norm = file.tensors[QUERY].shape, file.tensors["output_norm.weight"].shape
    for name, of in ((QUERY, shape), ("output_norm.weight", norm)):
        data = np.zeros(strips.nbytes("q6_k_r32", of[0], of[-1]), np.uint8)
        path = rewritten(native, tmp_path / "bad", changes={name: (of, 1506, data)})
        with pytest.raises(FormatError, match=r"1506 \(q6_k_r32\) is not supported for this"):
            Model(path)


def test_tensors_that_are_too_short_are_refused(golden, tmp_path):
    _, native = with_head(golden, tmp_path, TIED, "q6_k")
    name = HEAD[TIED]
    with GGUFFile(native) as file:
        shape = file.tensors[name].shape
    short = np.zeros(strips.nbytes("q6_k_r32", *shape) - 64, np.uint8)
    path = rewritten(native, tmp_path / "bad", changes={name: (shape, 1506, short)})
    with pytest.raises(FormatError, match=rf"{name}.*type q6_k_r32 of shape .* truncated"):
        Model(path)


def test_the_engine_refuses_strips_that_are_none(golden, tmp_path):
    _, native = with_head(golden, tmp_path, TIED, "q6_k")
    name = HEAD[TIED]
    with open_checkpoint(native) as checkpoint:
        config, tensors = checkpoint.config, checkpoint.tensors(as_packed=[HEAD[TIED]])
    kept = tensors[name]
    short = StripMatrix("q6_k", kept.rows, kept.cols, kept.strips[:-1])
    floats = StripMatrix("f16", kept.rows, kept.cols, kept.strips)
    for bad, text in ((short, "bytes of strips, its type needs"), (floats, "not laid out in str")):
        with pytest.raises(ValueError, match=text):
            _native.Weights(config, {**tensors, name: bad}, isa="scalar")
