"""TL1: pairs of weights as nibbles, in the order of bitnet.cpp's ARM kernels (ggml type 38).

A byte holds four consecutive weights of a row (see ``tiles.pack_quads``). With by = 256 / bm
columns per SIMD step, the bytes are ordered, slowest first, by: tile of BM rows, block of BK
columns, part of bm rows, step of by columns, half (16 rows), byte of the step, row of the half.
A float32 scale and 28 unused bytes follow.
"""

import numpy as np

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
    (3200, 8640): (160, 64, 32),
    (3200, 3200): (320, 128, 64),
    (8640, 3200): (320, 64, 32),
    (1536, 4096): (256, 128, 32),
    (1536, 1536): (128, 64, 64),
    (4096, 1536): (256, 128, 32),
    (14336, 4096): (256, 128, 32),
    (4096, 14336): (128, 64, 64),
    (1024, 4096): (256, 128, 32),
    (4096, 4096): (128, 64, 64),
}

# Those of its pre-tuned kernels for Llama3-8B (--use-pretuned). Any bytes that are valid with one
# set are valid with the other, so the user must say which one a file has.
PRETUNED_LLAMA3_8B: dict[Shape, Tile] = {
    (14336, 4096): (256, 128, 64),
    (4096, 14336): (256, 128, 32),
    (1024, 4096): (128, 64, 64),
    (4096, 4096): (128, 64, 32),
}

_TO_FILE = (0, 4, 1, 5, 2, 6, 3)
_FROM_FILE = tuple(int(axis) for axis in np.argsort(_TO_FILE))


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor, including its scale and the unused bytes after it."""
    return rows * cols // 4 + 32


def pack(ternary: Weights, scale: float, *, tile: Tile | None = None) -> Bytes:
    """Pack int8 (rows, cols) to the uint8 (nbytes,) of a file.

    tile: (BM, BK, bm); None for the known one of the shape. Raises FormatError where none is known
    or it does not divide the tensor.
    """
    rows, cols = ternary.shape
    axes = _axes(rows, cols, tile)
    packed = pack_quads(to_codes(ternary)).reshape(axes).transpose(_TO_FILE)
    return np.concatenate([packed.reshape(-1), scale_bytes(scale)])


def unpack(data: Bytes, rows: int, cols: int, *, tile: Tile | None = None) -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,).

    tile: (BM, BK, bm); None for the known one of the shape. Raises FormatError where none is known,
    it does not divide the tensor, or the size, a nibble or the scale is wrong.
    """
    axes = _axes(rows, cols, tile)
    need_bytes(data, nbytes(rows, cols), f"TL1 of {rows}x{cols}")
    in_file = tuple(axes[axis] for axis in _TO_FILE)
    packed = data[: rows * cols // 4].reshape(in_file).transpose(_FROM_FILE)
    ternary = unpack_quads(packed.reshape(rows, cols // 4))
    check_decoded(ternary, find_tile(KNOWN_TILES, rows, cols, tile))
    return ternary, read_scale(data, rows * cols // 4)


def _axes(rows: int, cols: int, tile: Tile | None) -> tuple[int, ...]:
    """The axes that bytes (rows, cols / 4) have in the order of rows.

    (tile, part, half, row of 16, block, step, byte of the step)
    """
    found = find_tile(KNOWN_TILES, rows, cols, tile)
    tile_rows, block, part = found
    step = 256 // part
    if part not in (32, 64) or rows % tile_rows or cols % block or tile_rows % part or block % step:
        raise misfit(rows, cols, found)
    return (
        rows // tile_rows,
        tile_rows // part,
        part // 16,
        16,
        cols // block,
        block // step,
        step // 4,
    )
