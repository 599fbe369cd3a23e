/* Attention of a pass over the caches of its sequences. */
#include <math.h>

#include "cache.h"
#include "pass.h"

void bl_attention(const bl_tier *tier, float *out, const float *q, const bl_kv_rows *keys, const bl_kv_rows *values,
                  int64_t length, float scale, float *scores, int tokens, int heads)
{
    const int queries = tokens * heads;
    const int64_t longest = length + tokens - 1, stride = bl_score_stride(longest);
    float total[BL_MAX_QUERIES];
    tier->score_keys(scores, stride, q, keys, 0, longest, scale, queries);
    for (int64_t i = 0; i < keys->heads * queries; i++) {
        const int64_t seen = length + i % queries / heads;
        total[i] = tier->exp_scores(scores + i * stride, seen);
        memset(scores + i * stride + seen, 0, (size_t)(longest - seen) * sizeof *scores);
    }
    tier->mix_values(out, scores, stride, total, values, longest, 0, values->heads * values->head_dim, queries);
}

/* head = one head of queries or keys of token t, normed if there is a norm, and rotated. */
static void bl_rotate(const bl_pass *p, int64_t t, float *head, const float *from, const float *norm)
{
    const bl_model *m = p->model;
    const int64_t half = m->rope_dim / 2;
    if (norm) m->tier->rms_norm(head, from, norm, m->head_dim, m->eps);
    else memcpy(head, from, (size_t)m->head_dim * sizeof(float));
    m->tier->rope(head, p->work->cosine + t * half, p->work->sine + t * half, m->rope_dim, m->rope_interleaved);
}

/* This worker does some of the (token, kv head) pairs. */
void bl_fill_cache(const bl_pass *p, int64_t layer, int worker, int workers)
{
    const bl_model *m = p->model;
    const int64_t stride = bl_head_stride(m);
    float *head = bl_scratch(p, worker);
    memset(head, 0, (size_t)stride * sizeof(float));
    int64_t lo, hi;
    bl_share(p->n * m->kv_heads, 1, worker, workers, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const int64_t t = i / m->kv_heads, kv_head = i % m->kv_heads;
        const bl_place *place = &p->work->places[t];
        const bl_kv_rows keys = bl_cache_rows(place->cache, m, layer, kv_head, 1, BL_KEYS);
        const bl_kv_rows values = bl_cache_rows(place->cache, m, layer, kv_head, 1, BL_VALUES);
        bl_rotate(p, t, head, p->work->k + i * m->head_dim, m->layer[layer].k_norm);
        bl_store_row(m->tier, &keys, BL_KEYS, place->position, head);
        memcpy(head, p->work->v + i * m->head_dim, (size_t)m->head_dim * sizeof(float));
        bl_store_row(m->tier, &values, BL_VALUES, place->position, head);
    }
}

/* q (count, stride) = queries of token t from a head on. */
static void bl_rotate_queries(const bl_pass *p, int64_t layer, int64_t t, int64_t head, int64_t count, float *q)
{
    const bl_model *m = p->model;
    const int64_t stride = bl_head_stride(m);
    memset(q, 0, (size_t)(count * stride) * sizeof(float));
    for (int64_t h = 0; h < count; h++)
        bl_rotate(p, t, q + h * stride, p->work->q + (t * m->heads + head + h) * m->head_dim, m->layer[layer].q_norm);
}

/* How the queries of a pass are cut into pieces, which the workers share out. */
typedef struct {
    int64_t heads;  /* that share keys and are done together */
    int64_t parts;  /* of the heads of one kv head */
    int64_t tokens; /* most that are done together */
} bl_pieces;

/* Fewer heads and tokens together while there is not enough work for every worker. */
static bl_pieces bl_cut(const bl_pass *p, int workers)
{
    const int64_t group = p->model->heads / p->model->kv_heads, pairs = p->n * p->model->kv_heads;
    bl_pieces cut = {.heads = group < BL_MAX_HEADS ? group : BL_MAX_HEADS};
    while (cut.heads > 1 && pairs * ((group + cut.heads - 1) / cut.heads) < 4 * workers) cut.heads /= 2;
    cut.parts = (group + cut.heads - 1) / cut.heads;
    cut.tokens = BL_MAX_QUERIES / cut.heads;
    while (cut.tokens > 1 && pairs * cut.parts < 4 * workers * cut.tokens) cut.tokens /= 2;
    return cut;
}

