"""The roofs of this machine, measured: bytes read and multiply-adds, per second."""

from time import perf_counter

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from cengine cimport BL_MAX_WORKERS, bl_pool, bl_pool_free, bl_pool_init, bl_pool_run
from ckernels cimport bl_tier


cdef extern from "roof.h" nogil:
    enum: BL_ROOF_UNIT

    ctypedef struct bl_roof_job:
        const bl_tier *tier
        const uint8_t *data
        int64_t bytes
        int64_t passes
        uint64_t digest[]
    void bl_roof_task(void *, int, int)


READ_UNIT = BL_ROOF_UNIT


cdef class _Team:
    """A job, and the threads that do it."""

    cdef bl_pool *pool
    cdef bl_roof_job *job

    def __cinit__(self, int threads):
        if not 1 <= threads <= BL_MAX_WORKERS:
            raise ValueError(f"threads is {threads}, it must be 1 to {BL_MAX_WORKERS}")
        self.pool = <bl_pool *>calloc(1, sizeof(bl_pool))
        self.job = <bl_roof_job *>calloc(1, sizeof(bl_roof_job))
        if self.pool is NULL or self.job is NULL:
            raise MemoryError("no memory for a thread pool")
        bl_pool_init(self.pool, threads)

    def __dealloc__(self):
        if self.pool is not NULL and self.pool.workers:
            with nogil:
                bl_pool_free(self.pool)
        free(self.pool)
        free(self.job)

    cdef double seconds(self):
        start = perf_counter()
        with nogil:
            bl_pool_run(self.pool, <void (*)(void *, int, int) noexcept nogil>bl_roof_task, self.job)
        return perf_counter() - start


def read_roof(const uint8_t[::1] data not None, *, str isa not None, int threads=1, int64_t passes=1):
    """Read all of *data*, a multiple of READ_UNIT bytes, *passes* times.

    Returns ``(seconds, digest)``; the digest is the XOR of the 64-bit words, or 0 after an even number of passes.
    """
    cdef const bl_tier *tier = _find(isa)
    if data.shape[0] == 0 or data.shape[0] % BL_ROOF_UNIT or passes < 1:
        raise ValueError(f"data has {data.shape[0]} bytes and passes is {passes}: there must be some, and a multiple "
                         f"of {BL_ROOF_UNIT} bytes")
    cdef _Team team = _Team(threads)
    cdef uint64_t digest = 0
    cdef int i
    team.job.tier, team.job.passes = tier, passes
    team.job.data, team.job.bytes = &data[0], data.shape[0]
    seconds = team.seconds()
    for i in range(team.pool.workers):
        digest ^= team.job.digest[i]
    return seconds, digest


def multiply_roof(int64_t macs, *, str isa not None, int threads=1):
    """Do at least *macs* multiply-adds on each thread; returns ``(seconds, multiply-adds done by all)``."""
    cdef const bl_tier *tier = _find(isa)
    if macs < 1:
        raise ValueError(f"macs is {macs}, it must be at least 1")
    cdef _Team team = _Team(threads)
    team.job.tier, team.job.passes = tier, (macs + tier.roof_macs - 1) // tier.roof_macs
    seconds = team.seconds()
    return seconds, team.job.passes * tier.roof_macs * team.pool.workers
