"""Checked access to every function of every tier, on plain arrays.

Each function takes ``isa=``, the name of a tier of this machine; there is no global choice here.
"""

from concurrent.futures import ThreadPoolExecutor
from signal import strsignal
from time import perf_counter

import numpy as np

from bitnet_lut import _registry

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uintptr_t
from libc.stdlib cimport free, malloc

from ckernels cimport (
    BL_BF16,
    BL_CPU_COUNT,
    BL_F16,
    BL_F32,
    BL_KERNEL_COUNT,
    BL_KV_F16,
    BL_KV_F32,
    BL_MAX_COLS,
    BL_MAX_HEADS,
    BL_Q4_0,
    BL_Q6_K,
    BL_Q8_0,
    BL_STRIP,
    BL_TERNARY,
    BL_TIER_COUNT,
    bl_attention,
    bl_cell,
    bl_cell_of,
    bl_cpu,
    bl_cpu_names,
    bl_dense_packed_bytes,
    bl_gemm,
    bl_has_code_3,
    bl_i2_s_row_bytes,
    bl_is_block_type,
    bl_kernel,
    bl_kernels,
    bl_kv_kind,
    bl_pack,
    bl_pack_blocks,
    bl_packed_bytes,
    bl_prepare,
    bl_rescale,
    bl_row_bytes,
    bl_tier,
    bl_tiers,
    bl_token_bytes,
    bl_type,
    bl_unpack_blocks,
)

cdef extern from "check.h" nogil:
    ctypedef struct bl_check_input:
        pass
    ctypedef struct bl_check_output:
        pass
    int bl_tier_proves(const bl_tier *, bl_check_input *, bl_check_output *, int *)
    enum: BL_UNFINISHED


MAX_COLS = BL_MAX_COLS

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


def self_test_fault(str isa not None) -> str:
    """What is wrong with the tier *isa* as it runs now; empty if it gives the scalar tier's bits.

    It runs in a process of its own where the system has fork, so that an illegal instruction ends only that.
    """
    cdef const bl_tier *tier = _find(isa)
    cdef int found, number = 0
    cdef bl_check_input *given = <bl_check_input *>malloc(sizeof(bl_check_input))
    cdef bl_check_output *results = <bl_check_output *>malloc(2 * sizeof(bl_check_output))
    try:
        if given is NULL or results is NULL:
            raise MemoryError("the self-test of a tier needs 1 MB")
        with nogil:
            found = bl_tier_proves(tier, given, results, &number)
    finally:
        free(given)
        free(results)
    if found != BL_UNFINISHED:
        return "" if found else "its self-test differs from the scalar tier"
    if number:
        return f"its self-test was ended by signal {number} ({strsignal(number)})"
    return "its self-test did not come to its end"


def kernel_names() -> list[str]:
    """Every ternary kernel compiled in."""
    cdef int i
    return [bl_kernels[i].name.decode() for i in range(BL_KERNEL_COUNT)]


def aligned(int64_t nbytes):
    """Uninitialized uint8 (nbytes,) that starts at a cache line."""
    room = np.empty(nbytes + 64, np.uint8)
    cdef uint8_t[::1] view = room
    cdef int64_t skip = -<int64_t><uintptr_t>&view[0] & 63
    return room[skip:skip + nbytes]


