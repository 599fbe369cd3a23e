/* Attention over the sixteen lanes of a tier, in three steps. Included inside its target region. */

BL_INLINE f32x16 load_kv(const void *cache, int64_t index, const bl_kv_kind kind)
{
    if (kind == BL_KV_F16) return load_f16((const uint8_t *)cache + 2 * index);
    return load((const float *)cache + index);
}

/* Fetch so many bytes of a cache, into the nearest cache of the processor. */
BL_INLINE void prefetch_kv(const uint8_t *from, int64_t bytes)
{
    for (int64_t line = 0; line < bytes; line += 64) prefetch_near(from + line);
}

/* A page's rows of one head, and those that are read after them, which are fetched meanwhile. */
typedef struct { const uint8_t *rows, *next; } kv_strip;

/* Of heads first <= head < last, which are read page by page: a page's strips lie side by side. */
BL_INLINE kv_strip strip_at(const bl_kv_rows *rows, int64_t page, int64_t pages, int64_t head, int64_t first,
                            int64_t last)
{
    const int64_t bytes = bl_kv_strip_bytes(rows->kind, rows->head_dim, BL_PAGE);
    const uint8_t *strip = rows->pages[page] + rows->offset + head * bytes;
    if (head + 1 < last) return (kv_strip){strip, strip + bytes};
    return (kv_strip){strip, page + 1 < pages ? rows->pages[page + 1] + rows->offset + first * bytes : strip};
}

#include "shared/attention_tiles.h"

#include "shared/attention_q8.h"

#ifdef Q8_BY_TILES
#include "shared/attention_q8_amx.h"
#endif

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Rows lo <= p < hi. Each key is read once for all queries, several keys at once so that more chains of additions
 * overlap. */
BL_INLINE void score_strip(float *scores, int64_t stride, const float *q, kv_strip strip, const bl_kv_kind kind,
                           int64_t head_dim, int64_t lo, int64_t hi, float scale, const int queries)
{
    const int64_t bytes = bl_kv_bytes(kind, head_dim);
    int64_t p = lo;
    for (; p + TILE_KEYS <= hi; p += TILE_KEYS) {
        const int64_t ahead = p * bytes + BL_AHEAD, beyond = ahead - BL_PAGE * bytes;
        prefetch_kv(beyond < 0 ? strip.rows + ahead : strip.next + beyond, TILE_KEYS * bytes);
        score_tile(scores + p, stride, q, strip.rows + p * bytes, kind, head_dim, scale, queries, TILE_KEYS);
    }
    for (; p < hi; p++) score_tile(scores + p, stride, q, strip.rows + p * bytes, kind, head_dim, scale, queries, 1);
}

/* Call one of these for a number of queries known to the compiler. */
#define BL_EACH_COUNT(count, call)                                                                                     \
    switch (count) {                                                                                                   \
    case 1: call(1); break;                                                                                            \
    case 2: call(2); break;                                                                                            \
    case 3: call(3); break;                                                                                            \
    default: call(4);                                                                                                  \
    }

/* Rows lo <= p < hi of a strip; quantized (queries) for BL_KV_Q8. */
static void score_queries(float *scores, int64_t stride, const float *q, const q8_vector *quantized, kv_strip strip,
                          const bl_kv_rows *rows, int64_t lo, int64_t hi, float scale, int queries)
{
    const int64_t head_dim = rows->head_dim;
    if (in_tiles(rows, queries)) {
        if (rows->kind == BL_KV_F16) score_tiles(scores, stride, q, strip, BL_KV_F16, head_dim, lo, hi, scale, queries);
        else score_tiles(scores, stride, q, strip, BL_KV_F32, head_dim, lo, hi, scale, queries);
        return;
    }
#ifdef Q8_BY_TILES
    if (rows->kind == BL_KV_Q8 && queries > BL_MAX_HEADS) {
        score_q8_by_tiles(scores, stride, quantized, strip, head_dim, lo, hi, queries);
        return;
    }
#endif
    const int most = rows->kind == BL_KV_F32 ? 1 : BL_MAX_HEADS;
    for (int i = 0; i < queries; i += most) {
        float *to = scores + i * stride;
        const float *from = q + i * head_dim;
        const int count = queries - i < most ? queries - i : most;
#define BL_SCORE_F16(count) score_strip(to, stride, from, strip, BL_KV_F16, head_dim, lo, hi, scale, count)
#define BL_SCORE_Q8(count) score_strip_q8(to, stride, quantized + i, strip, head_dim, lo, hi, count)
        if (rows->kind == BL_KV_F16) BL_EACH_COUNT(count, BL_SCORE_F16)
        else if (rows->kind == BL_KV_Q8) BL_EACH_COUNT(count, BL_SCORE_Q8)
        else score_strip(to, stride, from, strip, BL_KV_F32, head_dim, lo, hi, scale, 1);
#undef BL_SCORE_F16
#undef BL_SCORE_Q8
    }
}

