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

/* The matrix as it is multiplied with activations. */
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
    int64_t *const sizes[] = {&m->layers,   &m->embedding, &m->ffn,      &m->heads,
                              &m->kv_heads, &m->head_dim,  &m->rope_dim, &m->vocab};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) *sizes[i] = take_int(d);
    m->embedding_scale = 1.0f;
    m->score_scale = 1.0f / sqrtf((float)m->head_dim);
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

enum { LINEARS = 7 };

/* Memory of some bytes that starts at a multiple of 64, in a block that is to be freed. */
static void *aligned_room(int64_t bytes, void **block)
{
    *block = room(bytes + 63);
    return (void *)(((uintptr_t)*block + 63) & ~(uintptr_t)63);
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
    int64_t cut;   /* tokens of one step */
    int64_t batch; /* tokens of one pass */
    bl_kv_kind kind;
    int64_t wanted; /* rows of logits, of the last tokens */
    int observed;   /* with hidden states and a probe */
} way;

/* Steps of one sequence from its start. Returns how many passes they took. */
static int64_t run_steps(const dump *d, way w, const bl_model *model, bl_cache *cache, bl_workspace *workspace,
                         float *logits, float *hidden, int64_t *ops)
{
    int64_t passes = 0;
    for (int64_t done = 0; done < d->n; done += w.cut) {
        int64_t rows[64], count = 0;
        bl_chunk chunk = {cache, d->tokens + done, d->n - done < w.cut ? d->n - done : w.cut, 0};
        bl_step step = {.model = model,
                        .workspace = workspace,
                        .pool = w.pool,
                        .chunks = &chunk,
                        .chunk_count = 1,
                        .rows = rows,
                        .logits = logits,
                        .hidden = hidden,
                        .probe = w.observed ? count_op : NULL,
                        .probe_context = ops};
        for (int64_t t = 0; t < chunk.n; t++)
            if (done + t >= d->n - w.wanted) rows[count++] = t;
        step.row_count = count;
        bl_forward(&step);
        if (!chunk.finite) FAIL("%s: not finite at position %lld", w.tier->name, (long long)done);
        cache->position += chunk.n;
        logits += count * model->vocab;
        if (hidden) hidden += (model->layers + 1) * chunk.n * model->embedding;
        passes += (chunk.n + w.batch - 1) / w.batch;
    }
    return passes;
}

/* logits (wanted, vocab) of the dumped tokens. */
static float *forward(const dump *d, way w)
{
    void *blocks[2];
    bl_model model = pack_model(d, w.tier, w.kernel);
    bl_cache cache;
    bl_workspace workspace;
    bl_cache_place(&cache, &model, w.kind, d->n, aligned_room(bl_cache_bytes(&model, w.kind, d->n), &blocks[0]));
    const int64_t bytes = bl_workspace_bytes(&model, d->n, w.batch, w.pool->workers);
    bl_workspace_place(&workspace, &model, d->n, w.batch, w.pool->workers, aligned_room(bytes, &blocks[1]));
    float *logits = room(w.wanted * model.vocab * 4);
    float *hidden = room(w.observed ? (model.layers + 1) * d->n * model.embedding * 4 : 0);
    int64_t ops[BL_OP_COUNT] = {0};
    const int64_t passes = run_steps(d, w, &model, &cache, &workspace, logits, w.observed ? hidden : NULL, ops);
    if (w.observed && (ops[BL_OP_FFN_DOWN] != passes * model.layers || ops[BL_OP_LOGITS] != passes))
        FAIL("the probe saw %lld times ffn_down, %lld times logits", (long long)ops[BL_OP_FFN_DOWN],
             (long long)ops[BL_OP_LOGITS]);
    free(blocks[0]);
    free(blocks[1]);
    free(hidden);
    free_packed(&model);
    return logits;
}

/* That a way of computing gives the expected bits. */
static void check_way(const dump *d, way w, const float *expected)
{
    float *logits = forward(d, w);
    const int64_t floats = w.wanted * d->model.vocab;
    if (memcmp(logits, expected + d->n * d->model.vocab - floats, (size_t)floats * 4))
        FAIL("%s %s, %d threads, steps of %lld, %s cache, %s: other logits than scalar, 1 thread, at once",
             w.tier->name, bl_kernels[w.kernel]->name, w.pool->workers, (long long)w.cut, bl_kv_formats[w.kind].name,
             w.observed ? "observed" : "unobserved");
    free(logits);
}

