"""TL5: five weights a byte as the kernel tl5 of this package reads them (GGUF type 1505).

    int32 (rows), how many groups of a row are negative | groups, a byte each | float32 scale (rows)

Rows are padded to panels of 64, except for the scales. ``src/kernels/tl5.h`` has the order of the
groups, and ``docs/tl5.md`` says how to read one without this package. The kernel computes with
these bytes as they are.
"""

import numpy as np

from bitnet_lut._native import MAX_COLS, Cell
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.ternary import Bytes, Scale, Weights, check_scales, need_bytes

__all__ = ["KERNEL", "nbytes", "pack", "read_packed", "read_rows"]

KERNEL = "tl5"

_GROUP = 5
_PANEL = 64


def nbytes(rows: int, cols: int) -> int:
    """Bytes of a tensor; FormatError if its rows are too long for exact sums."""
    return _packed_bytes(rows, cols) + 4 * rows


def pack(ternary: Weights, scale: float | Scale) -> Bytes:
    """Pack int8 (rows, cols) and a scale (1,) or (rows,) to the uint8 (nbytes,) of a file."""
    rows, cols = ternary.shape
    data = np.empty(nbytes(rows, cols), np.uint8)
    size = _packed_bytes(rows, cols)
    _kernel().pack(i2_s.pack_rows(ternary), cols, out=data[:size])
    scales = np.broadcast_to(np.asarray(scale, np.float32), (rows,))
    data[size:] = check_scales(scales).astype("<f4").view(np.uint8)
    return data


def read_packed(data: Bytes, rows: int, cols: int) -> tuple[Bytes, Scale]:
    """View the uint8 (nbytes,) of a file as the kernel's packed bytes, with its scale.

    The scale is (1,) if all rows have the same, else (rows,). The groups are not checked, because
    no value of a byte makes the kernel read or write out of bounds; `read_rows` checks them.
    Raises FormatError at a wrong size, a bad scale or a count of negatives that cannot be.
    """
    need_bytes(data, nbytes(rows, cols), f"TL5 of {rows}x{cols}")
    size = _packed_bytes(rows, cols)
    negatives = np.frombuffer(data, "<i4", _padded(rows))
    impossible = negatives[(negatives < 0) | (negatives > _groups(cols))]
    if impossible.size:
        raise FormatError(
            f"a row has {_groups(cols)} groups, but its count of negative ones is {impossible[0]}"
        )
    scales = check_scales(np.frombuffer(data, "<f4", rows, size))
    return data[:size], scales[:1] if np.all(scales == scales[0]) else scales


def read_rows(data: Bytes, rows: int, cols: int) -> tuple[Bytes, Scale]:
    """Bring the uint8 (nbytes,) of a file into the layout of ``i2_s.pack_rows``, with its scale.

    Raises FormatError as `read_packed` does, and at any byte that `pack` would not have written.
    """
    packed, scale = read_packed(data, rows, cols)
    canonical = _kernel().unpack(packed, rows, cols)
    if not np.array_equal(_kernel().pack(canonical, cols), packed):
        raise FormatError("unknown group byte or wrong count of negatives: damaged data")
    return canonical, scale


def _kernel() -> Cell:
    return Cell(KERNEL, isa="scalar")


def _groups(cols: int) -> int:
    return -(-cols // _GROUP)


def _padded(rows: int) -> int:
    return -(-rows // _PANEL) * _PANEL


def _packed_bytes(rows: int, cols: int) -> int:
    """Like the kernel's own count, for sizes of any magnitude."""
    if cols > MAX_COLS:
        raise FormatError(f"rows of {cols} weights: TL5 has at most {MAX_COLS}")
    return _padded(rows) * (_groups(cols) + 4)
