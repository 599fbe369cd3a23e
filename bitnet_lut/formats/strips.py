"""Block types of ggml in strips of 32 rows, as they are multiplied here (GGUF 1506 to 1508).

Rows are padded to a multiple of 32 by zero bytes. ``src/shared/blocks.h`` has the order of scales
and codes, and ``docs/tl5.md`` says how to read them without this package.
"""

from collections.abc import Mapping

from bitnet_lut import _native
from bitnet_lut.formats import ggml
from bitnet_lut.formats.ternary import Bytes, need_bytes

__all__ = ["ROWS", "TYPES", "nbytes", "pack", "unpack", "unpack_rows"]

ROWS = 32  # in a strip

# The block type of each type of strips, by their names in ``formats.ggml``.
TYPES: Mapping[str, str] = {"q6_k_r32": "q6_k", "q8_0_r32": "q8_0", "q4_0_r32": "q4_0"}


def nbytes(type: str, rows: int, cols: int) -> int:
    """Bytes of a tensor of strips; FormatError where cols does not fill whole blocks."""
    return -(-rows // ROWS) * ROWS * ggml.row_bytes(TYPES[type], cols)


def pack(type: str, data: Bytes, cols: int) -> Bytes:
    """Bring rows of the block type, uint8 (rows, bytes of one), into strips, uint8 (nbytes,)."""
    return _native.pack_dense(TYPES[type], data, cols)


def unpack(type: str, data: Bytes, rows: int, cols: int) -> Bytes:
    """Bring strips, uint8 (nbytes,), back into rows of the block type.

    Raises FormatError at a wrong size.
    """
    need_bytes(data, nbytes(type, rows, cols), f"{type} of {rows}x{cols}")
    return _native.unpack_dense(TYPES[type], data, rows, cols)


def unpack_rows(type: str, data: Bytes, rows: int, cols: int, part: slice) -> Bytes:
    """Undo `pack` for some rows of a matrix (rows, cols): only their strips are read."""
    start, stop, _ = part.indices(rows)
    first, end = start // ROWS * ROWS, min(-(-stop // ROWS) * ROWS, rows)
    strips = data[nbytes(type, first, cols) : nbytes(type, end, cols)]
    return unpack(type, strips, end - first, cols)[start - first : stop - first]
