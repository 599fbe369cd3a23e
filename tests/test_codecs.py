import json
from types import ModuleType

import numpy as np
import pytest
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitnet_lut.errors import FormatError
from bitnet_lut.formats import hf, i2_s, iq1_bn, iq2_bn, ternary, tl1, tl2, tq1_0, tq2_0

LAYOUTS = ["128x32", "64x16", "1x4", "sequential"]
ROW_SCALED: dict[str, ModuleType] = {
    "tq1_0": tq1_0,
    "tq2_0": tq2_0,
    "iq1_bn": iq1_bn,
    "iq2_bn": iq2_bn,
}


def golden_cases() -> list[tuple[str, str]]:
    cases = json.loads((GOLDEN / "codecs_ternary.json").read_text())
    return [(case, name) for case, entry in cases.items() for name in entry["formats"]]


@pytest.fixture(scope="module")
def ternary_cases(golden):
    return json.loads((golden / "codecs_ternary.json").read_text())


@pytest.fixture(scope="module")
def ternary_arrays(golden):
    with np.load(golden / "codecs_ternary.npz") as arrays:
        return dict(arrays)


def stored(weights, scale) -> np.float32:
    """The scale that a packer of weights * scale finds: its largest magnitude."""
    return np.float32(scale if weights.any() else 0)


def packed_as(name, weights, scale, entry):
    """The bytes our packer makes of a golden case."""
    if name.startswith("i2_s"):
        return i2_s.pack(weights, scale, layout=name.removeprefix("i2_s_"))
    if name == "hf_u8":
        return hf.pack(weights)
    if name.startswith("tl1"):
        return tl1.pack(weights, scale, tile=tuple(entry["tl1_BM_BK_bm"]))
    if name.startswith("tl2"):
        return tl2.pack(weights, scale, tile=tuple(entry["tl2_BM_BK_bm"]))
    return ROW_SCALED[name].pack(weights, scale)


def unpacked_as(name, data, weights, entry):
    """Weights and scale that our reader makes of a golden case."""
    rows, cols = weights.shape
    if name.startswith("i2_s"):
        return i2_s.unpack(data, rows, cols, layout=name.removeprefix("i2_s_"))
    if name == "hf_u8":
        return hf.unpack(data, rows), np.ones(1, np.float32)
    if name.startswith("tl1"):
        return tl1.unpack(data, rows, cols, tile=tuple(entry["tl1_BM_BK_bm"]))
    if name.startswith("tl2"):
        return tl2.unpack(data, rows, cols, tile=tuple(entry["tl2_BM_BK_bm"]))
    return ROW_SCALED[name].unpack(data, rows, cols)


def with_scale(name, data, scale, weights):
    """A golden case as a whole tensor: the payloads of TL1 and TL2 lack their scale."""
    if name == "tl1_payload":
        return np.concatenate([data, ternary.scale_bytes(scale)])
    if name == "tl2_payload_padded":
        padding = tl2.nbytes(*weights.shape) - 32 - data.size
        return np.concatenate([data, np.zeros(padding, np.uint8), ternary.scale_bytes(scale)])
    return data


@pytest.mark.parametrize(("case", "name"), golden_cases())
def test_golden_bytes(ternary_cases, ternary_arrays, case, name):
    entry = ternary_cases[case]
    weights = ternary_arrays[f"{case}__W"]
    scale = stored(weights, ternary_arrays[f"{case}__scale"])
    data = ternary_arrays[f"{case}__{name}"]
    if name.endswith("_dequant"):
        codec = name.removesuffix("_dequant")
        values, found = unpacked_as(codec, ternary_arrays[f"{case}__{codec}"], weights, entry)
        np.testing.assert_array_equal(values * found, data)
        return
    if name == "i2_s_128x32_degenerate":  # its last, incomplete block says -1 for zeros
        with pytest.raises(FormatError, match="whole groups of 128"):
            i2_s.unpack(data, *weights.shape)
        return

    ours = packed_as(name, weights, scale, entry)
    if name.endswith("_bn"):  # codes of a row of zeros are arbitrary
        used = weights.any(axis=1)
        data_rows, our_rows = data.reshape(len(weights), -1), ours.reshape(len(weights), -1)
        np.testing.assert_array_equal(our_rows[used], data_rows[used])
    else:
        whole = with_scale(name, data, scale, weights)
        np.testing.assert_array_equal(ours[: whole.size - 28], whole[: whole.size - 28])
        assert ours.size == whole.size

    values, found = unpacked_as(name, with_scale(name, data, scale, weights), weights, entry)
    np.testing.assert_array_equal(values, weights)
    if name != "hf_u8":
        rounded = np.float16(scale) if name in ("tq1_0", "tq2_0", "iq1_bn") else scale
        np.testing.assert_array_equal(found, np.float32([rounded]))


