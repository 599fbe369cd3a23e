"""TL2: triples of weights as index and sign, in the order of bitnet.cpp's x86 kernels.

ggml type 39 until 2026, 42 since. The first K3 columns, whole blocks of BK, are cut into triples
(a, b, c) of value 9a + 3b + c; the index is its magnitude, the sign bit is 1 where it is negative.
The other columns, K2, are cut into pairs as in TL1. Three sections follow each other::

    indices    rows * K3 / 6 bytes     two triples a byte, high nibble first, BK / 6 bytes a block
    signs      rows * K3 / 24 bytes    little-endian 16-bit words of 8 triples of rows r and r+16
    pairs      rows * K2 / 4 bytes     four weights a byte, 8 bytes a block of 32 columns

Bytes of indices and pairs are ordered, slowest first, by: tile of BM rows, block of columns, part
of 32 rows, byte of the block, row of the part, with rows 8..15 and 16..23 swapped.
Sign words: tile, block, part, group of 8 triples, row of 16; bit 15 is the first triple of row r,
bit 14 that of row r + 16, and so on.
The sections are padded by zeros as if K2 were 256, then to 32 bytes; a float32 scale and 28 unused
bytes follow.
"""

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.formats.ternary import (
    Bytes,
    Ternary,
    Weights,
    need_bytes,
    read_scale,
    scale_bytes,
    to_codes,
)
from bitnet_lut.formats.tiles import (
    INVALID,
    Shape,
    Tile,
    check_decoded,
    find_tile,
    misfit,
    pack_quads,
    unpack_quads,
)

# The tiles that bitnet.cpp's setup_env.py compiles: 3B, large, Llama3-8B.
KNOWN_TILES: dict[Shape, Tile] = {
    (3200, 8640): (160, 96, 32),
    (3200, 3200): (320, 96, 32),
    (8640, 3200): (320, 96, 32),
    (1536, 4096): (256, 96, 32),
    (1536, 1536): (128, 192, 32),
    (4096, 1536): (256, 96, 32),
    (14336, 4096): (256, 96, 32),
    (4096, 14336): (128, 96, 32),
    (1024, 4096): (256, 96, 32),
    (4096, 4096): (128, 96, 32),
}

# Rows (tile, part, row of the part), blocks, bytes -> tile, block, part, byte, row; the row of a
# part is cut in (2, 2, 8), and swapping the first two moves rows 8..15 and 16..23.
_TO_FILE = (0, 5, 1, 6, 3, 2, 4)
_FROM_FILE = (0, 2, 5, 4, 6, 1, 3)
# Rows (tile, part, half, row of 16), blocks, groups, triples -> the order of the sign bits.
_SIGNS_TO_FILE = (0, 4, 1, 5, 3, 6, 2)
_SIGNS_FROM_FILE = (0, 2, 6, 4, 1, 3, 5)


