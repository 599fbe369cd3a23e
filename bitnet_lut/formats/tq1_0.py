"""TQ1_0: five weights a byte and a float16 scale per 256 weights of a row (llama.cpp, type 34).

A block is 48 + 4 bytes of trits and the scale. Byte p of the first 32 holds weights p, p+32 ...
p+128, byte p of the next 16 weights 160 + p, +16 ... +64, byte p of the last 4 weights 240 + p, +4,
+8, +12; the first weight is the most significant trit (see ``ternary.pack_trits``).
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

_BLOCK = 256
_BLOCK_BYTES = 54

# Trits a byte, first weight, first byte, bytes.
_SECTIONS = ((5, 0, 0, 32), (5, 160, 32, 16), (4, 240, 48, 4))


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor; FormatError unless rows hold whole blocks."""
    need_multiple(cols, _BLOCK, "columns of TQ1_0")
    return rows * cols // _BLOCK * _BLOCK_BYTES


def pack(ternary: Weights, scale: float | Scale) -> Bytes:
    """Pack int8 (rows, cols) and a scale (1,) or (rows,) to the uint8 (nbytes,) of a file."""
    rows, cols = ternary.shape
    blocks = np.empty((nbytes(rows, cols) // _BLOCK_BYTES, _BLOCK_BYTES), np.uint8)
    codes = to_codes(ternary).reshape(-1, _BLOCK)
    for trits, weight, byte, width in _SECTIONS:
        parts = [codes[:, weight + n * width :][:, :width] for n in range(trits)]
        blocks[:, byte : byte + width] = pack_trits(parts)
    blocks[:, 52:] = block_scales(ternary, scale, _BLOCK, "<f2")
    return blocks.reshape(-1)


def unpack(data: Bytes, rows: int, cols: int) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,) or (rows,).

    Raises FormatError at a wrong size, a bad scale, or scales that differ within a row.
    """
    need_bytes(data, nbytes(rows, cols), f"TQ1_0 of {rows}x{cols}")
    blocks = data.reshape(-1, _BLOCK_BYTES)
    codes = np.empty((len(blocks), _BLOCK), np.uint8)
    for trits, weight, byte, width in _SECTIONS:
        packed = np.ascontiguousarray(blocks[:, byte : byte + width])
        for n in range(trits):
            codes[:, weight + n * width :][:, :width] = unpack_trit(packed, n)
    ternary = from_codes(codes).reshape(rows, cols)
    return merge_scales(ternary, blocks[:, 52:].view("<f2").reshape(rows, -1))