/* ---- several sequences in one step ------------------------------------------------------------------------------ */

enum { SEQUENCES = 4 };

/* Sequences that all say the dumped tokens, in steps of random chunks of some of them: every row is that of running
 * alone, whatever stands beside it. */
static void check_mixture(const dump *d, way w, const float *expected)
{
    void *blocks[SEQUENCES + 1];
    bl_model model = pack_model(d, w.tier, w.kernel);
    bl_cache caches[SEQUENCES];
    bl_workspace workspace;
    const int64_t vocab = model.vocab, bytes = bl_workspace_bytes(&model, d->n, w.batch, w.pool->workers);
    for (int i = 0; i < SEQUENCES; i++)
        bl_cache_place(&caches[i], &model, w.kind, d->n,
                       aligned_room(bl_cache_bytes(&model, w.kind, d->n), &blocks[i]));
    bl_workspace_place(&workspace, &model, d->n, w.batch, w.pool->workers, aligned_room(bytes, &blocks[SEQUENCES]));
    float *logits = room(SEQUENCES * d->n * vocab * 4);
    for (int left = SEQUENCES; left;) {
        bl_chunk chunks[SEQUENCES];
        int64_t rows[SEQUENCES * 64], positions[SEQUENCES * 64], count = 0, n = 0, used = 0;
        for (int i = 0; i < SEQUENCES; i++) {
            const int64_t at = caches[i].position, rest = d->n - at;
            if (!rest || random_below(3) == 0) continue;
            bl_chunk *chunk = &chunks[used++];
            *chunk = (bl_chunk){&caches[i], d->tokens + at, random_below(2) ? 1 : 1 + random_below((int)rest), 0};
            for (int64_t t = 0; t < chunk->n; t++, n++) {
                if (random_below(2)) continue;
                positions[count] = at + t;
                rows[count++] = n;
            }
        }
        bl_step step = {.model = &model,
                        .workspace = &workspace,
                        .pool = w.pool,
                        .chunks = chunks,
                        .rows = rows,
                        .chunk_count = used,
                        .row_count = count,
                        .logits = logits};
        bl_forward(&step);
        for (int64_t i = 0; i < count; i++)
            if (memcmp(logits + i * vocab, expected + positions[i] * vocab, (size_t)vocab * 4))
                FAIL("%s %s, %d threads, batches of %lld: row %lld of a mixture differs", w.tier->name,
                     bl_kernels[w.kernel]->name, w.pool->workers, (long long)w.batch, (long long)i);
        for (int64_t i = 0; i < used; i++) {
            bl_cache *cache = &caches[chunks[i].cache - caches];
            cache->position += chunks[i].n;
            left -= cache->position == d->n;
        }
    }
    for (int i = 0; i <= SEQUENCES; i++) free(blocks[i]);
    free(logits);
    free_packed(&model);
}

/* Three caches go on from the same position: one that shares the full pages of the first and has a copy of the last
 * one, a whole copy, and one filled with its rows. They do so as the first one does. */
