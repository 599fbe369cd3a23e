/* Attention of a step over the caches of its sequences. */
#ifndef BL_ATTEND_H
#define BL_ATTEND_H

#include "model.h"

/* Element index in a cache of a head's row at a position. */
BL_INLINE int64_t bl_cache_row(const bl_step *s, const bl_cache *cache, int64_t layer, int64_t kv_head,
                               int64_t position)
{
    return ((layer * s->model->kv_heads + kv_head) * cache->context + position) * bl_head_stride(s->model);
}

BL_INLINE void bl_store_kv(const bl_step *s, bl_kv_kind kind, void *cache, int64_t row, const float *head)
{
    const int64_t stride = bl_head_stride(s->model);
    if (kind == BL_KV_F16) s->model->tier->store_f16((uint16_t *)cache + row, head, stride);
    else memcpy((float *)cache + row, head, (size_t)stride * sizeof(float));
}

/* This worker's (token, kv head) pairs: rotated keys, and values, into the cache. */
static void bl_fill_cache(const bl_step *s, int64_t layer, int worker, int workers)
{
    const bl_model *m = s->model;
    bl_state *state = s->state;
    const int64_t half = m->rope_dim / 2, stride = bl_head_stride(m);
    float *head = bl_scratch(s, worker);
    memset(head, 0, (size_t)stride * sizeof(float));
    int64_t lo, hi;
    bl_share(s->n * m->kv_heads, 1, worker, workers, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const int64_t t = i / m->kv_heads, kv_head = i % m->kv_heads;
        const bl_cache *cache = s->places[t].cache;
        const int64_t row = bl_cache_row(s, cache, layer, kv_head, s->places[t].position);
        memcpy(head, state->k + i * m->head_dim, (size_t)m->head_dim * sizeof(float));
        m->tier->rope(head, state->cosine + t * half, state->sine + t * half, m->rope_dim, m->rope_interleaved);
        bl_store_kv(s, cache->kind, cache->keys, row, head);
        memcpy(head, state->v + i * m->head_dim, (size_t)m->head_dim * sizeof(float));
        bl_store_kv(s, cache->kind, cache->values, row, head);
    }
}

/* How many of the heads that share keys are done together: fewer while there is not enough work for every worker. */
BL_INLINE int64_t bl_heads_together(const bl_step *s, int workers)
{
    const int64_t group = s->model->heads / s->model->kv_heads;
    int64_t together = group < BL_MAX_HEADS ? group : BL_MAX_HEADS;
    while (together > 1 && s->n * s->model->kv_heads * ((group + together - 1) / together) < 4 * workers) together /= 2;
    return together;
}

/* Rotated queries (count, stride) of token t from a head on. */
static void bl_rotate_queries(const bl_step *s, int64_t t, int64_t head, int64_t count, float *q)
{
    const bl_model *m = s->model;
    const int64_t half = m->rope_dim / 2, stride = bl_head_stride(m);
    memset(q, 0, (size_t)(count * stride) * sizeof(float));
    for (int64_t h = 0; h < count; h++) {
        memcpy(q + h * stride, s->state->q + (t * m->heads + head + h) * m->head_dim,
               (size_t)m->head_dim * sizeof(float));
        m->tier->rope(q + h * stride, s->state->cosine + t * half, s->state->sine + t * half, m->rope_dim,
                      m->rope_interleaved);
    }
}

BL_INLINE float bl_score_scale(const bl_model *m) { return 1.0f / sqrtf((float)m->head_dim); }

/* The keys, or the values, of a sequence that a head reads. */
BL_INLINE const uint8_t *bl_cached(const bl_step *s, const bl_cache *cache, const void *kept, int64_t layer,
                                   int64_t head)
{
    const int64_t row = bl_cache_row(s, cache, layer, head / (s->model->heads / s->model->kv_heads), 0);
    return (const uint8_t *)kept + bl_kv_bytes(cache->kind, row);
}

/* Causal attention of `count` heads from `head` on, which share keys, for token t. */
static void bl_attend_heads(const bl_step *s, int64_t layer, int64_t t, int64_t head, int64_t count, float *scratch)
{
    const bl_model *m = s->model;
    const bl_cache *cache = s->places[t].cache;
    const int64_t stride = bl_head_stride(m);
    float *scores = scratch, *q = scratch + BL_MAX_HEADS * s->state->context, *out = q + BL_MAX_HEADS * stride;
    bl_rotate_queries(s, t, head, count, q);
    bl_attention(m->tier, out, q, bl_cached(s, cache, cache->keys, layer, head),
                 bl_cached(s, cache, cache->values, layer, head), cache->kind, stride, s->places[t].position + 1,
                 bl_score_scale(m), scores, (int)count);
    for (int64_t h = 0; h < count; h++)
        memcpy(s->state->mixed + (t * m->heads + head + h) * m->head_dim, out + h * stride,
               (size_t)m->head_dim * sizeof(float));
}

