"""The tensor types of ggml: their ids and sizes, and conversion from and to float32.

The conversions do ggml's own float32 operations in ggml's order, so that they agree bit for bit.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError
from bitnet_lut.formats import kquants


class GGMLType(NamedTuple):
    """A tensor type: its name and the bytes that hold a block of consecutive weights of a row.

    block_elements and block_bytes are None if the size of a tensor is not a multiple of a block, as
    with a scale at the end or before each row: see the codec of that name.
    """

    name: str
    block_elements: int | None
    block_bytes: int | None


GGML_TYPES = {
    0: GGMLType("f32", 1, 4),
    1: GGMLType("f16", 1, 2),
    2: GGMLType("q4_0", 32, 18),
    3: GGMLType("q4_1", 32, 20),
    6: GGMLType("q5_0", 32, 22),
    7: GGMLType("q5_1", 32, 24),
    8: GGMLType("q8_0", 32, 34),
    9: GGMLType("q8_1", 32, 36),
    10: GGMLType("q2_k", 256, 84),
    11: GGMLType("q3_k", 256, 110),
    12: GGMLType("q4_k", 256, 144),
    13: GGMLType("q5_k", 256, 176),
    14: GGMLType("q6_k", 256, 210),
    15: GGMLType("q8_k", 256, 292),
    16: GGMLType("iq2_xxs", 256, 66),
    17: GGMLType("iq2_xs", 256, 74),
    18: GGMLType("iq3_xxs", 256, 98),
    19: GGMLType("iq1_s", 256, 50),
    20: GGMLType("iq4_nl", 32, 18),
    21: GGMLType("iq3_s", 256, 110),
    22: GGMLType("iq2_s", 256, 82),
    23: GGMLType("iq4_xs", 256, 136),
    24: GGMLType("i8", 1, 1),
    25: GGMLType("i16", 1, 2),
    26: GGMLType("i32", 1, 4),
    27: GGMLType("i64", 1, 8),
    28: GGMLType("f64", 1, 8),
    29: GGMLType("iq1_m", 256, 56),
    30: GGMLType("bf16", 1, 2),
    34: GGMLType("tq1_0", 256, 54),
    35: GGMLType("tq2_0", 256, 66),
    36: GGMLType("i2_s", None, None),
    38: GGMLType("tl1", None, None),
    39: GGMLType("mxfp4", 32, 17),  # bitnet.cpp wrote TL2 under this id until 2026
    40: GGMLType("nvfp4", 64, 36),
    41: GGMLType("q1_0", 128, 18),
    42: GGMLType("tl2", None, None),
    134: GGMLType("iq1_bn", None, None),
    135: GGMLType("iq2_bn", None, None),
    1505: GGMLType("tl5", None, None),  # this package's own, from here on
    1506: GGMLType("q6_k_r32", None, None),
    1507: GGMLType("q8_0_r32", None, None),
    1508: GGMLType("q4_0_r32", None, None),
}

_BY_NAME = {entry.name: entry for entry in GGML_TYPES.values()}

_Blocks = NDArray[np.uint8]
_Floats = NDArray[np.float32]


def row_bytes(type: str, cols: int) -> int:
    """Bytes of a row of cols weights; FormatError where cols does not fill whole blocks."""
    entry = _BY_NAME[type]
    if entry.block_elements is None or entry.block_bytes is None:
        raise ValueError(f"a row of type {type} alone has no size")
    if cols % entry.block_elements:
        raise FormatError(
            f"{type} holds blocks of {entry.block_elements} weights, a row has {cols}"
        )
    return cols // entry.block_elements * entry.block_bytes


def dequantize(type: str, data: _Blocks, cols: int) -> _Floats:
    """Convert uint8 (rows, row_bytes) to float32 (rows, cols)."""
    if type not in _DEQUANTIZE:
        raise FormatError(f"tensor type {type} is not supported")
    rows = data.shape[0]
    if data.shape != (rows, row_bytes(type, cols)):
        raise FormatError(f"{type} rows of {cols} weights do not have {data.shape[1]} bytes")
    blocks = np.ascontiguousarray(data).reshape(-1, _BY_NAME[type].block_bytes or 1)
    with np.errstate(invalid="ignore", over="ignore"):  # scales in damaged files
        return _DEQUANTIZE[type](blocks).reshape(rows, cols)


def codes(type: str, data: _Blocks, cols: int) -> tuple[NDArray[np.int8], _Floats]:
    """Split q8_0, q4_0 or q6_k weights into codes and scales.

    Returns codes int8 (rows, cols / 16, 16), and the scale of every 16, float32 (rows, cols / 16).
    """
    blocks = np.ascontiguousarray(data).reshape(-1, _BY_NAME[type].block_bytes or 1)
    if type == "q6_k":
        quants, scale = kquants.codes_q6_k(blocks)
    else:
        quants = _codes_q8_0(blocks) if type == "q8_0" else _codes_q4_0(blocks)
        scale = np.repeat(_f16(blocks, 0), 2, axis=1)
    rows = data.shape[0]
    return quants.reshape(rows, cols // 16, 16), scale.reshape(rows, cols // 16)


def quantize(type: str, weights: _Floats) -> _Blocks:
    """Convert float32 (rows, cols) to uint8 (rows, row_bytes): f32, f16, bf16, q8_0, q4_0, q6_k."""
    if type not in _QUANTIZE:
        raise ValueError(f"cannot quantize to {type}: choose one of {', '.join(_QUANTIZE)}")
    rows, cols = weights.shape
    size = row_bytes(type, cols)
    values = np.ascontiguousarray(weights, np.float32)
    blocks = values.reshape(-1, _BY_NAME[type].block_elements or 1)
    return _QUANTIZE[type](blocks).reshape(rows, size)


def bf16_to_f32(data: NDArray[np.uint16]) -> _Floats:
    """Widen bfloat16, held as uint16 of any shape, to float32."""
    return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _f16(blocks: _Blocks, offset: int) -> _Floats:
    """The float16 at a byte offset of each block, as float32 (blocks, 1)."""
    return blocks[:, offset : offset + 2].view("<f2").astype(np.float32)


def _nibbles(packed: _Blocks) -> _Blocks:
    """The low nibbles of each row, then its high ones."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def _fifth_bits(blocks: _Blocks, offset: int) -> _Blocks:
    """The 32 bits at a byte offset of each block, as 0 or 16."""
    bits = np.unpackbits(blocks[:, offset : offset + 4], axis=1, bitorder="little")
    return bits << np.uint8(4)


