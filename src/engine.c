/* The forward pass of a decoder of the llama kind, with what BitNet b1.58 and other models add to it. */
#include "pass.h"
#include "shared/blocks.h"

const char *const bl_op_names[BL_OP_COUNT] = {
    "embedding",   "attn_norm",      "attn_q",   "attn_k",      "attn_v", "attention",      "attn_sub_norm",
    "attn_output", "attn_post_norm", "ffn_norm", "ffn_gate",    "ffn_up", "ffn_activation", "ffn_sub_norm",
    "ffn_down",    "ffn_post_norm",  "residual", "output_norm", "logits"};

/* Show the probe a result. One barrier before completes it, one after keeps it from being overwritten. */
static void bl_show(const bl_pass *p, int worker, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width)
{
    if (!p->probe) return;
    bl_pool_barrier(p->pool);
    if (worker == 0) p->probe(p->probe_context, layer, op, data, n, width);
    bl_pool_barrier(p->pool);
}

/* ---- inputs of matrices ----------------------------------------------------------------------------------------- */

/* The input of one to three matrices, prepared once in each form in which they read it. */
typedef struct {
    const bl_matrix *const *readers;
    int count;
    int64_t n;      /* tokens */
    int own;        /* whether each worker prepares all tokens for itself */
    int by_columns; /* whether the workers share out columns instead of rows: only if own */
    float *floats;  /* (n, cols), or (cols) if own */
    float *act_max; /* (forms, act_stride) */
    int64_t act_stride;
    uint8_t *prepared; /* (forms, form_bytes) */
    int64_t form_bytes;
} bl_input;

/* With one or two tokens each worker builds its own look-up tables: cheaper than sharing them behind a barrier. Probes
 * see the shared copy. */
static int bl_makes_own_input(const bl_pass *p, const bl_matrix *const *readers, int count, int64_t n)
{
    for (int r = 0; r < count; r++)
        if (readers[r]->type != BL_TERNARY) return 0;
    return n <= BL_OWN_TOKENS && !p->probe;
}

/* Whether workers share out the columns of these matrices: see bl_cell. */
static int bl_is_by_columns(const bl_matrix *const *readers, int count, int workers)
{
    for (int r = 0; r < count; r++)
        if (!readers[r]->cell->gemm_share) return 0;
    return workers > 1;
}

static bl_input bl_place_input(const bl_pass *p, const bl_matrix *const *readers, int count, int64_t n, int worker,
                               int workers)
{
    const bl_workspace *work = p->work;
    bl_input in = {.readers = readers, .count = count, .n = n, .own = bl_makes_own_input(p, readers, count, n)};
    if (in.own) {
        in.by_columns = bl_is_by_columns(readers, count, workers);
        in.floats = bl_scratch(p, worker);
        in.act_max = work->own_act_max + BL_LANES * worker;
        in.act_stride = BL_OWN_TOKENS;
        in.prepared = work->own_prepared + worker * work->forms * work->own_bytes;
        in.form_bytes = work->own_bytes;
    } else {
        in.floats = work->input;
        in.act_max = work->act_max;
        in.act_stride = work->batch;
        in.prepared = work->prepared;
        in.form_bytes = work->form_bytes;
    }
    return in;
}

/* Prepare token t of an input for one of its readers. */
static void bl_prepare_token(const bl_pass *p, const bl_input *in, int reader, int64_t t, const float *floats,
                             int worker, int workers)
{
    const bl_tier *tier = p->model->tier;
    const bl_matrix *w = in->readers[reader];
    uint8_t *prepared = in->prepared + reader * in->form_bytes + t * bl_token_bytes_of(p->model, w, in->n);
    if (w->norm) {
        float *normed = bl_scratch(p, worker) + w->cols;
        tier->rms_norm(normed, floats, w->norm, w->cols, p->model->eps);
        floats = normed;
    }
    if (w->type != BL_TERNARY) {
        tier->dense_prepare(prepared, floats, w->cols);
        return;
    }
    int8_t *q = p->work->quantized + worker * p->work->quantized_stride;
    in->act_max[reader * in->act_stride + t] = tier->quantize(q, floats, w->cols);
    if (in->by_columns) w->cell->prepare_share(prepared, q, w->cols, in->n, worker, workers);
    else w->cell->prepare(prepared, q, w->cols, in->n);
}

