"""Packed weights of Hugging Face checkpoints (transformers' BitNet integration), without scale.

uint8 (P, cols) with P = ceil(rows / 4): byte [p, k] holds the codes of rows p, P+p, 2P+p, 3P+p of
column k in bits 1:0, 3:2, 5:4, 7:6. Rows past the last have code 0.
"""

import numpy as np

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.ternary import (
    LSB_FIRST,
    Bytes,
    Weights,
    from_codes,
    pack_codes,
    to_codes,
    unpack_codes,
)


def pack(ternary: Weights) -> Bytes:
    """Pack int8 (rows, cols) to uint8 (ceil(rows / 4), cols)."""
    rows, cols = ternary.shape
    codes = np.zeros((-(-rows // 4) * 4, cols), np.uint8)
    codes[:rows] = to_codes(ternary)
    return pack_codes(codes.reshape(1, 4, -1), LSB_FIRST).reshape(-1, cols)


def unpack(packed: Bytes, rows: int) -> Weights:
    """Unpack uint8 (ceil(rows / 4), cols) to int8 (rows, cols).

    Raises FormatError at a wrong number of rows or a code 3.
    """
    if packed.ndim != 2 or packed.shape[0] != -(-rows // 4):
        raise FormatError(
            f"{rows} packed rows have the shape ({-(-rows // 4)}, cols), not {packed.shape}"
        )
    codes = unpack_codes(packed.reshape(1, -1), LSB_FIRST)
    return from_codes(codes.reshape(-1, packed.shape[1])[:rows])
