"""Dense matrices, float operations and attention of a tier, on plain arrays."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uintptr_t

from cengine cimport BL_KEYS, BL_VALUES, bl_store_row
from ckernels cimport (
    BL_BF16,
    BL_F16,
    BL_F32,
    BL_MAX_HEADS,
    BL_PAGE,
    BL_Q4_0,
    BL_Q6_K,
    BL_Q8_0,
    BL_STRIP,
    bl_attention,
    bl_dense_packed_bytes,
    bl_is_block_type,
    bl_kv_kind,
    bl_kv_rows,
    bl_kv_strip_bytes,
    bl_pack_blocks,
    bl_rescale,
    bl_row_bytes,
    bl_score_stride,
    bl_tier,
    bl_type,
    bl_unpack_blocks,
)


# Types of dense matrices, and the columns in one of their blocks.
cdef dict _DENSE = {
    "f32": (BL_F32, 1), "f16": (BL_F16, 1), "bf16": (BL_BF16, 1), "q8_0": (BL_Q8_0, 32), "q4_0": (BL_Q4_0, 32),
    "q6_k": (BL_Q6_K, 256),
}


cdef int _dense_type(str type, int64_t cols) except -1:
    if type not in _DENSE:
        raise ValueError(f"type {type!r} is not one of {', '.join(_DENSE)}")
    kind, block = _DENSE[type]
    if cols % block:
        raise ValueError(f"{type} needs columns in blocks of {block}, not {cols}")
    return kind


def quantize(const float[:, ::1] x not None, *, str isa not None):
    """Activations (n, K) as int8: ``(q int8 (n, K), act_max float32 (n,))``, value = q * act_max / 127."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = x.shape[0], cols = x.shape[1], t
    values, maxima = np.zeros((n, cols), np.int8), np.zeros(n, np.float32)
    cdef int8_t[:, ::1] q = values
    cdef float[::1] act_max = maxima
    if n and cols:
        with nogil:
            for t in range(n):
                act_max[t] = tier.quantize(&q[t, 0], &x[t, 0], cols)
    return values, maxima


def rescale(float weight_scale, float act_max) -> float:
    """The factor from an int32 dot product to its float result."""
    return bl_rescale(weight_scale, act_max)


def pack_dense(str type not None, const uint8_t[:, ::1] weights not None, int64_t cols, *, int threads=1):
    """Weights of a ggml *type*, (M, bytes per row), as `dense_gemm` reads them: uint8 (bytes,).

    Floats stay where they are; block types are brought into strips of rows, by so many *threads*.
    """
    cdef int64_t rows = weights.shape[0]
    cdef bl_type kind = <bl_type>_dense_type(type, cols)
    _same("bytes per row of weights", weights.shape[1], bl_row_bytes(kind, cols))
    if not bl_is_block_type(kind):
        return np.asarray(weights).reshape(-1)
    packed = aligned(bl_dense_packed_bytes(kind, rows, cols))
    cdef int64_t share = max(1, -(-rows // (BL_STRIP * threads))) * BL_STRIP

    def pack(int64_t lo):
        cdef uint8_t[::1] to = packed
        cdef int64_t hi = min(lo + share, rows)
        with nogil:
            bl_pack_blocks(&to[0], &weights[0, 0], kind, rows, cols, lo, hi)

    if packed.size:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pack, range(0, rows, share)))
    return packed


def unpack_dense(str type not None, const uint8_t[::1] packed not None, int64_t rows, int64_t cols):
    """Weights of a ggml *type*, (rows, bytes per row), from what `pack_dense` made of them."""
    cdef bl_type kind = <bl_type>_dense_type(type, cols)
    if rows < 0:
        raise ValueError(f"rows is {rows}")
    _same("bytes of packed", packed.shape[0], bl_dense_packed_bytes(kind, rows, cols))
    if not bl_is_block_type(kind):
        return np.asarray(packed).reshape(rows, bl_row_bytes(kind, cols))
    weights = np.empty((rows, bl_row_bytes(kind, cols)), np.uint8)
    cdef uint8_t[:, ::1] to = weights
    if weights.size:
        with nogil:
            bl_unpack_blocks(&to[0, 0], &packed[0], kind, cols, 0, rows)
    return weights


