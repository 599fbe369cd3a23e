/* The engine on a dumped model. A dump is little-endian, without padding:
 *
 *   text     "bitnet_lut dump 1\n"
 *   int64    layers, embedding, ffn, heads, kv_heads, head_dim, rope_dim, vocab,
 *            activation (0 silu, 1 relu2), rope_interleaved (0 or 1), tied_head (0 or 1)
 *   array    eps float (1) | inverse_frequency float (rope_dim / 2) | tokens int32 (n)
 *   array    output_norm
 *   matrix   token_embedding, and head unless it is tied
 *   for each layer:
 *     array  attn_norm, attn_sub_norm, ffn_norm, ffn_sub_norm
 *     matrix q, k, v, o, gate, up, down
 *
 *   array  = int64 bytes, then the bytes; none where the model lacks it
 *   matrix = int64 type (bl_type), rows, cols; array data, scale (none if dense), bias
 */
#ifndef BL_SELFTEST_MODEL_H
#define BL_SELFTEST_MODEL_H

#include "selftest.h"

typedef struct {
    bl_model model;
    bl_layer *layers;
    const int32_t *tokens;
    int64_t n;
    FILE *file;
    void *kept[4096]; /* every array, to be freed */
    int kept_count;
} dump;

static void take(dump *d, void *to, size_t bytes)
{
    if (fread(to, 1, bytes, d->file) != bytes) FAIL("the dump ends early");
}

static int64_t take_int(dump *d)
{
    int64_t value;
    take(d, &value, sizeof value);
    return value;
}

static void *take_array(dump *d, int64_t *bytes)
{
    *bytes = take_int(d);
    if (*bytes == 0) return NULL;
    if (d->kept_count == sizeof d->kept / sizeof *d->kept) FAIL("more arrays than there is room for");
    void *array = d->kept[d->kept_count++] = room(*bytes);
    take(d, array, (size_t)*bytes);
    return array;
}

static const float *take_floats(dump *d)
{
    int64_t bytes;
    return take_array(d, &bytes);
}

static bl_matrix take_matrix(dump *d)
{
    bl_matrix m = {.type = (bl_type)take_int(d)};
    int64_t bytes;
    m.rows = take_int(d);
    m.cols = take_int(d);
    m.data = take_array(d, &bytes);
    if (bytes != m.rows * bl_row_bytes(m.type, m.cols)) FAIL("a matrix has %lld bytes", (long long)bytes);
    m.scale = take_array(d, &bytes);
    m.scales = bytes / 4;
    m.bias = take_floats(d);
    return m;
}

/* The matrix as it meets activations. */
static bl_matrix as_strips(dump *d, bl_matrix m)
{
    if (!bl_is_block_type(m.type)) return m;
    if (d->kept_count == sizeof d->kept / sizeof *d->kept) FAIL("more arrays than there is room for");
    uint8_t *strips = d->kept[d->kept_count++] = room(bl_dense_packed_bytes(m.type, m.rows, m.cols));
    bl_pack_blocks(strips, m.data, m.type, m.rows, m.cols, 0, m.rows);
    m.data = strips;
    m.in_strips = 1;
    return m;
}

static bl_layer take_layer(dump *d)
{
    bl_layer layer = {.attn_norm = take_floats(d)};
    layer.attn_sub_norm = take_floats(d);
    layer.ffn_norm = take_floats(d);
    layer.ffn_sub_norm = take_floats(d);
    bl_matrix *const matrices[] = {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) *matrices[i] = as_strips(d, take_matrix(d));
    return layer;
}

static void read_dump(dump *d, const char *path)
{
    static const char title[] = "bitnet_lut dump 1\n";
    char found[sizeof title] = {0};
    int64_t bytes;
    bl_model *m = &d->model;
    d->file = fopen(path, "rb");
    if (!d->file) FAIL("cannot open %s", path);
    take(d, found, sizeof title - 1);
    if (strcmp(found, title)) FAIL("%s is not a dump", path);
    int64_t *const sizes[] = {&m->layers, &m->embedding, &m->ffn, &m->heads,
                              &m->kv_heads, &m->head_dim, &m->rope_dim, &m->vocab};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) *sizes[i] = take_int(d);
    m->activation = (bl_activation)take_int(d);
    m->rope_interleaved = (int)take_int(d);
    const int64_t tied_head = take_int(d);
    m->eps = *take_floats(d);
    m->inverse_frequency = take_floats(d);
    d->tokens = take_array(d, &bytes);
    d->n = bytes / 4;
    m->output_norm = take_floats(d);
    m->token_embedding = take_matrix(d);
    m->head = as_strips(d, tied_head ? m->token_embedding : take_matrix(d));
    if (tied_head) m->token_embedding = m->head; /* as in a file that is mapped */
    d->layers = room(m->layers * (int64_t)sizeof *d->layers);
    for (int64_t l = 0; l < m->layers; l++) d->layers[l] = take_layer(d);
    m->layer = d->layers;
    if (fgetc(d->file) != EOF) FAIL("%s has bytes left over", path);
    fclose(d->file);
}

