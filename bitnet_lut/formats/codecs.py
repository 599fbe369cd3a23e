"""The table of ternary tensor types: how files hold them, and which of them are written.

A type is a module of this package, a line in ``ggml.GGML_TYPES`` and an entry below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from bitnet_lut.formats import ggml, i2_s, iq1_bn, iq2_bn, strips, tl1, tl2, tl5, tq1_0, tq2_0
from bitnet_lut.formats.gguf import ALIGNMENT
from bitnet_lut.formats.ternary import Bytes, Scale, Ternary, Weights
from bitnet_lut.formats.tiles import Tile

__all__ = ["TERNARY", "Codec", "Hints", "Writer", "tensor_nbytes"]


@dataclass(frozen=True)
class Hints:
    """What a reader must know of a tensor that its file does not state.

    layout: layout of I2_S. tile: (BM, BK, bm) of TL1 and TL2; None for that of bitnet.cpp.
    """

    layout: i2_s.Layout = "128x32"
    tile: Tile | None = None


Read: TypeAlias = Callable[[Bytes, int, int, Hints], tuple[Bytes, Scale]]


@dataclass(frozen=True)
class Writer:
    """How a conversion writes linear layers in a type.

    file_type: the general.file_type that goes with it.
    pack: int8 (n, cols) and their scale, (1,) or (n,), to the bytes of these rows.
    tail: the bytes after the last row, for the scale (1,); None if there are none.
    scale_per_row: whether rows may have scales of their own.
    whole: whether pack must have all rows at once.
    group: weights that are packed together; a tensor must hold a multiple of it.
    alignment: bytes to which tensors are aligned in the file.
    strips: whether an output head of a block type is written as it is multiplied.
    """

    file_type: int
    pack: Callable[[Weights, Scale], Bytes]
    tail: Callable[[Scale], Bytes] | None = None
    scale_per_row: bool = True
    whole: bool = False
    group: int = 1
    alignment: int = ALIGNMENT
    strips: bool = False


@dataclass(frozen=True)
class Codec:
    """How a file holds a ternary matrix.

    nbytes: bytes of a tensor of (rows, cols); FormatError for a shape that the type cannot have.
    read: brings a tensor of (rows, cols) into the rows of ``i2_s.pack_rows``, with its scale;
        FormatError if its bytes are damaged.
    writer: None if the type is only read.
    """

    nbytes: Callable[[int, int], int]
    read: Read
    writer: Writer | None = None


def _read_i2_s(data: Bytes, rows: int, cols: int, hints: Hints) -> tuple[Bytes, Scale]:
    return i2_s.read_rows(data, rows, cols, layout=hints.layout)


def _read_tl1(data: Bytes, rows: int, cols: int, hints: Hints) -> tuple[Bytes, Scale]:
    return _packed(tl1.unpack(data, rows, cols, tile=hints.tile))


def _read_tl2(data: Bytes, rows: int, cols: int, hints: Hints) -> tuple[Bytes, Scale]:
    return _packed(tl2.unpack(data, rows, cols, tile=hints.tile))


def _read_tl5(data: Bytes, rows: int, cols: int, hints: Hints) -> tuple[Bytes, Scale]:
    return tl5.read_rows(data, rows, cols)


def _unpacking(unpack: Callable[[Bytes, int, int], Ternary]) -> Read:
    """Read by the unpack of a module."""
    return lambda data, rows, cols, hints: _packed(unpack(data, rows, cols))


def _packed(ternary: Ternary) -> tuple[Bytes, Scale]:
    weights, scale = ternary
    return i2_s.pack_rows(weights), scale


TERNARY: Mapping[str, Codec] = {
    "i2_s": Codec(
        i2_s.nbytes,
        _read_i2_s,
        Writer(40, i2_s.pack_part, i2_s.tail, scale_per_row=False, group=128),
    ),
    "tq1_0": Codec(tq1_0.nbytes, _unpacking(tq1_0.unpack), Writer(36, tq1_0.pack)),
    "tq2_0": Codec(tq2_0.nbytes, _unpacking(tq2_0.unpack), Writer(37, tq2_0.pack)),
    "iq1_bn": Codec(iq1_bn.nbytes, _unpacking(iq1_bn.unpack)),
    "iq2_bn": Codec(iq2_bn.nbytes, _unpacking(iq2_bn.unpack), Writer(137, iq2_bn.pack)),
    "tl1": Codec(tl1.nbytes, _read_tl1),
    "tl2": Codec(tl2.nbytes, _read_tl2),
    "tl5": Codec(
        tl5.nbytes, _read_tl5, Writer(1505, tl5.pack, whole=True, alignment=64, strips=True)
    ),
}


def tensor_nbytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a vector or matrix in any type; FormatError for a shape that it cannot have."""
    if kind in TERNARY:
        return TERNARY[kind].nbytes(*shape)
    if kind in strips.TYPES and len(shape) == 2:
        return strips.nbytes(kind, *shape)
    return prod(shape[:-1]) * ggml.row_bytes(kind, shape[-1])
