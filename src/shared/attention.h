/* Attention over the sixteen lanes of a tier, in three steps. Included inside its target region. */

BL_INLINE f32x16 load_kv(const void *cache, int64_t index, const bl_kv_kind kind)
{
    if (kind == BL_KV_F16) return load_f16((const uint8_t *)cache + 2 * index);
    return load((const float *)cache + index);
}

/* Fetch so many bytes of a cache, into the nearest cache of the processor. */
BL_INLINE void prefetch_kv(const void *cache, int64_t from, int64_t bytes)
{
    for (int64_t line = 0; line < bytes; line += 64) prefetch_near((const uint8_t *)cache + from + line);
}

/* Rows lo <= p < hi of a page, after which comes the page `next`. Each key is read once for all heads, two keys at once
 * so that more chains of additions overlap. */
BL_INLINE void score_page(float *scores, int64_t stride, const float *q, const uint8_t *keys, const uint8_t *next,
                          const bl_kv_kind kind, int64_t head_dim, int64_t lo, int64_t hi, float scale, const int heads)
{
    const int64_t row_bytes = bl_kv_bytes(kind, head_dim);
    for (int64_t p = lo; p < hi; p += 2) {
        const int64_t second = p + 1 < hi ? head_dim : 0; /* of an odd last one, the same key again */
        const int64_t ahead = p * row_bytes + BL_AHEAD, beyond = ahead - BL_PAGE * row_bytes;
        f32x16 sum[BL_MAX_HEADS][2];
        for (int h = 0; h < heads; h++) sum[h][0] = sum[h][1] = zero();
        prefetch_kv(beyond < 0 ? keys : next, beyond < 0 ? ahead : beyond, 2 * row_bytes);
        for (int64_t k = 0; k < head_dim; k += BL_LANES) {
            const f32x16 key0 = load_kv(keys, p * head_dim + k, kind);
            const f32x16 key1 = load_kv(keys, p * head_dim + second + k, kind);
            for (int h = 0; h < heads; h++) {
                const f32x16 query = load(q + h * head_dim + k);
                sum[h][0] = add(sum[h][0], mul(query, key0));
                sum[h][1] = add(sum[h][1], mul(query, key1));
            }
        }
        for (int h = 0; h < heads; h++) {
            scores[h * stride + p] = reduce(sum[h][0]) * scale;
            if (second) scores[h * stride + p + 1] = reduce(sum[h][1]) * scale;
        }
    }
}

/* Page by page. */
BL_INLINE void score_pages(float *scores, int64_t stride, const float *q, const bl_kv_rows *rows, const bl_kv_kind kind,
                           int64_t lo, int64_t hi, float scale, const int heads)
{
    for (int64_t p = lo, end; p < hi; p = end) {
        const int64_t page = p / BL_PAGE, start = page * BL_PAGE;
        end = start + BL_PAGE < hi ? start + BL_PAGE : hi;
        const uint8_t *keys = rows->pages[page] + rows->offset;
        const uint8_t *next = end < hi ? rows->pages[page + 1] + rows->offset : keys;
        score_page(scores + start, stride, q, keys, next, kind, rows->head_dim, p - start, end - start, scale, heads);
    }
}

/* scores = exp(scores - max), returning their sum in 16 lanes. */
static float exp_scores(float *scores, int64_t length)
{
    float lane[BL_LANES], max = scores[0];
    for (int j = 0; j < BL_LANES; j++) lane[j] = max;
    int64_t p = 0;
    for (; p + BL_LANES <= length; p += BL_LANES)
        for (int j = 0; j < BL_LANES; j++) lane[j] = scores[p + j] > lane[j] ? scores[p + j] : lane[j];
    for (; p < length; p++) max = scores[p] > max ? scores[p] : max;
    for (int j = 0; j < BL_LANES; j++) max = lane[j] > max ? lane[j] : max;
    for (p = 0; p < length; p++) scores[p] = bl_exp(scores[p] - max);
    f32x16 sum = zero();
    for (p = 0; p + BL_LANES <= length; p += BL_LANES) sum = add(sum, load(scores + p));
    if (p < length) sum = add(sum, load_part(scores + p, length - p));
    return reduce(sum);
}

/* Columns k .. k + 16 vectors of out (heads, head_dim) += sum over n positions, in order, of weight times value. As
 * many bytes are prefetched from `ahead` on. */
BL_INLINE void mix_block(float *out, const float *weights, int64_t stride, const uint8_t *values, const bl_kv_kind kind,
                         int64_t head_dim, int64_t n, int64_t k, const uint8_t *ahead, const int vectors,
                         const int heads)
{
    f32x16 sum[BL_MAX_HEADS][4];
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) sum[h][v] = load(out + h * head_dim + k + 16 * v);
    for (int64_t p = 0; p < n; p++) {
        const int64_t bytes = bl_kv_bytes(kind, vectors * BL_LANES);
        prefetch_kv(ahead, p * bytes, bytes);
        for (int v = 0; v < vectors; v++) {
            const f32x16 value = load_kv(values, p * head_dim + k + 16 * v, kind);
            for (int h = 0; h < heads; h++) sum[h][v] = add(sum[h][v], mul(set1(weights[h * stride + p]), value));
        }
    }
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) store(out + h * head_dim + k + 16 * v, sum[h][v]);
}

/* Blocks of positions stay in the nearest cache while their columns are taken in turn, and the next block is fetched in
 * the order of its addresses. */
