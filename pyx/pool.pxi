"""A team of threads."""

from libc.stdlib cimport calloc, free

from cengine cimport bl_pool, bl_pool_free, bl_pool_init


cdef class Pool:
    """A team of *threads* threads, the calling one included; see src/pool.h."""

    cdef bl_pool *pool
    cdef set probing  # the threads whose probes it runs now

    def __cinit__(self, int threads):
        self.probing = set()
        if threads < 1:
            raise ValueError(f"threads is {threads}, it must be at least 1")
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
