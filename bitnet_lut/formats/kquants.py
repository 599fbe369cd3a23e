"""The K-quants of ggml: blocks of 256 weights in sub-blocks of 16 or 32 with their own scales.

All functions take and return blocks: uint8 (blocks, bytes of one) and float32 (blocks, 256).
"""

import numpy as np
from numpy.typing import NDArray

_Blocks = NDArray[np.uint8]
_Floats = NDArray[np.float32]

_EPSILON = np.float32(1e-15)  # ggml's GROUP_MAX_EPS: a smaller group is all zero
_BLOCKS_AT_ONCE = 256  # keeps the temporaries of to_q6_k in the second-level cache


def from_q2_k(blocks: _Blocks) -> _Floats:
    """2-bit weights with 4-bit scale and minimum per 16: scales 16, quants 64, d, dmin."""
    scales = blocks[:, :16, None]
    quants = _split(blocks[:, 16:80].reshape(-1, 2, 1, 32), 2).reshape(-1, 16, 16)
    scale: _Floats = np.multiply(_f16(blocks, 80), scales & np.uint8(15))
    minimum: _Floats = np.multiply(_f16(blocks, 82), scales >> np.uint8(4))
    return (scale * quants - minimum).reshape(-1, 256)


def from_q3_k(blocks: _Blocks) -> _Floats:
    """3-bit weights with 6-bit scale per 16: high bits 32, low bits 64, scales 12, d."""
    low = _split(blocks[:, 32:96].reshape(-1, 2, 1, 32), 2).reshape(-1, 256)
    high = _split(blocks[:, :32].reshape(-1, 1, 32), 1).reshape(-1, 256)
    quants = (low | high << np.uint8(2)).view(np.int8) - np.int8(4)
    scale_low = _split(blocks[:, 96:104].reshape(-1, 1, 8), 4).reshape(-1, 16)
    scale_high = _split(blocks[:, 104:108].reshape(-1, 1, 4), 2).reshape(-1, 16)
    scales = (scale_low | scale_high << np.uint8(4)).view(np.int8) - np.int8(32)
    scale: _Floats = np.multiply(_f16(blocks, 108), scales[:, :, None])
    return (scale * quants.reshape(-1, 16, 16)).reshape(-1, 256)


def from_q4_k(blocks: _Blocks) -> _Floats:
    """4-bit weights with 6-bit scale and minimum per 32: d, dmin, scales 12, quants 128."""
    quants = _split(blocks[:, 16:144].reshape(-1, 4, 1, 32), 4).reshape(-1, 8, 32)
    scale, minimum = _scales_and_minima(blocks)
    return (scale * quants - minimum).reshape(-1, 256)


def from_q5_k(blocks: _Blocks) -> _Floats:
    """5-bit weights with 6-bit scale and minimum per 32: as Q4_K, high bits 32 before quants."""
    low = _split(blocks[:, 48:176].reshape(-1, 4, 1, 32), 4).reshape(-1, 8, 32)
    high = _split(blocks[:, 16:48].reshape(-1, 1, 32), 1)
    scale, minimum = _scales_and_minima(blocks)
    return (scale * (low | high << np.uint8(4)) - minimum).reshape(-1, 256)


def from_q6_k(blocks: _Blocks) -> _Floats:
    """6-bit weights with 8-bit scale per 16: low nibbles 128, high bits 64, scales 16, d."""
    quants, scale = codes_q6_k(blocks)
    return (scale[:, :, None] * quants).reshape(-1, 256)


def codes_q6_k(blocks: _Blocks) -> tuple[NDArray[np.int8], _Floats]:
    """Q6_K as the factors of its weights: int8 (blocks, 16, 16), float32 (blocks, 16)."""
    low = _split(blocks[:, :128].reshape(-1, 2, 1, 64), 4).reshape(-1, 2, 4, 32)
    high = _split(blocks[:, 128:192].reshape(-1, 2, 1, 32), 2)
    quants = (low | high << np.uint8(4)).view(np.int8) - np.int8(32)
    scale = _f16(blocks, 208)[:, 0] * blocks[:, 192:208].view(np.int8)
    return quants.reshape(-1, 16, 16), scale


def to_q6_k(values: _Floats) -> _Blocks:
    """Quantize as ggml's reference does, searching the scale of each sub-block of 16.

    A ggml compiled with fused multiply-add chooses other bytes in a block or two of a hundred.
    """
    blocks = np.empty((len(values), 210), np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):  # weights above 1e9 have no good scale
        for start in range(0, len(values), _BLOCKS_AT_ONCE):
            part = slice(start, start + _BLOCKS_AT_ONCE)
            blocks[part] = _to_q6_k(values[part])
    return blocks


