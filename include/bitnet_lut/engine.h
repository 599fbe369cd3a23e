/* The forward pass of a decoder of the llama kind, with the sub-norms and squared ReLU of BitNet b1.58 where the model
 * has them. No allocation, no checks, no Python: the caller owns the memory and has checked every shape and id. */
#ifndef BL_ENGINE_H
#define BL_ENGINE_H

#include "attend.h"

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

/* Whether every worker makes the input of a reader for itself: look-up tables of a token or two are built sooner than
 * they get from one core to another, and nobody waits. A probe sees what is shared. */
BL_INLINE int bl_makes_own_input(const bl_step *s, const bl_matrix *reader)
{
    return s->n <= BL_OWN_TOKENS && reader->type == BL_TERNARY && !s->probe;
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
    int8_t *q = s->state->quantized + worker * bl_widest_input(s->model);
    int64_t lo = 0, hi = s->n;
    if (!bl_makes_own_input(s, reader)) bl_share(s->n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        float *input = to.floats + t * width;
        if (norm) tier->rms_norm(input, from + t * width, norm, width, s->model->eps);
        else memcpy(input, from + t * width, (size_t)width * sizeof(float));
        uint8_t *prepared = to.prepared + t * bl_token_bytes_of(s->model, reader, s->n);
        if (reader->type == BL_TERNARY) {
            to.act_max[t] = tier->quantize(q, input, width);
            reader->cell->prepare(prepared, q, width, s->n);
        } else {
            tier->dense_prepare(prepared, input, width);
        }
    }
}

/* out (cols) = a row of a dense matrix as floats. */
static void bl_look_up(float *out, const bl_tier *tier, const bl_matrix *table, int64_t row)
{
    const bl_type type = table->type;
    if (!table->in_strips) {
        tier->dense_row(out, type, table->data + row * bl_row_bytes(type, table->cols), table->cols);
        return;
    }
    const uint8_t *strip = table->data + row / BL_STRIP * bl_strip_bytes(type, table->cols);
    uint8_t blocks[BL_CHUNK_BYTES];
    for (int64_t k = 0; k < table->cols; k += BL_CHUNK) {
        const int64_t columns = bl_unpack_chunk(blocks, strip, (int)(row % BL_STRIP), type, table->cols, k);
        tier->dense_row(out + k, type, blocks, columns);
    }
}

/* This worker's tokens of x = embedding row, and the angles of their positions. */
static void bl_embed(const bl_step *s, int worker, int workers)
{
    const bl_model *m = s->model;
    const int64_t half = m->rope_dim / 2;
    int64_t lo, hi;
    bl_share(s->n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        bl_look_up(s->state->x + t * m->embedding, m->tier, &m->token_embedding, s->tokens[t]);
        for (int64_t i = 0; i < half; i++)
            bl_sincos((float)s->places[t].position * m->inverse_frequency[i], &s->state->sine[t * half + i],
                      &s->state->cosine[t * half + i]);
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
