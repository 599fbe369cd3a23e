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
        double typical_p
        double top_p
        double log_min_p
        double temperature
        double uniform
    ctypedef struct bl_score:
        const float *logits
        int64_t count
        int32_t *top
        float peak
        double total
        int is_finite
    ctypedef struct bl_additions:
        int64_t count
        const int64_t *ids
        const double *numbers
    ctypedef struct bl_changes:
        bl_additions bias
        int64_t length, prompt
        const int64_t *history
        float repetition
        double presence, frequency
        bl_additions others
        const uint8_t *allowed
    void bl_change_row(const bl_changes *changes, const float *logits, int64_t vocab, float *changed, int32_t *marks)
    int64_t bl_draw_rows_bytes(int64_t vocab)
    ctypedef struct bl_row:
        const float *logits
        const bl_changes *changes
        bl_drawing how
        int64_t id
    void bl_draw_rows(const bl_tier *tier, bl_pool *pool, bl_row *rows, int64_t count, int64_t vocab, void *scratch)
    void bl_score_rows(const bl_tier *tier, bl_pool *pool, bl_score *rows, int64_t count, int64_t vocab, void *scratch)


cdef bl_drawing _drawing(int64_t top_k, double typical_p, double top_p, double log_min_p, double temperature,
                         double uniform) except *:
    if not (top_k >= 0 and 0 < typical_p <= 1 and 0 < top_p <= 1 and log_min_p <= 0 and temperature >= 0
            and 0 <= uniform < 1):
        raise ValueError(f"top_k {top_k}, typical_p {typical_p}, top_p {top_p}, log_min_p {log_min_p}, temperature "
                         f"{temperature} and uniform {uniform} must be in their ranges")
    return bl_drawing(top_k, typical_p, top_p, log_min_p, temperature, uniform)


cdef int _refuse_outside(str what, const int64_t[::1] ids, int64_t vocab) except -1:
    cdef int64_t i
    for i in range(ids.shape[0]):
        if not 0 <= ids[i] < vocab:
            raise ValueError(f"{what} holds id {ids[i]}, the vocabulary has {vocab}")
    return 0


cdef int _point(bl_additions *made, str what, const int64_t[::1] ids, const double[::1] numbers, int64_t vocab
                ) except -1:
    """Make them additions of *ids* and *numbers*, which the caller keeps."""
    if ids is None or numbers is None:
        raise TypeError(f"{what}: ids and numbers must be arrays, not None")
    _refuse_outside(what, ids, vocab)
    _same(f"how many numbers {what} has", numbers.shape[0], ids.shape[0])
    made.count = ids.shape[0]
    made.ids = &ids[0] if made.count else NULL
    made.numbers = &numbers[0] if made.count else NULL
    return 0


cdef class Changes:
    """What is done to the logits of *vocab* ids before a draw, in this order; see sampling.h for the arithmetic.

    bias: (ids int64 (n,), numbers float64 (n,)), added to logits.
    repetition: divides the positive logits of ids in history, int64 (n,), and multiplies the others; 1: off.
    presence, frequency: taken off the logits of ids in history but for its first *prompt* ids, once, and for each time.
    others: as bias; minus infinity forbids an id. allowed: bool (vocab,), other ids are forbidden; None: all are.
    The arrays must not change. Raises ValueError for ids outside the vocabulary and arrays of different lengths.
    """

    cdef bl_changes made
    cdef readonly int64_t vocab
    cdef object kept

    def __cinit__(self, int64_t vocab, *, tuple bias not None, const int64_t[::1] history not None, int64_t prompt,
                  float repetition, double presence, double frequency, tuple others not None, allowed=None):
        cdef const uint8_t[::1] mask
        if vocab < 1:
            raise ValueError(f"the vocabulary has {vocab} ids")
        if not 0 <= prompt <= history.shape[0]:
            raise ValueError(f"{prompt} ids of the history are a prompt, it has {history.shape[0]}")
        _refuse_outside("history", history, vocab)
        self.vocab, self.kept = vocab, (bias, history, others, allowed)
        _point(&self.made.bias, "logit_bias", bias[0], bias[1], vocab)
        _point(&self.made.others, "history", others[0], others[1], vocab)
        self.made.length, self.made.prompt = history.shape[0], prompt
        self.made.history = &history[0] if history.shape[0] else NULL
        self.made.repetition, self.made.presence, self.made.frequency = repetition, presence, frequency
        self.made.allowed = NULL
        if allowed is not None:
            mask = allowed.view(np.uint8)
            _same("length of allowed", mask.shape[0], vocab)
            self.made.allowed = &mask[0]

    def applied(self, const float[::1] logits not None):
        """Logits float32 (vocab,) with the changes, in a new array."""
        _same("length of a row", logits.shape[0], self.vocab)
        found = np.empty(self.vocab, np.float32)
        cdef float[::1] changed = found
        cdef int32_t[::1] marks = np.empty(self.vocab, np.int32)
        with nogil:
            bl_change_row(&self.made, &logits[0], self.vocab, &changed[0], &marks[0])
        return found