BL_INLINE void mix_blocks(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                          const bl_kv_kind kind, int64_t length, int64_t lo, int64_t hi, const int heads)
{
    enum { BLOCK = BL_PAGE < 32 ? BL_PAGE : 32 };
    const int64_t head_dim = rows->head_dim, block_bytes = bl_kv_bytes(kind, BLOCK * head_dim);
    for (int h = 0; h < heads; h++) memset(out + h * head_dim + lo, 0, (size_t)(hi - lo) * sizeof *out);
    for (int64_t p = 0; p < length; p += BLOCK) {
        const int64_t page = p / BL_PAGE, n = length - p < BLOCK ? length - p : BLOCK;
        const uint8_t *values = rows->pages[page] + rows->offset + p % BL_PAGE / BLOCK * block_bytes;
        const uint8_t *ahead = values + block_bytes;
        if ((p + BLOCK) % BL_PAGE == 0 && p + BLOCK < length) ahead = rows->pages[page + 1] + rows->offset;
        int64_t k = lo;
#define BL_MIX(vectors)                                                                                                \
    mix_block(out, weights + p, stride, values, kind, head_dim, n, k, ahead + bl_kv_bytes(kind, BLOCK * k), vectors,   \
              heads)
        for (; k + 64 <= hi; k += 64) BL_MIX(4); /* whole lines */
        for (; k + 32 <= hi; k += 32) BL_MIX(2);
        for (; k < hi; k += 16) BL_MIX(1);
#undef BL_MIX
    }
    for (int h = 0; h < heads; h++)
        for (int64_t k = lo; k < hi; k++) out[h * head_dim + k] /= total[h];
}

#include "shared/attention_q8.h"
#include "shared/attention_tiles.h"

/* Call one of the above for a number of heads known to the compiler; caches of floats head by head. */
#define BL_EACH_HEADS(call)                                                                                            \
    switch (heads) {                                                                                                   \
    case 1: call(1); return;                                                                                           \
    case 2: call(2); return;                                                                                           \
    case 3: call(3); return;                                                                                           \
    default: call(4); return;                                                                                          \
    }

static void score_heads(float *scores, int64_t stride, const float *q, const bl_kv_rows *rows, int64_t lo, int64_t hi,
                        float scale, int heads)
{
#define BL_SCORE_F16(count) score_pages(scores, stride, q, rows, BL_KV_F16, lo, hi, scale, count)
#define BL_SCORE_Q8(count) score_q8(scores, stride, q, rows, lo, hi, scale, count)
    if (rows->kind == BL_KV_F16) BL_EACH_HEADS(BL_SCORE_F16)
    if (rows->kind == BL_KV_Q8) BL_EACH_HEADS(BL_SCORE_Q8)
    for (int h = 0; h < heads; h++)
        score_pages(scores + h * stride, stride, q + h * rows->head_dim, rows, BL_KV_F32, lo, hi, scale, 1);
#undef BL_SCORE_F16
#undef BL_SCORE_Q8
}

/* scores (queries, stride), at positions lo <= p < hi, = q (queries, head_dim) . keys (., head_dim) * scale. */
static void score_keys(float *scores, int64_t stride, const float *q, const bl_kv_rows *rows, int64_t lo, int64_t hi,
                       float scale, int queries)
{
    if (in_tiles(rows, queries)) {
        if (rows->kind == BL_KV_F16) score_tiles(scores, stride, q, rows, BL_KV_F16, lo, hi, scale, queries);
        else score_tiles(scores, stride, q, rows, BL_KV_F32, lo, hi, scale, queries);
        return;
    }
    for (int i = 0; i < queries; i += BL_MAX_HEADS) {
        const int heads = queries - i < BL_MAX_HEADS ? queries - i : BL_MAX_HEADS;
        score_heads(scores + i * stride, stride, q + i * rows->head_dim, rows, lo, hi, scale, heads);
    }
}

static void mix_heads(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                      int64_t length, int64_t lo, int64_t hi, int heads)
{
#define BL_MIX_F16(count) mix_blocks(out, weights, stride, total, rows, BL_KV_F16, length, lo, hi, count)
#define BL_MIX_Q8(count) mix_q8(out, weights, stride, total, rows, length, lo, hi, count)
    if (rows->kind == BL_KV_F16) BL_EACH_HEADS(BL_MIX_F16)
    if (rows->kind == BL_KV_Q8) BL_EACH_HEADS(BL_MIX_Q8)
    for (int h = 0; h < heads; h++)
        mix_blocks(out + h * rows->head_dim, weights + h * stride, stride, total + h, rows, BL_KV_F32, length, lo, hi,
                   1);
#undef BL_MIX_F16
#undef BL_MIX_Q8
}

/* Columns lo <= k < hi, multiples of 16, of out (queries, head_dim) = weights (queries, stride) . values (length,
 * head_dim) / total (queries). */
static void mix_values(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                       int64_t length, int64_t lo, int64_t hi, int queries)
{
    if (in_tiles(rows, queries)) {
        if (rows->kind == BL_KV_F16) mix_tiles(out, weights, stride, total, rows, BL_KV_F16, length, lo, hi, queries);
        else mix_tiles(out, weights, stride, total, rows, BL_KV_F32, length, lo, hi, queries);
        return;
    }
    for (int i = 0; i < queries; i += BL_MAX_HEADS) {
        const int heads = queries - i < BL_MAX_HEADS ? queries - i : BL_MAX_HEADS;
        mix_heads(out + i * rows->head_dim, weights + i * stride, stride, total + i, rows, length, lo, hi, heads);
    }
}
#undef BL_EACH_HEADS
#undef TILE_QUERIES
#undef TILE_KEYS
