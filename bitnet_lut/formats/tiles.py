"""Tiles, and bytes of four weights: what TL1 and TL2, the look-up formats of bitnet.cpp, share.

A tile is (BM, BK, bm): rows and columns of a tile, and rows of the part of it that a SIMD kernel
works on. Files do not state it: a reader must know the shapes that the writer was compiled for.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.ternary import Bytes, Weights

Tile: TypeAlias = tuple[int, int, int]
Shape: TypeAlias = tuple[int, int]

INVALID = 2  # stands for a weight that no valid code decodes to


def _quads() -> Weights:
    """The four weights of each byte (256, 4); INVALID if a nibble is above 8."""
    nibbles = np.arange(256)[:, None] >> np.array([4, 0]) & 15
    pairs = np.stack([nibbles // 3, nibbles % 3], axis=-1) - 1
    pairs[nibbles > 8] = INVALID
    return pairs.reshape(256, 4).astype(np.int8)


_QUADS = _quads()


def find_tile(known: Mapping[Shape, Tile], rows: int, cols: int, tile: Tile | None) -> Tile:
    """Return the given tile, or else the known one of a shape; FormatError where there is none."""
    if tile is None and (rows, cols) not in known:
        raise FormatError(
            f"the tile sizes (BM, BK, bm) of {rows}x{cols} are not in the file and not known: "
            f"pass those of its writer as tiles={{({rows}, {cols}): (BM, BK, bm)}}"
        )
    found = known[rows, cols] if tile is None else tile
    if len(found) != 3 or min(found) < 1:
        raise ValueError(f"a tile is three positive integers (BM, BK, bm), not {found}")
    return found


def misfit(rows: int, cols: int, tile: Tile) -> FormatError:
    """Build the error for tile sizes that do not divide a tensor."""
    return FormatError(f"{rows}x{cols} weights do not divide into tiles (BM, BK, bm) = {tile}")


def check_decoded(ternary: Weights, tile: Tile) -> None:
    """FormatError if a code was INVALID."""
    if ternary.size and ternary.max() == INVALID:
        raise FormatError(
            f"the data is damaged, or its writer did not use tiles (BM, BK, bm) = {tile}: "
            "pass the right ones by tiles="
        )


def pack_quads(codes: Bytes) -> Bytes:
    """Four consecutive codes a byte, 3 * first + second a nibble, high nibble first.

    codes (rows, cols) -> (rows, cols / 4).
    """
    pairs = codes[:, 0::2] * np.uint8(3) + codes[:, 1::2]
    return pairs[:, 0::2] << np.uint8(4) | pairs[:, 1::2]


def unpack_quads(packed: Bytes) -> Weights:
    """Undo ``pack_quads``, to weights: (rows, n) -> (rows, 4 * n), INVALID for invalid nibbles."""
    return _QUADS.take(packed, axis=0).reshape(len(packed), -1)