cdef const bl_changes *_changes_of(Changes changes, int64_t vocab) except? NULL:
    if changes is None:
        return NULL
    _same("vocabulary of changes", changes.vocab, vocab)
    return &changes.made


cdef class Drawer:
    """Draws tokens from logits and scores them, on the tier *isa*; see sampling.h for the arithmetic.

    pool: threads that share the rows of a call; None: the calling thread alone.
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
        cdef int64_t wanted = workers * bl_draw_rows_bytes(vocab)
        if wanted > self.room:
            room = realloc(self.scratch, <size_t>wanted)
            if room is NULL:
                raise MemoryError(f"no memory to draw one of {vocab} ids, {wanted:,} bytes")
            self.scratch, self.room = <uint8_t *>room, wanted
        return 0

    def draw(self, list rows not None) -> list[int]:
        """Draw an id from each of *rows*, of one vocabulary; -1 where the largest logit is not finite or one is NaN.

        A row is a tuple (logits, top_k, typical_p, top_p, log_min_p, temperature, uniform, changes): logits float32
        (vocab,); top_k 0 keeps all; typical_p and top_p in (0, 1]; log_min_p the logarithm of min_p, -infinity keeps
        all; temperature 0 takes the likeliest; uniform the random number, in [0, 1); changes what the draw sees
        changed of logits, or None.
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
            for i, (row, top_k, typical_p, top_p, log_min_p, temperature, uniform, changes) in enumerate(rows):
                logits = row
                kept.append((logits, changes))  # until all are drawn
                vocab = vocab if i else logits.shape[0]
                _same("length of a row", logits.shape[0], vocab)
                drawn[i].logits = &logits[0] if vocab else NULL
                drawn[i].changes = _changes_of(changes, vocab)
                drawn[i].how = _drawing(top_k, typical_p, top_p, log_min_p, temperature, uniform)
            _hold(self.lock, held, "this drawer is in use by another thread: make one for each")
            self._make_room(vocab, count)
            with nogil:
                bl_draw_rows(self.tier, pool, drawn, count, vocab, self.scratch)
            return [drawn[i].id for i in range(count)]
        finally:
            _release(held)
            free(drawn)

    def score(self, list rows not None) -> list:
        """What log-probabilities of *rows*, of one vocabulary, are made of: ``(peak, total, ids int32 (top,))``.

        A row is a tuple (logits float32 (vocab,), top). The log-probability of an id is ``logit - peak - log(total)``.
        ids: of the likeliest, likeliest first; of equal ones the lowest. None in place of the tuple where the largest
        logit is not finite or one is NaN. Raises ValueError if *top* is not in 0..vocab, and for rows of different
        lengths.
        """
        cdef const float[::1] logits
        cdef int32_t[::1] likeliest
        cdef int64_t count = len(rows), vocab = 1, top, i
        cdef bl_score *scores = <bl_score *>malloc(<size_t>max(count, 1) * sizeof(bl_score))
        cdef bl_pool *pool = NULL if self.pool is None else self.pool.pool
        held, kept, ids = [], [], []
        try:
            if scores is NULL:
                raise MemoryError(f"no memory for {count} rows")
            for i, (row, top) in enumerate(rows):
                logits = row
                kept.append(logits)  # until all are scored
                vocab = vocab if i else logits.shape[0]
                _same("length of a row", logits.shape[0], vocab)
                if not 0 <= top <= vocab:
                    raise ValueError(f"top is {top}, there are {vocab} logits")
                ids.append(np.empty(top, np.int32))
                likeliest = ids[i]
                scores[i].count = top
                scores[i].logits = &logits[0] if vocab else NULL
                scores[i].top = &likeliest[0] if top else NULL
            _hold(self.lock, held, "this drawer is in use by another thread: make one for each")
            self._make_room(vocab, count)
            with nogil:
                bl_score_rows(self.tier, pool, scores, count, vocab, self.scratch)
            return [(scores[i].peak, scores[i].total, ids[i]) if scores[i].is_finite else None for i in range(count)]
        finally:
            _release(held)
            free(scores)