# Examples worked by hand from the definition of each format


def row(cols, ones=(), minus_ones=()):
    weights = np.zeros((1, cols), np.int8)
    weights[0, list(ones)] = 1
    weights[0, list(minus_ones)] = -1
    return weights


def where_not(data, filler):
    return {int(i): int(data[i]) for i in np.flatnonzero(data != filler)}


def test_i2_s_example():
    weights = row(256, ones=(0, 16, 33, 64, 127), minus_ones=(1, 32, 96))
    data = i2_s.pack(weights, 0.5)
    assert where_not(data[:64], 0x55) == {0: 0x88, 1: 0x25, 16: 0x95, 31: 0x56}
    assert data[64:68].view("<f4")[0] == 0.5
    assert data.size == i2_s.nbytes(1, 256) == 96


def test_i2_s_groups_straddle_rows():
    weights = np.zeros((2, 192), np.int8)
    weights[1, 0] = 1
    assert where_not(i2_s.pack(weights, 1)[:96], 0x55) == {32: 0x59}


@pytest.mark.parametrize(("layout", "first"), [("64x16", [0xA1, 0x19]), ("sequential", [0x85])])
def test_i2_s_other_layouts_of_the_example(layout, first):
    weights = row(256, ones=(0, 16, 33, 64, 127), minus_ones=(1, 32, 96))
    assert i2_s.pack(weights, 1, layout=layout)[: len(first)].tolist() == first


def test_hf_example():
    weights = np.int8([[1, -1, 0, 1, 1, 0, -1, 0]]).T
    assert hf.pack(weights).tolist() == [[0x26], [0x58]]


@pytest.mark.parametrize(
    ("part", "expected"), [(64, {0: 0x65, 16: 0x08, 64: 0x88}), (32, {0: 0x65, 16: 0x88, 32: 0x08})]
)
def test_tl1_example(part, expected):
    weights = np.zeros((64, 64), np.int8)
    weights[0, :8] = (1, -1, 0, 1, 1, 1, 1, 1)
    weights[16, :4] = (-1, -1, 1, 1)
    assert where_not(tl1.pack(weights, 1, tile=(64, 64, part))[:1024], 0x44) == expected


def test_tl2_example():
    weights = np.zeros((32, 96), np.int8)
    weights[0, :6] = (1, -1, 0, -1, 0, 1)
    weights[8, :3] = 1
    weights[16, :3] = -1
    data = tl2.pack(weights, 1, tile=(32, 96, 32))
    expected = {0: 0x68, 8: 0xD0, 16: 0xD0, 513: 0x60}
    assert where_not(data[: tl2.nbytes(32, 96) - 32], 0) == expected


def test_tl2_scale_lies_behind_the_padding():
    assert tl2.nbytes(3200, 3200) == 2167520
    data = tl2.pack(np.zeros((160, 512), np.int8), 0.5, tile=(160, 96, 32))
    assert data.size == 18784 + 32
    assert data[18784:18788].view("<f4")[0] == 0.5


def test_tq_examples():
    weights = np.zeros((1, 256), np.int8)
    assert set(tq2_0.pack(weights, 1)[:64]) == {0x55}
    zeros = tq1_0.pack(weights, 1)
    assert (set(zeros[:48]), set(zeros[48:52]), set(zeros[52:])) == ({128}, {127}, {0})
    weights[0, [0, 32, 64, 96, 128]] = (1, 0, -1, 1, 0)  # trits 2, 1, 0, 2, 1: 196 of 243
    assert tq1_0.pack(weights, 1)[0] == 207


def test_tl_shapes_of_published_models_divide_into_their_tiles():
    for codec, known in (
        (tl1, [tl1.KNOWN_TILES, tl1.PRETUNED_LLAMA3_8B]),
        (tl2, [tl2.KNOWN_TILES]),
    ):
        for tiles in known:
            for (rows, cols), tile in tiles.items():
                weights = np.zeros((rows, cols), np.int8)
                assert codec.pack(weights, 1, tile=tile).size == codec.nbytes(rows, cols)


