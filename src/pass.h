/* One pass of a step, at most a batch of tokens, as engine.c and attention.c see it. */
#ifndef BL_PASS_H
#define BL_PASS_H

#include <string.h>

#include "pool.h"
#include "workspace.h"

/* A token and where it stands. */
struct bl_place {
    bl_chunk *chunk;
    const bl_cache *cache;
    int64_t position;
    int32_t token;
};

typedef struct {
    const bl_model *model;
    bl_workspace *work;
    bl_pool *pool;
    int64_t n;      /* tokens, at work->places: those of one sequence in order */
    int64_t wanted; /* rows of logits, of the tokens in work->wanted */
    float *logits;  /* (wanted, vocab) */
    float *hidden;  /* (layers + 1, hidden_stride / embedding, embedding) from the first token on, or NULL */
    int64_t hidden_stride;
    bl_probe probe; /* or NULL */
    void *probe_context;
} bl_pass;

/* The contiguous part of [0, total), in units of step, that this worker does. */
BL_INLINE void bl_share(int64_t total, int64_t step, int worker, int workers, int64_t *lo, int64_t *hi)
{
    const int64_t units = (total + step - 1) / step;
    *lo = units * worker / workers * step;
    *hi = units * (worker + 1) / workers * step;
    if (*hi > total) *hi = total;
}

/* Rows in which workers share out a matrix of this kernel, or a dense one (NULL). */
BL_INLINE int64_t bl_row_step(const bl_kernel *kernel)
{
    return kernel && kernel->panel > BL_LANES ? kernel->panel : BL_STRIP;
}

BL_INLINE float *bl_scratch(const bl_pass *p, int worker)
{
    return p->work->worker_scratch + worker * p->work->scratch_floats;
}

/* Keys and values of this pass go into the caches. */
void bl_fill_cache(const bl_pass *p, int64_t layer, int worker, int workers);

/* This worker's part of work->mixed = causal attention, over the cache of each token's sequence. */
void bl_attend(const bl_pass *p, int64_t layer, int worker, int workers);

#endif
