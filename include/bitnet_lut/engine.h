/* The forward pass of a decoder of the llama kind, with the sub-norms and squared ReLU of BitNet b1.58 where the model
 * has them. No allocation, no checks, no Python: the caller owns the memory and has checked every shape and id. */
#ifndef BL_ENGINE_H
#define BL_ENGINE_H

#include "kernels.h"
#include "pool.h"

typedef struct {
    bl_type type;
    int64_t rows, cols;
    const uint8_t *data;     /* dense: as dense_gemm or dense_row reads it; ternary: as kernel packs it */
    const bl_kernel *kernel; /* ternary: matrices that read the same input share these two */
    const bl_cell *cell;
    const float *scale;  /* ternary: (scales) */
    int64_t scales;      /* 1, or rows */
    const float *bias;   /* (rows), or NULL */
} bl_matrix;

typedef struct {
    const float *attn_norm;     /* (embedding) */
    const float *attn_sub_norm; /* (heads * head_dim), or NULL */
    const float *ffn_norm;      /* (embedding) */
    const float *ffn_sub_norm;  /* (ffn), or NULL */
    bl_matrix q;                /* (heads * head_dim, embedding) */
    bl_matrix k, v;             /* (kv_heads * head_dim, embedding) */
    bl_matrix o;                /* (embedding, heads * head_dim) */
    bl_matrix gate, up;         /* (ffn, embedding) */
    bl_matrix down;             /* (embedding, ffn) */
} bl_layer;

typedef enum { BL_SILU, BL_RELU2 } bl_activation;

typedef struct {
    const bl_tier *tier;
    int64_t layers, embedding, ffn, heads, kv_heads, head_dim, rope_dim, vocab;
    float eps;
    bl_activation activation;
    int rope_interleaved;
    const float *inverse_frequency; /* (rope_dim / 2) */
    bl_matrix token_embedding;      /* (vocab, embedding), dense */
    bl_matrix head;                 /* (vocab, embedding) */
    const float *output_norm;       /* (embedding) */
    const bl_layer *layer;          /* (layers) */
} bl_model;

/* The results a probe sees, in the order in which they appear. */
typedef enum {
    BL_OP_EMBEDDING, BL_OP_ATTN_NORM, BL_OP_Q, BL_OP_K, BL_OP_V, BL_OP_ATTENTION, BL_OP_ATTN_SUB_NORM,
    BL_OP_ATTN_OUTPUT, BL_OP_FFN_NORM, BL_OP_FFN_GATE, BL_OP_FFN_UP, BL_OP_FFN_ACTIVATION, BL_OP_FFN_SUB_NORM,
    BL_OP_FFN_DOWN, BL_OP_RESIDUAL, BL_OP_OUTPUT_NORM, BL_OP_LOGITS, BL_OP_COUNT
} bl_op;

static const char *const bl_op_names[BL_OP_COUNT] = {
    "embedding", "attn_norm", "attn_q", "attn_k", "attn_v", "attention", "attn_sub_norm", "attn_output", "ffn_norm",
    "ffn_gate", "ffn_up", "ffn_activation", "ffn_sub_norm", "ffn_down", "residual", "output_norm", "logits"};

/* Called by one worker while the others wait, with the result of an op as (n, width). layer is -1 outside layers. */
typedef void (*bl_probe)(void *context, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width);

/* Keys and values of one sequence. head_stride = head_dim rounded up to 16 lanes, the padding zero. */
typedef struct {
    int64_t context; /* positions it can hold */
    int kv_f16;
    void *keys, *values; /* (layers, kv_heads, context, head_stride) half or float, zero at first */
} bl_cache;

/* Where a token stands. */
typedef struct {
    const bl_cache *cache;
    int64_t position;
} bl_place;