def dense_gemm(str type not None, const uint8_t[::1] packed not None, const float[:, ::1] x not None, int64_t rows, *,
               str isa not None):
    """Product of weights (M, K) as `pack_dense` gives them with float activations (n, K): float32 (n, M)."""
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t n = x.shape[0], cols = x.shape[1]
    cdef bl_type kind = <bl_type>_dense_type(type, cols)
    if rows < 0:
        raise ValueError(f"rows is {rows}")
    _same("bytes of packed", packed.shape[0], bl_dense_packed_bytes(kind, rows, cols))
    out = np.zeros((n, rows), np.float32)
    cdef float[:, ::1] result = out
    cdef int64_t t, token_bytes = tier.dense_bytes(cols)
    cdef uint8_t[::1] prepared = aligned(n * token_bytes)
    if n and rows and cols:
        with nogil:
            for t in range(n):
                tier.dense_prepare(&prepared[t * token_bytes], &x[t, 0], cols)
            tier.dense_gemm(&result[0, 0], rows, kind, &packed[0], &prepared[0], cols, 0, rows, n)
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


def attention(const float[:, ::1] q not None, const float[:, ::1] keys not None, const float[:, ::1] values not None,
              float scale, *, str kind not None="f32", str isa not None):
    """softmax(q . keys * scale) . values of heads that share keys and values: float32 (heads, head_dim).

    q: (heads, head_dim), 1 to 4 heads, head_dim a multiple of 16. keys, values: (length, head_dim). kind: how a cache
    keeps them, one of CACHE_KINDS.
    """
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t heads = q.shape[0], head_dim = q.shape[1], length = keys.shape[0]
    cdef bl_kv_kind kv = _kind_of(kind)
    if not 1 <= heads <= BL_MAX_HEADS:
        raise ValueError(f"q has {heads} heads, it must have 1 to {BL_MAX_HEADS}")
    _same("columns of q modulo 16", head_dim % 16, 0)
    _check_head_dim(kv, head_dim)
    if keys.shape[1] != head_dim or values.shape[0] != length or values.shape[1] != head_dim:
        raise ValueError(f"keys ({keys.shape[0]}, {keys.shape[1]}) and values ({values.shape[0]}, {values.shape[1]}) "
                         f"do not fit q ({heads}, {head_dim})")
    out = np.zeros((heads, head_dim), np.float32)
    if length == 0 or head_dim == 0:
        return out
    cdef float[:, ::1] result = out
    cdef float[::1] scores = np.empty(heads * bl_score_stride(length), np.float32)
    cdef int64_t strip_bytes = bl_kv_strip_bytes(kv, head_dim, BL_PAGE), pages = _pages_of(length), i
    cdef uint8_t[::1] memory = np.empty(2 * pages * strip_bytes, np.uint8)
    cdef uintptr_t[::1] page = np.empty(pages, np.uintp)
    cdef bl_kv_rows key_rows, value_rows
    for i in range(pages):
        page[i] = <uintptr_t>&memory[2 * i * strip_bytes]
    key_rows.pages = value_rows.pages = <uint8_t **>&page[0]
    key_rows.offset, value_rows.offset = 0, strip_bytes
    key_rows.kind = value_rows.kind = kv
    key_rows.head_dim = value_rows.head_dim = head_dim
    key_rows.heads = value_rows.heads = 1
    for i in range(length):
        bl_store_row(tier, &key_rows, BL_KEYS, i, &keys[i, 0])
        bl_store_row(tier, &value_rows, BL_VALUES, i, &values[i, 0])
    bl_attention(tier, &result[0, 0], &q[0, 0], &key_rows, &value_rows, length, scale, &scores[0], 1,
                 heads)
    return out