cdef class Cell:
    """A ternary kernel on a tier: its packed layout, and its functions on plain arrays.

    name: one of `kernel_names`, or of a kernel from outside. isa: one of `tier_names`.
    Attributes: panel, the rows that are packed together; kernel_address and cell_address, for the engine.
    """

    cdef const bl_kernel *kernel
    cdef const bl_cell *cell
    cdef bl_kernel own_kernel
    cdef bl_cell own_cell
    cdef readonly str name
    cdef readonly str isa
    cdef object _kept

    def __cinit__(self, str name not None, *, str isa not None, functions=None):
        cdef int i
        self.name, self.isa = name, isa
        if functions is None:
            functions = _registry.functions.get(name)
        if functions is not None:
            self._set_functions(functions)
            return
        for i in range(BL_KERNEL_COUNT):
            if bl_kernels[i].name.decode() == name:
                self.kernel, self.cell = bl_kernels[i], bl_cell_of(_find(isa), i)
                return
        raise ValueError(f"kernel {name!r} is not one of {', '.join(kernel_names())}")

    cdef int _set_functions(self, functions) except -1:
        """From outside: addresses of C functions as ternary.h declares them, by name, with panel and their keeper."""
        self._kept = functions["kept"]
        self.own_kernel.name = b"outside"
        self.own_kernel.panel = functions["panel"]
        self.own_kernel.packed_bytes = <bl_packed_bytes><uintptr_t>functions["packed_bytes"]
        self.own_kernel.pack = <bl_pack><uintptr_t>functions["pack"]
        self.own_kernel.unpack = <bl_pack><uintptr_t>functions["unpack"]
        self.own_cell.token_bytes = <bl_token_bytes><uintptr_t>functions["token_bytes"]
        self.own_cell.prepare = <bl_prepare><uintptr_t>functions["prepare"]
        self.own_cell.gemm = <bl_gemm><uintptr_t>functions["gemm"]
        self.kernel, self.cell = &self.own_kernel, &self.own_cell
        return 0

    cdef int64_t _failures(self) except -1:
        """How often Python functions of a kernel from outside have raised something so far."""
        return 0 if self._kept is None else _registry.failures.count

    cdef int _raise(self, int64_t failures) except -1:
        """Raise what they raised since then."""
        if self._kept is not None:
            _registry.failures.raise_since(failures)
        return 0

    @property
    def panel(self) -> int:
        return self.kernel.panel

    @property
    def own(self) -> bool:
        """Whether this tier has functions of its own for the kernel, and not the scalar tier's."""
        cdef int i
        for i in range(BL_KERNEL_COUNT):
            if bl_kernels[i] == self.kernel and self.isa != "scalar":
                return self.cell != bl_cell_of(bl_tiers[BL_TIER_COUNT - 1], i)
        return True

    @property
    def kernel_address(self) -> int:
        return <uintptr_t>self.kernel

    @property
    def cell_address(self) -> int:
        return <uintptr_t>self.cell

    def packed_bytes(self, int64_t rows, int64_t cols) -> int:
        """Bytes of a packed matrix (rows, cols)."""
        if rows < 0 or not 0 <= cols <= BL_MAX_COLS:
            raise ValueError(f"{rows} x {cols}: rows must not be negative, and at most {BL_MAX_COLS} columns keep the "
                             "int32 sums exact")
        failures = self._failures()
        nbytes = self.kernel.packed_bytes(rows, cols)
        self._raise(failures)
        return nbytes

    def token_bytes(self, int64_t cols, int64_t n) -> int:
        """Bytes of each of *n* prepared tokens of *cols* activations."""
        if not (0 <= cols <= BL_MAX_COLS and n >= 1):
            raise ValueError(f"{n} tokens of {cols}: at least one token, at most {BL_MAX_COLS} columns")
        failures = self._failures()
        nbytes = self.cell.token_bytes(cols, n)
        self._raise(failures)
        return nbytes

    cdef _check_rows(self, int64_t rows, int64_t lo, int64_t hi):
        if not 0 <= lo <= hi <= rows:
            raise ValueError(f"rows [{lo}, {hi}) are not within the {rows} rows of packed")
        if lo % self.kernel.panel or (hi % self.kernel.panel and hi != rows):
            raise ValueError(f"rows [{lo}, {hi}) do not start and end with a panel of {self.kernel.panel}")

    def pack(self, const uint8_t[:, ::1] canonical not None, int64_t cols, *, uint8_t[::1] out=None):
        """Canonical i2_s rows, (M, ceil(cols / 128) * 32), in this kernel's layout: uint8 (packed_bytes,), or *out*.

        Raises ValueError for code 3, which only i2_s itself can hold.
        """
        cdef int64_t rows = canonical.shape[0], nbytes = self.packed_bytes(rows, cols)
        _same("bytes per row", canonical.shape[1], bl_i2_s_row_bytes(cols))
        if self.name != "i2_s" and has_code_3(canonical):
            raise ValueError(f"code 3 is no ternary weight: {self.name} cannot hold it, i2_s can")
        if out is None:
            out = aligned(nbytes)
        _same("bytes of out", out.shape[0], nbytes)
        failures = self._failures()
        if nbytes:
            with nogil:
                self.kernel.pack(&out[0], &canonical[0, 0], rows, cols, 0, rows)
        self._raise(failures)
        return np.asarray(out)

    def unpack(self, const uint8_t[::1] packed not None, int64_t rows, int64_t cols):
        """Canonical i2_s rows (rows, ceil(cols / 128) * 32) of a packed matrix."""
        _same("bytes of packed", packed.shape[0], self.packed_bytes(rows, cols))
        canonical = np.empty((rows, bl_i2_s_row_bytes(cols)), np.uint8)
        cdef uint8_t[:, ::1] result = canonical
        failures = self._failures()
        if result.size:
            with nogil:
                self.kernel.unpack(&result[0, 0], &packed[0], rows, cols, 0, rows)
        self._raise(failures)
        return canonical

    def prepare(self, const int8_t[:, ::1] q not None):
        """Activations (n, K) as this cell reads them: uint8 (n, token_bytes)."""
        cdef int64_t n = q.shape[0], cols = q.shape[1], t, token_bytes = self.token_bytes(cols, max(n, 1))
        room = aligned(n * token_bytes).reshape(n, token_bytes)
        cdef uint8_t[:, ::1] prepared = room
        failures = self._failures()
        if n and cols:
            with nogil:
                for t in range(n):
                    self.cell.prepare(&prepared[t, 0], &q[t, 0], cols, n)
        self._raise(failures)
        return room

    def gemm(self, const uint8_t[::1] packed not None, const uint8_t[:, ::1] prepared not None, int64_t rows,
             int64_t cols, *, int64_t lo=0, hi=None, int32_t[:, ::1] out=None):
        """Exact dot products of packed rows (rows, cols) with prepared tokens (n, token_bytes): int32 (n, rows).

        lo, hi: only these rows are computed, whole panels or up to the last row; the others of *out* stay as they are,
        zero if it is new.
        """
        cdef int64_t n = prepared.shape[0], end = rows if hi is None else hi
        _same("bytes of packed", packed.shape[0], self.packed_bytes(rows, cols))
        _same("bytes of a prepared token", prepared.shape[1], self.token_bytes(cols, max(n, 1)))
        self._check_rows(rows, lo, end)
        if out is None:
            out = np.zeros((n, rows), np.int32)
        _same("tokens of out", out.shape[0], n)
        _same("rows of out", out.shape[1], rows)
        failures = self._failures()
        if n and rows and cols:
            with nogil:
                self.cell.gemm(&out[0, 0], rows, &packed[0], &prepared[0, 0], rows, cols, lo, end, n)
        self._raise(failures)
        return np.asarray(out)

    def time(self, const uint8_t[:, ::1] ring not None, const uint8_t[:, ::1] prepared not None, int64_t rows,
             int64_t cols, *, int64_t first=0, int64_t count=1, int64_t lo=0, hi=None):
        """Seconds for `gemm` with *count* packed matrices of *ring* (any number, bytes) one after another, from
        *first* on and around its end."""
        cdef int64_t n = prepared.shape[0], end = rows if hi is None else hi, i, matrices = ring.shape[0]
        _same("bytes of a packed matrix", ring.shape[1], self.packed_bytes(rows, cols))
        _same("bytes of a prepared token", prepared.shape[1], self.token_bytes(cols, max(n, 1)))
        self._check_rows(rows, lo, end)
        if not (n and rows and cols and matrices and first >= 0):
            raise ValueError(f"nothing to time: {matrices} matrices of {rows} x {cols} from {first} on, {n} tokens")
        cdef int32_t[:, ::1] out = np.zeros((n, rows), np.int32)
        failures = self._failures()
        start = perf_counter()
        with nogil:
            for i in range(first, first + count):
                self.cell.gemm(&out[0, 0], rows, &ring[i % matrices, 0], &prepared[0, 0], rows, cols, lo, end, n)
        seconds = perf_counter() - start
        self._raise(failures)
        return seconds


