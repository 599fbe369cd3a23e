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

/* Where byte `at` of the rows of a strip is, or of those read after it. */
BL_INLINE const uint8_t *strip_byte(kv_strip strip, const bl_kv_kind kind, int64_t head_dim, int64_t at)
{
    const int64_t beyond = at - bl_kv_bytes(kind, BL_PAGE * head_dim);
    return beyond < 0 ? strip.rows + at : strip.next + beyond;
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
        prefetch_kv(strip_byte(strip, kind, head_dim, p * bytes + BL_AHEAD), TILE_KEYS * bytes);
        score_tile(scores + p, stride, q, strip.rows + p * bytes, kind, head_dim, scale, queries, TILE_KEYS);
    }
    for (; p < hi; p++) score_tile(scores + p, stride, q, strip.rows + p * bytes, kind, head_dim, scale, queries, 1);
}

/* Call it for the queries from i on, at most BL_MAX_HEADS, whose number the compiler knows. */
#define BL_EACH_QUERIES(call)                                                                                          \
    for (int i = 0; i < queries; i += BL_MAX_HEADS) switch (queries - i) {                                             \
        case 1: call(1); break;                                                                                        \
        case 2: call(2); break;                                                                                        \
        case 3: call(3); break;                                                                                        \
        default: call(4);                                                                                              \
        }

/* Rows lo <= p < hi of a strip of floats. */
BL_INLINE void score_floats(float *scores, int64_t stride, const float *q, kv_strip strip, const bl_kv_kind kind,
                            int64_t head_dim, int64_t lo, int64_t hi, float scale, int queries)
{
#define BL_SCORE(count)                                                                                                \
    score_strip(scores + i * stride, stride, q + i * head_dim, strip, kind, head_dim, lo, hi, scale, count)
    if (in_tiles(head_dim, queries)) score_tiles(scores, stride, q, strip, kind, head_dim, lo, hi, scale, queries);
    else BL_EACH_QUERIES(BL_SCORE)
#undef BL_SCORE
}

/* Of a strip of BL_KV_Q8. */
BL_INLINE void score_q8(float *scores, int64_t stride, const q8_vector *q, kv_strip strip, int64_t head_dim, int64_t lo,
                        int64_t hi, int queries)
{
#ifdef Q8_BY_TILES
    if (queries > BL_MAX_HEADS) {
        score_q8_by_tiles(scores, stride, q, strip, head_dim, lo, hi, queries);
        return;
    }
#endif
#define BL_SCORE(count) score_strip_q8(scores + i * stride, stride, q + i, strip, head_dim, lo, hi, count)
    BL_EACH_QUERIES(BL_SCORE)
#undef BL_SCORE
}

/* Rows lo <= p < hi of a strip; quantized (queries) for BL_KV_Q8. */
static void score_queries(float *scores, int64_t stride, const float *q, const q8_vector *quantized, kv_strip strip,
                          const bl_kv_rows *rows, int64_t lo, int64_t hi, float scale, int queries)
{
    const int64_t head_dim = rows->head_dim;
    switch (rows->kind) {
    case BL_KV_F16: score_floats(scores, stride, q, strip, BL_KV_F16, head_dim, lo, hi, scale, queries); break;
    case BL_KV_Q8: score_q8(scores, stride, quantized, strip, head_dim, lo, hi, queries); break;
    default: score_floats(scores, stride, q, strip, BL_KV_F32, head_dim, lo, hi, scale, queries);
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
        for (int64_t head = 0, i = 0; head < rows->heads; head++, i += queries)
            score_queries(scores + i * stride + start, stride, q + i * rows->head_dim, quantized + i,
                          strip_at(rows, page, pages, head, 0, rows->heads), rows, p - start, end - start, scale,
                          queries);
    }
}