# Round trips

any_scale = st.floats(2**-10, 2**10, width=32)


def any_ternary(row_multiple=1, col_multiple=1, most=4):
    shapes = st.tuples(st.integers(1, most), st.integers(1, most)).map(
        lambda counts: (counts[0] * row_multiple, counts[1] * col_multiple)
    )
    return shapes.flatmap(lambda shape: arrays.arrays(np.int8, shape, elements=st.integers(-1, 1)))


def dense_seed(shape, seed):
    return np.random.default_rng(seed).integers(-1, 2, shape, dtype=np.int8)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(weights=any_ternary(4, 32), scale=any_scale)
def test_i2_s_round_trip(layout, weights, scale):
    rows, cols = weights.shape
    data = i2_s.pack(weights, scale, layout=layout)
    values, found = i2_s.unpack(data, rows, cols, layout=layout)
    np.testing.assert_array_equal(values, weights)
    assert found == np.float32(scale)
    packed, found = i2_s.read_rows(data, rows, cols, layout=layout)
    np.testing.assert_array_equal(packed, i2_s.pack_rows(weights))
    assert found == np.float32(scale)


@given(weights=any_ternary(1, 1, most=300))
def test_rows_round_trip_at_any_shape(weights):
    packed = i2_s.pack_rows(weights)
    rows, cols = weights.shape
    assert packed.shape == (rows, -(-cols // 128) * 32)
    np.testing.assert_array_equal(i2_s.unpack_rows(packed, cols), weights)
    padded = i2_s.unpack_rows(packed, packed.shape[1] * 4)
    assert not padded[:, cols:].any()


@given(weights=any_ternary(1, 1, most=20))
def test_hf_round_trip(weights):
    np.testing.assert_array_equal(hf.unpack(hf.pack(weights), len(weights)), weights)


@pytest.mark.parametrize("name", ROW_SCALED)
@given(weights=any_ternary(1, 256), scale=any_scale, per_row=st.booleans())
def test_row_scaled_round_trip(name, weights, scale, per_row):
    codec = ROW_SCALED[name]
    rows, cols = weights.shape
    scales = np.float32(scale) * (1 + np.arange(rows if per_row else 1, dtype=np.float32))
    values, found = codec.unpack(codec.pack(weights, scales), rows, cols)
    np.testing.assert_array_equal(values, weights)
    exact = scales if name == "iq2_bn" else scales.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(values * found.reshape(-1, 1), weights * exact.reshape(-1, 1))


@given(
    tile_rows=st.integers(1, 3),
    parts=st.integers(1, 3),
    blocks=st.integers(1, 3),
    steps=st.integers(1, 3),
    part=st.sampled_from([32, 64]),
    seed=st.integers(0, 2**32),
)
def test_tl1_round_trip(tile_rows, parts, blocks, steps, part, seed):
    tile = (part * parts, 256 // part * steps, part)
    weights = dense_seed((tile[0] * tile_rows, tile[1] * blocks), seed)
    data = tl1.pack(weights, 0.25, tile=tile)
    values, scale = tl1.unpack(data, *weights.shape, tile=tile)
    np.testing.assert_array_equal(values, weights)
    assert scale == 0.25


@given(
    tile_rows=st.integers(1, 2),
    parts=st.integers(1, 3),
    blocks=st.integers(0, 3),
    pairs=st.integers(0, 2),
    block=st.sampled_from([96, 192]),
    seed=st.integers(0, 2**32),
)
def test_tl2_round_trip(tile_rows, parts, blocks, pairs, block, seed):
    tile = (32 * parts, block, 32)
    cols = max(block * blocks + 32 * pairs, 32)
    weights = dense_seed((tile[0] * tile_rows, cols), seed)
    data = tl2.pack(weights, 0.25, tile=tile)
    values, scale = tl2.unpack(data, *weights.shape, tile=tile)
    np.testing.assert_array_equal(values, weights)
    assert scale == 0.25


# Refusals


@pytest.mark.parametrize("codec", [i2_s, tq1_0, tq2_0, iq1_bn, iq2_bn])
def test_wrong_size_is_refused(codec):
    data = codec.pack(np.zeros((2, 256), np.int8), 1)
    for wrong in (data[:-1], data[:0], np.append(data, np.uint8(0))):
        with pytest.raises(FormatError, match=f"takes {data.size} bytes, not {wrong.size}"):
            codec.unpack(wrong, 2, 256)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_bad_scales_are_refused(value):
    weights = np.ones((64, 64), np.int8)
    data = i2_s.pack(weights, 1)
    data[1024:1028] = np.array([value], "<f4").view(np.uint8)
    for read in (i2_s.unpack, i2_s.read_rows):
        with pytest.raises(FormatError, match=f"weight scale {value}"):
            read(data, 64, 64)
    with pytest.raises(FormatError, match="weight scale"):
        i2_s.pack(weights, value)
    data = tq2_0.pack(np.ones((1, 256), np.int8), 1)
    data[64:66] = np.array([value], "<f2").view(np.uint8)
    with pytest.raises(FormatError, match=f"weight scale {value}"):
        tq2_0.unpack(data, 1, 256)


@pytest.mark.parametrize(("codec", "filler"), [(i2_s, 0xFF), (tq2_0, 0xFF), (iq2_bn, 0xFF)])
def test_code_3_is_refused(codec, filler):
    data = codec.pack(np.ones((1, 256), np.int8), 1)
    data[20] = filler
    with pytest.raises(FormatError, match="code 3"):
        codec.unpack(data, 1, 256)


def test_code_3_is_found_in_place():
    data = i2_s.pack(dense_seed((4, 256), 0), 1)
    packed, _ = i2_s.read_rows(data, 4, 256)
    assert np.shares_memory(packed, data)
    assert not i2_s.has_code_3(packed)
    packed[2, 3] = 0b01_11_00_10
    assert i2_s.has_code_3(packed)


def test_shapes_that_do_not_fill_groups_are_refused():
    for layout, shape in (("128x32", (3, 32)), ("64x16", (1, 32)), ("1x4", (3, 32))):
        with pytest.raises(FormatError, match=r"3|32"):
            i2_s.pack(np.zeros(shape, np.int8), 1, layout=layout)
    for codec, cols in ((tq1_0, 128), (tq2_0, 128), (iq1_bn, 32), (iq2_bn, 96)):
        with pytest.raises(FormatError, match=f"not {cols}"):
            codec.pack(np.zeros((1, cols), np.int8), 1)


def test_scales_of_real_valued_weights_are_refused():
    data = tq1_0.pack(np.ones((1, 512), np.int8), 1)
    data[52:54] = np.array([2], "<f2").view(np.uint8)
    with pytest.raises(FormatError, match=r"differ within row 0.*real-valued"):
        tq1_0.unpack(data, 1, 512)


def test_scales_out_of_range_are_refused():
    for scale in (1e6, 1e-9):
        with pytest.raises(ValueError, match="out of the range of float16"):
            tq2_0.pack(np.ones((1, 256), np.int8), scale)


def test_weights_that_are_not_ternary_are_refused():
    for weights in (np.full((1, 256), 2, np.int8), np.full((1, 256), -2, np.int8)):
        with pytest.raises(ValueError, match="must be -1, 0 or"):
            i2_s.pack(weights, 1)
    with pytest.raises(ValueError, match="int8, not float64"):
        hf.pack(np.zeros((1, 256)))


def test_unknown_tiles_are_asked_for():
    with pytest.raises(FormatError, match=r"tiles=\{\(32, 96\): \(BM, BK, bm\)\}"):
        tl2.unpack(np.zeros(tl2.nbytes(32, 96), np.uint8), 32, 96)


def test_wrong_tiles_of_tl2_are_noticed():
    data = tl2.pack(dense_seed((256, 288), 0), 1, tile=(128, 96, 32))
    with pytest.raises(FormatError, match=r"did not use tiles .* \(128, 192, 32\)"):
        tl2.unpack(data, 256, 288, tile=(128, 192, 32))
    with pytest.raises(FormatError, match="do not divide into tiles"):
        tl2.unpack(data, 256, 288, tile=(96, 96, 32))


def test_invalid_nibbles_of_tl1_are_noticed():
    data = tl1.pack(np.zeros((64, 64), np.int8), 1, tile=(64, 64, 64))
    data[5] = 0x94
    with pytest.raises(FormatError, match="damaged"):
        tl1.unpack(data, 64, 64, tile=(64, 64, 64))
