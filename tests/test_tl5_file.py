"""GGUF files whose linear layers lie as the kernel tl5 reads them: used in place, and damaged."""

import numpy as np
import pytest
from compare import assert_same_bits
from golden_models import results
from hypothesis import given
from hypothesis import strategies as st
from model_files import QUERY, linears, rewritten

from bitnet_lut import _native
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert import convert
from bitnet_lut.diagnose import inspect_model
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import i2_s, tl5
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tensors import PackedMatrix, TernaryMatrix
from bitnet_lut.model import Model
from bitnet_lut.runtime.packing import INPUT_GROUPS, suited

SHAPES = [(1, 1), (64, 240), (70, 241), (129, 1003)]
FAMILIES = ["bitnet-b1.58", "llama-1.58", "bitnet-1bitllm"]


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def tl5_file(golden, tmp_path):
    convert(golden / "bitnet-b1.58/model-i2_s.gguf", tmp_path / "tl5.gguf", type="tl5")
    return tmp_path / "tl5.gguf"


def changed(source, path, offset, byte):
    """The file with one byte of the query matrix replaced."""
    with GGUFFile(source) as file:
        info = file.tensors[QUERY]
    data = bytearray(source.read_bytes())
    data[info.offset + offset] = byte
    path.write_bytes(data)
    return path


def mapped(model, *, ternary):
    """Bytes that must be used in place."""
    sizes = model.info.weight_bytes
    return sum(sizes.values()) - sizes["vectors"] - (0 if ternary else sizes["ternary"])


def byte_of_first_group(rows=256):
    """Offset of the byte of row 0 and group 0."""
    return 4 * rows


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_what_is_packed_is_read(rng, rows, cols, per_row):
    weights = rng.integers(-1, 2, (rows, cols), np.int8)
    scale = rng.uniform(0.5, 2, rows if per_row else 1).astype(np.float32)
    data = tl5.pack(weights, scale)
    kernel = _native.Cell("tl5", isa="scalar")
    assert data.size == tl5.nbytes(rows, cols) == kernel.packed_bytes(rows, cols) + 4 * rows
    canonical, found = tl5.read_rows(data, rows, cols)
    np.testing.assert_array_equal(canonical, i2_s.pack_rows(weights))
    assert_same_bits(found, scale)
    packed, found = tl5.read_packed(data, rows, cols)
    assert np.shares_memory(packed, data)
    np.testing.assert_array_equal(packed, kernel.pack(canonical, cols))
    assert_same_bits(found, scale)


