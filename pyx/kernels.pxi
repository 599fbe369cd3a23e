"""Checked access to every function of every tier, on plain arrays.

Each function takes ``isa=``, the name of a tier of this machine; there is no global choice here.
"""

from signal import strsignal
from time import perf_counter

import numpy as np

from bitnet_lut import _registry

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uintptr_t
from libc.stdlib cimport free, malloc

from ckernels cimport (
    BL_CPU_COUNT,
    BL_KERNEL_COUNT,
    BL_MAX_COLS,
    BL_OWN_TOKENS,
    bl_cell,
    bl_cell_of,
    bl_cpu,
    bl_cpu_names,
    bl_gemm,
    bl_has_code_3,
    bl_i2_s_row_bytes,
    bl_kernel,
    bl_kernels,
    bl_pack,
    bl_packed_bytes,
    bl_prepare,
    bl_sums,
    bl_tier,
    bl_tier_count,
    bl_tiers,
    bl_token_bytes,
)

cdef extern from "check.h" nogil:
    ctypedef struct bl_check_input:
        pass
    ctypedef struct bl_check_output:
        pass
    int bl_tier_proves(const bl_tier *, bl_check_input *, bl_check_output *, int *)
    enum: BL_UNFINISHED

cdef extern from "pass.h" nogil:
    void bl_share(int64_t total, int64_t step, int worker, int workers, int64_t *lo, int64_t *hi)
    int64_t bl_row_step(const bl_kernel *)


MAX_COLS = BL_MAX_COLS

cdef const bl_tier *_find(str isa) except NULL:
    cdef int i
    for i in range(bl_tier_count):
        if bl_tiers[i].name.decode() == isa:
            missing = missing_features(isa)
            if missing:
                raise ValueError(f"isa {isa!r} needs {', '.join(missing)}, which this machine lacks")
            return bl_tiers[i]
    raise ValueError(f"isa {isa!r} is not one of {', '.join(tier_names())}")


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
    return [bl_tiers[i].name.decode() for i in range(bl_tier_count)]


def missing_features(str isa not None) -> list[str]:
    """What the tier *isa* needs and this machine lacks; empty if it can run here."""
    cdef int i, bit
    found = bl_cpu()
    for i in range(bl_tier_count):
        if bl_tiers[i].name.decode() == isa:
            lacking = bl_tiers[i].needs & ~found
            return [bl_cpu_names[bit].decode() for bit in range(BL_CPU_COUNT) if lacking >> bit & 1]
    raise ValueError(f"isa {isa!r} is not one of {', '.join(tier_names())}")


def dot_instruction(str isa not None) -> str:
    """The instruction by which the tier *isa* multiplies and adds bytes; empty for "scalar"."""
    cdef int i
    for i in range(bl_tier_count):
        if bl_tiers[i].name.decode() == isa:
            return bl_tiers[i].dot.decode()
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
            raise MemoryError("no memory for the self-test of a tier, about 3 MB")
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


def kernel_sums(str name not None, str isa not None):
    """How a compiled-in kernel adds up on the tier *isa*, whether it can run here or not.

    ``(column, weights_per_lookup, ((bits, step, steps), ...))`` as `bl_sums` of ternary.h has them, or None if there is
    no such kernel or tier, or the tier has no functions of its own for the kernel.
    """
    cdef int i, j
    cdef const bl_cell *cell
    for i in range(BL_KERNEL_COUNT):
        for j in range(bl_tier_count):
            if bl_kernels[i].name.decode() == name and bl_tiers[j].name.decode() == isa:
                cell = &bl_kernels[i].plain if isa == "scalar" else bl_tiers[j].cells[i]
                return None if cell is NULL else _sums_of(&cell.sums)
    return None


cdef tuple _sums_of(const bl_sums *sums):
    cdef int i
    narrow = [(sums.narrow[i].bits, sums.narrow[i].step, sums.narrow[i].steps) for i in range(3) if sums.narrow[i].bits]
    return sums.column, sums.weights_per_lookup, tuple(narrow)


def aligned(int64_t nbytes):
    """Uninitialized uint8 (nbytes,) that starts at a cache line."""
    room = np.empty(nbytes + 64, np.uint8)
    cdef uint8_t[::1] view = room
    cdef int64_t skip = -<int64_t><uintptr_t>&view[0] & 63
    return room[skip:skip + nbytes]


