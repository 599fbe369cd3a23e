/* What JavaScript calls. It lays out memory and has checked every size and id; nothing here allocates or checks.
 * JavaScript counts with 32-bit numbers and doubles: sizes that may be beyond the memory are doubles. */
#include <string.h>

#include "bitnet_lut/bitnet_lut.h"
#include "check.h"
#include "pool.h"
#include "roof.h"
#include "workspace.h"

#define WEB(name) __attribute__((export_name(#name))) name

/* ---- tables ------------------------------------------------------------------------------------------------------ */

int WEB(tier_count)(void) { return bl_tier_count; }
const char *WEB(tier_name)(int tier) { return bl_tiers[tier]->name; }
int WEB(kernel_count)(void) { return BL_KERNEL_COUNT; }
const char *WEB(kernel_name)(int kernel) { return bl_kernels[kernel]->name; }

/* Whether a tier has functions of its own for a kernel. */
int WEB(has_cell)(int tier, int kernel) { return bl_tiers[tier] == &bl_tier_scalar || bl_tiers[tier]->cells[kernel]; }

uint32_t WEB(check_bytes)(void) { return sizeof(bl_check_input) + 2 * sizeof(bl_check_output); }

/* Whether a tier gives the bits of plain C, in memory of check_bytes(). */
int WEB(tier_agrees)(int tier, bl_check_input *memory)
{
    return bl_tier_agrees(bl_tiers[tier], memory, (bl_check_output *)(memory + 1));
}

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

/* Bytes of rows as files have them, and of a matrix as the engine reads it. A type is one of bl_type; a kernel counts
 * for ternary matrices alone. */
double WEB(rows_bytes)(bl_type type, int rows, int cols) { return (double)(rows * bl_row_bytes(type, cols)); }
double WEB(matrix_bytes)(bl_type type, int kernel, int rows, int cols)
{
    if (type == BL_TERNARY) return (double)bl_kernels[kernel]->packed_bytes(rows, cols);
    return (double)bl_dense_packed_bytes(type, rows, cols);
}

/* Pack rows lo <= row < hi of a matrix from `from`, which holds these rows alone. */
void WEB(pack)(uint8_t *to, const uint8_t *from, bl_type type, int kernel, int rows, int cols, int lo, int hi)
{
    const uint8_t *first = from - lo * bl_row_bytes(type, cols);
    if (type == BL_TERNARY) bl_kernels[kernel]->pack(to, first, rows, cols, lo, hi);
    else if (bl_is_block_type(type)) bl_pack_blocks(to, first, type, rows, cols, lo, hi);
    else memcpy(to + lo * bl_row_bytes(type, cols), from, (size_t)((hi - lo) * bl_row_bytes(type, cols)));
}

/* Canonical rows from a kernel's layout. */
void WEB(unpack)(uint8_t *to, const uint8_t *from, int kernel, int rows, int cols)
{
    bl_kernels[kernel]->unpack(to, from, rows, cols, 0, rows);
}

int WEB(has_code_3)(const uint8_t *codes, uint32_t bytes) { return bl_has_code_3(codes, bytes); }

/* ---- a model ----------------------------------------------------------------------------------------------------- */

double WEB(model_bytes)(int layers) { return (double)(sizeof(bl_model) + (size_t)layers * sizeof(bl_layer)); }

/* The order of the numbers that describe a model. */
enum {
    TIER,
    LAYERS,
    EMBEDDING,
    FFN,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    ROPE_DIM,
    VOCAB,
    EPS,
    EMBEDDING_SCALE,
    SCORE_SCALE,
    ACTIVATION,
    ROPE_INTERLEAVED,
    INVERSE_FREQUENCY
};

static void *address(double number) { return (void *)(uintptr_t)number; }

/* A model without matrices and norms, in memory of model_bytes(). */
void WEB(model_place)(bl_model *m, const double *numbers)
{
    memset(m, 0, (size_t)model_bytes((int)numbers[LAYERS]));
    m->tier = bl_tiers[(int)numbers[TIER]];
    m->layers = (int64_t)numbers[LAYERS];
    m->embedding = (int64_t)numbers[EMBEDDING];
    m->ffn = (int64_t)numbers[FFN];
    m->heads = (int64_t)numbers[HEADS];
    m->kv_heads = (int64_t)numbers[KV_HEADS];
    m->head_dim = (int64_t)numbers[HEAD_DIM];
    m->rope_dim = (int64_t)numbers[ROPE_DIM];
    m->vocab = (int64_t)numbers[VOCAB];
    m->eps = (float)numbers[EPS];
    m->embedding_scale = (float)numbers[EMBEDDING_SCALE];
    m->score_scale = (float)numbers[SCORE_SCALE];
    m->activation = (bl_activation)numbers[ACTIVATION];
    m->rope_interleaved = (int)numbers[ROPE_INTERLEAVED];
    m->inverse_frequency = address(numbers[INVERSE_FREQUENCY]);
    m->layer = (bl_layer *)(m + 1);
}

