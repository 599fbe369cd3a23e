/* The self-test of a tier. */
#include "check.h"

#include <string.h>

#include "cache.h"

/* Numbers of tokens that together reach every path of every kernel: BL_CHECK_DOTS in all. */
static const int check_batches[] = {1, 2, 3, 9, 41};

static void check_fill(bl_check_input *in)
{
    uint32_t state = 1;
    for (int t = 0; t < BL_CHECK_TOKENS; t++)
        for (int k = 0; k < BL_CHECK_COLS; k++) {
            state = state * 1664525u + 1013904223u;
            in->x[t][k] = ((float)(state >> 8) - 8388608.0f) * 0x1p-21f;
        }
    for (size_t i = 0; i < sizeof in->weights; i++) {
        state = state * 1664525u + 1013904223u;
        in->weights[i] = state >> 24 & 0x2a; /* as a float of any type, finite */
    }
    for (size_t i = 0; i < sizeof in->ternary; i++) {
        state = state * 1664525u + 1013904223u;
        const uint32_t bits = state >> 24;
        in->ternary[i] = (uint8_t)(bits & ~(bits << 1 & 0xaa)); /* no code 3 */
    }
}

/* dot (n, ternary rows) of n tokens, which repeat the first BL_CHECK_TOKENS. */
static void check_gemm(const bl_tier *tier, int kernel, bl_check_input *in, const bl_check_output *out, int32_t *dot,
                       int n)
{
    enum { ROWS = BL_CHECK_TERNARY_ROWS, COLS = BL_CHECK_COLS };
    const bl_cell *cell = bl_cell_of(tier, kernel);
    for (int t = 0; t < n; t++)
        cell->prepare(in->prepared + t * cell->token_bytes(COLS, n), out->q[t % BL_CHECK_TOKENS], COLS, n);
    bl_kernels[kernel]->pack(in->packed, in->ternary, ROWS, COLS, 0, ROWS);
    cell->gemm(dot, ROWS, in->packed, in->prepared, ROWS, COLS, 0, ROWS, n);
}

/* The same of BL_OWN_TOKENS tokens by the columns of two workers, where the tier shares them out. */
static void check_shares(const bl_tier *tier, int kernel, bl_check_input *in, const bl_check_output *out, int32_t *dot)
{
    enum { ROWS = BL_CHECK_TERNARY_ROWS, COLS = BL_CHECK_COLS, N = BL_OWN_TOKENS, WORKERS = 2 };
    const bl_cell *cell = bl_cell_of(tier, kernel);
    const int64_t stride = bl_round_up(ROWS, bl_kernels[kernel]->panel);
    check_gemm(tier, kernel, in, out, dot, N);
    if (!cell->gemm_share) return;
    memset(dot, 0, N * ROWS * sizeof *dot);
    for (int worker = 0; worker < WORKERS; worker++) {
        for (int t = 0; t < N; t++)
            cell->prepare_share(in->prepared + t * cell->token_bytes(COLS, N), out->q[t], COLS, N, worker, WORKERS);
        cell->gemm_share(in->part, stride, in->packed, in->prepared, ROWS, COLS, N, worker, WORKERS);
        for (int i = 0; i < N * ROWS; i++) dot[i] += in->part[i / ROWS * stride + i % ROWS];
    }
}

/* Two heads of some tokens over keys and values (length, 48). */
static void check_attention(const bl_tier *tier, float *out, bl_check_input *in, bl_kv_kind kind, int length,
                            int tokens)
{
    enum { COLS = 48, LENGTH = BL_CHECK_COLS / COLS, PAGES = (LENGTH + BL_PAGE - 1) / BL_PAGE };
    const int64_t strip = bl_kv_strip_bytes(kind, COLS, BL_PAGE);
    float scores[BL_MAX_QUERIES * 80]; /* rows of bl_score_stride(LENGTH) */
    uint8_t *pages[PAGES];
    for (int i = 0; i < PAGES; i++) pages[i] = in->strips + 2 * i * strip;
    const bl_kv_rows keys = {pages, 0, kind, COLS, 1}, values = {pages, strip, kind, COLS, 1};
    for (int p = 0; p < length; p++) {
        bl_store_row(tier, &keys, BL_KEYS, p, in->x[1] + p * COLS);
        bl_store_row(tier, &values, BL_VALUES, p, in->x[2] + p * COLS);
    }
    bl_attention(tier, out, in->x[0], &keys, &values, length - tokens + 1, 0.125f, scores, tokens, 2);
}

