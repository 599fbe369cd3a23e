"""Drawing a token from logits, and what log-probabilities are made of."""

import threading

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc

from cengine cimport bl_pool
from ckernels cimport bl_tier


cdef extern from "sampling.h" nogil:
    ctypedef struct bl_drawing:
        int64_t top_k
        double top_p
        double log_min_p
        double temperature
        double uniform
    ctypedef struct bl_score:
        float peak
        double total
        int64_t count
        int32_t *top
    int64_t bl_draw_bytes(int64_t vocab)
    ctypedef struct bl_row:
        const float *logits
        bl_drawing how
        int64_t id
    void bl_draw_rows(const bl_tier *tier, bl_pool *pool, bl_row *rows, int64_t count, int64_t vocab, void *scratch)
    int bl_score_row(const bl_tier *tier, const float *logits, int64_t vocab, bl_score *score, void *scratch)


cdef bl_drawing _drawing(int64_t top_k, double top_p, double log_min_p, double temperature, double uniform) except *:
    if not (top_k >= 0 and 0 < top_p <= 1 and log_min_p <= 0 and temperature >= 0 and 0 <= uniform < 1):
        raise ValueError(f"top_k {top_k}, top_p {top_p}, log_min_p {log_min_p}, temperature {temperature} and uniform "
                         f"{uniform} must be in their ranges")
    return bl_drawing(top_k, top_p, log_min_p, temperature, uniform)


cdef class Drawer:
    """Draws tokens from logits and scores them, on the tier *isa*; see sampling.h for the arithmetic.

    pool: threads that share the rows of a call of `draw`; None: the calling thread alone.
    One thread uses it at a time; a second one is refused with RuntimeError.
    """

    cdef const bl_tier *tier
    cdef uint8_t *scratch
    cdef int64_t room
    cdef Pool pool
    cdef object lock

    def __cinit__(self, *, str isa not None, Pool pool=None):
        self.tier, self.pool, self.lock = _find(isa), pool, threading.Lock()

    def __dealloc__(self):
        free(self.scratch)

    cdef int _make_room(self, int64_t vocab, int64_t rows) except -1:
        cdef int64_t workers = 1 if self.pool is None else min(self.pool.threads, rows)
        if not 1 <= vocab < 2**31:
            raise ValueError(f"there are {vocab} logits: they must be 1 to 2**31 - 1")
        cdef int64_t wanted = workers * bl_draw_bytes(vocab)
        if wanted > self.room:
            room = realloc(self.scratch, <size_t>wanted)
            if room is NULL:
                raise MemoryError(f"no memory to draw one of {vocab} ids, {wanted:,} bytes")
            self.scratch, self.room = <uint8_t *>room, wanted
        return 0

    def draw(self, list rows not None) -> list[int]:
        """Draw an id from each of *rows*, all of one vocabulary; -1 where the largest logit is not finite or one is NaN.

        A row is a tuple (logits, top_k, top_p, log_min_p, temperature, uniform): logits float32 (vocab,); top_k 0 keeps
        all; top_p in (0, 1]; log_min_p the logarithm of min_p, -infinity keeps all; temperature 0 takes the likeliest;
        uniform the random number, in [0, 1).
        Raises ValueError for values outside their ranges and rows of different lengths.
        """
        cdef const float[::1] logits
        cdef int64_t count = len(rows), vocab = 1, i
        cdef bl_row *drawn = <bl_row *>malloc(<size_t>max(count, 1) * sizeof(bl_row))
        cdef bl_pool *pool = NULL if self.pool is None else self.pool.pool
        held, kept = [], []
        try:
            if drawn is NULL:
                raise MemoryError(f"no memory for {count} rows")
            for i, (row, top_k, top_p, log_min_p, temperature, uniform) in enumerate(rows):
                logits = row
                kept.append(logits)  # until all are drawn
                vocab = vocab if i else logits.shape[0]
                _same("length of a row", logits.shape[0], vocab)
                drawn[i].logits = &logits[0] if vocab else NULL
                drawn[i].how = _drawing(top_k, top_p, log_min_p, temperature, uniform)
            _hold(self.lock, held, "this drawer is in use by another thread: make one for each")
            self._make_room(vocab, count)
            with nogil:
                bl_draw_rows(self.tier, pool, drawn, count, vocab, self.scratch)
            return [drawn[i].id for i in range(count)]
        finally:
            _release(held)
            free(drawn)

    def score(self, const float[::1] logits not None, int64_t top):
        """What log-probabilities of float32 logits (vocab,) are made of: ``(peak, total, ids int32 (top,))``.

        That of an id is ``logit - peak - log(total)``. ids: of the likeliest, likeliest first; of equal ones the lowest.
        Raises ValueError if the largest logit is not finite, one is NaN, or *top* is not in 0..vocab.
        """
        cdef bl_score score
        cdef int64_t vocab = logits.shape[0]
        cdef int found
        if not 0 <= top <= vocab:
            raise ValueError(f"top is {top}, there are {vocab} logits")
        ids = np.empty(top, np.int32)
        cdef int32_t[::1] likeliest = ids
        score.count, score.top = top, &likeliest[0] if top else NULL
        held = []
        try:
            _hold(self.lock, held, "this drawer is in use by another thread: make one for each")
            self._make_room(vocab, 1)
            with nogil:
                found = bl_score_row(self.tier, &logits[0], vocab, &score, self.scratch)
        finally:
            _release(held)
        if not found:
            raise ValueError("there is nothing to score: the largest logit is not finite, or one is NaN")
        return score.peak, score.total, ids
