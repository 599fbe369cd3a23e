"""I2_S: two bits a weight and one float32 scale a tensor (bitnet.cpp, ggml type 36).

The codes of the flattened tensor, K fastest, fill rows*cols/4 bytes; the scale and 28 unused bytes
follow. Code i of a group goes into bits 7:6 (i = 0), 5:4, 3:2, 1:0 of one byte, and the group is::

    layout       byte p of a group holds elements        written by
    128x32       p, p+32, p+64, p+96 of 128              every published file; the default
    64x16        p, p+16, p+32, p+48 of 64               bitnet.cpp on ARM since Nov 2025
    1x4          column p of rows 4g, 4g+1, 4g+2, 4g+3   bitnet.cpp on x86 without ACT_PARALLEL
    sequential   4p, 4p+1, 4p+2, 4p+3                    bitnet.cpp's llama.cpp of July 2026

A file does not state its layout. Groups run over the flattened tensor, so one may straddle two
rows; the layout in memory (``pack_rows``) is 128x32 with each row padded to whole groups.
"""

from typing import Literal

import numpy as np

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.ternary import (
    MSB_FIRST,
    Bytes,
    Scale,
    Ternary,
    Weights,
    from_codes,
    need_bytes,
    need_multiple,
    pack_codes,
    read_scale,
    scale_bytes,
    to_codes,
    unpack_codes,
)

Layout = Literal["128x32", "64x16", "1x4", "sequential"]

_WIDTHS = {"128x32": 32, "64x16": 16, "sequential": 1}


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor, including its scale and the unused bytes after it."""
    return rows * cols // 4 + 32


def pack(ternary: Weights, scale: float, *, layout: Layout = "128x32") -> Bytes:
    """Pack int8 (rows, cols) to the uint8 (nbytes,) of a file.

    Raises FormatError where the shape does not fill whole groups, or the scale is not finite.
    """
    rows, cols = ternary.shape
    width = _group_width(rows, cols, layout)
    codes = pack_codes(to_codes(ternary).reshape(-1, 4, width), MSB_FIRST)
    return np.concatenate([codes.reshape(-1), scale_bytes(scale)])


def pack_part(ternary: Weights, scale: Scale) -> Bytes:
    """Pack some rows of a larger tensor in whole groups of 128 weights, without the scale."""
    return pack_codes(to_codes(ternary).reshape(-1, 4, 32), MSB_FIRST).reshape(-1)


def tail(scale: Scale) -> Bytes:
    """What follows the last of `pack_part`: the scale (1,), and the unused bytes."""
    return scale_bytes(float(scale[0]))


def unpack(data: Bytes, rows: int, cols: int, *, layout: Layout = "128x32") -> Ternary:
    """Unpack the uint8 (nbytes,) of a file to int8 (rows, cols) and a scale (1,).

    Raises FormatError at a wrong size, a shape that does not fill whole groups, a code 3 or a bad
    scale.
    """
    width = _group_width(rows, cols, layout)
    need_bytes(data, nbytes(rows, cols), f"I2_S of {rows}x{cols}")
    codes = unpack_codes(data[: rows * cols // 4].reshape(-1, width), MSB_FIRST)
    return from_codes(codes).reshape(rows, cols), read_scale(data, rows * cols // 4)


def read_rows(
    data: Bytes, rows: int, cols: int, *, layout: Layout = "128x32"
) -> tuple[Bytes, Scale]:
    """Bring the uint8 (nbytes,) of a file into the layout of ``pack_rows``, with its scale (1,).

    A file in the 128x32 layout with whole groups in each row is viewed in place and not looked at:
    a code 3, which no writer makes, then passes (see ``has_code_3``).
    """
    if layout == "128x32" and cols % 128 == 0:
        need_bytes(data, nbytes(rows, cols), f"I2_S of {rows}x{cols}")
        return data[: rows * cols // 4].reshape(rows, -1), read_scale(data, rows * cols // 4)
    ternary, scale = unpack(data, rows, cols, layout=layout)
    return pack_rows(ternary), scale


def pack_rows(ternary: Weights) -> Bytes:
    """Pack int8 (rows, cols) to uint8 (rows, ceil(cols / 128) * 32), padded by zero weights."""
    rows, cols = ternary.shape
    codes = to_codes(ternary)
    if cols % 128:
        codes = np.pad(codes, ((0, 0), (0, -cols % 128)), constant_values=1)
    return pack_codes(codes.reshape(-1, 4, 32), MSB_FIRST).reshape(rows, codes.shape[1] // 4)


def unpack_rows(packed: Bytes, cols: int) -> Weights:
    """Undo ``pack_rows``: int8 (rows, cols); FormatError at a code 3."""
    codes = unpack_codes(packed.reshape(-1, 32), MSB_FIRST)
    ternary = from_codes(codes).reshape(packed.shape[0], -1)
    return np.ascontiguousarray(ternary[:, :cols])


def has_code_3(packed: Bytes) -> bool:
    """Whether packed codes, of any layout, hold a 3: a sign of damaged data."""
    return bool(np.any(packed & (packed >> np.uint8(1)) & np.uint8(0x55)))


def _group_width(rows: int, cols: int, layout: Layout) -> int:
    """Bytes in a group of four times as many weights, checked to divide the tensor."""
    if layout == "1x4":
        need_multiple(rows, 4, "rows of I2_S in the 1x4 layout")
        return cols
    if layout not in _WIDTHS:
        raise ValueError(f"unknown I2_S layout {layout!r}: choose 128x32, 64x16, 1x4 or sequential")
    width = _WIDTHS[layout]
    if rows * cols % (4 * width):
        raise FormatError(
            f"I2_S in the {layout} layout holds whole groups of {4 * width} weights: "
            f"{rows}x{cols} does not fill them"
        )
    return width