/* scores = exp(scores - max), returning their sum in 16 lanes. */
static float exp_scores(float *scores, int64_t length)
{
    const float max = largest_of(scores, length);
    int64_t p;
    for (p = 0; p < length; p++) scores[p] = bl_exp_to_88(scores[p] - max);
    f32x16 sum = zero();
    for (p = 0; p + BL_LANES <= length; p += BL_LANES) sum = add(sum, load(scores + p));
    if (p < length) sum = add(sum, load_part(scores + p, length - p));
    return reduce(sum);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Columns lo <= k < hi. The next strip is fetched in the order of its addresses if all of it is needed. */
BL_INLINE void mix_strip(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_kind kind,
                         int64_t head_dim, int64_t n, int64_t lo, int64_t hi, const int queries)
{
    const int whole = hi - lo == head_dim;
    int64_t k = lo;
#define BL_MIX(vectors)                                                                                                \
    {                                                                                                                  \
        const int64_t bytes = bl_kv_bytes(kind, vectors * BL_LANES);                                                   \
        const kv_ahead ahead = {strip.next + bl_kv_bytes(kind, whole ? n * k : k), bytes,                              \
                                whole ? bytes : bl_kv_bytes(kind, head_dim)};                                          \
        mix_tile(out + k, weights, stride, strip.rows + bl_kv_bytes(kind, k), kind, head_dim, n, ahead, queries,       \
                 vectors);                                                                                             \
    }
    for (; k + 64 <= hi; k += 64) BL_MIX(4) /* whole lines */
    for (; k + 32 <= hi; k += 32) BL_MIX(2)
    for (; k < hi; k += 16) BL_MIX(1)
#undef BL_MIX
}

/* Columns lo <= k < hi of out (queries, head_dim) += weights (queries, n) . values (n, head_dim), rows of a strip of
 * floats. */
BL_INLINE void mix_floats(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_kind kind,
                          int64_t head_dim, int64_t n, int64_t lo, int64_t hi, int queries)
{
#define BL_MIX(count)                                                                                                  \
    mix_strip(out + i * head_dim, weights + i * stride, stride, strip, kind, head_dim, n, lo, hi, count)
    if (in_tiles(head_dim, queries)) mix_tiles(out, weights, stride, strip, kind, head_dim, n, lo, hi, queries);
    else BL_EACH_QUERIES(BL_MIX)
#undef BL_MIX
}

/* Of a strip of BL_KV_Q8. */
BL_INLINE void mix_q8(float *out, const float *weights, int64_t stride, kv_strip strip, int64_t head_dim, int64_t n,
                      int64_t lo, int64_t hi, int queries)
{
#ifdef Q8_BY_TILES
    if (queries > BL_MAX_HEADS) {
        mix_q8_by_tiles(out, weights, stride, strip, head_dim, n, lo, hi, queries);
        return;
    }
#endif
#define BL_MIX(count) mix_strip_q8(out + i * head_dim, weights + i * stride, stride, strip, head_dim, n, lo, hi, count)
    BL_EACH_QUERIES(BL_MIX)
#undef BL_MIX
}

/* Columns lo <= k < hi of out (queries, head_dim) += weights (queries, n) . values (n, head_dim), rows of a strip. */
static void mix_queries(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_rows *rows,
                        int64_t n, int64_t lo, int64_t hi, int queries)
{
    const int64_t head_dim = rows->head_dim;
    switch (rows->kind) {
    case BL_KV_F16: mix_floats(out, weights, stride, strip, BL_KV_F16, head_dim, n, lo, hi, queries); break;
    case BL_KV_Q8: mix_q8(out, weights, stride, strip, head_dim, n, lo, hi, queries); break;
    default: mix_floats(out, weights, stride, strip, BL_KV_F32, head_dim, n, lo, hi, queries);
    }
}

static void mix_values(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                       int64_t length, int64_t lo, int64_t hi, int queries)
{
    const int64_t head_dim = rows->head_dim, pages = (length + BL_PAGE - 1) / BL_PAGE;
    const int64_t first = lo / head_dim, last = (hi + head_dim - 1) / head_dim;
    for (int64_t i = first * queries; i < last * queries; i++) {
        const bl_columns of = bl_columns_of(i / queries, head_dim, lo, hi);
        memset(out + i * head_dim + of.lo, 0, (size_t)(of.hi - of.lo) * sizeof *out);
    }
    for (int64_t page = 0; page < pages; page++) {
        const int64_t start = page * BL_PAGE, n = length - start < BL_PAGE ? length - start : BL_PAGE;
        for (int64_t head = first, i = first * queries; head < last; head++, i += queries) {
            const bl_columns of = bl_columns_of(head, head_dim, lo, hi);
            mix_queries(out + i * head_dim, weights + i * stride + start, stride,
                        strip_at(rows, page, pages, head, first, last), rows, n, of.lo, of.hi, queries);
        }
    }
    for (int64_t i = first * queries; i < last * queries; i++) {
        const bl_columns of = bl_columns_of(i / queries, head_dim, lo, hi);
        for (int64_t k = of.lo; k < of.hi; k++) out[i * head_dim + k] /= total[i];
    }
}
#undef BL_EACH_QUERIES
#undef TILE_QUERIES
#undef TILE_KEYS
