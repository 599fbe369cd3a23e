"""What the ternary formats share: codes and trits in bytes, scales, and quantization to ternary.

A code is a weight plus one: 0, 1, 2 for -1, 0, +1. ``Ternary`` is what every codec unpacks to:
int8 (rows, cols) in -1..1 and a float32 scale of shape (1,), or (rows,) with one scale per row.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError

Bytes: TypeAlias = NDArray[np.uint8]
Weights: TypeAlias = NDArray[np.int8]
Scale: TypeAlias = NDArray[np.float32]
Ternary: TypeAlias = tuple[Weights, Scale]


class Rows(Protocol):
    """Real-valued weights (rows, cols) that are read by slices of rows: an array, or a file."""

    @property
    def shape(self) -> Any:
        """(rows, cols)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows as float32 (n, cols)."""


MSB_FIRST = (6, 4, 2, 0)
LSB_FIRST = (0, 2, 4, 6)

_CEIL_256_OVER_243 = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)


def to_codes(ternary: Weights) -> Bytes:
    """Codes of weights of any shape; ValueError where a weight is not -1, 0 or +1."""
    if ternary.dtype != np.int8:
        raise ValueError(f"ternary weights must be int8, not {ternary.dtype}")
    codes = (ternary + np.int8(1)).view(np.uint8)
    if codes.size and codes.max() > 2:
        raise ValueError("ternary weights must be -1, 0 or +1")
    return codes


def from_codes(codes: Bytes) -> Weights:
    """Weights of codes of any shape, in the same memory; FormatError at a code above 2."""
    if codes.size and codes.max() > 2:
        raise FormatError("a weight has code 3, which no writer makes: the data is damaged")
    ternary = codes.view(np.int8)
    ternary -= np.int8(1)
    return ternary


def pack_codes(codes: Bytes, shifts: Sequence[int]) -> Bytes:
    """Put codes (groups, 4, width), code i shifted by shifts[i], into bytes (groups, width)."""
    packed = codes[:, 0] << np.uint8(shifts[0])
    for i in range(1, 4):
        packed |= codes[:, i] << np.uint8(shifts[i])
    return packed


def unpack_codes(packed: Bytes, shifts: Sequence[int]) -> Bytes:
    """Undo ``pack_codes``: (groups, width) -> (groups, 4, width), codes 0..3."""
    groups, width = packed.shape
    codes = np.empty((groups, 4, width), np.uint8)
    for i in range(4):
        np.right_shift(packed, np.uint8(shifts[i]), out=codes[:, i])
    codes &= np.uint8(3)
    return codes


def pack_trits(trits: Sequence[Bytes]) -> Bytes:
    """Put up to five codes into a byte: ceil(v * 256 / 243) of v, their digits in base 3.

    The first is the most significant of five digits; missing ones are 0.
    """
    value = trits[0]
    for trit in trits[1:]:
        value = value * np.uint8(3) + trit
    return _CEIL_256_OVER_243.take(value * np.uint8(3 ** (5 - len(trits))))


def unpack_trit(packed: Bytes, n: int) -> Bytes:
    """Code n (0 is the most significant) of bytes of ``pack_trits``, without a division.

    A byte is a fraction of 256: times 3**n modulo 256 leaves the part from trit n on, whose third
    (below 86, below 171, above) is the trit.
    """
    fraction = packed * np.uint8(3**n)
    return (fraction > 85).view(np.uint8) + (fraction > 170).view(np.uint8)


def need_bytes(data: Bytes, nbytes: int, what: str) -> None:
    """FormatError unless data has exactly nbytes bytes."""
    if data.shape != (nbytes,):
        raise FormatError(f"{what} takes {nbytes} bytes, not {data.size}")


def need_multiple(value: int, divisor: int, what: str) -> None:
    """FormatError unless divisor divides value."""
    if value % divisor:
        raise FormatError(f"{what} must be a multiple of {divisor}, not {value}")


def check_scales(scales: NDArray[np.floating]) -> Scale:
    """Copy scales of any shape to float32; FormatError where one is NaN, infinite or negative."""
    with np.errstate(invalid="ignore"):
        result = scales.astype(np.float32)
    bad = result[~(np.isfinite(result) & (result >= 0))]
    if bad.size:
        raise FormatError(f"weight scale {bad[0]} is negative or not finite")
    return result


def read_scale(data: Bytes, offset: int) -> Scale:
    """Read the float32 at a byte offset, aligned or not, as a checked scale of shape (1,)."""
    return check_scales(data[offset : offset + 4].view("<f4"))


def scale_bytes(scale: float) -> Bytes:
    """Return a scale as the formats with one scale store it: float32 and 28 zero bytes."""
    tail = np.zeros(32, np.uint8)
    tail[:4] = check_scales(np.array([scale], "<f4")).astype("<f4").view(np.uint8)
    return tail


def block_scales(ternary: Weights, scale: float | Scale, block: int, dtype: str) -> Bytes:
    """Return the scale of each block of a row as bytes (rows * cols / block, bytes of dtype).

    scale: shape (), (1,) or (rows,). Blocks of zeros get the scale 0. Raises ValueError if a scale
    overflows dtype or rounds to 0 in it.
    """
    rows = len(ternary)
    wide = check_scales(np.broadcast_to(np.asarray(scale, np.float32), (rows,)))
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(dtype)
    lost = wide[np.isinf(narrow) | ((narrow == 0) & (wide != 0))]
    if lost.size:
        raise ValueError(f"scale {lost[0]} is out of the range of {np.dtype(dtype).name}")
    used = ternary.reshape(rows, -1, block).any(axis=2)
    return (narrow[:, None] * used).astype(dtype).reshape(-1, 1).view(np.uint8)


def merge_scales(ternary: Weights, scales: NDArray[np.floating]) -> Ternary:
    """Join scales (rows, blocks), blocks of equal width, to one per tensor, or else one per row.

    A block with scale 0 is zero, whatever its codes are: its weights are set to 0 in place, and its
    scale agrees with any other. FormatError if scales differ within a row.
    """
    checked = check_scales(scales)
    rows, blocks = checked.shape
    ternary.reshape(rows, blocks, -1)[checked == 0] = 0
    per_row = checked.max(axis=1)
    differs = np.any((checked != per_row[:, None]) & (checked != 0), axis=1)
    if differs.any():
        raise FormatError(
            f"scales differ within row {int(differs.argmax())}: "
            "this tensor was quantized from real-valued weights, not from ternary ones"
        )
    largest = per_row.max()
    if np.all((per_row == largest) | (per_row == 0)):
        return ternary, np.array([largest], np.float32)
    return ternary, per_row


def absmean(weights: Rows) -> Ternary:
    """Quantize real-valued weights (rows, cols) as BitNet b1.58 does: to clip(rint(w / mean|w|)).

    The scale is the mean over the whole tensor, at least 1e-5, accumulated in float64 and rounded
    to float32. FormatError if a weight is NaN or infinite.
    """
    blocks = row_blocks(*weights.shape)
    total = sum(float(np.abs(weights[rows]).sum(dtype=np.float64)) for rows in blocks)
    _check_finite(total)
    scale = max(np.float32(total / math.prod(weights.shape)), np.float32(1e-5))
    inverse = np.float32(1) / scale
    ternary = np.empty(weights.shape, np.int8)
    for rows in blocks:
        ternary[rows] = np.clip(np.rint(weights[rows] * inverse), -1, 1)
    return ternary, np.array([scale], np.float32)


def from_scaled(weights: Rows) -> Ternary | None:
    """Split weights (rows, cols) that are all 0 or +-scale into ternary and scale; else None.

    They may differ from that by 2**-8 of the scale. FormatError if a weight is NaN or infinite.
    """
    blocks = row_blocks(*weights.shape)
    scale = np.float32(np.max([np.abs(weights[rows]).max() for rows in blocks]))
    _check_finite(scale)
    ternary = np.zeros(weights.shape, np.int8)
    if scale == 0:
        return ternary, np.zeros(1, np.float32)
    for rows in blocks:
        ratio = weights[rows] / scale
        whole = np.rint(ratio)
        if np.abs(ratio - whole).max() > 2**-8:
            return None
        ternary[rows] = whole
    return ternary, np.array([scale], np.float32)


def row_blocks(rows: int, cols: int) -> list[slice]:
    """Cut rows so that temporaries of a block stay in the cache."""
    step = max(1, 2**17 // cols)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _check_finite(magnitude: float | np.float32) -> None:
    """FormatError unless a sum or maximum of magnitudes is finite: it keeps NaN and infinity."""
    if not np.isfinite(magnitude):
        raise FormatError("weights hold NaN or infinity")