def _triples() -> Weights:
    """The three weights (32, 3) of each 16 * sign + index; INVALID if no triple has that code."""
    values = np.arange(27)
    weights = np.stack([values // 9, values // 3 % 3, values % 3], axis=1) - 1
    table = np.full((32, 3), INVALID, np.int8)
    table[:14] = weights[13:]
    table[17:30] = weights[12::-1]
    return table


_TRIPLES = _triples()


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor, including padding, scale and the unused bytes after it."""
    return _scale_offset(rows, cols) + 32


def pack(ternary: Weights, scale: float, *, tile: Tile | None = None) -> Bytes:
    """Pack int8 (rows, cols) to the uint8 (nbytes,) of a file.

    tile: (BM, BK, 32); None for the known one of the shape. Raises FormatError where none is known
    or it does not divide the tensor.
    """
    rows, cols = ternary.shape
    tile_rows, block, _ = _checked_tile(rows, cols, tile)
    codes = to_codes(ternary)
    split = cols // block * block
    triples = codes[:, :split].reshape(rows, -1, 3)
    values = triples @ np.array([9, 3, 1], np.uint8)
    signs = values < 13
    indices = np.where(signs, 13 - values, values - 13)
    sections = [
        _order_bytes(indices[:, 0::2] << np.uint8(4) | indices[:, 1::2], tile_rows, block // 6),
        _order_signs(signs, tile_rows, block // 24),
        _order_bytes(pack_quads(codes[:, split:]), tile_rows, 8),
    ]
    payload = np.concatenate(sections)
    padding = np.zeros(_scale_offset(rows, cols) - payload.size, np.uint8)
    return np.concatenate([payload, padding, scale_bytes(scale)])


def unpack(data: Bytes, rows: int, cols: int, *, tile: Tile | None = None) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,).

    tile: (BM, BK, 32); None for the known one of the shape. Raises FormatError where none is known,
    it does not divide the tensor, or the size, an index, a sign or the scale is wrong.
    """
    found = _checked_tile(rows, cols, tile)
    need_bytes(data, nbytes(rows, cols), f"TL2 of {rows}x{cols}")
    tile_rows, block, _ = found
    split = cols // block * block
    ends = np.cumsum([rows * split // 6, rows * split // 24, rows * (cols - split) // 4])
    sections = np.split(data, ends)

    packed = _restore_bytes(sections[0], rows, tile_rows, block // 6)
    codes = np.empty((rows, split // 3), np.uint8)
    codes[:, 0::2] = packed >> np.uint8(4)
    codes[:, 1::2] = packed & np.uint8(15)
    codes |= _restore_signs(sections[1], rows, tile_rows, block // 24) << np.uint8(4)
    ternary = np.empty((rows, cols), np.int8)
    ternary[:, :split] = _TRIPLES.take(codes, axis=0).reshape(rows, split)
    ternary[:, split:] = unpack_quads(_restore_bytes(sections[2], rows, tile_rows, 8))
    check_decoded(ternary, found)
    return ternary, read_scale(data, _scale_offset(rows, cols))


def _scale_offset(rows: int, cols: int) -> int:
    """Bytes before the scale: bitnet.cpp counts 256 columns of pairs, and pads to 32."""
    payload = (cols - 256) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8
    return -(-payload // 32) * 32


def _checked_tile(rows: int, cols: int, tile: Tile | None) -> Tile:
    found = find_tile(KNOWN_TILES, rows, cols, tile)
    tile_rows, block, part = found
    if part != 32 or rows % tile_rows or tile_rows % 32 or block % 24 or cols % block % 32:
        raise misfit(rows, cols, found)
    return found


def _order_bytes(packed: Bytes, tile_rows: int, width: int) -> Bytes:
    """Bytes (rows, n) in blocks of width -> the order of the file, 1-D."""
    rows, n = packed.shape
    axes = (rows // tile_rows, tile_rows // 32, 2, 2, 8, n // width, width)
    return packed.reshape(axes).transpose(_TO_FILE).reshape(-1)


def _restore_bytes(section: Bytes, rows: int, tile_rows: int, width: int) -> Bytes:
    """Undo ``_order_bytes``: (rows, n)."""
    n = section.size // rows
    axes = (rows // tile_rows, n // width, tile_rows // 32, width, 2, 2, 8)
    return section.reshape(axes).transpose(_FROM_FILE).reshape(rows, n)


def _order_signs(signs: NDArray[np.bool_], tile_rows: int, groups: int) -> Bytes:
    """Signs (rows, n) in blocks of 8 * groups -> the bytes of their words."""
    rows, n = signs.shape
    axes = (rows // tile_rows, tile_rows // 32, 2, 16, n // (8 * groups), groups, 8)
    bits = signs.reshape(axes).transpose(_SIGNS_TO_FILE)
    return np.packbits(bits.reshape(-1)).view("<u2").byteswap().view(np.uint8)


def _restore_signs(section: Bytes, rows: int, tile_rows: int, groups: int) -> Bytes:
    """Undo ``_order_signs``: uint8 (rows, n), 0 or 1."""
    bits = np.unpackbits(section.view("<u2").byteswap().view(np.uint8))
    n = bits.size // rows
    axes = (rows // tile_rows, n // (8 * groups), tile_rows // 32, groups, 16, 8, 2)
    return bits.reshape(axes).transpose(_SIGNS_FROM_FILE).reshape(rows, n)