/* Scratch of one bl_forward. */
typedef struct {
    int64_t context; /* most positions of a sequence */
    int64_t batch;   /* most tokens */
    float *x;              /* (batch, embedding) residual stream */
    float *input;          /* (batch, widest input) of the next matrices */
    uint8_t *prepared;     /* bl_prepared_bytes(model, batch) bytes: input as the next matrices read it */
    uint8_t *own_prepared; /* (workers, own_bytes): the same of one token, of a worker for itself */
    int64_t own_bytes;     /* bl_prepared_bytes(model, 1) */
    int8_t *quantised;     /* (workers, widest input) */
    float *act_max;        /* (batch) */
    float *own_act_max;    /* (workers, BL_LANES), the first of each */
    float *q, *k, *v;      /* (batch, heads * head_dim), (batch, kv_heads * head_dim) twice */
    float *mixed;          /* (batch, heads * head_dim) output of the attention */
    float *gate, *up;      /* (batch, ffn) */
    float *out;            /* (batch, embedding) of the two matrices that add to the residual */
    float *cosine, *sine;  /* (batch, rope_dim / 2) */
    float *worker_scratch; /* (workers, bl_scratch_floats) */
} bl_state;

/* One call of bl_forward. */
typedef struct {
    const bl_model *model;
    bl_state *state;
    bl_pool *pool;
    const int32_t *tokens; /* (n) */
    const bl_place *places; /* (n): those of one sequence in order, each after what it reads */
    int64_t n;
    float *logits;         /* (logit_tokens, vocab): of the last logit_tokens tokens */
    int64_t logit_tokens;
    float *hidden;         /* (layers + 1, hidden_stride / embedding, embedding) from the first token on, or NULL */
    int64_t hidden_stride; /* floats between layers */
    bl_probe probe;        /* or NULL */
    void *probe_context;
} bl_step;

BL_INLINE int64_t bl_head_stride(const bl_model *m) { return bl_round_up(m->head_dim, BL_LANES); }

BL_INLINE int64_t bl_widest_input(const bl_model *m)
{
    const int64_t attention = m->heads * m->head_dim;
    const int64_t widest = m->embedding > attention ? m->embedding : attention;
    return m->ffn > widest ? m->ffn : widest;
}

/* Scores, queries and results of the heads that one worker does together; or an input it makes for itself. */
BL_INLINE int64_t bl_scratch_floats(const bl_model *m, int64_t context)
{
    const int64_t heads = BL_MAX_HEADS * (context + 2 * bl_head_stride(m)), widest = bl_widest_input(m);
    return bl_round_up(heads > widest ? heads : widest, BL_LANES);
}

/* Bytes of each of n prepared tokens that w reads. */
BL_INLINE int64_t bl_token_bytes_of(const bl_model *m, const bl_matrix *w, int64_t n)
{
    return w->type == BL_TERNARY ? w->cell->token_bytes(w->cols, n) : m->tier->dense_bytes(w->cols);
}

