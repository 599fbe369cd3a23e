"""A team of threads."""

from libc.stdlib cimport calloc, free

from cengine cimport BL_MAX_WORKERS, bl_pool, bl_pool_free, bl_pool_init

MAX_THREADS = BL_MAX_WORKERS


cdef class Pool:
    """A team of *threads* threads, the calling one included; see src/pool.h."""

    cdef bl_pool *pool
    cdef set probing  # the threads whose probes it runs now

    def __cinit__(self, int threads):
        if not 1 <= threads <= BL_MAX_WORKERS:
            raise ValueError(f"threads is {threads}, it must be 1 to {BL_MAX_WORKERS}")
        self.probing = set()
        self.pool = <bl_pool *>calloc(1, sizeof(bl_pool))
        if self.pool is NULL:
            raise MemoryError("no memory for a thread pool")
        bl_pool_init(self.pool, threads)

    def __dealloc__(self):
        if self.pool is not NULL:
            with nogil:
                bl_pool_free(self.pool)
            free(self.pool)

    @property
    def threads(self) -> int:
        """Threads at work, the caller included."""
        return self.pool.workers