def _from_f32(blocks: _Blocks) -> _Floats:
    return blocks.view("<f4").astype(np.float32)


def _from_f16(blocks: _Blocks) -> _Floats:
    return blocks.view("<f2").astype(np.float32)


def _from_bf16(blocks: _Blocks) -> _Floats:
    return bf16_to_f32(blocks.view("<u2"))


def _codes_q4_0(blocks: _Blocks) -> NDArray[np.int8]:
    return _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)


def _from_q4_0(blocks: _Blocks) -> _Floats:
    return _codes_q4_0(blocks) * _f16(blocks, 0)


def _from_q4_1(blocks: _Blocks) -> _Floats:
    return _nibbles(blocks[:, 4:]) * _f16(blocks, 0) + _f16(blocks, 2)


def _from_q5_0(blocks: _Blocks) -> _Floats:
    quants = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return (quants.view(np.int8) - np.int8(16)) * _f16(blocks, 0)


def _from_q5_1(blocks: _Blocks) -> _Floats:
    quants = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return quants * _f16(blocks, 0) + _f16(blocks, 2)


def _codes_q8_0(blocks: _Blocks) -> NDArray[np.int8]:
    return blocks[:, 2:].view(np.int8)


def _from_q8_0(blocks: _Blocks) -> _Floats:
    return _codes_q8_0(blocks) * _f16(blocks, 0)


def _to_f32(values: _Floats) -> _Blocks:
    return values.astype("<f4").view(np.uint8)


def _to_f16(values: _Floats) -> _Blocks:
    with np.errstate(over="ignore"):
        return values.astype("<f2").view(np.uint8)


def _to_bf16(values: _Floats) -> _Blocks:
    """Round to nearest even; a NaN stays one by setting its top mantissa bit."""
    bits = values.view(np.uint32)
    top = bits >> np.uint32(16)
    rounded = (bits + np.uint32(0x7FFF) + (top & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), top | np.uint32(64), rounded).astype("<u2").view(np.uint8)


def _inverse(scale: _Floats) -> _Floats:
    """1/scale, and 0 where scale is 0 or so small that its inverse overflows."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _to_q4_0(values: _Floats) -> _Blocks:
    """Scale so that the largest weight by magnitude becomes -8."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / np.float32(-8)
    quants = np.minimum(values * _inverse(scale) + np.float32(8.5), 15).astype(np.uint8)
    return np.hstack([_to_f16(scale), quants[:, :16] | quants[:, 16:] << np.uint8(4)])


def _to_q8_0(values: _Floats) -> _Blocks:
    """Scale so that the largest magnitude becomes 127; halves round away from zero."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * _inverse(scale)
    whole = np.trunc(scaled)
    whole += np.trunc(np.float32(2) * (scaled - whole))
    return np.hstack([_to_f16(scale), whole.astype(np.int8).view(np.uint8)])


_DEQUANTIZE: dict[str, Callable[[_Blocks], _Floats]] = {
    "f32": _from_f32,
    "f16": _from_f16,
    "bf16": _from_bf16,
    "q4_0": _from_q4_0,
    "q4_1": _from_q4_1,
    "q5_0": _from_q5_0,
    "q5_1": _from_q5_1,
    "q8_0": _from_q8_0,
    "q2_k": kquants.from_q2_k,
    "q3_k": kquants.from_q3_k,
    "q4_k": kquants.from_q4_k,
    "q5_k": kquants.from_q5_k,
    "q6_k": kquants.from_q6_k,
}

_QUANTIZE: dict[str, Callable[[_Floats], _Blocks]] = {
    "f32": _to_f32,
    "f16": _to_f16,
    "bf16": _to_bf16,
    "q4_0": _to_q4_0,
    "q8_0": _to_q8_0,
    "q6_k": kquants.to_q6_k,
}