/* How many tokens from t on, at most that many, follow each other in one text. */
static int64_t bl_following(const bl_pass *p, int64_t t, int64_t most)
{
    const bl_place *place = &p->work->places[t];
    int64_t count = 1;
    while (count < most && t + count < p->n && place[count].cache == place->cache) count++;
    return count;
}

/* Causal attention of `heads` heads from `head` on, which share keys, for tokens from t on. */
static void bl_attend_piece(const bl_pass *p, int64_t layer, int64_t t, int64_t tokens, int64_t head, int64_t heads,
                            float *scratch)
{
    const bl_model *m = p->model;
    const bl_place *place = &p->work->places[t];
    const int64_t stride = bl_head_stride(m), kv_head = head / (m->heads / m->kv_heads);
    const bl_kv_rows keys = bl_cache_rows(place->cache, m, layer, kv_head, 1, BL_KEYS);
    const bl_kv_rows values = bl_cache_rows(place->cache, m, layer, kv_head, 1, BL_VALUES);
    float *q = scratch, *out = q + BL_MAX_QUERIES * stride, *scores = out + BL_MAX_QUERIES * stride;
    for (int64_t i = 0; i < tokens; i++) bl_rotate_queries(p, layer, t + i, head, heads, q + i * heads * stride);
    bl_attention(m->tier, out, q, &keys, &values, place->position + 1, m->score_scale, scores, (int)tokens, (int)heads);
    for (int64_t i = 0; i < tokens * heads; i++)
        memcpy(p->work->mixed + ((t + i / heads) * m->heads + head + i % heads) * m->head_dim, out + i * stride,
               (size_t)m->head_dim * sizeof(float));
}

/* Positions that a piece reads. */
static int64_t bl_cost(const bl_pass *p, int64_t t, int64_t tokens)
{
    return tokens * (p->work->places[t].position + tokens);
}

/* This worker's pieces of mixed = causal attention, shared out by the positions that they read; those that share keys
 * come one after the other. */
static void bl_attend_by_heads(const bl_pass *p, int64_t layer, int worker, int workers)
{
    const bl_model *m = p->model;
    const int64_t group = m->heads / m->kv_heads;
    const bl_pieces cut = bl_cut(p, workers);
    int64_t all = 0, before = 0;
    for (int64_t t = 0, tokens; t < p->n; t += tokens) {
        tokens = bl_following(p, t, cut.tokens);
        all += m->kv_heads * cut.parts * bl_cost(p, t, tokens);
    }
    for (int64_t part = 0; part < m->kv_heads * cut.parts; part++)
        for (int64_t t = 0, tokens; t < p->n; t += tokens) {
            tokens = bl_following(p, t, cut.tokens);
            const int64_t cost = bl_cost(p, t, tokens), owner = (2 * before + cost) * workers / (2 * all);
            before += cost;
            if (owner != worker) continue;
            const int64_t first = part % cut.parts * cut.heads;
            const int64_t heads = group - first < cut.heads ? group - first : cut.heads;
            bl_attend_piece(p, layer, t, tokens, part / cut.parts * group + first, heads, bl_scratch(p, worker));
        }
}

/* ---- one token far on in a text: every key and value is read once, whatever the number of workers --------------- */

/* Heads that are done together: all that share the keys of some heads, or some that share those of one. */
typedef struct { int64_t kv_head, kv_heads, head, queries; } bl_part;