/* input = norm(from), or from itself without a norm, as the readers read it. rows: of from, or NULL for 0 .. n - 1. */
static bl_input bl_make_input(const bl_pass *p, const float *from, const int64_t *rows, int64_t n, const float *norm,
                              const bl_matrix *const *readers, int count, int worker, int workers)
{
    const bl_input in = bl_place_input(p, readers, count, n, worker, workers);
    const int64_t width = readers[0]->cols;
    int64_t lo = 0, hi = n;
    if (!in.own) bl_share(n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        const float *x = from + (rows ? rows[t] : t) * width;
        float *floats = in.own ? in.floats : in.floats + t * width;
        if (norm) p->model->tier->rms_norm(floats, x, norm, width, p->model->eps);
        else memcpy(floats, x, (size_t)width * sizeof *floats);
        for (int r = 0; r < count; r++)
            if (bl_form_of(readers, r) == r) bl_prepare_token(p, &in, r, t, floats, worker, workers);
    }
    if (!in.own) bl_pool_barrier(p->pool);
    return in;
}

/* ---- matrices --------------------------------------------------------------------------------------------------- */

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

static void bl_rows_of_worker(const bl_matrix *w, int worker, int workers, int64_t *lo, int64_t *hi)
{
    bl_share(w->rows, bl_row_step(w->kernel), worker, workers, lo, hi);
}

static const uint8_t *bl_prepared_for(const bl_input *in, int reader)
{
    return in->prepared + bl_form_of(in->readers, reader) * in->form_bytes;
}

/* This worker's part of the dots of all readers. */
static void bl_make_parts(const bl_pass *p, const bl_input *in, int worker, int workers)
{
    int32_t *part = p->work->parts + worker * p->work->part_ints;
    for (int r = 0; r < in->count; r++) {
        const bl_matrix *w = in->readers[r];
        w->cell->gemm_share(part, bl_part_stride(w), w->data, bl_prepared_for(in, r), w->rows, w->cols, in->n, worker,
                            workers);
        part += BL_OWN_TOKENS * bl_part_stride(w);
    }
}

/* Rows [lo, hi) of the dots (n, rows) of a reader = the sum of all workers' parts. */
static void bl_add_parts(const bl_pass *p, const bl_input *in, int reader, int32_t *dot, int64_t lo, int64_t hi,
                         int workers)
{
    const bl_matrix *w = in->readers[reader];
    const int64_t ints = p->work->part_ints;
    const int32_t *part = p->work->parts;
    for (int r = 0; r < reader; r++) part += BL_OWN_TOKENS * bl_part_stride(in->readers[r]);
    for (int64_t t = 0; t < in->n; t++, dot += w->rows, part += bl_part_stride(w)) {
        memcpy(dot + lo, part + lo, (size_t)(hi - lo) * sizeof *dot);
        for (int other = 1; other < workers; other++)
            for (int64_t row = lo; row < hi; row++) dot[row] += part[other * ints + row];
    }
}

/* Rows [lo, hi) of out (n, rows) = W input, for one of its readers, whose parts are made if they are wanted. */
static void bl_multiply_rows(const bl_pass *p, const bl_input *in, int reader, float *out, int64_t lo, int64_t hi,
                             int workers)
{
    const bl_matrix *w = in->readers[reader];
    const float *act_max = in->act_max + bl_form_of(in->readers, reader) * in->act_stride;
    if (w->type == BL_TERNARY) {
        int32_t *dot = (int32_t *)(void *)out;
        if (in->by_columns) bl_add_parts(p, in, reader, dot, lo, hi, workers);
        else w->cell->gemm(dot, w->rows, w->data, bl_prepared_for(in, reader), w->rows, w->cols, lo, hi, in->n);
        for (int64_t t = 0; t < in->n; t++) bl_rescale_rows(out + t * w->rows, w, act_max[t], lo, hi);
    } else {
        p->model->tier->dense_gemm(out, w->rows, w->type, w->data, bl_prepared_for(in, reader), w->cols, lo, hi, in->n);
    }
    if (!w->bias) return;
    for (int64_t t = 0; t < in->n; t++)
        for (int64_t row = lo; row < hi; row++) out[t * w->rows + row] += w->bias[row];
}

