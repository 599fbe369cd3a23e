import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml
from bitnet_lut.formats.ggml import GGML_TYPES

FLOAT_TYPES = ["f32", "f16", "bf16"]
BLOCK_TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"]
WRITTEN_TYPES = ["f32", "f16", "bf16", "q4_0", "q8_0", "q6_k"]


@pytest.fixture(scope="module")
def reference(golden):
    with np.load(golden / "codecs_ggml.npz") as arrays:
        return dict(arrays)


# The package overflows on scales whose inverse is infinite.
moderate = st.floats(-60000, 60000, width=32).map(lambda value: value if abs(value) > 1e-30 else 0)


def same_bits(left, right):
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))


@pytest.mark.parametrize("type", FLOAT_TYPES + BLOCK_TYPES)
def test_golden_values(reference, type):
    packed, expected = reference[f"{type}__packed"], reference[f"{type}__dequant"]
    rows, cols = expected.shape
    same_bits(ggml.dequantize(type, packed.reshape(rows, -1), cols), expected)


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_golden_values_of_random_bytes(reference, type):
    packed, expected = reference[f"{type}__random_packed"], reference[f"{type}__random_dequant"]
    same_bits(ggml.dequantize(type, packed[None], expected.size), expected[None])


@pytest.mark.parametrize("type", WRITTEN_TYPES)
def test_golden_bytes(reference, type):
    packed = ggml.quantize(type, reference[f"{type}__input"])
    np.testing.assert_array_equal(packed.reshape(-1), reference[f"{type}__packed"])


@pytest.mark.parametrize("type", ["f16", "bf16", "q4_0", "q8_0"])
@given(values=arrays.arrays(np.float32, (2, 64), elements=moderate))
def test_bytes_equal_those_of_the_gguf_package(type, values):
    expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType[type.upper()])
    np.testing.assert_array_equal(ggml.quantize(type, values), expected.view(np.uint8))


def test_float_rounding_at_the_edges():
    values = np.float32([[np.inf, -np.inf, np.nan, 1e38, -0.0, 1e-45, 3.4028235e38, 65520]])
    bf16 = ggml.dequantize("bf16", ggml.quantize("bf16", values), 8)
    expected = [np.inf, -np.inf, np.nan, 9.9692e37, -0.0, 0, np.inf, 65536]
    np.testing.assert_allclose(bf16[0], expected, rtol=1e-3)
    f16 = ggml.dequantize("f16", ggml.quantize("f16", values), 8)
    np.testing.assert_array_equal(f16[0], [np.inf, -np.inf, np.nan, np.inf, -0.0, 0, *[np.inf] * 2])


@pytest.mark.parametrize("type", BLOCK_TYPES)
@given(data=st.data())
def test_any_bytes_are_dequantized(type, data):
    size = ggml.row_bytes(type, 256)
    packed = data.draw(arrays.arrays(np.uint8, (2, size)))
    assert ggml.dequantize(type, packed, 256).shape == (2, 256)


def test_sizes_equal_those_of_the_gguf_package():
    for type_id, entry in GGML_TYPES.items():
        if type_id in [member.value for member in gguf.GGMLQuantizationType]:
            member = gguf.GGMLQuantizationType(type_id)
            assert member.name.lower() == entry.name
            if entry.name != "q8_1":  # never in a file; the package gives it an old size
                assert gguf.GGML_QUANT_SIZES[member] == (entry.block_elements, entry.block_bytes)
        else:
            assert entry.block_elements is None or entry.name == "q1_0"


def test_q6_k_of_zeros_and_tiny_values():
    values = np.zeros((3, 256), np.float32)
    values[1] = 1e-20
    values[2, 0] = 1
    restored = ggml.dequantize("q6_k", ggml.quantize("q6_k", values), 256)
    np.testing.assert_allclose(restored, np.where(values < 1e-15, 0, values), rtol=1e-2)


def test_wrong_sizes_and_types_are_refused():
    with pytest.raises(FormatError, match=r"blocks of 32 weights, .*33"):
        ggml.row_bytes("q8_0", 33)
    with pytest.raises(FormatError, match="do not have 33 bytes"):
        ggml.dequantize("q8_0", np.zeros((1, 33), np.uint8), 32)
    with pytest.raises(FormatError, match="iq2_xs is not supported"):
        ggml.dequantize("iq2_xs", np.zeros((1, 74), np.uint8), 256)
    with pytest.raises(ValueError, match="cannot quantize to q4_1"):
        ggml.quantize("q4_1", np.zeros((1, 32), np.float32))
    with pytest.raises(ValueError, match="i2_s alone has no size"):
        ggml.row_bytes("i2_s", 128)