static void check_copies(const dump *d, way w, const float *expected)
{
    enum { COPIES = 3 };
    void *blocks[COPIES + 2];
    bl_model model = pack_model(d, w.tier, w.kernel);
    bl_cache first, copies[COPIES];
    bl_workspace workspace;
    const int64_t bytes = bl_cache_bytes(&model, w.kind, d->n), vocab = model.vocab, rows[] = {0};
    const int64_t start = d->n - 1, last = start / BL_PAGE;
    bl_cache_place(&first, &model, w.kind, d->n, aligned_room(bytes, &blocks[COPIES]));
    for (int i = 0; i < COPIES; i++) bl_cache_place(&copies[i], &model, w.kind, d->n, aligned_room(bytes, &blocks[i]));
    bl_workspace_place(&workspace, &model, d->n, w.batch, w.pool->workers,
                       aligned_room(bl_workspace_bytes(&model, d->n, w.batch, w.pool->workers), &blocks[COPIES + 1]));
    float *logits = room(vocab * 4);
    bl_chunk chunk = {&first, d->tokens, start, 0};
    bl_step step = {.model = &model,
                    .workspace = &workspace,
                    .pool = w.pool,
                    .chunks = &chunk,
                    .chunk_count = 1,
                    .rows = rows,
                    .logits = logits};
    bl_forward(&step);
    first.position = copies[0].position = start;
    for (int64_t i = 0; i < last; i++) copies[0].pages[i] = first.pages[i];
    bl_page_copy(copies[0].pages[last], first.pages[last], &model, w.kind, start % BL_PAGE);
    bl_cache_copy(&copies[1], &first, &model);
    uint8_t *flat = room(bl_rows_bytes(&model, w.kind, start));
    bl_cache_read(&first, &model, flat);
    bl_cache_fill(&copies[2], &model, flat, start);
    memset(first.pages[last], 0x5a, (size_t)bl_page_bytes(&model, w.kind));
    step.row_count = 1;
    for (int i = 0; i < COPIES; i++) {
        chunk = (bl_chunk){&copies[i], d->tokens + start, 1, 0};
        bl_forward(&step);
        if (copies[i].position != start || memcmp(logits, expected + start * vocab, (size_t)vocab * 4))
            FAIL("%s cache: copy %d continues in another way", bl_kv_formats[w.kind].name, i);
    }
    for (int i = 0; i < COPIES + 2; i++) free(blocks[i]);
    free(flat);
    free(logits);
    free_packed(&model);
}

static void check_cell_of_model(const dump *d, const bl_tier *tier, int kernel, bl_pool *pool, bl_kv_kind kind,
                                const float *expected)
{
    const int64_t cuts[] = {1, 2, 3, d->n};
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
        check_way(d, (way){tier, kernel, pool, cuts[c], d->n, kind, d->n, 0}, expected);
    check_way(d, (way){tier, kernel, pool, d->n, 4, kind, 1, 0}, expected);
    check_way(d, (way){tier, kernel, pool, 4, 4, kind, d->n, 1}, expected);
    check_mixture(d, (way){tier, kernel, pool, 0, 3, kind, 0, 0}, expected);
    check_mixture(d, (way){tier, kernel, pool, 0, SEQUENCES * d->n, kind, 0, 0}, expected);
    check_copies(d, (way){tier, kernel, pool, 0, d->n, kind, 0, 0}, expected);
}

static void print_logits(bl_kv_kind kind, const float *logits, int64_t n, int64_t vocab)
{
    for (int64_t t = 0; t < n; t++) {
        printf("%s %lld", bl_kv_formats[kind].name, (long long)t);
        for (int64_t i = 0; i < vocab; i++) printf(" %08x", (unsigned)bl_bits(logits[t * vocab + i]));
        putchar('\n');
    }
}

/* Every kernel, tier, number of threads, cut and mixture gives the same logits, which are printed: cache, token, bits.
 * A cache of kind q8 quantizes by pages, so from the second one on its logits depend on their size. */
static void check_model(const char *path)
{
    static dump d;
    memset(&d, 0, sizeof d);
    read_dump(&d, path);
    if (d.n > 64) FAIL("%s has more than 64 tokens", path);
    for (bl_kv_kind kind = 0; kind < BL_KV_KINDS; kind++) {
        float *expected = NULL;
        for (int threads = 1; threads <= 2; threads++) {
            bl_pool *pool = room(sizeof *pool);
            bl_pool_init(pool, threads);
            if (!expected) expected = forward(&d, (way){&bl_tier_scalar, BL_I2_S, pool, d.n, d.n, kind, d.n, 0});
            for (int i = 0; i < bl_tier_count * BL_KERNEL_COUNT; i++) {
                const bl_tier *tier = bl_tiers[i / BL_KERNEL_COUNT];
                if (runs_here(tier)) check_cell_of_model(&d, tier, i % BL_KERNEL_COUNT, pool, kind, expected);
            }
            bl_pool_free(pool);
            free(pool);
        }
        print_logits(kind, expected, kind == BL_KV_Q8 && d.n > BL_PAGE ? BL_PAGE : d.n, d.model.vocab);
        free(expected);
    }
    free_dump(&d);
}

#endif