def by_the_document(data, rows, cols):
    """Weights and scales as docs/tl5.md says they lie."""
    panels, groups = -(-rows // 64), -(-cols // 5)
    negatives = data[: 256 * panels].view("<i4")
    r = np.arange(64)
    place = (r & 3) | (r >> 4 & 3) << 2 | (r >> 2 & 3) << 4
    at, parts = 256 * panels, []
    for first in range(0, groups, 48):
        here = min(48, groups - first)
        block = data[at : at + 64 * panels * here].reshape(panels, here, 64)
        parts.append(block[:, :, place].swapaxes(1, 2).reshape(64 * panels, here))
        at += block.size
    found = np.concatenate(parts, axis=1).astype(int)
    np.testing.assert_array_equal((found >> 7).sum(axis=1), negatives)
    digits = 121 + np.where(found >> 7, -(found & 127), found)
    weights = np.stack([digits // 3**j % 3 - 1 for j in range(5)], axis=2).reshape(64 * panels, -1)
    assert not weights[rows:].any()
    assert not weights[:, cols:].any()
    return weights[:rows, :cols], data[at:].view("<f4")


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_bytes_lie_as_the_document_says(rng, rows, cols):
    weights = rng.integers(-1, 2, (rows, cols), np.int8)
    scale = rng.uniform(0.5, 2, rows).astype(np.float32)
    found, scales = by_the_document(tl5.pack(weights, scale), rows, cols)
    np.testing.assert_array_equal(found, weights)
    assert_same_bits(scales, scale)


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match=r"must be -1, 0 or \+1"):
        tl5.pack(np.full((1, 9), 2, np.int8), 1.0)
    with pytest.raises(FormatError, match=r"weight scale -1\.0 is negative"):
        tl5.pack(np.zeros((1, 9), np.int8), -1.0)
    with pytest.raises(FormatError, match=f"TL5 has at most {_native.MAX_COLS}"):
        tl5.nbytes(1, _native.MAX_COLS + 1)
    with pytest.raises(FormatError, match="TL5 of 3x9 takes 396 bytes, not 397"):
        tl5.read_packed(np.zeros(397, np.uint8), 3, 9)
    assert tl5.nbytes(2**62, 1) > 2**62  # what a table of tensors may say


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 130), cols=st.integers(1, 260))
def test_any_byte_is_safe_to_compute_with(seed, rows, cols):
    """Its codes are 0, 1 and 2 only, so that a damaged byte is a wrong weight and no more."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, _native.Cell("tl5", isa="scalar").packed_bytes(rows, cols))
    packed = data.astype(np.uint8)
    negatives = packed[: -(-rows // 64) * 256].view("<i4")
    negatives[:] = rng.integers(0, -(-cols // 5) + 1, negatives.shape)
    for isa in _native.tier_names():
        if _native.missing_features(isa):
            continue
        kernel = _native.Cell("tl5", isa=isa)
        for n in (1, 3):
            q = rng.integers(-128, 128, (n, cols), np.int8)
            assert kernel.gemm(packed, kernel.prepare(q), rows, cols).shape == (n, rows)
        assert not _native.has_code_3(kernel.unpack(packed, rows, cols))
    scales = np.ones(rows, "<f4").view(np.uint8)
    with pytest.raises(FormatError, match="damaged data"):
        tl5.read_rows(np.concatenate([packed, scales]), rows, cols)


# Files


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(golden, tmp_path, family):
    convert(golden / family / "model-i2_s.gguf", tmp_path / "before")
    there = convert(tmp_path / "before", tmp_path / "there", type="tl5")
    back = convert(tmp_path / "there", tmp_path / "back", type="i2_s")
    assert not there.rounded
    assert not back.rounded
    assert (tmp_path / "back").read_bytes() == (tmp_path / "before").read_bytes()
    with GGUFFile(tmp_path / "there") as file:
        assert file.alignment == 64
        assert file.tensors[QUERY].type_id == 1505
        assert all(info.offset % 64 == 0 for info in file.tensors.values())


@pytest.mark.parametrize("model", ["bitnet-b1.58/model-i2_s.gguf", "llama-1.58/model-i2_s.gguf"])
def test_the_same_logits_without_a_copy(golden, tmp_path, isa, model):
    path = tmp_path / "tl5.gguf"
    convert(golden / model, path, type="tl5")
    ids = results(model)["ids__40"].tolist()
    expected = Model(golden / model, isa=isa).forward(ids)
    in_place = isa == "avx512"  # where tl5 is the kernel of choice
    for source in (path, path.read_bytes()):
        found = Model(source, isa=isa, mmap=True)
        assert_same_bits(found.forward(ids), expected)
        assert found.info.kernel == ("tl5" if in_place else "i2_s")
        assert found.info.mapped_bytes == mapped(found, ternary=in_place)
    plain = Model(path, isa=isa, kernel="i2_s")
    assert plain.info.kernel == "i2_s"
    assert_same_bits(plain.forward(ids), expected)
    other = Model(path, isa=isa, kernel="tl2")
    assert other.info.kernel == "tl2"
    assert_same_bits(other.forward(ids), expected)
    if not in_place:  # except where it is asked for
        asked = Model(path, isa=isa, kernel="tl5", mmap=True)
        assert asked.info.mapped_bytes == mapped(asked, ternary=True)
        assert_same_bits(asked.forward(ids), expected)


def test_matrices_are_canonical_for_all_others(golden, tl5_file):
    with open_checkpoint(golden / "bitnet-b1.58/model-i2_s.gguf") as before:
        expected = linears(before)
    with open_checkpoint(tl5_file) as checkpoint:
        assert set(checkpoint.layouts.values()) == {"tl5"}
        assert checkpoint.layouts.keys() == expected.keys()
        found = linears(checkpoint)
        tensors = checkpoint.tensors(as_packed=[QUERY])
    for name, (weights, scale) in expected.items():
        np.testing.assert_array_equal(found[name][0], weights)
        assert_same_bits(found[name][1], scale)
        kind = PackedMatrix if name == QUERY else TernaryMatrix
        assert isinstance(tensors[name], kind)


def test_layers_of_one_input_are_in_place_together_or_not_at_all(golden, tmp_path, tl5_file):
    """A file in which only one of them is in the layout of the kernel is packed at load."""
    source = golden / "bitnet-b1.58/model-i2_s.gguf"
    with GGUFFile(tl5_file) as file:
        info = file.tensors[QUERY]
        change = {QUERY: (info.shape, 1505, file.data(QUERY, tl5.nbytes(*info.shape)))}
        mixed = rewritten(source, tmp_path / "mixed", changes=change)
    ids = results("bitnet-b1.58/model-i2_s.gguf")["ids__40"].tolist()
    for kernel in ("tl5", "i2_s"):
        assert_same_bits(Model(mixed, kernel=kernel).forward(ids), Model(source).forward(ids))


def test_what_suits():
    def of(layouts, kernel):
        return suited(layouts, dict.fromkeys(INPUT_GROUPS, kernel))

    three = {f"blk.0.attn_{part}.weight": "tl5" for part in "qkv"}
    down = {"blk.1.ffn_down.weight": "tl2"}
    assert of(three | down, "tl5") == three.keys()
    assert of(three | down, "tl2") == down.keys()
    assert of(three | down, "i2_s") == set()
    assert of(three | {QUERY: "tl2"}, "tl5") == set()
    assert of({QUERY: "tl5"}, "tl5") == set()
    assert of({}, "tl5") == set()


def test_scales_of_rows(golden, tmp_path, tl5_file):
    with open_checkpoint(tl5_file) as checkpoint:
        weights, _ = linears(checkpoint)[QUERY]
    scale = np.linspace(0.5, 1.5, len(weights), dtype=np.float32)
    change = {QUERY: (weights.shape, 1505, tl5.pack(weights, scale))}
    source = rewritten(tl5_file, tmp_path / "rows", changes=change)
    convert(source, tmp_path / "again", type="tl5")
    for path in (source, tmp_path / "again"):
        with open_checkpoint(path) as checkpoint:
            assert_same_bits(checkpoint.matrix(QUERY).scale, scale)
            assert_same_bits(checkpoint.packed(QUERY).scale, scale)


def test_separate_scales_are_multiplied_in(tmp_path, tl5_file):
    half = np.array([0.5], "<f4").view(np.uint8)
    name = QUERY.replace("weight", "scale")
    source = rewritten(tl5_file, tmp_path / "half", changes={name: ((1,), 0, half)})
    with open_checkpoint(tl5_file) as before, open_checkpoint(source) as checkpoint:
        expected = before.matrix(QUERY).scale / 2
        assert_same_bits(checkpoint.matrix(QUERY).scale, expected)
        assert_same_bits(checkpoint.packed(QUERY).scale, expected)


# Damage


@pytest.mark.parametrize("byte", [122, 127, 0x80, 255])
def test_bytes_of_no_group_run_but_are_told(tmp_path, tl5_file, byte):
    path = changed(tl5_file, tmp_path / "bad", byte_of_first_group(), byte)
    with Model(path, kernel="tl5") as model:
        assert np.isfinite(model.forward([1, 2, 3])).all()
    assert any("unknown group byte" in text and QUERY in text for text in inspect_model(path).odd)
    with pytest.raises(FormatError, match=rf"{QUERY}.*unknown group byte"):
        Model(path, kernel="i2_s")
    with pytest.raises(FormatError, match=rf"{QUERY}.*unknown group byte"):
        convert(path, tmp_path / "out")


def test_another_weight_changes_the_hash(tmp_path, tl5_file):
    with open_checkpoint(tl5_file) as checkpoint:
        at = byte_of_first_group(checkpoint.matrix(QUERY).rows)
        old = int(checkpoint.packed(QUERY).packed[at])
    new = old & 0x80 | (1 if old & 0x7F != 1 else 2)
    path = changed(tl5_file, tmp_path / "bad", at, new)
    assert "its ternary weights do not have the hash that its conversion wrote" in (
        inspect_model(path).odd
    )


def test_counts_that_cannot_be_are_refused(tmp_path, tl5_file):
    for offset, byte in ((3, 0x80), (2, 1)):
        path = changed(tl5_file, tmp_path / "bad", offset, byte)
        with pytest.raises(FormatError, match=rf"{QUERY}.* count of negative ones is "):
            Model(path, kernel="tl5")
    path = changed(tl5_file, tmp_path / "bad", 0, tl5_file.read_bytes()[0] ^ 1)
    assert inspect_model(path).odd


def test_tensors_that_are_too_short_are_refused(tmp_path, tl5_file):
    with GGUFFile(tl5_file) as file:
        shape = file.tensors[QUERY].shape
    short = np.zeros(tl5.nbytes(*shape) - 64, np.uint8)
    path = rewritten(tl5_file, tmp_path / "bad", changes={QUERY: (shape, 1505, short)})
    with pytest.raises(FormatError, match=rf"{QUERY}.*type tl5 of shape .* truncated"):
        Model(path)


def test_only_linear_layers_can_be_of_this_type(tmp_path, tl5_file):
    name = "token_embd.weight"
    with GGUFFile(tl5_file) as file:
        shape = file.tensors[name].shape
    data = np.zeros(tl5.nbytes(*shape), np.uint8)
    path = rewritten(tl5_file, tmp_path / "bad", changes={name: (shape, 1505, data)})
    with pytest.raises(FormatError, match=r"type 1505 \(tl5\) is not supported for this tensor"):
        Model(path)