static void check_run(const bl_tier *tier, bl_check_input *in, bl_check_output *out)
{
    enum { COLS = BL_CHECK_COLS, ODD = BL_CHECK_COLS - 5 };
    for (int t = 0; t < BL_CHECK_TOKENS; t++) out->act_max[t] = tier->quantize(out->q[t], in->x[t], COLS);
    for (int kernel = 0; kernel < BL_KERNEL_COUNT; kernel++) {
        int32_t *dot = out->dot[kernel][0];
        for (size_t i = 0; i < sizeof check_batches / sizeof *check_batches; i++) {
            check_gemm(tier, kernel, in, out, dot, check_batches[i]);
            dot += check_batches[i] * BL_CHECK_TERNARY_ROWS;
        }
        check_shares(tier, kernel, in, out, out->share[kernel][0]);
    }
    for (int type = BL_F32; type < BL_TYPE_COUNT; type++) {
        const int64_t cols = type == BL_Q6_K ? 512 : type == BL_Q8_0 || type == BL_Q4_0 ? COLS : ODD;
        const int64_t bytes = tier->dense_bytes(cols);
        for (int t = 0; t < BL_CHECK_TOKENS; t++) tier->dense_prepare(in->prepared + t * bytes, in->x[t], cols);
        const uint8_t *weights = in->weights;
        if (bl_is_block_type((bl_type)type)) {
            bl_pack_blocks(in->packed, in->weights, (bl_type)type, BL_CHECK_ROWS, cols, 0, BL_CHECK_ROWS);
            weights = in->packed;
        }
        tier->dense_gemm(out->dense[type][0], BL_CHECK_ROWS, (bl_type)type, weights, in->prepared, cols, 0,
                         BL_CHECK_ROWS, BL_CHECK_TOKENS);
        tier->dense_gemm(out->dense1[type], BL_CHECK_ROWS, (bl_type)type, weights, in->prepared + 2 * bytes, cols, 0,
                         BL_CHECK_ROWS, 1);
        tier->dense_row(out->row[type], (bl_type)type, in->weights, cols);
    }
    tier->rms_norm(out->norm, in->x[0], in->x[1], ODD, 1e-5f);
    memcpy(out->silu, in->x[0], sizeof out->silu);
    tier->silu_mul(out->silu, in->x[1], ODD);
    memcpy(out->relu2, in->x[0], sizeof out->relu2);
    tier->relu2_mul(out->relu2, in->x[1], ODD);
    memcpy(out->rope, in->x[0], sizeof out->rope);
    tier->rope(out->rope, in->x[1], in->x[2], 70, 0);
    tier->rope(out->rope + 70, in->x[1], in->x[2], 70, 1);
    tier->store_f16(out->half, in->x[3], COLS);
    tier->part_maxima(out->maxima, in->x[0], ODD);
    out->weight = tier->weigh(out->weights, in->x[0], ODD, 4.0f, 0.7f);
    for (bl_kv_kind kind = 0; kind < BL_KV_KINDS; kind++) {
        check_attention(tier, out->attention[kind], in, kind, 13, 1);
        check_attention(tier, out->tokens[kind], in, kind, 13, 7);
    }
}

int bl_tier_agrees(const bl_tier *tier, bl_check_input *in, bl_check_output out[2])
{
    memset(out, 0, 2 * sizeof *out);
    check_fill(in);
    check_run(&bl_tier_scalar, in, &out[0]);
    check_run(tier, in, &out[1]);
    return memcmp(&out[0], &out[1], sizeof *out) == 0;
}

typedef struct {
    const bl_tier *tier;
    bl_check_input *in;
    bl_check_output *out; /* two of them */
} check;

static int check_agrees(void *context)
{
    const check *given = context;
    return bl_tier_agrees(given->tier, given->in, given->out);
}

int bl_tier_proves(const bl_tier *tier, bl_check_input *in, bl_check_output out[2], int *fault)
{
    check given = {tier, in, out};
    return bl_run_apart(check_agrees, &given, fault);
}