static void score_keys(float *scores, int64_t stride, const float *q, const bl_kv_rows *rows, int64_t lo, int64_t hi,
                       float scale, int queries)
{
    const int64_t pages = (hi + BL_PAGE - 1) / BL_PAGE;
    q8_vector quantized[BL_MAX_QUERIES];
    for (int64_t i = 0; i < rows->heads * queries && rows->kind == BL_KV_Q8; i++)
        quantize_query(&quantized[i], q + i * rows->head_dim, rows->head_dim, scale);
    for (int64_t p = lo, end; p < hi; p = end) {
        const int64_t page = p / BL_PAGE, start = page * BL_PAGE;
        end = start + BL_PAGE < hi ? start + BL_PAGE : hi;
        for (int64_t head = 0; head < rows->heads; head++)
            score_queries(scores + head * queries * stride + start, stride, q + head * queries * rows->head_dim,
                          quantized + head * queries, strip_at(rows, page, pages, head, 0, rows->heads), rows,
                          p - start, end - start, scale, queries);
    }
}

BL_INLINE float largest_score(const float *scores, int64_t length)
{
    int64_t p = 0;
    float max = scores[0];
    if (length >= BL_LANES) {
        f32x16 most = load(scores);
        for (; p + BL_LANES <= length; p += BL_LANES) most = larger(most, load(scores + p));
        max = largest(most);
    }
    for (; p < length; p++) max = scores[p] > max ? scores[p] : max;
    return max;
}

