"""Drawing a token from logits, and what log-probabilities are made of."""

import threading

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, realloc

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
    int64_t bl_draw(const bl_tier *tier, const float *logits, int64_t vocab, const bl_drawing *how, void *scratch)
    int bl_score_row(const bl_tier *tier, const float *logits, int64_t vocab, bl_score *score, void *scratch)


cdef class Drawer:
    """Draws tokens from logits and scores them, on the tier *isa*; see sampling.h for the arithmetic.

    One thread uses it at a time; a second one is refused with RuntimeError.
    """

    cdef const bl_tier *tier
    cdef uint8_t *scratch
    cdef int64_t room
    cdef object lock

    def __cinit__(self, *, str isa not None):
        self.tier, self.lock = _find(isa), threading.Lock()

    def __dealloc__(self):
        free(self.scratch)

    cdef int _make_room(self, int64_t vocab) except -1:
        if not 1 <= vocab < 2**31:
            raise ValueError(f"there are {vocab} logits: they must be 1 to 2**31 - 1")
        cdef int64_t wanted = bl_draw_bytes(vocab)
        if wanted > self.room:
            room = realloc(self.scratch, <size_t>wanted)
            if room is NULL:
                raise MemoryError(f"no memory to draw one of {vocab} ids, {wanted:,} bytes")
            self.scratch, self.room = <uint8_t *>room, wanted
        return 0

    def draw(self, const float[::1] logits not None, *, int64_t top_k, double top_p, double log_min_p,
             double temperature, double uniform) -> int:
        """Draw an id from float32 logits (vocab,); -1 if the largest is not finite or one is NaN.

        top_k: 0 keeps all. top_p: in (0, 1]. log_min_p: the logarithm of min_p, -infinity keeps all. temperature: 0
        takes the likeliest. uniform: the random number, in [0, 1).
        Raises ValueError for values outside their ranges.
        """
        cdef bl_drawing how
        cdef int64_t vocab = logits.shape[0], found
        if not (top_k >= 0 and 0 < top_p <= 1 and log_min_p <= 0 and temperature >= 0 and 0 <= uniform < 1):
            raise ValueError(f"top_k {top_k}, top_p {top_p}, log_min_p {log_min_p}, temperature {temperature} and "
                             f"uniform {uniform} must be in their ranges")
        how.top_k, how.top_p, how.log_min_p = top_k, top_p, log_min_p
        how.temperature, how.uniform = temperature, uniform
        held = []
        try:
            _hold(self.lock, held, "this drawer is in use by another thread: make one for each")
            self._make_room(vocab)
            with nogil:
                found = bl_draw(self.tier, &logits[0], vocab, &how, self.scratch)
        finally:
            _release(held)
        return found

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
            self._make_room(vocab)
            with nogil:
                found = bl_score_row(self.tier, &logits[0], vocab, &score, self.scratch)
        finally:
            _release(held)
        if not found:
            raise ValueError("there is nothing to score: the largest logit is not finite, or one is NaN")
        return score.peak, score.total, ids