def has_code_3(const uint8_t[:, ::1] canonical not None) -> bool:
    """Whether canonical i2_s rows hold the code that is no ternary weight."""
    cdef int found = 0
    if canonical.size:
        with nogil:
            found = bl_has_code_3(&canonical[0, 0], canonical.shape[0] * canonical.shape[1])
    return bool(found)


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


def attention(const float[:, ::1] q not None, keys not None, values not None, float scale, *, str isa not None):
    """softmax(q . keys * scale) . values of heads that share keys and values: float32 (heads, head_dim).

    q: (heads, head_dim), 1 to 4 heads, head_dim a multiple of 16. keys, values: (length, head_dim), both float32 or
    both uint16 (bits of half precision).
    """
    cdef const bl_tier *tier = _find(isa)
    cdef int64_t heads = q.shape[0], head_dim = q.shape[1], length = len(keys)
    cdef bl_kv_kind kind = BL_KV_F16 if keys.dtype == np.uint16 else BL_KV_F32
    if not 1 <= heads <= BL_MAX_HEADS:
        raise ValueError(f"q has {heads} heads, it must have 1 to {BL_MAX_HEADS}")
    _same("columns of q modulo 16", head_dim % 16, 0)
    dtype = np.uint16 if kind == BL_KV_F16 else np.float32
    if keys.dtype != dtype or values.dtype != dtype or keys.shape != (length, head_dim) or values.shape != keys.shape:
        raise ValueError(f"keys {keys.dtype}{keys.shape} and values {values.dtype}{values.shape} do not fit q "
                         f"({heads}, {head_dim})")
    out = np.zeros((heads, head_dim), np.float32)
    if length == 0 or head_dim == 0:
        return out
    cdef float[:, ::1] result = out
    cdef float[::1] scores = np.empty(heads * length, np.float32)
    cdef const uint8_t[::1] k = np.ascontiguousarray(keys).reshape(-1).view(np.uint8)
    cdef const uint8_t[::1] v = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    bl_attention(tier, &result[0, 0], &q[0, 0], &k[0], &v[0], kind, head_dim, length, scale, &scores[0], heads)
    return out
