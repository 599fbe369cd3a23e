"""IQ2_BN: two bits a weight and a float32 scale before each row (ik_llama.cpp, type 135).

Byte p of 16 holds weights p, p+16, p+32, p+48 of 64 in bits 1:0, 3:2, 5:4, 7:6.
"""

import numpy as np

from bitnet_lut.formats.ternary import (
    LSB_FIRST,
    Bytes,
    Scale,
    Ternary,
    Weights,
    block_scales,
    from_codes,
    merge_scales,
    need_bytes,
    need_multiple,
    pack_codes,
    to_codes,
    unpack_codes,
)

_BLOCK = 64


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor; FormatError unless rows hold whole blocks."""
    need_multiple(cols, _BLOCK, "columns of IQ2_BN")
    return rows * (4 + cols // 4)


def pack(ternary: Weights, scale: float | Scale) -> Bytes:
    """Pack int8 (rows, cols) and a scale (1,) or (rows,) to the uint8 (nbytes,) of a file."""
    rows, cols = ternary.shape
    packed = np.empty((rows, nbytes(1, cols)), np.uint8)
    packed[:, :4] = block_scales(ternary, scale, cols, "<f4")
    packed[:, 4:] = pack_codes(to_codes(ternary).reshape(-1, 4, 16), LSB_FIRST).reshape(rows, -1)
    return packed.reshape(-1)


def unpack(data: Bytes, rows: int, cols: int) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,) or (rows,).

    Raises FormatError at a wrong size, a code 3 or a bad scale.
    """
    need_bytes(data, nbytes(rows, cols), f"IQ2_BN of {rows}x{cols}")
    packed = data.reshape(rows, -1)
    groups = np.ascontiguousarray(packed[:, 4:]).reshape(-1, 16)
    ternary = from_codes(unpack_codes(groups, LSB_FIRST)).reshape(rows, cols)
    return merge_scales(ternary, packed[:, :4].view("<f4"))