static void free_dump(dump *d)
{
    for (int i = 0; i < d->kept_count; i++) free(d->kept[i]);
    free(d->layers);
}

enum { STATE_BLOCKS = 20, LINEARS = 7 };

/* Each array of cache and state in a block of its own, which the caller frees. */
static bl_state make_state(const bl_model *m, bl_cache *cache_of, int64_t context, int64_t batch, int kv_f16,
                           int workers, void *blocks[STATE_BLOCKS])
{
    const int64_t widest = bl_widest_input(m), stride = bl_head_stride(m), attention = m->heads * m->head_dim;
    const int64_t kv = m->kv_heads * m->head_dim, cache = m->layers * m->kv_heads * context * stride * (kv_f16 ? 2 : 4);
    const int64_t bytes[STATE_BLOCKS] = {
        cache, cache, batch * m->embedding * 4, batch * widest * 4, bl_prepared_bytes(m, batch),
        workers * widest, batch * 4, batch * attention * 4, batch * kv * 4, batch * kv * 4, batch * attention * 4,
        batch * m->ffn * 4, batch * m->ffn * 4, batch * m->embedding * 4, batch * m->rope_dim * 4,
        workers * bl_scratch_floats(m, context) * 4, workers * bl_prepared_bytes(m, BL_OWN_TOKENS),
        workers * BL_LANES * 4, m->heads * context * 4, m->heads * 4};
    for (int i = 0; i < STATE_BLOCKS; i++) blocks[i] = room(bytes[i]);
    memset(blocks[0], 0, (size_t)cache);
    memset(blocks[1], 0, (size_t)cache);
    float *angles = blocks[14];
    *cache_of = (bl_cache){.context = context, .kind = kv_f16 ? BL_KV_F16 : BL_KV_F32, .keys = blocks[0], .values = blocks[1]};
    return (bl_state){
        .context = context, .batch = batch, .x = blocks[2],
        .input = blocks[3], .prepared = blocks[4], .quantized = blocks[5], .act_max = blocks[6], .q = blocks[7],
        .k = blocks[8], .v = blocks[9], .mixed = blocks[10], .gate = blocks[11], .up = blocks[12], .out = blocks[13],
        .cosine = angles, .sine = angles + batch * m->rope_dim / 2, .worker_scratch = blocks[15],
        .own_prepared = blocks[16], .own_bytes = bl_prepared_bytes(m, BL_OWN_TOKENS), .own_act_max = blocks[17],
        .scores = blocks[18], .totals = blocks[19]};
}

static void count_op(void *counts, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width)
{
    (void)layer, (void)data, (void)n, (void)width;
    ((int64_t *)counts)[op]++;
}

/* The model with its ternary matrices packed for a kernel on a tier; free_packed frees what it holds. */
static bl_model pack_model(const dump *d, const bl_tier *tier, int kernel)
{
    bl_model model = d->model;
    bl_layer *layers = room(model.layers * (int64_t)sizeof *layers);
    memcpy(layers, d->layers, (size_t)model.layers * sizeof *layers);
    for (int64_t l = 0; l < model.layers; l++) {
        bl_layer *y = &layers[l];
        bl_matrix *const matrices[LINEARS] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        for (int i = 0; i < LINEARS; i++) {
            bl_matrix *m = matrices[i];
            if (m->type != BL_TERNARY) continue;
            m->kernel = bl_kernels[kernel];
            m->cell = bl_cell_of(tier, kernel);
            uint8_t *packed = room(m->kernel->packed_bytes(m->rows, m->cols));
            m->kernel->pack(packed, m->data, m->rows, m->cols, 0, m->rows);
            m->data = packed;
        }
    }
    model.tier = tier;
    model.layer = layers;
    return model;
}

static void free_packed(bl_model *model)
{
    for (int64_t l = 0; l < model->layers; l++) {
        const bl_layer *y = &model->layer[l];
        const bl_matrix *const matrices[LINEARS] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        for (int i = 0; i < LINEARS; i++)
            if (matrices[i]->type == BL_TERNARY) free((void *)(uintptr_t)matrices[i]->data);
    }
    free((void *)(uintptr_t)model->layer);
}

typedef struct {
    const bl_tier *tier;
    int kernel;
    bl_pool *pool;
    int64_t batch;       /* tokens of one call */
    int kv_f16;
    int64_t logit_tokens; /* the last ones */
    int observed;        /* with hidden states and a probe */
} way;

