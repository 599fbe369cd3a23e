"""Checked access to every function of every tier, on plain arrays.

Each function takes ``isa=``, the name of a tier of this machine; there is no global choice here.
"""

import numpy as np

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc

from ckernels cimport (
    BL_BF16,
    BL_CPU_COUNT,
    BL_F16,
    BL_F32,
    BL_MAX_HEADS,
    BL_Q4_0,
    BL_Q6_K,
    BL_Q8_0,
    BL_TERNARY,
    BL_TIER_COUNT,
    bl_cpu,
    bl_cpu_names,
    bl_i2_s_prepared_bytes,
    bl_i2_s_row_bytes,
    bl_rescale,
    bl_row_bytes,
    bl_tier,
    bl_tiers,
    bl_type,
)

cdef extern from "bitnet_lut/check.h" nogil:
    ctypedef struct bl_check_input:
        pass
    ctypedef struct bl_check_output:
        pass
    int bl_tier_agrees(const bl_tier *, bl_check_input *, bl_check_output *)


cdef dict _TYPES = {
    "ternary": BL_TERNARY, "f32": BL_F32, "f16": BL_F16, "bf16": BL_BF16, "q8_0": BL_Q8_0,
    "q4_0": BL_Q4_0, "q6_k": BL_Q6_K,
}
cdef dict _BLOCKS = {"f32": 1, "f16": 1, "bf16": 1, "q8_0": 32, "q4_0": 32, "q6_k": 256}


cdef const bl_tier *_find(str isa) except NULL:
    cdef int i
    for i in range(BL_TIER_COUNT):
        if bl_tiers[i].name.decode() == isa:
            missing = missing_features(isa)
            if missing:
                raise ValueError(f"isa {isa!r} needs {', '.join(missing)}, which this machine lacks")
            return bl_tiers[i]
    raise ValueError(f"isa {isa!r} is not one of {', '.join(tier_names())}")


cdef int _dense_type(str type, int64_t cols) except -1:
    if type not in _BLOCKS:
        raise ValueError(f"type {type!r} is not one of {', '.join(_BLOCKS)}")
    if cols % _BLOCKS[type]:
        raise ValueError(f"{type} needs columns in blocks of {_BLOCKS[type]}, not {cols}")
    return _TYPES[type]


def _same(str what, int64_t found, int64_t expected):
    if found != expected:
        raise ValueError(f"{what} is {found}, expected {expected}")


def cpu_features() -> list[str]:
    """Names of the instruction sets found that a tier may need."""
    cdef int i
    found = bl_cpu()
    return [bl_cpu_names[i].decode() for i in range(BL_CPU_COUNT) if found >> i & 1]


def tier_names() -> list[str]:
    """Every tier compiled in, best first."""
    cdef int i
    return [bl_tiers[i].name.decode() for i in range(BL_TIER_COUNT)]


def missing_features(str isa not None) -> list[str]:
    """What the tier *isa* needs and this machine lacks; empty if it can run here."""
    cdef int i, bit
    found = bl_cpu()
    for i in range(BL_TIER_COUNT):
        if bl_tiers[i].name.decode() == isa:
            lacking = bl_tiers[i].needs & ~found
            return [bl_cpu_names[bit].decode() for bit in range(BL_CPU_COUNT) if lacking >> bit & 1]
    raise ValueError(f"isa {isa!r} is not one of {', '.join(tier_names())}")


def self_test(str isa not None) -> bool:
    """Whether the tier *isa*, run now, gives the scalar tier's bits."""
    cdef const bl_tier *tier = _find(isa)
    cdef bl_check_input *given = <bl_check_input *>malloc(sizeof(bl_check_input))
    cdef bl_check_output *results = <bl_check_output *>malloc(2 * sizeof(bl_check_output))
    try:
        if given is NULL or results is NULL:
            raise MemoryError("the self-test of a tier needs 100 kB")
        return bool(bl_tier_agrees(tier, given, results))
    finally:
        free(given)
        free(results)


def i2_s_gemm(const uint8_t[:, ::1] packed not None, const int8_t[:, ::1] q not None, *,
              str isa not None, int64_t lo=0, hi=None):
    """Exact dot products of ternary rows with int8 activations.

    packed: (M, ceil(K / 128) * 32), as ``formats.i2_s.pack_rows`` makes it. q: (n, K).
    Returns int32 (n, M); rows outside [lo, hi) are zero.
    """
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t rows = packed.shape[0], n = q.shape[0], cols = q.shape[1], t
    cdef int64_t end = rows if hi is None else hi
    _same("bytes per row of packed", packed.shape[1], bl_i2_s_row_bytes(cols))
    if cols > 1 << 22:
        raise ValueError(f"{cols} columns: at most {1 << 22} keep the int32 sums exact")
    if not 0 <= lo <= end <= rows:
        raise ValueError(f"rows [{lo}, {end}) are not within the {rows} rows of packed")
    out = np.zeros((n, rows), np.int32)
    if n == 0 or rows == 0 or cols == 0:
        return out
    cdef int64_t token_bytes = bl_i2_s_prepared_bytes(cols)
    cdef uint8_t[:, ::1] prepared = np.empty((n, token_bytes), np.uint8)
    cdef int32_t[:, ::1] dot = out
    with nogil:
        for t in range(n):
            tier.i2_s_prepare(&prepared[t, 0], &q[t, 0], cols)
        tier.i2_s_gemm(&dot[0, 0], rows, &packed[0, 0], &prepared[0, 0], cols, lo, end, n)
    return out