/* This worker's rows of outs (n, rows) = W input, one for each reader. A barrier must follow before the next input. */
static void bl_multiply(const bl_pass *p, const bl_input *in, float *const *outs, int worker, int workers)
{
    if (in->by_columns) {
        bl_make_parts(p, in, worker, workers);
        bl_pool_barrier(p->pool);
    }
    for (int r = 0; r < in->count; r++) {
        int64_t lo, hi;
        bl_rows_of_worker(in->readers[r], worker, workers, &lo, &hi);
        bl_multiply_rows(p, in, r, outs[r], lo, hi, workers);
    }
}

/* x += norm(W input), or W input without a norm. */
static void bl_add(const bl_pass *p, int64_t layer, const bl_input *in, const float *norm, bl_op op, bl_op norm_op,
                   int worker, int workers)
{
    const bl_matrix *w = in->readers[0];
    const int64_t width = w->rows;
    float *x = p->work->x, *out = p->work->out;
    int64_t lo, hi;
    bl_multiply(p, in, &out, worker, workers);
    bl_show(p, worker, layer, op, out, p->n, width);
    if (norm) { /* over whole tokens, which takes one more barrier */
        bl_pool_barrier(p->pool);
        bl_share(p->n, 1, worker, workers, &lo, &hi);
        for (int64_t t = lo; t < hi; t++)
            p->model->tier->rms_norm(out + t * width, out + t * width, norm, width, p->model->eps);
        bl_show(p, worker, layer, norm_op, out, p->n, width);
        for (int64_t i = lo * width; i < hi * width; i++) x[i] += out[i];
    } else {
        bl_rows_of_worker(w, worker, workers, &lo, &hi);
        for (int64_t t = 0; t < p->n; t++)
            for (int64_t row = lo; row < hi; row++) x[t * width + row] += out[t * width + row];
    }
    bl_pool_barrier(p->pool);
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

/* ---- the graph -------------------------------------------------------------------------------------------------- */

/* This worker's tokens of x = embedding row, and the angles of their positions. */
static void bl_embed(const bl_pass *p, int worker, int workers)
{
    const bl_model *m = p->model;
    const int64_t half = m->rope_dim / 2;
    int64_t lo, hi;
    bl_share(p->n, 1, worker, workers, &lo, &hi);
    for (int64_t t = lo; t < hi; t++) {
        const bl_place *place = &p->work->places[t];
        float *x = p->work->x + t * m->embedding;
        float *sine = p->work->sine + t * half, *cosine = p->work->cosine + t * half;
        bl_look_up(x, m->tier, &m->token_embedding, place->token);
        for (int64_t i = 0; i < m->embedding && m->embedding_scale != 1.0f; i++) x[i] *= m->embedding_scale;
        for (int64_t i = 0; i < half; i++)
            bl_sincos((float)place->position * m->inverse_frequency[i], &sine[i], &cosine[i]);
    }
    bl_pool_barrier(p->pool);
    bl_show(p, worker, -1, BL_OP_EMBEDDING, p->work->x, p->n, m->embedding);
}

static void bl_attention_block(const bl_pass *p, int64_t l, int worker, int workers)
{
    const bl_model *m = p->model;
    const bl_layer *layer = &m->layer[l];
    const bl_matrix *const qkv[] = {&layer->q, &layer->k, &layer->v}, *const o[] = {&layer->o};
    bl_workspace *work = p->work;
    bl_input in = bl_make_input(p, work->x, NULL, p->n, layer->attn_norm, qkv, 3, worker, workers);
    bl_show(p, worker, l, BL_OP_ATTN_NORM, work->input, p->n, m->embedding);
    bl_multiply(p, &in, (float *[]){work->q, work->k, work->v}, worker, workers);
    bl_pool_barrier(p->pool);
    bl_show(p, worker, l, BL_OP_Q, work->q, p->n, layer->q.rows);
    bl_show(p, worker, l, BL_OP_K, work->k, p->n, layer->k.rows);
    bl_show(p, worker, l, BL_OP_V, work->v, p->n, layer->v.rows);
    bl_fill_cache(p, l, worker, workers);
    bl_pool_barrier(p->pool);
    bl_attend(p, l, worker, workers);
    bl_pool_barrier(p->pool);
    bl_show(p, worker, l, BL_OP_ATTENTION, work->mixed, p->n, layer->o.cols);
    in = bl_make_input(p, work->mixed, NULL, p->n, layer->attn_sub_norm, o, 1, worker, workers);
    bl_show(p, worker, l, BL_OP_ATTN_SUB_NORM, work->input, p->n, layer->o.cols);
    bl_add(p, l, &in, layer->attn_post_norm, BL_OP_ATTN_OUTPUT, BL_OP_ATTN_POST_NORM, worker, workers);
}

/* gate = activation(gate) * up, in the rows that this worker has just made. */
static void bl_activate(const bl_pass *p, const bl_matrix *gate, int worker, int workers)
{
    const bl_model *m = p->model;
    int64_t lo, hi;
    bl_rows_of_worker(gate, worker, workers, &lo, &hi);
    for (int64_t at = lo; at < p->n * m->ffn; at += m->ffn) {
        if (m->activation == BL_RELU2) m->tier->relu2_mul(p->work->gate + at, p->work->up + at, hi - lo);
        else m->tier->silu_mul(p->work->gate + at, p->work->up + at, hi - lo);
    }
}

static void bl_ffn_block(const bl_pass *p, int64_t l, int worker, int workers)
{
    const bl_model *m = p->model;
    const bl_layer *layer = &m->layer[l];
    const bl_matrix *const gate_up[] = {&layer->gate, &layer->up}, *const down[] = {&layer->down};
    bl_workspace *work = p->work;
    bl_input in = bl_make_input(p, work->x, NULL, p->n, layer->ffn_norm, gate_up, 2, worker, workers);
    bl_show(p, worker, l, BL_OP_FFN_NORM, work->input, p->n, m->embedding);
    bl_multiply(p, &in, (float *[]){work->gate, work->up}, worker, workers);
    bl_show(p, worker, l, BL_OP_FFN_GATE, work->gate, p->n, m->ffn);
    bl_show(p, worker, l, BL_OP_FFN_UP, work->up, p->n, m->ffn);
    if (bl_row_step(layer->gate.kernel) != bl_row_step(layer->up.kernel))
        bl_pool_barrier(p->pool); /* other rows were made */
    bl_activate(p, &layer->gate, worker, workers);
    bl_pool_barrier(p->pool);
    bl_show(p, worker, l, BL_OP_FFN_ACTIVATION, work->gate, p->n, m->ffn);
    in = bl_make_input(p, work->gate, NULL, p->n, layer->ffn_sub_norm, down, 1, worker, workers);
    bl_show(p, worker, l, BL_OP_FFN_SUB_NORM, work->input, p->n, m->ffn);
    bl_add(p, l, &in, layer->ffn_post_norm, BL_OP_FFN_DOWN, BL_OP_FFN_POST_NORM, worker, workers);
    bl_show(p, worker, l, BL_OP_RESIDUAL, work->x, p->n, m->embedding);
}

/* logits of the wanted tokens = head . norm(x). */
static void bl_output_block(const bl_pass *p, int worker, int workers)
{
    const bl_model *m = p->model;
    const bl_matrix *const head[] = {&m->head};
    const bl_input in =
        bl_make_input(p, p->work->x, p->work->wanted, p->wanted, m->output_norm, head, 1, worker, workers);
    bl_show(p, worker, -1, BL_OP_OUTPUT_NORM, p->work->input, p->wanted, m->embedding);
    bl_multiply(p, &in, (float *[]){p->logits}, worker, workers);
    bl_show(p, worker, -1, BL_OP_LOGITS, p->logits, p->wanted, m->vocab);
}

static void bl_keep_hidden(const bl_pass *p, int64_t index, int worker, int workers)
{
    if (!p->hidden) return;
    const int64_t width = p->model->embedding;
    int64_t lo, hi;
    bl_share(p->n, 1, worker, workers, &lo, &hi);
    memcpy(p->hidden + index * p->hidden_stride + lo * width, p->work->x + lo * width,
           (size_t)((hi - lo) * width) * sizeof(float));
}

static void bl_run_pass(void *context, int worker, int workers)
{
    const bl_pass *p = context;
    bl_embed(p, worker, workers);
    bl_keep_hidden(p, 0, worker, workers);
    for (int64_t l = 0; l < p->model->layers; l++) {
        bl_attention_block(p, l, worker, workers);
        bl_ffn_block(p, l, worker, workers);
        bl_keep_hidden(p, l + 1, worker, workers);
    }
    if (p->wanted) bl_output_block(p, worker, workers);
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* Where a step has got to. */
typedef struct {
    int64_t chunk, used; /* the next token, of a chunk */
    int64_t token, row;  /* the same over all chunks, and the next of the wanted rows */
} bl_progress;

/* The next tokens of a step, at most a batch of them. Returns how many. */
static int64_t bl_next_tokens(const bl_step *s, bl_progress *done)
{
    bl_workspace *work = s->workspace;
    int64_t n = 0;
    for (; done->chunk < s->chunk_count; done->chunk++, done->used = 0) {
        bl_chunk *chunk = &s->chunks[done->chunk];
        for (; done->used < chunk->n; done->used++) {
            if (n == work->batch) return n;
            work->places[n++] =
                (bl_place){chunk, chunk->cache, chunk->cache->position + done->used, chunk->tokens[done->used]};
        }
    }
    return n;
}

/* Which of n tokens from done->token on have their logits wanted. Returns how many. */
static int64_t bl_next_rows(const bl_step *s, bl_progress *done, int64_t n)
{
    int64_t wanted = 0;
    while (done->row < s->row_count && s->rows[done->row] < done->token + n)
        s->workspace->wanted[wanted++] = s->rows[done->row++] - done->token;
    return wanted;
}

/* Note which sequences did not stay finite. */
static void bl_check_finite(const bl_pass *p)
{
    const bl_model *m = p->model;
    const bl_place *places = p->work->places;
    for (int64_t t = 0; t < p->n; t++)
        places[t].chunk->finite &= m->tier->finite(p->work->x + t * m->embedding, m->embedding);
    for (int64_t i = 0; i < p->wanted; i++)
        places[p->work->wanted[i]].chunk->finite &= m->tier->finite(p->logits + i * m->vocab, m->vocab);
}

void bl_forward(const bl_step *s)
{
    const bl_model *m = s->model;
    bl_progress done = {0};
    int64_t tokens = 0;
    for (int64_t i = 0; i < s->chunk_count; i++) {
        s->chunks[i].finite = 1;
        tokens += s->chunks[i].n;
    }
    while (done.token < tokens) {
        bl_pass pass = {.model = m,
                        .work = s->workspace,
                        .pool = s->pool,
                        .hidden_stride = tokens * m->embedding,
                        .probe = s->probe,
                        .probe_context = s->probe_context};
        if (s->row_count) pass.logits = s->logits + done.row * m->vocab;
        if (s->hidden) pass.hidden = s->hidden + done.token * m->embedding;
        pass.n = bl_next_tokens(s, &done);
        pass.wanted = bl_next_rows(s, &done, pass.n);
        bl_pool_run(s->pool, bl_run_pass, &pass);
        bl_check_finite(&pass);
        done.token += pass.n;
    }
}