/* scores = exp(scores - max), returning their sum in 16 lanes. */
static float exp_scores(float *scores, int64_t length)
{
    const float max = largest_score(scores, length);
    int64_t p;
    for (p = 0; p < length; p++) scores[p] = bl_exp_to_88(scores[p] - max);
    f32x16 sum = zero();
    for (p = 0; p + BL_LANES <= length; p += BL_LANES) sum = add(sum, load(scores + p));
    if (p < length) sum = add(sum, load_part(scores + p, length - p));
    return reduce(sum);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Columns k .. k + 16 vectors of out (queries, head_dim) += sum over n rows, in order, of weight times value. As many
 * bytes are fetched from `ahead` on, or for each row `step` bytes further. */
BL_INLINE void mix_columns(float *out, const float *weights, int64_t stride, const uint8_t *values,
                           const bl_kv_kind kind, int64_t head_dim, int64_t n, int64_t k, const uint8_t *ahead,
                           int64_t step, const int vectors, const int queries)
{
    f32x16 sum[BL_MAX_HEADS][4];
    for (int i = 0; i < queries; i++)
        for (int v = 0; v < vectors; v++) sum[i][v] = load(out + i * head_dim + k + 16 * v);
    for (int64_t p = 0; p < n; p++) {
        prefetch_kv(ahead + p * step, bl_kv_bytes(kind, vectors * BL_LANES));
        for (int v = 0; v < vectors; v++) {
            const f32x16 value = load_kv(values, p * head_dim + k + 16 * v, kind);
            for (int i = 0; i < queries; i++) sum[i][v] = add(sum[i][v], mul(set1(weights[i * stride + p]), value));
        }
    }
    for (int i = 0; i < queries; i++)
        for (int v = 0; v < vectors; v++) store(out + i * head_dim + k + 16 * v, sum[i][v]);
}

/* Columns lo <= k < hi. The next strip is fetched in the order of its addresses if all of it is needed. */
BL_INLINE void mix_strip(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_kind kind,
                         int64_t head_dim, int64_t n, int64_t lo, int64_t hi, const int queries)
{
    const int whole = hi - lo == head_dim;
    int64_t k = lo;
#define BL_MIX(vectors)                                                                                                \
    mix_columns(out, weights, stride, strip.rows, kind, head_dim, n, k,                                                \
                strip.next + bl_kv_bytes(kind, whole ? n * k : k),                                                     \
                bl_kv_bytes(kind, whole ? vectors * BL_LANES : head_dim), vectors, queries)
    for (; k + 64 <= hi; k += 64) BL_MIX(4); /* whole lines */
    for (; k + 32 <= hi; k += 32) BL_MIX(2);
    for (; k < hi; k += 16) BL_MIX(1);
#undef BL_MIX
}

/* Columns lo <= k < hi of out (queries, head_dim) += weights (queries, n) . values (n, head_dim), rows of a strip. */
static void mix_queries(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_rows *rows,
                        int64_t n, int64_t lo, int64_t hi, int queries)
{
    const int64_t head_dim = rows->head_dim;
    if (in_tiles(rows, queries)) {
        if (rows->kind == BL_KV_F16) mix_tiles(out, weights, stride, strip, BL_KV_F16, head_dim, n, lo, hi, queries);
        else mix_tiles(out, weights, stride, strip, BL_KV_F32, head_dim, n, lo, hi, queries);
        return;
    }
#ifdef Q8_BY_TILES
    if (rows->kind == BL_KV_Q8 && queries > BL_MAX_HEADS) {
        mix_q8_by_tiles(out, weights, stride, strip, head_dim, n, lo, hi, queries);
        return;
    }
#endif
    const int most = rows->kind == BL_KV_F32 ? 1 : BL_MAX_HEADS;
    for (int i = 0; i < queries; i += most) {
        float *to = out + i * head_dim;
        const float *from = weights + i * stride;
        const int count = queries - i < most ? queries - i : most;
#define BL_MIX_F16(count) mix_strip(to, from, stride, strip, BL_KV_F16, head_dim, n, lo, hi, count)
#define BL_MIX_Q8(count) mix_strip_q8(to, from, stride, strip, head_dim, n, lo, hi, count)
        if (rows->kind == BL_KV_F16) BL_EACH_COUNT(count, BL_MIX_F16)
        else if (rows->kind == BL_KV_Q8) BL_EACH_COUNT(count, BL_MIX_Q8)
        else mix_strip(to, from, stride, strip, BL_KV_F32, head_dim, n, lo, hi, 1);
#undef BL_MIX_F16
#undef BL_MIX_Q8
    }
}

/* The columns lo <= k < hi of a head, of those of all heads side by side. */
typedef struct { int64_t lo, hi; } head_columns;

BL_INLINE head_columns columns_of(int64_t head, int64_t head_dim, int64_t lo, int64_t hi)
{
    lo -= head * head_dim;
    hi -= head * head_dim;
    return (head_columns){lo < 0 ? 0 : lo, hi < head_dim ? hi : head_dim};
}

static void mix_values(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                       int64_t length, int64_t lo, int64_t hi, int queries)
{
    const int64_t head_dim = rows->head_dim, pages = (length + BL_PAGE - 1) / BL_PAGE;
    const int64_t first = lo / head_dim, last = (hi + head_dim - 1) / head_dim;
    for (int64_t i = first * queries; i < last * queries; i++) {
        const head_columns of = columns_of(i / queries, head_dim, lo, hi);
        memset(out + i * head_dim + of.lo, 0, (size_t)(of.hi - of.lo) * sizeof *out);
    }
    for (int64_t page = 0; page < pages; page++) {
        const int64_t start = page * BL_PAGE, n = length - start < BL_PAGE ? length - start : BL_PAGE;
        for (int64_t head = first; head < last; head++) {
            const head_columns of = columns_of(head, head_dim, lo, hi);
            mix_queries(out + head * queries * head_dim, weights + head * queries * stride + start, stride,
                        strip_at(rows, page, pages, head, first, last), rows, n, of.lo, of.hi, queries);
        }
    }
    for (int64_t i = first * queries; i < last * queries; i++) {
        const head_columns of = columns_of(i / queries, head_dim, lo, hi);
        for (int64_t k = of.lo; k < of.hi; k++) out[i * head_dim + k] /= total[i];
    }
}
#undef BL_EACH_COUNT
#undef TILE_QUERIES
#undef TILE_KEYS