def quantise(const float[:, ::1] x not None, *, str isa not None):
    """Activations (n, K) as int8: ``(q int8 (n, K), act_max float32 (n,))``, value = q * act_max / 127."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = x.shape[0], cols = x.shape[1], t
    values, maxima = np.zeros((n, cols), np.int8), np.zeros(n, np.float32)
    cdef int8_t[:, ::1] q = values
    cdef float[::1] act_max = maxima
    if n and cols:
        with nogil:
            for t in range(n):
                act_max[t] = tier.quantise(&q[t, 0], &x[t, 0], cols)
    return values, maxima


def rescale(float weight_scale, float act_max) -> float:
    """The factor from an int32 dot product to its float result."""
    return bl_rescale(weight_scale, act_max)


def dense_gemm(str type not None, const uint8_t[:, ::1] weights not None, const float[:, ::1] x not None, *,
               str isa not None):
    """Product of weights of a ggml *type*, (M, bytes per row), with float activations (n, K): float32 (n, M)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t rows = weights.shape[0], n = x.shape[0], cols = x.shape[1]
    cdef bl_type kind = <bl_type>_dense_type(type, cols)
    _same("bytes per row of weights", weights.shape[1], bl_row_bytes(kind, cols))
    out = np.zeros((n, rows), np.float32)
    cdef float[:, ::1] result = out
    if n and rows and cols:
        with nogil:
            tier.dense_gemm(&result[0, 0], rows, kind, &weights[0, 0], &x[0, 0], cols, cols, 0, rows, n)
    return out


def dense_rows(str type not None, const uint8_t[:, ::1] weights not None, int64_t cols, *, str isa not None):
    """Weights of a ggml *type*, (M, bytes per row), as float32 (M, cols)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t rows = weights.shape[0], row
    cdef bl_type kind = <bl_type>_dense_type(type, cols)
    _same("bytes per row of weights", weights.shape[1], bl_row_bytes(kind, cols))
    out = np.zeros((rows, cols), np.float32)
    cdef float[:, ::1] result = out
    if rows and cols:
        with nogil:
            for row in range(rows):
                tier.dense_row(&result[row, 0], kind, &weights[row, 0], cols)
    return out


def rms_norm(const float[::1] x not None, const float[::1] weight not None, float eps, *, str isa not None):
    """``x / sqrt(mean(x**2) + eps) * weight``: float32 (n,)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = x.shape[0]
    _same("length of weight", weight.shape[0], n)
    out = np.zeros(n, np.float32)
    cdef float[::1] result = out
    if n:
        tier.rms_norm(&result[0], &x[0], &weight[0], n, eps)
    return out


def gate(str activation not None, const float[::1] gate not None, const float[::1] up not None, *,
         str isa not None):
    """``activation(gate) * up`` with activation "silu" or "relu2": float32 (n,)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = gate.shape[0]
    _same("length of up", up.shape[0], n)
    if activation not in ("silu", "relu2"):
        raise ValueError(f"activation {activation!r} is not one of silu, relu2")
    out = np.array(gate)
    cdef float[::1] result = out
    if n and activation == "silu":
        tier.silu_mul(&result[0], &up[0], n)
    elif n:
        tier.relu2_mul(&result[0], &up[0], n)
    return out


def rope(const float[::1] x not None, const float[::1] cosine not None, const float[::1] sine not None, *,
         bint interleaved, str isa not None):
    """One head (head_dim,) rotated by angles given as cosine and sine (rope_dim / 2,): float32 (head_dim,)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t half = cosine.shape[0]
    _same("length of sine", sine.shape[0], half)
    if 2 * half > x.shape[0]:
        raise ValueError(f"{half} angles rotate {2 * half} values, x has {x.shape[0]}")
    out = np.array(x)
    cdef float[::1] result = out
    if half:
        tier.rope(&result[0], &cosine[0], &sine[0], 2 * half, interleaved)
    return out


def to_f16(const float[::1] x not None, *, str isa not None):
    """*x* (n,), n a multiple of 16, in half precision: uint16 bits (n,)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = x.shape[0]
    _same("length of x modulo 16", n % 16, 0)
    out = np.zeros(n, np.uint16)
    cdef uint16_t[::1] result = out
    if n:
        tier.store_f16(&result[0], &x[0], n)
    return out


def attention(const float[:, ::1] q not None, keys not None, values not None, float scale, *, str isa not None):
    """softmax(q . keys * scale) . values of heads that share keys and values: float32 (heads, head_dim).

    q: (heads, head_dim), 1 to 4 heads, head_dim a multiple of 16. keys, values: (length, head_dim), both float32 or
    both uint16 (bits of half precision).
    """
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t heads = q.shape[0], head_dim = q.shape[1], length = len(keys)
    cdef bint half = keys.dtype == np.uint16
    if not 1 <= heads <= BL_MAX_HEADS:
        raise ValueError(f"q has {heads} heads, it must have 1 to {BL_MAX_HEADS}")
    _same("columns of q modulo 16", head_dim % 16, 0)
    kind = np.uint16 if half else np.float32
    if keys.dtype != kind or values.dtype != kind or keys.shape != (length, head_dim) or values.shape != keys.shape:
        raise ValueError(f"keys {keys.dtype}{keys.shape} and values {values.dtype}{values.shape} do not fit q "
                         f"({heads}, {head_dim})")
    out = np.zeros((heads, head_dim), np.float32)
    if length == 0 or head_dim == 0:
        return out
    cdef float[:, ::1] result = out
    cdef float[::1] scores = np.empty(heads * length, np.float32)
    cdef const uint8_t[::1] k = np.ascontiguousarray(keys).reshape(-1).view(np.uint8)
    cdef const uint8_t[::1] v = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    tier.attention(&result[0, 0], &q[0, 0], &k[0], &v[0], half, head_dim, length, scale, &scores[0], heads)
    return out
