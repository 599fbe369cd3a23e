"""The keys and values of one sequence, in pages that sequences share."""

import os
import threading

cimport cython
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc

from cengine cimport bl_cache, bl_cache_fill, bl_cache_read, bl_page_bytes, bl_page_copy, bl_rows_bytes
from ckernels cimport BL_KV_KINDS, BL_KV_Q8, BL_PAGE, BL_Q8_MOST, bl_kv_formats, bl_kv_kind, bl_round_up

CACHE_KINDS = tuple(sorted(bl_kv_formats[<int>i].name.decode() for i in range(BL_KV_KINDS)))
PAGE = BL_PAGE

cdef extern from * nogil:
    """
    #ifndef _WIN32
    #include <sys/mman.h>
    #endif
    static void bl_ask_huge_pages(void *start, size_t bytes)
    {
    #ifdef MADV_HUGEPAGE
        madvise(start, bytes, MADV_HUGEPAGE);
    #endif
    }
    """
    void bl_ask_huge_pages(void *start, size_t nbytes)

# Pages of a size for it lie on huge pages of memory: without them, reading a long text takes up to a third longer.
cdef int64_t _ALIGN = 4096
cdef int64_t _HUGE = 1 << 21
cdef int64_t _MOST = (1 << 31) - 1  # positions or tokens: sizes in bytes of a workspace then stay within 64 bits
cdef int64_t _MOST_BYTES = 1 << 62


cdef bl_kv_kind _kind_of(str name) except *:
    cdef int i
    for i in range(<int>BL_KV_KINDS):
        if bl_kv_formats[i].name.decode() == name:
            return <bl_kv_kind>i
    raise ValueError(f"kind {name!r} of cache is not one of {', '.join(CACHE_KINDS)}")


cdef int _check_head_dim(bl_kv_kind kind, int64_t head_dim) except -1:
    if kind == BL_KV_Q8 and head_dim > BL_Q8_MOST:
        raise ValueError(f"heads have {head_dim} elements, a cache of kind 'q8' keeps at most {BL_Q8_MOST}: use 'f16'")
    return 0


cdef uint8_t *_allocate(int64_t nbytes, uint8_t **block, int64_t align=64) noexcept:
    """Memory that starts at a multiple of *align*, and the block to free later; NULL if there is no memory."""
    block[0] = <uint8_t *>malloc(<size_t>(nbytes + align))
    if block[0] is NULL:
        return NULL
    return <uint8_t *><uintptr_t>bl_round_up(<int64_t><uintptr_t>block[0], align)


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


cdef inline int64_t _pages_of(int64_t positions) noexcept:
    return (positions + BL_PAGE - 1) // BL_PAGE


def cache_bytes(Weights weights not None, int64_t context, *, str kind not None="f16") -> int:
    """Bytes of the keys and values of *context* positions; a Cache holds them in whole pages of PAGE positions."""
    if not 1 <= context <= _MOST:
        raise ValueError(f"context {context} must be in 1..{_MOST}")
    _check_head_dim(_kind_of(kind), weights.model.head_dim)
    cdef int64_t one = bl_rows_bytes(&weights.model, _kind_of(kind), 1)
    if context > _MOST_BYTES // one:
        raise MemoryError(f"{context} positions of {one:,} bytes are more than 64 bits can count; ask for a shorter "
                          "context")
    return bl_rows_bytes(&weights.model, _kind_of(kind), context)


def page_bytes(Weights weights not None, *, str kind not None="f16") -> int:
    """Bytes of the keys and values of a page, which is PAGE positions."""
    return bl_page_bytes(&weights.model, _kind_of(kind))


cdef struct _Holders:  # stands behind a page
    uint8_t *block  # what is freed
    int64_t count  # caches whose text goes through this page