/* The index'th part of a model's heads; of one behind the last, queries is 0. */
static bl_part bl_part_at(const bl_model *m, int64_t index)
{
    const int64_t group = m->heads / m->kv_heads, most = group < BL_MAX_QUERIES ? group : BL_MAX_QUERIES;
    const int64_t slices = (group + most - 1) / most, together = slices == 1 ? BL_MAX_QUERIES / most : 1;
    const int64_t slice = index % slices * most;
    bl_part part = {.kv_head = index / slices * together, .kv_heads = together};
    if (part.kv_head >= m->kv_heads) return part;
    if (part.kv_heads > m->kv_heads - part.kv_head) part.kv_heads = m->kv_heads - part.kv_head;
    part.head = part.kv_head * group + slice;
    part.queries = group - slice < most ? group - slice : most;
    return part;
}

/* This worker's positions of the scores. */
static void bl_score_by_positions(const bl_pass *p, int64_t layer, bl_part part, int worker, int workers)
{
    const bl_model *m = p->model;
    const bl_place *place = p->work->places;
    const bl_kv_rows keys = bl_cache_rows(place->cache, m, layer, part.kv_head, part.kv_heads, BL_KEYS);
    const int64_t stride = bl_score_stride(p->work->context);
    float *q = bl_scratch(p, worker);
    int64_t lo, hi;
    bl_share(place->position + 1, BL_LANES, worker, workers, &lo, &hi);
    bl_rotate_queries(p, layer, 0, part.head, part.kv_heads * part.queries, q);
    m->tier->score_keys(p->work->scores + part.head * stride, stride, q, &keys, lo, hi, m->score_scale,
                        (int)part.queries);
}

/* This worker's columns of mixed. */
static void bl_mix_by_columns(const bl_pass *p, int64_t layer, bl_part part, int worker, int workers)
{
    const bl_model *m = p->model;
    const bl_place *place = p->work->places;
    const bl_kv_rows values = bl_cache_rows(place->cache, m, layer, part.kv_head, part.kv_heads, BL_VALUES);
    const int64_t width = bl_head_stride(m), stride = bl_score_stride(p->work->context);
    float *out = bl_scratch(p, worker), *mixed = p->work->mixed + part.head * m->head_dim;
    int64_t lo, hi;
    bl_share(part.kv_heads * width, 2 * BL_LANES, worker, workers, &lo, &hi);
    m->tier->mix_values(out, p->work->scores + part.head * stride, stride, p->work->totals + part.head, &values,
                        place->position + 1, lo, hi, (int)part.queries);
    for (int64_t i = 0; i < part.kv_heads * part.queries; i++) {
        const bl_columns of = bl_columns_of(i / part.queries, width, lo, hi);
        const int64_t end = of.hi < m->head_dim ? of.hi : m->head_dim;
        if (of.lo < end)
            memcpy(mixed + i * m->head_dim + of.lo, out + i * width + of.lo, (size_t)(end - of.lo) * sizeof(float));
    }
}

static void bl_attend_by_positions(const bl_pass *p, int64_t layer, int worker, int workers)
{
    const bl_model *m = p->model;
    const int64_t stride = bl_score_stride(p->work->context);
    bl_part part;
    int64_t lo, hi;
    for (int64_t i = 0; (part = bl_part_at(m, i)).queries; i++) bl_score_by_positions(p, layer, part, worker, workers);
    bl_pool_barrier(p->pool);
    bl_share(m->heads, 1, worker, workers, &lo, &hi);
    for (int64_t h = lo; h < hi; h++)
        p->work->totals[h] = m->tier->exp_scores(p->work->scores + h * stride, p->work->places->position + 1);
    bl_pool_barrier(p->pool);
    for (int64_t i = 0; (part = bl_part_at(m, i)).queries; i++) bl_mix_by_columns(p, layer, part, worker, workers);
}

/* From this position on the workers share out positions instead of heads, which takes two more barriers. The C
 * self-test, whose texts are short, has a nearer one. */
#ifndef BL_FAR
#define BL_FAR 128
#endif

/* Sums run in the same order however the work is shared out. */
void bl_attend(const bl_pass *p, int64_t layer, int worker, int workers)
{
    if (p->n == 1 && p->work->places->position >= BL_FAR) bl_attend_by_positions(p, layer, worker, workers);
    else bl_attend_by_heads(p, layer, worker, workers);
}