/* Matrices of a layer in the order of bl_layer; with layer -1, the embedding and the head. */
static bl_matrix *matrix_at(bl_model *m, int layer, int part)
{
    if (layer < 0) return part ? &m->head : &m->token_embedding;
    bl_layer *y = (bl_layer *)&m->layer[layer];
    bl_matrix *const parts[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
    return parts[part];
}

void WEB(matrix_place)(bl_model *m, int layer, int part, bl_type type, int kernel, int rows, int cols,
                       const uint8_t *data, const float *scale, int scales)
{
    const int ternary = type == BL_TERNARY;
    *matrix_at(m, layer, part) = (bl_matrix){.type = type,
                                             .rows = rows,
                                             .cols = cols,
                                             .in_strips = bl_is_block_type(type),
                                             .data = data,
                                             .kernel = ternary ? bl_kernels[kernel] : NULL,
                                             .cell = ternary ? bl_cell_of(m->tier, kernel) : NULL,
                                             .scale = scale,
                                             .scales = scales};
}

void WEB(bias_place)(bl_model *m, int layer, int part, const float *bias) { matrix_at(m, layer, part)->bias = bias; }

/* Norms of a layer in the order of bl_layer; with layer -1, the one in front of the head. */
void WEB(norm_place)(bl_model *m, int layer, int part, const float *norm)
{
    if (layer < 0) {
        m->output_norm = norm;
        return;
    }
    bl_layer *y = (bl_layer *)&m->layer[layer];
    const float **const parts[] = {&y->attn_norm,      &y->q_norm,   &y->k_norm,       &y->attn_sub_norm,
                                   &y->attn_post_norm, &y->ffn_norm, &y->ffn_sub_norm, &y->ffn_post_norm};
    *parts[part] = norm;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

uint32_t WEB(pool_bytes)(void) { return sizeof(bl_pool); }
void WEB(pool_place)(bl_pool *pool, int workers) { bl_pool_init(pool, workers); }

/* The work of one of the other threads, which JavaScript has started, and which it ends. */
void WEB(pool_join)(bl_pool *pool, int worker) { bl_pool_join(pool, worker); }

/* ---- texts ------------------------------------------------------------------------------------------------------- */

enum { WEB_BATCH = 128 }; /* most tokens that are computed together */

typedef struct {
    const bl_model *model;
    bl_pool *pool;
    bl_cache cache;
    bl_workspace workspace;
} web_text;

static int64_t aligned(int64_t bytes) { return bl_round_up(bytes, 64); }

double WEB(text_bytes)(const bl_model *m, int context, int workers)
{
    return (double)(aligned(sizeof(web_text)) + aligned(bl_cache_bytes(m, BL_KV_F16, context)) +
                    aligned(bl_workspace_bytes(m, context, WEB_BATCH, workers)));
}

/* A text without tokens, in memory of text_bytes() at a multiple of 64. */
void WEB(text_place)(web_text *text, const bl_model *m, bl_pool *pool, int context)
{
    uint8_t *cache = (uint8_t *)text + aligned(sizeof *text);
    uint8_t *workspace = cache + aligned(bl_cache_bytes(m, BL_KV_F16, context));
    text->model = m;
    text->pool = pool;
    bl_cache_place(&text->cache, m, BL_KV_F16, context, cache);
    bl_workspace_place(&text->workspace, m, context, WEB_BATCH, pool->workers, workspace);
}

/* Keep the first tokens of a text alone. */
void WEB(text_cut)(web_text *text, int position) { text->cache.position = position; }

/* Run n tokens, which fit; row_count is at most WEB_BATCH. logits (row_count, vocab) get those of the tokens in rows.
 * Returns whether all numbers are finite; if not, the text stays as it was. */
int WEB(text_step)(web_text *text, const int32_t *tokens, int n, const int32_t *rows, int row_count, float *logits)
{
    int64_t wanted[WEB_BATCH];
    for (int i = 0; i < row_count; i++) wanted[i] = rows[i];
    bl_chunk chunk = {&text->cache, tokens, n, 0};
    const bl_step step = {.model = text->model,
                          .workspace = &text->workspace,
                          .pool = text->pool,
                          .chunks = &chunk,
                          .chunk_count = 1,
                          .rows = wanted,
                          .row_count = row_count,
                          .logits = logits};
    bl_forward(&step);
    if (chunk.finite) text->cache.position += n;
    return chunk.finite;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* All threads read bytes of data, or multiply without data, so many times over. Returns something that depends on it.
 */
static bl_roof_job roof;

uint32_t WEB(roof_run)(bl_pool *pool, int tier, const uint8_t *data, uint32_t bytes, int passes)
{
    roof = (bl_roof_job){
        .tier = bl_tiers[tier], .data = data, .bytes = bytes / BL_ROOF_UNIT * BL_ROOF_UNIT, .passes = passes};
    bl_pool_run(pool, bl_roof_task, &roof);
    return (uint32_t)roof.digest[0];
}

/* Multiply-adds of one round without data, of one thread. */
int WEB(roof_macs)(int tier) { return (int)bl_tiers[tier]->roof_macs; }

uint32_t WEB(prepared_bytes)(int tier, int kernel, int cols, int n)
{
    return (uint32_t)(n * bl_cell_of(bl_tiers[tier], kernel)->token_bytes(cols, n));
}

/* One thread: prepares n tokens of int8 activations q (n, cols), and multiplies them with a packed matrix. */
void WEB(kernel_run)(int tier, int kernel, int32_t *dot, const uint8_t *packed, uint8_t *prepared, const int8_t *q,
                     int rows, int cols, int n)
{
    const bl_cell *cell = bl_cell_of(bl_tiers[tier], kernel);
    const int64_t token_bytes = cell->token_bytes(cols, n);
    for (int t = 0; t < n; t++) cell->prepare(prepared + t * token_bytes, q + (int64_t)t * cols, cols, n);
    cell->gemm(dot, rows, packed, prepared, rows, cols, 0, rows, n);
}