@cython.no_gc_clear
cdef class Pages:
    """Where caches of one model get the memory of their pages from, and how many there are.

    kind: one of CACHE_KINDS. most: pages that there may be at once; None: as many as there is memory for.

    Threads may share it.
    """

    cdef readonly Weights weights
    cdef readonly str kind
    cdef readonly object most
    cdef readonly int64_t used
    cdef readonly int64_t page_bytes
    cdef int64_t _limit

    def __cinit__(self, Weights weights not None, *, str kind not None="f16", most=None):
        if most is not None and most < 1:
            raise ValueError(f"most {most} must be at least one page")
        self.weights, self.kind, self.most = weights, kind, most
        self.page_bytes = page_bytes(weights, kind=kind)
        self._limit = _MOST_BYTES if most is None else most

    cdef uint8_t *_take(self) except NULL:
        """A page that one cache holds; MemoryError if there is none."""
        cdef bint full, huge = self.page_bytes >= _HUGE
        cdef uint8_t *block
        cdef uint8_t *page
        with cython.critical_section(self):
            full = self.used >= self._limit
            self.used += not full
        if full:
            raise MemoryError(f"all {self._limit} pages of {PAGE} positions are in use")
        page = _allocate(self.page_bytes + <int64_t>sizeof(_Holders), &block, _HUGE if huge else _ALIGN)
        if page is NULL:
            with cython.critical_section(self):
                self.used -= 1
            raise MemoryError(f"no memory for a page of {PAGE} positions, {self.page_bytes:,} bytes")
        if huge:
            bl_ask_huge_pages(page, <size_t>(self.page_bytes // _HUGE * _HUGE))
        self._holders(page)[0] = _Holders(block, 1)
        return page

    cdef inline _Holders *_holders(self, uint8_t *page) noexcept:
        return <_Holders *>(page + self.page_bytes)

    cdef bint _is_shared(self, uint8_t *page) noexcept:
        cdef int64_t count
        with cython.critical_section(self):
            count = self._holders(page).count
        return count > 1

    cdef void _share(self, uint8_t **pages, int64_t count) noexcept:
        """One more cache holds them."""
        cdef int64_t i
        with cython.critical_section(self):
            for i in range(count):
                self._holders(pages[i]).count += 1

    cdef void _give_back(self, uint8_t **pages, int64_t count) noexcept:
        """One cache less holds them."""
        cdef int64_t i
        with cython.critical_section(self):
            for i in range(count):
                self._holders(pages[i]).count -= 1
                if self._holders(pages[i]).count == 0:
                    free(self._holders(pages[i]).block)
                    self.used -= 1


@cython.no_gc_clear
cdef class Cache:
    """Keys and values of one sequence, and the position it has reached.

    context: positions it can hold. kind: one of CACHE_KINDS, how it keeps them. pages: where its memory comes from, of
    the same weights and kind; default: an unlimited supply of its own.

    It takes pages as it reaches them. One thread uses it at a time; a second one is refused with RuntimeError.
    """

    cdef bl_cache cache
    cdef int64_t held  # pages
    cdef int64_t room  # for pages
    cdef object lock
    cdef object process  # that took the lock last
    cdef readonly Pages pages
    cdef readonly Weights weights
    cdef readonly str kind

    def __cinit__(self, Weights weights not None, int64_t context, *, str kind not None="f16", Pages pages=None):
        cache_bytes(weights, context, kind=kind)  # refuses what cannot be
        self.weights, self.kind, self.lock = weights, kind, threading.Lock()
        self.pages = Pages(weights, kind=kind) if pages is None else pages
        if self.pages.weights is not weights or self.pages.kind != kind:
            raise ValueError("these pages are of other weights or of another kind")
        self.cache.kind, self.cache.context = _kind_of(kind), context

    def __dealloc__(self):
        self._drop_pages(0)
        free(self.cache.pages)

    @property
    def context(self) -> int:
        """Positions it can hold."""
        return self.cache.context

    @property
    def position(self) -> int:
        """Tokens it holds."""
        return self.cache.position

    @property
    def nbytes(self) -> int:
        """Bytes of the pages it holds now, also of those that others share."""
        return self.held * self.pages.page_bytes if self.pages is not None else 0

    @property
    def held_pages(self) -> tuple[int, ...]:
        """A number for each page it holds, which caches that share the page have in common."""
        return tuple(<uintptr_t>self.cache.pages[i] for i in range(self.held))

    cdef int _hold(self, list held) except -1:
        if self.lock.locked() and self.process != os.getpid():
            raise RuntimeError("this cache was in the middle of a step of another thread when this process was forked: "
                               "make a new one here")
        _hold(self.lock, held, "this cache is in use by another thread: give every thread a sequence of its own")
        self.process = os.getpid()
        return 0

    cdef int _make_room(self, int64_t count) except -1:
        """Have a table for *count* pages."""
        if count <= self.room:
            return 0
        count = max(count, 2 * self.room)
        table = realloc(self.cache.pages, <size_t>count * sizeof(uint8_t *))
        if table is NULL:
            raise MemoryError(f"no memory for a table of {count} pages")
        self.cache.pages, self.room = <uint8_t **>table, count
        return 0

    cdef int _own_last(self) except -1:
        """Have the page of the next position for itself, if part of it is filled."""
        cdef int64_t filled = self.cache.position % BL_PAGE, last = self.cache.position // BL_PAGE
        cdef uint8_t *page
        if filled == 0 or not self.pages._is_shared(self.cache.pages[last]):
            return 0
        page = self.pages._take()
        bl_page_copy(page, self.cache.pages[last], &self.weights.model, self.cache.kind, filled)
        self.pages._give_back(&self.cache.pages[last], 1)
        self.cache.pages[last] = page
        return 0

    cdef int _reserve(self, int64_t n) except -1:
        """Have pages for the next *n* positions, which no other cache holds; MemoryError if there are too few."""
        cdef int64_t before = self.held, needed = _pages_of(self.cache.position + n)
        if n == 0:
            return 0
        self._own_last()
        self._make_room(needed)
        try:
            while self.held < needed:
                self.cache.pages[self.held] = self.pages._take()
                self.held += 1
        except MemoryError:
            self._drop_pages(before)
            raise
        return 0

    cdef void _drop_pages(self, int64_t count) noexcept:
        """Hold at most *count* pages."""
        if count < self.held:
            self.pages._give_back(self.cache.pages + count, self.held - count)
            self.held = count

    cdef int _check_room(self, int64_t n) except -1:
        if n > self.cache.context - self.cache.position:
            raise ValueError(f"{n} tokens at position {self.cache.position} do not fit the context of "
                             f"{self.cache.context}")
        return 0

    def reserve(self, int64_t n) -> None:
        """Take the pages for the next *n* positions, which a step would do.

        Raises ValueError if they do not fit the context, and MemoryError if there are too few pages; it then holds
        those it had.
        """
        if n < 0:
            raise ValueError(f"{n} tokens")
        held = []
        self._hold(held)
        try:
            self._check_room(n)
            self._reserve(n)
        finally:
            _release(held)

    def rewind(self, int64_t position) -> None:
        """Go back to an earlier *position*; what came after is forgotten. Raises ValueError for one not reached yet."""
        held = []
        self._hold(held)
        try:
            if not 0 <= position <= self.cache.position:
                raise ValueError(f"cannot rewind to {position}, the cache is at {self.cache.position}")
            self.cache.position = position
            self._drop_pages(_pages_of(position))
        finally:
            _release(held)

    def fork(self, *, context=None, position=None) -> Cache:
        """A new cache that continues from *position* on its own.

        It shares the pages of what stands before; whoever goes on first copies the last one if it is not full.

        context: positions that it can hold; default: as many as this one. position: default: where this one is.
        Raises ValueError for a position that was not reached yet or does not fit *context*.
        """
        cdef Cache other = Cache(self.weights, self.cache.context if context is None else context, kind=self.kind,
                                 pages=self.pages)
        cdef int64_t start, count, i
        held = []
        self._hold(held)
        try:
            start = self.cache.position if position is None else position
            if not 0 <= start <= self.cache.position:
                raise ValueError(f"cannot fork at {start}, the cache is at {self.cache.position}")
            if start > other.cache.context:
                raise ValueError(f"{start} positions do not fit a cache of {other.cache.context}")
            count = _pages_of(start)
            other._make_room(count)
            for i in range(count):
                other.cache.pages[i] = self.cache.pages[i]
            self.pages._share(other.cache.pages, count)
            other.held, other.cache.position = count, start
        finally:
            _release(held)
        return other

    def read(self):
        """The bytes of the positions it holds, uint8 (cache_bytes of as many positions,); empty for an empty cache."""
        cdef uint8_t[::1] data
        held = []
        self._hold(held)
        try:
            if self.cache.position == 0:
                return np.empty(0, np.uint8)
            found = np.zeros(cache_bytes(self.weights, self.cache.position, kind=self.kind), np.uint8)
            data = found
            bl_cache_read(&self.cache, &self.weights.model, &data[0])
        finally:
            _release(held)
        return found

    def fill(self, const uint8_t[::1] data not None, int64_t position) -> None:
        """Hold what `read` gave for *position* positions of a cache of the same model and kind.

        Raises ValueError if it does not fit the context, or if *data* has another size, and MemoryError if there are
        too few pages; it is empty then.
        """
        held = []
        self._hold(held)
        try:
            if not 0 <= position <= self.cache.context:
                raise ValueError(f"{position} positions do not fit a cache of {self.cache.context}")
            expected = cache_bytes(self.weights, position, kind=self.kind) if position else 0
            if data.shape[0] != expected:
                raise ValueError(f"{data.shape[0]} bytes for {position} positions, which take {expected}")
            self.cache.position = 0
            self._drop_pages(0)
            self._reserve(position)
            if position:
                bl_cache_fill(&self.cache, &self.weights.model, &data[0], position)
        finally:
            _release(held)