/* logits (logit_tokens, vocab) of the dumped tokens. */
static float *forward(const dump *d, way w)
{
    void *blocks[STATE_BLOCKS];
    bl_model model = pack_model(d, w.tier, w.kernel);
    const int64_t without = d->n - w.logit_tokens;
    bl_cache cache;
    bl_state state = make_state(&model, &cache, d->n, w.batch, w.kv_f16, w.pool->workers, blocks);
    bl_place *places = room(d->n * (int64_t)sizeof *places);
    for (int64_t t = 0; t < d->n; t++) places[t] = (bl_place){&cache, t};
    float *logits = room(w.logit_tokens * model.vocab * 4);
    float *hidden = room(w.observed ? (model.layers + 1) * d->n * model.embedding * 4 : 0);
    int64_t ops[BL_OP_COUNT] = {0}, calls = 0;
    for (int64_t done = 0; done < d->n; done += w.batch, calls++) {
        const int64_t n = d->n - done < w.batch ? d->n - done : w.batch;
        const int64_t wanted = done + n - without < 0 ? 0 : done + n - without < n ? done + n - without : n;
        bl_step step = {
            .model = &model, .state = &state, .pool = w.pool, .tokens = d->tokens + done, .n = n, .places = places + done,
            .logits = wanted ? logits + (done + n - wanted - without) * model.vocab : NULL, .logit_tokens = wanted,
            .hidden = w.observed ? hidden + done * model.embedding : NULL, .hidden_stride = d->n * model.embedding,
            .probe = w.observed ? count_op : NULL, .probe_context = ops};
        if (!bl_forward(&step)) FAIL("%s: not finite at position %lld", w.tier->name, (long long)done);
    }
    if (w.observed && (ops[BL_OP_FFN_DOWN] != calls * model.layers || ops[BL_OP_LOGITS] != calls))
        FAIL("the probe saw %lld times ffn_down, %lld times logits", (long long)ops[BL_OP_FFN_DOWN],
             (long long)ops[BL_OP_LOGITS]);
    for (int i = 0; i < STATE_BLOCKS; i++) free(blocks[i]);
    free(hidden);
    free(places);
    free_packed(&model);
    return logits;
}

/* That a way of computing gives the expected bits. */
static void check_way(const dump *d, way w, const float *expected)
{
    float *logits = forward(d, w);
    const int64_t floats = w.logit_tokens * d->model.vocab;
    if (memcmp(logits, expected + d->n * d->model.vocab - floats, (size_t)floats * 4))
        FAIL("%s %s, %d threads, batches of %lld, %s cache, %s: other logits than scalar, 1 thread, at once",
             w.tier->name, bl_kernels[w.kernel]->name, w.pool->workers, (long long)w.batch, w.kv_f16 ? "f16" : "f32", w.observed ? "observed" : "unobserved");
    free(logits);
}

/* Every kernel, tier, number of threads and cut gives the same logits, which are printed: cache, token, bits. */
static void check_model(const char *path)
{
    static dump d;
    memset(&d, 0, sizeof d);
    read_dump(&d, path);
    const int64_t cuts[] = {1, 2, 3, d.n};
    for (int kv_f16 = 0; kv_f16 < 2; kv_f16++) {
        float *expected = NULL;
        for (int threads = 1; threads <= 2; threads++) {
            bl_pool *pool = room(sizeof *pool);
            bl_pool_init(pool, threads);
            if (!expected) expected = forward(&d, (way){&bl_tier_scalar, BL_I2_S, pool, d.n, kv_f16, d.n, 0});
            for (int i = 0; i < bl_tier_count * BL_KERNEL_COUNT; i++) {
                const bl_tier *tier = bl_tiers[i / BL_KERNEL_COUNT];
                const int kernel = i % BL_KERNEL_COUNT;
                if (!runs_here(tier)) continue;
                for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
                    check_way(&d, (way){tier, kernel, pool, cuts[c], kv_f16, d.n, 0}, expected);
                check_way(&d, (way){tier, kernel, pool, 4, kv_f16, 1, 0}, expected);
                check_way(&d, (way){tier, kernel, pool, 4, kv_f16, d.n, 1}, expected);
            }
            bl_pool_free(pool);
            free(pool);
        }
        for (int64_t t = 0; t < d.n; t++) {
            printf("%s %lld", kv_f16 ? "f16" : "f32", (long long)t);
            const float *row = expected + t * d.model.vocab;
            for (int64_t i = 0; i < d.model.vocab; i++) printf(" %08x", (unsigned)bl_bits(row[i]));
            putchar('\n');
        }
        free(expected);
    }
    free_dump(&d);
}

#endif
