"""Drawing a token from logits."""

from libc.stdint cimport int64_t, uint8_t


cdef extern from "sampling.h" nogil:
    ctypedef struct bl_drawing:
        int64_t top_k
        double top_p
        double log_min_p
        double temperature
        double uniform
    int64_t bl_draw_bytes(int64_t vocab)
    int64_t bl_draw(const float *logits, int64_t vocab, const bl_drawing *how, void *scratch)


def draw_bytes(int64_t vocab) -> int:
    """Bytes of scratch that `draw` needs for a vocabulary."""
    if not 1 <= vocab < 2**31:
        raise ValueError(f"a vocabulary of {vocab} ids: it must be in 1..2**31 - 1")
    return bl_draw_bytes(vocab)


def draw(const float[::1] logits not None, uint8_t[::1] scratch not None, *, int64_t top_k, double top_p,
         double log_min_p, double temperature, double uniform) -> int:
    """Draw an id from float32 logits (vocab,): the likeliest is finite, and none is NaN.

    scratch: uint8, at least (draw_bytes(vocab),). top_k: 0 keeps all. top_p: in (0, 1]. log_min_p: the logarithm of
    min_p, -infinity keeps all. temperature: above 0. uniform: the random number, in [0, 1). See sampling.h for the
    arithmetic. Raises ValueError for values outside their ranges.
    """
    cdef bl_drawing how
    cdef int64_t vocab = logits.shape[0], found
    if vocab < 1 or scratch.shape[0] < draw_bytes(vocab):
        raise ValueError(f"scratch has {scratch.shape[0]} bytes, {vocab} logits need draw_bytes(vocab)")
    if not (top_k >= 0 and 0 < top_p <= 1 and log_min_p <= 0 and temperature > 0 and 0 <= uniform < 1):
        raise ValueError(f"top_k {top_k}, top_p {top_p}, log_min_p {log_min_p}, temperature {temperature} and uniform "
                         f"{uniform} must be in their ranges")
    how.top_k, how.top_p, how.log_min_p = top_k, top_p, log_min_p
    how.temperature, how.uniform = temperature, uniform
    with nogil:
        found = bl_draw(&logits[0], vocab, &how, &scratch[0])
    return found
