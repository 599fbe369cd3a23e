"""TQ2_0: two bits a weight and a float16 scale per 256 weights of a row (llama.cpp, ggml type 35).

A block is 64 bytes of codes and the scale. Byte p of 32 holds weights p, p+32, p+64, p+96 of 128 in
bits 1:0, 3:2, 5:4, 7:6.
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

_BLOCK = 256
_BLOCK_BYTES = 66


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor; FormatError unless rows hold whole blocks."""
    need_multiple(cols, _BLOCK, "columns of TQ2_0")
    return rows * cols // _BLOCK * _BLOCK_BYTES


def pack(ternary: Weights, scale: float | Scale) -> Bytes:
    """Pack int8 (rows, cols) and a scale (1,) or (rows,) to the uint8 (nbytes,) of a file."""
    rows, cols = ternary.shape
    blocks = np.empty((nbytes(rows, cols) // _BLOCK_BYTES, _BLOCK_BYTES), np.uint8)
    blocks[:, :64] = pack_codes(to_codes(ternary).reshape(-1, 4, 32), LSB_FIRST).reshape(-1, 64)
    blocks[:, 64:] = block_scales(ternary, scale, _BLOCK, "<f2")
    return blocks.reshape(-1)


def unpack(data: Bytes, rows: int, cols: int) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,) or (rows,).

    Raises FormatError at a wrong size, a code 3, a bad scale, or scales that differ within a row.
    """
    need_bytes(data, nbytes(rows, cols), f"TQ2_0 of {rows}x{cols}")
    blocks = data.reshape(-1, _BLOCK_BYTES)
    packed = np.ascontiguousarray(blocks[:, :64]).reshape(-1, 32)
    ternary = from_codes(unpack_codes(packed, LSB_FIRST)).reshape(rows, cols)
    return merge_scales(ternary, blocks[:, 64:].view("<f2").reshape(rows, -1))
