"""IQ1_BN: five weights a byte and a float16 scale before each row (ik_llama.cpp, type 134).

64 weights take 13 bytes. The first 15 of each 16 go by fives into three of the first 12 bytes, and
the last into the 13th byte, which holds four trits. Bytes are as in ``ternary.pack_trits``, but the
first weight is the least significant of five trits.
"""

import numpy as np

from bitnet_lut.formats.ternary import (
    Bytes,
    Scale,
    Ternary,
    Weights,
    block_scales,
    from_codes,
    merge_scales,
    need_bytes,
    need_multiple,
    pack_trits,
    to_codes,
    unpack_trit,
)

_BLOCK = 64
_BLOCK_BYTES = 13


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor; FormatError unless rows hold whole blocks."""
    need_multiple(cols, _BLOCK, "columns of IQ1_BN")
    return rows * (2 + cols // _BLOCK * _BLOCK_BYTES)


def pack(ternary: Weights, scale: float | Scale) -> Bytes:
    """Pack int8 (rows, cols) and a scale (1,) or (rows,) to the uint8 (nbytes,) of a file."""
    rows, cols = ternary.shape
    packed = np.empty((rows, nbytes(1, cols)), np.uint8)
    codes = to_codes(ternary).reshape(-1, 4, 16)
    blocks = np.empty((len(codes), _BLOCK_BYTES), np.uint8)
    fifth = np.zeros(len(codes), np.uint8)
    fives = codes[:, :, :15].reshape(-1, 12, 5)
    blocks[:, :12] = pack_trits([fives[:, :, i] for i in (4, 3, 2, 1, 0)])
    blocks[:, 12] = pack_trits([fifth, *(codes[:, group, 15] for group in (3, 2, 1, 0))])
    packed[:, :2] = block_scales(ternary, scale, cols, "<f2")
    packed[:, 2:] = blocks.reshape(rows, -1)
    return packed.reshape(-1)


def unpack(data: Bytes, rows: int, cols: int) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,) or (rows,).

    Raises FormatError at a wrong size or a bad scale.
    """
    need_bytes(data, nbytes(rows, cols), f"IQ1_BN of {rows}x{cols}")
    packed = data.reshape(rows, -1)
    blocks = np.ascontiguousarray(packed[:, 2:]).reshape(-1, _BLOCK_BYTES)
    codes = np.empty((len(blocks), 4, 16), np.uint8)
    fives = blocks[:, :12].reshape(-1, 4, 3)
    for i in range(5):
        codes[:, :, i:15:5] = unpack_trit(fives, 4 - i)
    for group in range(4):
        codes[:, group, 15] = unpack_trit(blocks[:, 12], 4 - group)
    return merge_scales(from_codes(codes).reshape(rows, cols), packed[:, :2].view("<f2"))