/* This worker's heads of mixed = causal attention; those that share keys come one after the other. */
static void bl_attend_by_heads(const bl_step *s, int64_t layer, int worker, int workers)
{
    const bl_model *m = s->model;
    const int64_t group = m->heads / m->kv_heads, together = bl_heads_together(s, workers);
    const int64_t parts = (group + together - 1) / together;
    int64_t lo, hi;
    bl_share(s->n * m->kv_heads * parts, 1, worker, workers, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const int64_t t = i % s->n, kv_head = i / s->n / parts, first = i / s->n % parts * together;
        const int64_t count = group - first < together ? group - first : together;
        bl_attend_heads(s, layer, t, kv_head * group + first, count, bl_scratch(s, worker));
    }
}

/* ---- one token far on in a text: every key and value is read once, whatever the number of workers --------------- */

/* Heads that share keys and are done together: the part'th of them all. Returns how many. */
BL_INLINE int64_t bl_heads_of_part(const bl_model *m, int64_t part, int64_t *head)
{
    const int64_t group = m->heads / m->kv_heads, parts = (group + BL_MAX_HEADS - 1) / BL_MAX_HEADS;
    const int64_t first = part % parts * BL_MAX_HEADS;
    *head = part / parts * group + first;
    return group - first < BL_MAX_HEADS ? group - first : BL_MAX_HEADS;
}

/* This worker's positions of the scores. */
static void bl_score_by_positions(const bl_step *s, int64_t layer, int64_t parts, int worker, int workers)
{
    const bl_model *m = s->model;
    const bl_cache *cache = s->places[0].cache;
    const int64_t length = s->places[0].position + 1, room = bl_round_up(length, BL_LANES), context = s->state->context;
    float *q = bl_scratch(s, worker);
    int64_t lo, hi;
    bl_share(parts * room, BL_LANES, worker, workers, &lo, &hi);
    for (int64_t at = lo, end; at < hi; at = end) {
        const int64_t part = at / room, first = at % room;
        end = hi < (part + 1) * room ? hi : (part + 1) * room;
        const int64_t last = first + end - at < length ? first + end - at : length;
        int64_t head;
        const int64_t count = bl_heads_of_part(m, part, &head);
        bl_rotate_queries(s, 0, head, count, q);
        m->tier->score_keys(s->state->scores + head * context, context, q,
                            bl_cached(s, cache, cache->keys, layer, head), cache->kind, bl_head_stride(m),
                            first, last, bl_score_scale(m), (int)count);
    }
}

/* This worker's columns of mixed. */
static void bl_mix_by_columns(const bl_step *s, int64_t layer, int64_t parts, int worker, int workers)
{
    const bl_model *m = s->model;
    const bl_cache *cache = s->places[0].cache;
    const int64_t stride = bl_head_stride(m), context = s->state->context;
    float *out = bl_scratch(s, worker);
    int64_t lo, hi;
    bl_share(parts * stride, 2 * BL_LANES, worker, workers, &lo, &hi);
    for (int64_t at = lo, end; at < hi; at = end) {
        const int64_t part = at / stride, first = at % stride;
        end = hi < (part + 1) * stride ? hi : (part + 1) * stride;
        const int64_t last = first + end - at, used = last < m->head_dim ? last : m->head_dim;
        int64_t head;
        const int64_t count = bl_heads_of_part(m, part, &head);
        m->tier->mix_values(out, s->state->scores + head * context, context, s->state->totals + head,
                            bl_cached(s, cache, cache->values, layer, head), cache->kind, stride,
                            s->places[0].position + 1, first, last, (int)count);
        for (int64_t h = 0; h < count && first < used; h++)
            memcpy(s->state->mixed + (head + h) * m->head_dim + first, out + h * stride + first,
                   (size_t)(used - first) * sizeof(float));
    }
}

static void bl_attend_by_positions(const bl_step *s, int64_t layer, int worker, int workers)
{
    const bl_model *m = s->model;
    const int64_t group = m->heads / m->kv_heads, parts = m->kv_heads * ((group + BL_MAX_HEADS - 1) / BL_MAX_HEADS);
    int64_t lo, hi;
    bl_score_by_positions(s, layer, parts, worker, workers);
    bl_pool_barrier(s->pool);
    bl_share(m->heads, 1, worker, workers, &lo, &hi);
    for (int64_t h = lo; h < hi; h++)
        s->state->totals[h] =
            m->tier->exp_scores(s->state->scores + h * s->state->context, s->places[0].position + 1);
    bl_pool_barrier(s->pool);
    bl_mix_by_columns(s, layer, parts, worker, workers);
}

/* From this position on the workers share out positions, which takes two more barriers, and not heads. The C self-test,
 * whose texts are short, has a nearer one. */
#ifndef BL_FAR
#define BL_FAR 128
#endif

/* This worker's part of mixed = causal attention. Sums run in the same order however it is shared out. */
static void bl_attend(const bl_step *s, int64_t layer, int worker, int workers)
{
    if (s->n == 1 && workers > 1 && s->places[0].position >= BL_FAR) bl_attend_by_positions(s, layer, worker, workers);
    else bl_attend_by_heads(s, layer, worker, workers);
}

#endif
