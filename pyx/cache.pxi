"""The keys and values of one sequence."""

import os
import threading

from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc

from cengine cimport bl_cache, bl_cache_bytes, bl_cache_copy, bl_cache_place
from ckernels cimport BL_KV_KINDS, bl_kv_formats, bl_kv_kind, bl_round_up

CACHE_KINDS = tuple(sorted(bl_kv_formats[<int>i].name.decode() for i in range(BL_KV_KINDS)))

cdef int64_t _ALIGN = 64
cdef int64_t _MOST = (1 << 31) - 1  # positions or tokens: sizes in bytes of a workspace then stay within 64 bits
cdef int64_t _MOST_BYTES = 1 << 62


cdef bl_kv_kind _kind_of(str name) except *:
    cdef int i
    for i in range(BL_KV_KINDS):
        if bl_kv_formats[i].name.decode() == name:
            return <bl_kv_kind>i
    raise ValueError(f"kind {name!r} of cache is not one of {', '.join(CACHE_KINDS)}")


cdef uint8_t *_allocate(int64_t nbytes, uint8_t **block) noexcept:
    """Memory that starts at a multiple of 64, and the block to free later; NULL if there is no memory."""
    block[0] = <uint8_t *>malloc(<size_t>nbytes + _ALIGN)
    if block[0] is NULL:
        return NULL
    return <uint8_t *><uintptr_t>bl_round_up(<int64_t><uintptr_t>block[0], _ALIGN)


cdef int _hold(lock, list held, str message) except -1:
    """Take a lock that nobody may hold, and note it in *held*."""
    if not lock.acquire(False):
        raise RuntimeError(message)
    held.append(lock)
    return 0


cdef int _release(list held) except -1:
    for lock in held:
        lock.release()
    return 0


def cache_bytes(Weights weights not None, int64_t context, *, str kind not None="f16") -> int:
    """Bytes of a Cache before it is made."""
    if not 1 <= context <= _MOST:
        raise ValueError(f"context {context} must be in 1..{_MOST}")
    cdef int64_t one = bl_cache_bytes(&weights.model, _kind_of(kind), 1)
    if context > _MOST_BYTES // one:
        raise MemoryError(f"{context} positions of {one:,} bytes are more than 64 bits can count; ask for a shorter "
                          "context")
    return bl_cache_bytes(&weights.model, _kind_of(kind), context)


cdef class Cache:
    """Keys and values of one sequence, and the position it has reached.

    context: positions it can hold. kind: one of CACHE_KINDS, how it keeps them.

    One thread uses it at a time; a second one is refused with RuntimeError.
    """

    cdef bl_cache cache
    cdef uint8_t *block
    cdef object lock
    cdef object process  # that took the lock last
    cdef readonly Weights weights
    cdef readonly str kind
    cdef readonly int64_t nbytes

    def __cinit__(self, Weights weights not None, int64_t context, *, str kind not None="f16"):
        self.weights, self.kind, self.lock = weights, kind, threading.Lock()
        self.nbytes = cache_bytes(weights, context, kind=kind)
        cdef uint8_t *memory = _allocate(self.nbytes, &self.block)
        if memory is NULL:
            raise MemoryError(f"no memory for a cache of {context} positions, {self.nbytes:,} bytes; ask for a shorter "
                              "context")
        bl_cache_place(&self.cache, &weights.model, _kind_of(kind), context, memory)

    def __dealloc__(self):
        free(self.block)

    @property
    def context(self) -> int:
        """Positions it can hold."""
        return self.cache.context

    @property
    def position(self) -> int:
        """Tokens it holds."""
        return self.cache.position

    cdef int _hold(self, list held) except -1:
        if self.lock.locked() and self.process != os.getpid():
            raise RuntimeError("this cache was in the middle of a step of another thread when this process was forked: "
                               "make a new one here")
        _hold(self.lock, held, "this cache is in use by another thread: give every thread a sequence of its own")
        self.process = os.getpid()
        return 0

    def rewind(self, int64_t position) -> None:
        """Go back to an earlier *position*; what came after is forgotten. Raises ValueError for one not reached yet."""
        held = []
        self._hold(held)
        try:
            if not 0 <= position <= self.cache.position:
                raise ValueError(f"cannot rewind to {position}, the cache is at {self.cache.position}")
            self.cache.position = position
        finally:
            _release(held)

    def fork(self, *, context=None, position=None) -> Cache:
        """A new cache that continues from *position* on its own; only what stands before it is copied.

        context: positions that it can hold; default: as many as this one. position: default: where this one is.
        Raises ValueError for a position that was not reached yet or does not fit *context*.
        """
        cdef Cache other = Cache(self.weights, self.cache.context if context is None else context, kind=self.kind)
        cdef bl_cache head
        held = []
        self._hold(held)
        try:
            head = self.cache
            if position is not None:
                head.position = position
            if not 0 <= head.position <= self.cache.position:
                raise ValueError(f"cannot fork at {position}, the cache is at {self.cache.position}")
            if head.position > other.cache.context:
                raise ValueError(f"{head.position} positions do not fit a cache of {other.cache.context}")
            with nogil:
                bl_cache_copy(&other.cache, &head, &self.weights.model)
        finally:
            _release(held)
        return other

    def read(self):
        """The bytes of the positions it holds, uint8 (cache_bytes of as many positions,); empty for an empty cache."""
        cdef bl_cache packed
        cdef uint8_t[::1] data
        held = []
        self._hold(held)
        try:
            if self.cache.position == 0:
                return np.empty(0, np.uint8)
            found = np.zeros(cache_bytes(self.weights, self.cache.position, kind=self.kind), np.uint8)
            data = found
            bl_cache_place(&packed, &self.weights.model, self.cache.kind, self.cache.position, &data[0])
            bl_cache_copy(&packed, &self.cache, &self.weights.model)
        finally:
            _release(held)
        return found

    def fill(self, const uint8_t[::1] data not None, int64_t position) -> None:
        """Hold what `read` gave for *position* positions of a cache of the same model and kind.

        Raises ValueError if it does not fit the context, or if *data* has another size.
        """
        cdef bl_cache packed
        held = []
        self._hold(held)
        try:
            if not 0 <= position <= self.cache.context:
                raise ValueError(f"{position} positions do not fit a cache of {self.cache.context}")
            expected = cache_bytes(self.weights, position, kind=self.kind) if position else 0
            if data.shape[0] != expected:
                raise ValueError(f"{data.shape[0]} bytes for {position} positions, which take {expected}")
            self.cache.position = 0
            if position:
                bl_cache_place(&packed, &self.weights.model, self.cache.kind, position, <void *>&data[0])
                packed.position = position
                bl_cache_copy(&self.cache, &packed, &self.weights.model)
        finally:
            _release(held)
