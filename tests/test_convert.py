import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits
from model_files import QUERY, TILES, linears, rewritten

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.base import ternarize
from bitnet_lut.checkpoint.ternary_hash import TERNARY_HASH_KEY, TernaryHash, ternary_sha256
from bitnet_lut.convert import TARGETS, convert
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats import i2_s, iq2_bn
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.safetensors import SafetensorsFile
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix

FAMILIES = ("bitnet-b1.58", "llama-1.58", "bitnet-1bitllm")
HALF = ("tq1_0", "tq2_0", "f16")  # hold scales in float16
PAIRS = list(itertools.product(TARGETS, TARGETS))
EMBEDDINGS = ("token_embd.weight", "output.weight")


@pytest.fixture(scope="module")
def stored(golden, tmp_path_factory):
    """A golden model in a format, made from its GGUF file: stored(family, type)."""
    folder = tmp_path_factory.mktemp("stored")

    def make(family: str, type: str) -> Path:
        path = folder / f"{family}.{type}"
        if not path.exists():
            convert(golden / family / "model-i2_s.gguf", path, type=type)
        return path

    return make


def read(path, **options):
    """Every tensor: ternary weights and scales, dense and vectors as float32; rows as in HF."""
    found = {}
    with open_checkpoint(path, **options) as checkpoint:
        for name, shape in tensor_shapes(checkpoint.config).items():
            if len(shape) == 1:
                found[name] = checkpoint.vector(name)
            elif not is_linear(name):
                found[name] = checkpoint.stored(name)[:]
        for name, (weights, scale) in linears(checkpoint).items():
            part = name.split(".")[2]
            if checkpoint.config.rope_kind == "norm" and part in ("attn_q", "attn_k"):
                pairs = weights.reshape(-1, checkpoint.config.head_dim // 2, 2, weights.shape[1])
                weights = pairs.swapaxes(1, 2).reshape(weights.shape)
            found[name] = weights, scale
    return found


def assert_same(found, expected, *, changed=()):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if isinstance(tensor, tuple):
            np.testing.assert_array_equal(found[name][0], tensor[0], err_msg=name)
            if name not in changed:
                assert_same_bits(found[name][1], tensor[1], name)
        else:
            assert_same_bits(found[name], tensor, name)


# Formats


@pytest.mark.parametrize("family", ["bitnet-b1.58", "llama-1.58"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_pair_of_formats_keeps_all_or_says_what_not(stored, tmp_path, family, first, second):
    source = stored(family, first)
    done = convert(source, tmp_path / "out", type=second)
    before = read(source)
    changed = {tensor.name for tensor in done.rounded}
    assert_same(read(tmp_path / "out"), before, changed=changed)
    assert done.warnings == done.ternarized == ()
    assert not changed or second in (*HALF, "hf")  # some numbers are not the inverse of any
    assert first not in HALF or second not in HALF or not changed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("type", TARGETS)
def test_scales_are_exact_or_reported(golden, tmp_path, family, type):
    source = golden / family / "model-i2_s.gguf"
    done = convert(source, tmp_path / "out", type=type)
    before, after = read(source), read(tmp_path / "out")
    differing = {
        name: (before[name][1][0], after[name][1][0])
        for name in filter(is_linear, before)
        if before[name][1][0] != after[name][1][0]
    }
    assert {t.name: (t.old, t.new) for t in done.rounded} == {
        name: (str(old), str(new)) for name, (old, new) in differing.items()
    }
    assert all(tensor.what == "scale" for tensor in done.rounded)
    if type in HALF:
        assert all(new == np.float32(np.float16(old)) for old, new in differing.values())
    else:
        assert not differing


def test_files_of_other_programs_come_out_again(golden, tmp_path):
    """The very bytes that bitnet.cpp, llama.cpp and ik_llama.cpp wrote of the same model."""
    for source, target, options in (
        ("bitnet-b1.58/hf-packed", "bitnet-b1.58/model-i2_s.gguf", {}),
        ("llama-1.58/hf-packed", "llama-1.58/model-i2_s.gguf", {}),
        ("llama-1.58/model-tl2-id39.gguf", "llama-1.58/model-i2_s.gguf", {"tiles": TILES}),
        ("ik-bn/model-iq2_bn.gguf", "ik-bn/model-i2_s.gguf", {}),
        ("ik-bn/model-i2_s.gguf", "ik-bn/model-iq2_bn.gguf", {"type": "iq2_bn"}),
        ("llama-1.58/model-i2_s.gguf", "llama-1.58/model-tq1_0.gguf", {"type": "tq1_0"}),
        ("llama-1.58/hf-packed", "llama-1.58/model-tq2_0.gguf", {"type": "tq2_0"}),
    ):
        convert(golden / source, tmp_path / "out", head="f16", **options)
        with GGUFFile(tmp_path / "out") as found, GGUFFile(golden / target) as expected:
            assert found.tensors.keys() == expected.tensors.keys()
            for name, info in expected.tensors.items():
                assert (found.tensors[name].type_id, info.shape) == (info.type_id, info.shape)
                data = [file.data(name, file.tensors[name].span) for file in (found, expected)]
                np.testing.assert_array_equal(data[0], data[1], err_msg=f"{source}: {name}")


def test_packed_folders_are_those_of_transformers(golden, stored):
    for family in ("bitnet-b1.58", "llama-1.58"):
        found = SafetensorsFile(stored(family, "hf") / "model.safetensors")
        expected = SafetensorsFile(golden / family / "hf-packed/model.safetensors")
        assert found.tensors.keys() == expected.tensors.keys()
        for name, info in expected.tensors.items():
            assert found.tensors[name].dtype == ("U8" if info.dtype == "U8" else "F32")
            np.testing.assert_array_equal(found.array(name), expected.array(name), err_msg=name)


@pytest.mark.parametrize("head", ["f16", "q8_0", "q6_k", "q4_0"])
def test_heads_are_quantized_row_by_row(golden, tmp_path, head):
    source = golden / "llama-1.58/model-i2_s.gguf"
    done = convert(source, tmp_path / "out", head=head)
    with open_checkpoint(source) as old, open_checkpoint(tmp_path / "out") as new:
        for name in EMBEDDINGS:
            matrix, before = new.matrix(name), old.stored(name)[:]
            assert isinstance(matrix, DenseMatrix)
            assert matrix.type == head
            error = np.linalg.norm(new.stored(name)[:] - before) / np.linalg.norm(before)
            told = [t.relative_error for t in done.rounded if t.name == name] or [0.0]
            assert told == pytest.approx([error], rel=1e-5)
            assert error < 0.1
    assert {t.what for t in done.rounded} == (set() if head == "f16" else {"weights"})


# The hash


def test_the_hash_does_not_depend_on_the_format(golden, stored):
    for family in FAMILIES:
        hashes = set()
        for type in TARGETS:
            path = stored(family, type)
            with open_checkpoint(path) as checkpoint:
                hashes.add(ternary_sha256(checkpoint))
                written = checkpoint.metadata.get(TERNARY_HASH_KEY)
            if type == "hf":
                written = json.loads((path / "config.json").read_text())[TERNARY_HASH_KEY]
            hashes.add(written)
        with open_checkpoint(golden / family / "model-i2_s.gguf") as checkpoint:
            hashes.add(ternary_sha256(checkpoint))
        assert len(hashes) == 1
        assert len(hashes.pop()) == 64


def test_the_hash_sees_every_weight_and_no_order(golden, tmp_path):
    with open_checkpoint(golden / "ik-bn/model-i2_s.gguf") as checkpoint:
        matrices = {
            name: checkpoint.matrix(name)
            for name in filter(is_linear, tensor_shapes(checkpoint.config))
        }
        config = checkpoint.config

    def of(matrices):
        found = TernaryHash(config)
        for name, matrix in matrices.items():
            found.add(name, matrix)
        return found.hexdigest()

    expected = of(matrices)
    assert of(dict(reversed(matrices.items()))) == expected
    query = matrices[QUERY]
    packed = query.packed.copy()
    packed[-1, -1] ^= 1 if packed[-1, -1] & 3 != 2 else 2
    changed = TernaryMatrix(query.rows, query.cols, packed, query.scale)
    assert of(matrices | {QUERY: changed}) != expected
    rescaled = TernaryMatrix(query.rows, query.cols, query.packed, query.scale * 2)
    assert of(matrices | {QUERY: rescaled}) == expected
    swapped = matrices | {QUERY: matrices["blk.0.attn_output.weight"]}
    assert of(swapped) != expected
    assert of({}) is None


@pytest.mark.parametrize("layout", ["64x16", "1x4", "sequential"])
def test_other_layouts_of_i2_s_become_the_common_one(golden, tmp_path, layout):
    source = golden / "ik-bn/model-i2_s.gguf"
    with open_checkpoint(source) as checkpoint:
        changes = {
            name: (weights.shape, 36, i2_s.pack(weights, scale[0], layout=layout))
            for name, (weights, scale) in linears(checkpoint).items()
        }
    odd = rewritten(source, tmp_path / "in.gguf", changes=changes)
    convert(odd, tmp_path / "out", i2_s_layout=layout)
    assert_same(read(tmp_path / "out"), read(source))


# Scales that are peculiar


def with_query(golden, path, pack, scale, type_id):
    """The ik-bn model with a query matrix of other scales."""
    with open_checkpoint(golden / "ik-bn/model-i2_s.gguf") as checkpoint:
        weights, _ = linears(checkpoint)[QUERY]
    data = pack(weights, scale)
    return rewritten(
        golden / "ik-bn/model-i2_s.gguf", path, changes={QUERY: (weights.shape, type_id, data)}
    )


def test_scales_of_rows(golden, tmp_path):
    scale = np.linspace(0.5, 1.5, 128, dtype=np.float32)
    source = with_query(golden, tmp_path / "in.gguf", iq2_bn.pack, scale, 135)
    done = convert(source, tmp_path / "out", type="iq2_bn")
    assert not done.rounded
    assert_same(read(tmp_path / "out"), read(source))
    for type in ("i2_s", "f16", "hf"):
        with pytest.raises(FormatError, match="each row has a scale of its own"):
            convert(source, tmp_path / "no", type=type)
    assert not list(tmp_path.glob("no*"))


def test_rows_of_scale_0_are_zeros_everywhere(golden, tmp_path):
    source = with_query(golden, tmp_path / "in.gguf", iq2_bn.pack, np.zeros(1, np.float32), 135)
    hashes = set()
    for type in ("iq2_bn", "i2_s", "f16", "hf"):
        done = convert(source, tmp_path / type, type=type)
        assert not done.rounded
        hashes.add(done.ternary_sha256)
        with open_checkpoint(tmp_path / type) as checkpoint:
            assert not linears(checkpoint)[QUERY][0].any()
    assert len(hashes) == 1


def test_scales_beyond_float16_are_refused(golden, tmp_path):
    for scale in (1e-9, 1e6):
        source = rewritten(golden / "llama-1.58/model-i2_s.gguf", tmp_path / "in.gguf")
        data = bytearray(source.read_bytes())
        with GGUFFile(source) as file:
            info = file.tensors[QUERY]
        at = info.offset + info.shape[0] * info.shape[1] // 4
        data[at : at + 4] = np.float32(scale).tobytes()
        source.write_bytes(data)
        for type in ("tq1_0", "tq2_0", "f16"):
            with pytest.raises(FormatError, match=rf"{QUERY}.*scale .* is out of the range"):
                convert(source, tmp_path / "out", type=type)
        assert not convert(source, tmp_path / "out", type="iq2_bn").rounded


def test_separate_scales_are_multiplied_in(golden, tmp_path):
    """As llama.cpp has them beside ternary weights: blk.0.attn_q.scale."""
    factor = np.array([0.5], "<f4")
    name = QUERY.replace("weight", "scale")
    changes = {name: ((1,), 0, factor.view(np.uint8))}
    source = rewritten(
        golden / "bitnet-b1.58/model-i2_s.gguf", tmp_path / "in.gguf", changes=changes
    )
    before = read(golden / "bitnet-b1.58/model-i2_s.gguf")[QUERY][1]
    convert(source, tmp_path / "f16", type="f16")
    for path in (source, tmp_path / "f16"):
        assert read(path)[QUERY][1] == before / 2
    done = convert(source, tmp_path / "out", type="i2_s")
    assert read(tmp_path / "out")[QUERY][1] == before / 2
    assert not done.rounded
    with GGUFFile(tmp_path / "out") as file:
        assert name not in file.tensors


def test_ternarize_of_a_file_is_that_of_an_array(golden):
    with open_checkpoint(golden / "bitnet-b1.58/hf-master-bf16") as checkpoint:
        rows = checkpoint.stored(QUERY)
        found, expected = ternarize(rows), ternarize(rows[:])
    assert found.scale == expected.scale
    np.testing.assert_array_equal(found.packed, expected.packed)