/* Room for the prepared activations of 1 to batch tokens that w reads. */
static int64_t bl_prepared_for(const bl_model *m, const bl_matrix *w, int64_t batch)
{
    int64_t most = 0;
    for (int64_t n = 1; n <= batch; n++) {
        const int64_t bytes = n * bl_token_bytes_of(m, w, n);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The same, whatever matrix reads them. */
static int64_t bl_prepared_bytes(const bl_model *m, int64_t batch)
{
    int64_t most = bl_prepared_for(m, &m->head, batch);
    for (int64_t l = 0; l < m->layers; l++) {
        const bl_layer *layer = &m->layer[l];
        const bl_matrix *const readers[] = {&layer->q, &layer->o, &layer->gate, &layer->down};
        for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
            const int64_t bytes = bl_prepared_for(m, readers[i], batch);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

/* The contiguous part of [0, total), in units of step, that this worker does. */
BL_INLINE void bl_share(int64_t total, int64_t step, int worker, int workers, int64_t *lo, int64_t *hi)
{
    const int64_t units = (total + step - 1) / step;
    *lo = units * worker / workers * step;
    *hi = units * (worker + 1) / workers * step;
    if (*hi > total) *hi = total;
}

/* Two barriers around the probe: the result is complete before, and not yet overwritten. */
BL_INLINE void bl_show(const bl_step *s, int worker, int64_t layer, bl_op op, const float *data, int64_t n,
                       int64_t width)
{
    if (!s->probe) return;
    bl_pool_barrier(s->pool);
    if (worker == 0) s->probe(s->probe_context, layer, op, data, n, width);
    bl_pool_barrier(s->pool);
}

/* dot (in place, int32) to float: times weight scale and activation maximum over 127. */
static void bl_rescale_rows(float *out, const bl_matrix *w, float act_max, int64_t lo, int64_t hi)
{
    if (w->scales == 1) {
        const float factor = bl_rescale(w->scale[0], act_max);
        for (int64_t row = lo; row < hi; row++) {
            int32_t dot;
            memcpy(&dot, out + row, sizeof dot);
            out[row] = (float)dot * factor;
        }
        return;
    }
    for (int64_t row = lo; row < hi; row++) {
        int32_t dot;
        memcpy(&dot, out + row, sizeof dot);
        out[row] = (float)dot * bl_rescale(w->scale[row], act_max);
    }
}

BL_INLINE float *bl_scratch(const bl_step *s, int worker)
{
    return s->state->worker_scratch + worker * bl_scratch_floats(s->model, s->state->context);
}

/* Whether every worker makes the input of a reader for itself: look-up tables of one token are built sooner than they
 * get from one core to another, and nobody waits. A probe sees what is shared. */
BL_INLINE int bl_makes_own_input(const bl_step *s, const bl_matrix *reader)
{
    return s->n == 1 && reader->type == BL_TERNARY && !s->probe;
}

/* Where an input is made: floats (n, cols), activation maxima (n), prepared tokens. */
typedef struct {
    float *floats, *act_max;
    uint8_t *prepared;
} bl_input;

BL_INLINE bl_input bl_input_of(const bl_step *s, const bl_matrix *reader, int worker)
{
    const bl_state *state = s->state;
    bl_input to = {state->input, state->act_max, state->prepared};
    if (bl_makes_own_input(s, reader)) {
        to.floats = bl_scratch(s, worker);
        to.act_max = state->own_act_max + BL_LANES * worker;
        to.prepared = state->own_prepared + worker * state->own_bytes;
    }
    return to;
}

/* All workers have made the input, if they share it. */
BL_INLINE void bl_await_input(const bl_step *s, const bl_matrix *reader)
{
    if (!bl_makes_own_input(s, reader)) bl_pool_barrier(s->pool);
}

/* This worker's rows of out (n, out_stride) = W input, as it is prepared. */
static void bl_linear(const bl_step *s, const bl_matrix *w, float *out, int64_t out_stride, int64_t lo, int64_t hi,
                      int worker)
{
    const bl_tier *tier = s->model->tier;
    const bl_input input = bl_input_of(s, w, worker);
    if (w->type == BL_TERNARY) {
        w->cell->gemm((int32_t *)(void *)out, out_stride, w->data, input.prepared, w->rows, w->cols, lo, hi, s->n);
        for (int64_t t = 0; t < s->n; t++) bl_rescale_rows(out + t * out_stride, w, input.act_max[t], lo, hi);
    } else {
        tier->dense_gemm(out, out_stride, w->type, w->data, input.prepared, w->cols, lo, hi, s->n);
    }
    if (!w->bias) return;
    for (int64_t t = 0; t < s->n; t++)
        for (int64_t row = lo; row < hi; row++) out[t * out_stride + row] += w->bias[row];
}

/* Rows in which the workers share out a matrix. */
BL_INLINE int64_t bl_row_step(const bl_matrix *w)
{
    return w->type == BL_TERNARY && w->kernel->panel > BL_LANES ? w->kernel->panel : BL_STRIP;
}

BL_INLINE void bl_linear_share(const bl_step *s, const bl_matrix *w, float *out, int worker, int workers)
{
    int64_t lo, hi;
    bl_share(w->rows, bl_row_step(w), worker, workers, &lo, &hi);
    bl_linear(s, w, out, w->rows, lo, hi, worker);
}

/* This worker's tokens of input = norm(from), or from itself without a norm, and prepared for the reader. Matrices of
 * any dense types read the same preparation, ternary ones that of their kernel. */
static void bl_make_input(const bl_step *s, const float *from, const float *norm, const bl_matrix *reader, int worker,
                          int workers)
{
    const bl_tier *tier = s->model->tier;
    const bl_input to = bl_input_of(s, reader, worker);
    const int64_t width = reader->cols;
    int8_t *q = s->state->quantised + worker * bl_widest_input(s->model);
    int64_t lo = 0, hi = 1;
    if (!bl_makes_own_input(s, reader)) bl_share(s->n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        float *input = to.floats + t * width;
        if (norm) tier->rms_norm(input, from + t * width, norm, width, s->model->eps);
        else memcpy(input, from + t * width, (size_t)width * sizeof(float));
        uint8_t *prepared = to.prepared + t * bl_token_bytes_of(s->model, reader, s->n);
        if (reader->type == BL_TERNARY) {
            to.act_max[t] = tier->quantise(q, input, width);
            reader->cell->prepare(prepared, q, width, s->n);
        } else {
            tier->dense_prepare(prepared, input, width);
        }
    }
}

/* This worker's tokens of x = embedding row, and the angles of their positions. */
static void bl_embed(const bl_step *s, int worker, int workers)
{
    const bl_model *m = s->model;
    const bl_matrix *table = &m->token_embedding;
    const int64_t half = m->rope_dim / 2, row_bytes = bl_row_bytes(table->type, table->cols);
    int64_t lo, hi;
    bl_share(s->n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        m->tier->dense_row(s->state->x + t * m->embedding, table->type, table->data + s->tokens[t] * row_bytes,
                           m->embedding);
        for (int64_t i = 0; i < half; i++)
            bl_sincos((float)s->places[t].position * m->inverse_frequency[i], &s->state->sine[t * half + i],
                      &s->state->cosine[t * half + i]);
    }
}

/* Element index in a cache of a head's row at a position. */
BL_INLINE int64_t bl_cache_row(const bl_step *s, const bl_cache *cache, int64_t layer, int64_t kv_head,
                               int64_t position)
{
    return ((layer * s->model->kv_heads + kv_head) * cache->context + position) * bl_head_stride(s->model);
}

BL_INLINE void bl_store_kv(const bl_step *s, int kv_f16, void *cache, int64_t row, const float *head)
{
    const int64_t stride = bl_head_stride(s->model);
    if (kv_f16) s->model->tier->store_f16((uint16_t *)cache + row, head, stride);
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
        bl_store_kv(s, cache->kv_f16, cache->keys, row, head);
        memcpy(head, state->v + i * m->head_dim, (size_t)m->head_dim * sizeof(float));
        bl_store_kv(s, cache->kv_f16, cache->values, row, head);
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

/* Causal attention of `count` heads from `head` on, which share keys, for token t. */
static void bl_attend_heads(const bl_step *s, int64_t layer, int64_t t, int64_t head, int64_t count, float *scratch)
{
    const bl_model *m = s->model;
    bl_state *state = s->state;
    const bl_cache *cache = s->places[t].cache;
    const int64_t half = m->rope_dim / 2, stride = bl_head_stride(m), size = cache->kv_f16 ? 2 : 4;
    const int64_t row = bl_cache_row(s, cache, layer, head / (m->heads / m->kv_heads), 0);
    const int64_t at = (t * m->heads + head) * m->head_dim;
    float *scores = scratch, *q = scratch + BL_MAX_HEADS * state->context, *out = q + BL_MAX_HEADS * stride;
    for (int64_t h = 0; h < count; h++) {
        memset(q + h * stride, 0, (size_t)stride * sizeof(float));
        memcpy(q + h * stride, state->q + at + h * m->head_dim, (size_t)m->head_dim * sizeof(float));
        m->tier->rope(q + h * stride, state->cosine + t * half, state->sine + t * half, m->rope_dim,
                      m->rope_interleaved);
    }
    m->tier->attention(out, q, (const uint8_t *)cache->keys + row * size, (const uint8_t *)cache->values + row * size,
                       cache->kv_f16, stride, s->places[t].position + 1, 1.0f / sqrtf((float)m->head_dim), scores,
                       (int)count);
    for (int64_t h = 0; h < count; h++)
        memcpy(state->mixed + at + h * m->head_dim, out + h * stride, (size_t)m->head_dim * sizeof(float));
}

/* This worker's part of mixed = causal attention; heads that share keys come one after the other. */
static void bl_attend(const bl_step *s, int64_t layer, int worker, int workers)
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

/* This worker's rows of x += W input. */
static void bl_add_linear(const bl_step *s, int64_t layer, bl_op op, const bl_matrix *w, int worker, int workers)
{
    bl_state *state = s->state;
    int64_t lo, hi;
    bl_share(w->rows, bl_row_step(w), worker, workers, &lo, &hi);
    bl_linear(s, w, state->out, w->rows, lo, hi, worker);
    bl_show(s, worker, layer, op, state->out, s->n, w->rows);
    for (int64_t t = 0; t < s->n; t++)
        for (int64_t row = lo; row < hi; row++) state->x[t * w->rows + row] += state->out[t * w->rows + row];
}

static void bl_attention_block(const bl_step *s, int64_t l, int worker, int workers)
{
    const bl_model *m = s->model;
    const bl_layer *layer = &m->layer[l];
    bl_state *state = s->state;
    bl_make_input(s, state->x, layer->attn_norm, &layer->q, worker, workers);
    bl_await_input(s, &layer->q);
    bl_show(s, worker, l, BL_OP_ATTN_NORM, state->input, s->n, m->embedding);
    bl_linear_share(s, &layer->q, state->q, worker, workers);
    bl_linear_share(s, &layer->k, state->k, worker, workers);
    bl_linear_share(s, &layer->v, state->v, worker, workers);
    bl_pool_barrier(s->pool);
    bl_show(s, worker, l, BL_OP_Q, state->q, s->n, layer->q.rows);
    bl_show(s, worker, l, BL_OP_K, state->k, s->n, layer->k.rows);
    bl_show(s, worker, l, BL_OP_V, state->v, s->n, layer->v.rows);
    bl_fill_cache(s, l, worker, workers);
    bl_pool_barrier(s->pool);
    bl_attend(s, l, worker, workers);
    bl_pool_barrier(s->pool);
    bl_show(s, worker, l, BL_OP_ATTENTION, state->mixed, s->n, layer->o.cols);
    bl_make_input(s, state->mixed, layer->attn_sub_norm, &layer->o, worker, workers);
    bl_await_input(s, &layer->o);
    bl_show(s, worker, l, BL_OP_ATTN_SUB_NORM, state->input, s->n, layer->o.cols);
    bl_add_linear(s, l, BL_OP_ATTN_OUTPUT, &layer->o, worker, workers);
    bl_pool_barrier(s->pool);
}

static void bl_ffn_block(const bl_step *s, int64_t l, int worker, int workers)
{
    const bl_model *m = s->model;
    const bl_layer *layer = &m->layer[l];
    bl_state *state = s->state;
    int64_t lo, hi;
    bl_make_input(s, state->x, layer->ffn_norm, &layer->gate, worker, workers);
    bl_await_input(s, &layer->gate);
    bl_show(s, worker, l, BL_OP_FFN_NORM, state->input, s->n, m->embedding);
    bl_linear_share(s, &layer->gate, state->gate, worker, workers);
    bl_linear_share(s, &layer->up, state->up, worker, workers);
    bl_show(s, worker, l, BL_OP_FFN_GATE, state->gate, s->n, m->ffn);
    bl_show(s, worker, l, BL_OP_FFN_UP, state->up, s->n, m->ffn);
    bl_share(m->ffn, bl_row_step(&layer->gate), worker, workers, &lo, &hi); /* the rows this worker has just made */
    for (int64_t at = lo; at < s->n * m->ffn; at += m->ffn) {
        if (m->activation == BL_RELU2) m->tier->relu2_mul(state->gate + at, state->up + at, hi - lo);
        else m->tier->silu_mul(state->gate + at, state->up + at, hi - lo);
    }
    bl_pool_barrier(s->pool);
    bl_show(s, worker, l, BL_OP_FFN_ACTIVATION, state->gate, s->n, m->ffn);
    bl_make_input(s, state->gate, layer->ffn_sub_norm, &layer->down, worker, workers);
    bl_await_input(s, &layer->down);
    bl_show(s, worker, l, BL_OP_FFN_SUB_NORM, state->input, s->n, m->ffn);
    bl_add_linear(s, l, BL_OP_FFN_DOWN, &layer->down, worker, workers);
    bl_pool_barrier(s->pool);
    bl_show(s, worker, l, BL_OP_RESIDUAL, state->x, s->n, m->embedding);
}

/* logits of the last tokens = head . norm(x). */
static void bl_output_block(const bl_step *s, int worker, int workers)
{
    const bl_model *m = s->model;
    const int64_t first = s->n - s->logit_tokens;
    bl_step last = *s;
    last.n = s->logit_tokens;
    bl_make_input(&last, s->state->x + first * m->embedding, m->output_norm, &m->head, worker, workers);
    bl_await_input(&last, &m->head);
    bl_show(s, worker, -1, BL_OP_OUTPUT_NORM, s->state->input, last.n, m->embedding);
    bl_linear_share(&last, &m->head, s->logits, worker, workers);
    bl_show(s, worker, -1, BL_OP_LOGITS, s->logits, last.n, m->vocab);
}

BL_INLINE void bl_keep_hidden(const bl_step *s, int64_t index, int worker, int workers)
{
    if (!s->hidden) return;
    const int64_t width = s->model->embedding;
    int64_t lo, hi;
    bl_share(s->n, 1, worker, workers, &lo, &hi);
    memcpy(s->hidden + index * s->hidden_stride + lo * width, s->state->x + lo * width,
           (size_t)((hi - lo) * width) * sizeof(float));
}

static void bl_forward_worker(void *context, int worker, int workers)
{
    const bl_step *s = context;
    bl_embed(s, worker, workers);
    bl_pool_barrier(s->pool);
    bl_show(s, worker, -1, BL_OP_EMBEDDING, s->state->x, s->n, s->model->embedding);
    bl_keep_hidden(s, 0, worker, workers);
    for (int64_t l = 0; l < s->model->layers; l++) {
        bl_attention_block(s, l, worker, workers);
        bl_ffn_block(s, l, worker, workers);
        bl_keep_hidden(s, l + 1, worker, workers);
    }
    if (s->logit_tokens) bl_output_block(s, worker, workers);
}

/* Run n tokens (at most state->batch) at their places, which must lie within their contexts. Returns whether the last
 * residual stream and the logits are finite. */
static int bl_forward(bl_step *s)
{
    const bl_model *m = s->model;
    bl_pool_run(s->pool, bl_forward_worker, s);
    return m->tier->finite(s->state->x, s->n * m->embedding) && m->tier->finite(s->logits, s->logit_tokens * m->vocab);
}

#endif