cdef class Cell:
    """A ternary kernel on a tier: its packed layout, and its functions on plain arrays.

    name: one of `kernel_names`, or of a kernel from outside. isa: one of `tier_names`.
    Attributes: panel, the rows that are packed together.
    """

    cdef const bl_kernel *kernel
    cdef const bl_cell *cell
    cdef bl_kernel own_kernel
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
        self.own_kernel.plain.token_bytes = <bl_token_bytes><uintptr_t>functions["token_bytes"]
        self.own_kernel.plain.prepare = <bl_prepare><uintptr_t>functions["prepare"]
        self.own_kernel.plain.gemm = <bl_gemm><uintptr_t>functions["gemm"]
        self.kernel, self.cell = &self.own_kernel, &self.own_kernel.plain
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
        """Whether this tier has functions of its own for the kernel, and does not use those in plain C."""
        return self._kept is not None or self.isa == "scalar" or self.cell != &self.kernel.plain

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
            raise ValueError(f"code 3 is not a ternary weight: {self.name} cannot hold it, i2_s can")
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

    def parts(self, const uint8_t[::1] packed not None, const int8_t[:, ::1] q not None, int64_t rows, int workers):
        """What so many workers that share out the columns add to the exact products of packed rows (rows, K) with
        tokens q (n, K): int32 (workers, n, whole panels of rows). None where workers share out rows."""
        cdef int64_t n = q.shape[0], cols = q.shape[1], stride = bl_round_up(rows, self.kernel.panel), t, token_bytes
        cdef int32_t[:, :, ::1] out
        cdef uint8_t[:, ::1] prepared
        cdef int worker
        if self.cell.gemm_share == NULL or not 0 < n <= BL_OWN_TOKENS or not rows or not cols:
            return None
        _same("bytes of packed", packed.shape[0], self.packed_bytes(rows, cols))
        token_bytes = self.token_bytes(cols, n)
        out = np.empty((workers, n, stride), np.int32)
        for worker in range(workers):
            room = aligned(n * token_bytes)
            room[:] = 0x55
            prepared = room.reshape(n, token_bytes)
            with nogil:
                for t in range(n):
                    self.cell.prepare_share(&prepared[t, 0], &q[t, 0], cols, n, worker, workers)
                self.cell.gemm_share(&out[worker, 0, 0], stride, &packed[0], &prepared[0, 0], rows, cols, n, worker,
                                     workers)
        return np.asarray(out)

    def time(self, const uint8_t[:, ::1] ring not None, const uint8_t[:, ::1] prepared not None, int64_t rows,
             int64_t cols, *, int64_t first=0, int64_t count=1, int worker=0, int workers=1):
        """Seconds for a worker's share of *count* packed matrices of *ring* (any number, bytes) one after another, from
        *first* on and around its end: of their columns where a model shares out those, else of their rows."""
        cdef int64_t n = prepared.shape[0], i, matrices = ring.shape[0], lo, hi
        cdef int64_t stride = bl_round_up(rows, self.kernel.panel)
        cdef bint by_columns = self.cell.gemm_share != NULL and n <= BL_OWN_TOKENS and workers > 1
        _same("bytes of a packed matrix", ring.shape[1], self.packed_bytes(rows, cols))
        _same("bytes of a prepared token", prepared.shape[1], self.token_bytes(cols, max(n, 1)))
        if not (n and rows and cols and matrices and first >= 0):
            raise ValueError(f"nothing to time: {matrices} matrices of {rows} x {cols} from {first} on, {n} tokens")
        if not 0 <= worker < workers:
            raise ValueError(f"worker {worker} is not one of {workers}")
        bl_share(rows, bl_row_step(self.kernel), worker, workers, &lo, &hi)
        cdef int32_t[:, ::1] out = np.zeros((n, stride), np.int32)
        failures = self._failures()
        start = perf_counter()
        with nogil:
            for i in range(first, first + count):
                if by_columns:
                    self.cell.gemm_share(&out[0, 0], stride, &ring[i % matrices, 0], &prepared[0, 0], rows, cols, n,
                                         worker, workers)
                elif lo < hi:
                    self.cell.gemm(&out[0, 0], stride, &ring[i % matrices, 0], &prepared[0, 0], rows, cols, lo, hi, n)
        seconds = perf_counter() - start
        self._raise(failures)
        return seconds


def has_code_3(const uint8_t[:, ::1] canonical not None) -> bool:
    """Whether canonical i2_s rows hold code 3, which is not a ternary weight."""
    cdef int found = 0
    if canonical.size:
        with nogil:
            found = bl_has_code_3(&canonical[0, 0], canonical.shape[0] * canonical.shape[1])
    return bool(found)