def _f16(blocks: _Blocks, offset: int) -> _Floats:
    """The float16 at a byte offset of each block, as float32 (blocks, 1, 1)."""
    return blocks[:, offset : offset + 2].view("<f2").astype(np.float32)[:, :, None]


def _split(packed: _Blocks, bits: int) -> _Blocks:
    """Cut bytes (..., 1, n) into their 8 / bits parts, low bits first: (..., 8 / bits, n)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (packed >> shifts) & np.uint8((1 << bits) - 1)


def _scales_and_minima(blocks: _Blocks) -> tuple[_Floats, _Floats]:
    """Scale and minimum (blocks, 8, 1) of the sub-blocks of Q4_K and Q5_K.

    Bytes 0..3 and 4..7 hold scales and minima 0..3 in their low six bits; bytes 8..11 hold the
    low nibbles of scales and minima 4..7, whose high two bits top bytes 0..3 and 4..7.
    """
    first, second, third = np.split(blocks[:, 4:16], 3, axis=1)
    six, four, top = np.uint8(63), np.uint8(15), np.uint8(0x30)
    scales = np.hstack([first & six, (third & four) | (first >> np.uint8(2) & top)])
    minima = np.hstack([second & six, (third >> np.uint8(4)) | (second >> np.uint8(2) & top)])
    return _f16(blocks, 0) * scales[:, :, None], _f16(blocks, 2) * minima[:, :, None]


def _to_q6_k(values: _Floats) -> _Blocks:
    groups = np.ascontiguousarray(values.reshape(-1, 16).T)
    scales, inverses = _search_scale(groups)
    scales = scales.reshape(-1, 16)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(axis=1, keepdims=True), axis=1)
    zero = np.abs(largest) < _EPSILON
    inverse = np.float32(-128) / np.where(zero, np.float32(1), largest)
    d = np.where(zero, np.float32(0), np.float32(1) / inverse).astype("<f2")
    steps = np.where(zero, np.float32(0), np.minimum(np.rint(inverse * scales), 127))

    # A sub-block whose scale rounds to 0 keeps the integers of the search, as in ggml.
    scale = (d.astype(np.float32) * steps).reshape(-1)
    searched = scale == 0
    ratio = groups / np.where(searched, np.float32(1), scale)
    ratio[:, searched] = groups[:, searched] * inverses[searched]
    quants = np.clip(np.rint(ratio), -32, 31)
    quants[:, inverses == 0] = -32
    codes = (quants.T + np.float32(32)).astype(np.uint8).reshape(-1, 2, 4, 32)
    codes[zero[:, 0]] = 0
    return _pack_q6_k(codes, steps.astype(np.int8), d)


def _pack_q6_k(quants: _Blocks, steps: NDArray[np.int8], d: NDArray[np.float16]) -> _Blocks:
    low, high = quants & np.uint8(15), quants >> np.uint8(4)
    nibbles = low[:, :, :2] | low[:, :, 2:] << np.uint8(4)
    bits = high[:, :, 0].copy()
    for i in range(1, 4):
        bits |= high[:, :, i] << np.uint8(2 * i)
    parts = [nibbles.reshape(-1, 128), bits.reshape(-1, 64), steps.view(np.uint8), d.view(np.uint8)]
    return np.hstack(parts)


def _search_scale(groups: _Floats) -> tuple[_Floats, _Floats]:
    """Scale of each column of groups (16, n) for integers -32..31, with errors weighted by x*x.

    Nineteen inverse scales around -32 / (the weight of largest magnitude) are tried; for each, the
    scale is the weighted least-squares fit to the rounded integers. Sums run over the 16 weights in
    order. Returns the best scale and the inverse scale that gave its integers; both are 0 for a
    column of zeros.
    """
    index = np.abs(groups).argmax(axis=0)[None]
    largest = np.take_along_axis(groups, index, axis=0)[0]
    zero = np.abs(largest) < _EPSILON
    largest[zero] = 1
    weight = groups * groups
    moment = weight * groups

    scale = best = np.zeros(groups.shape[1], np.float32)
    inverse = np.float32(-32) / largest
    for step in [0, *range(-9, 0), *range(1, 10)]:
        trial = -(np.float32(32) + np.float32(0.1) * np.float32(step)) / largest
        quants = np.rint(trial * groups)
        np.clip(quants, -32, 31, out=quants)
        square = (weight * quants * quants).sum(axis=0)
        product = (moment * quants).sum(axis=0)
        better = (square > 0) & (product * product > best * square)
        fit = product / np.where(square > 0, square, np.float32(1))
        scale = np.where(better, fit, scale)
        inverse = np.where(better, trial, inverse)
        best = np.where(better, fit * product, best)
    scale[zero] = 0
    inverse[zero] = 0
    return scale, inverse
