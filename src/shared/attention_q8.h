/* Attention over caches of BL_KV_Q8, whose two products are exact integer dots. Included inside a target region, behind
 * what adds products of quads: start_quads, add_quads and to_floats (see scalar.c).
 *
 *   query: int8 by its largest |q|; score = dot * (largest |q| * scale / 127^2 * largest |key|)
 *   weight of a row of values: exp(score - max) * largest |value|; those of a page (BL_PAGE) are quantized together
 *   out = sum over pages, in order, of dot * (largest weight / 127^2), over the sum of exp(score - max)
 *
 * Each largest is at least BL_ACT_MIN, as in all quantized activations. */

enum { Q8_KEYS = 16 };

/* A query or the weights of a page. */
typedef struct {
    int8_t values[BL_Q8_MOST];
    float factor; /* of dots */
    int32_t sum;  /* of values */
} q8_vector;

BL_INLINE void quantize_q8(q8_vector *to, const float *x, int64_t n)
{
    to->factor = quantize(to->values, x, n) / (127.0f * 127.0f);
    to->sum = 0;
    for (int64_t k = 0; k < n; k++) to->sum += to->values[k];
}

BL_INLINE const float *scales_q8(const uint8_t *strip, int64_t head_dim)
{
    return (const float *)(const void *)(strip + BL_PAGE * head_dim);
}

/* Store the lanes lo <= j < hi. */
BL_INLINE void store_lanes(float *to, f32x16 v, int64_t lo, int64_t hi)
{
    float lane[BL_LANES];
    store(lane, v);
    memcpy(to + lo, lane + lo, (size_t)(hi - lo) * sizeof *to);
}

/* Rows lo <= p < hi of a page, 16 keys in the lanes of a sum; the same rows of the page `next` are fetched. Two sums
 * for each head, so that more chains of additions overlap. */
BL_INLINE void score_page_q8(float *scores, int64_t stride, const q8_vector *q, const uint8_t *strip,
                             const uint8_t *next, int64_t head_dim, int64_t lo, int64_t hi, const int heads)
{
    const float *scales = scales_q8(strip, head_dim);
    for (int64_t p = lo / Q8_KEYS * Q8_KEYS; p < hi; p += Q8_KEYS) {
        const int64_t first = p < lo ? lo - p : 0, last = hi - p < Q8_KEYS ? hi - p : Q8_KEYS;
        quad_sums sum[BL_MAX_HEADS][2];
        for (int h = 0; h < heads; h++) sum[h][0] = start_quads(q[h].sum), sum[h][1] = start_quads(0);
        for (int64_t k = 0; k < head_dim; k += 16) {
            const int8_t *keys = (const int8_t *)strip + p * head_dim + Q8_KEYS * k;
            prefetch_kv(next, p * head_dim + Q8_KEYS * k, Q8_KEYS * 16);
            for (int i = 0; i < 4; i++)
                for (int h = 0; h < heads; h++)
                    sum[h][i % 2] = add_quads(sum[h][i % 2], keys + 64 * i, q[h].values + k + 4 * i);
        }
        for (int h = 0; h < heads; h++) {
            const f32x16 dots = to_floats(add_i32(sum[h][0], sum[h][1]));
            const f32x16 found = mul(dots, mul(set1(q[h].factor), load(scales + p)));
            store_lanes(scores + h * stride + p, found, first, last);
        }
    }
}

BL_INLINE void score_q8(float *scores, int64_t stride, const float *q, const bl_kv_rows *rows, int64_t lo, int64_t hi,
                        float scale, const int heads)
{
    q8_vector query[BL_MAX_HEADS];
    for (int h = 0; h < heads; h++) {
        quantize_q8(&query[h], q + h * rows->head_dim, rows->head_dim);
        query[h].factor *= scale;
    }
    for (int64_t p = lo, end; p < hi; p = end) {
        const int64_t page = p / BL_PAGE, start = page * BL_PAGE;
        end = start + BL_PAGE < hi ? start + BL_PAGE : hi;
        const uint8_t *keys = rows->pages[page] + rows->offset;
        const uint8_t *next = end < hi ? rows->pages[page + 1] + rows->offset : keys;
        score_page_q8(scores + start, stride, query, keys, next, rows->head_dim, p - start, end - start, heads);
    }
}

/* The weights of n rows, and zeros for the rows of the page that are not there. */
BL_INLINE void quantize_weights(q8_vector *to, const float *weights, const float *scales, int64_t n)
{
    float scaled[BL_PAGE] = {0};
    for (int64_t p = 0; p < n; p++) scaled[p] = weights[p] * scales[p];
    quantize_q8(to, scaled, BL_PAGE);
}

/* Columns k .. k + 16 vectors of out (heads, head_dim) += those of n rows of a page; the same ones of the page `next`
 * are fetched. */
BL_INLINE void mix_columns_q8(float *out, const q8_vector *weights, const uint8_t *strip, const uint8_t *next,
                              int64_t head_dim, int64_t n, int64_t k, const int vectors, const int heads)
{
    quad_sums sum[BL_MAX_HEADS][2];
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) sum[h][v] = start_quads(weights[h].sum);
    for (int64_t p = 0; p < n; p += 4) {
        const int8_t *values = (const int8_t *)strip + p * head_dim + 4 * k;
        prefetch_kv(next, p * head_dim + 4 * k, 64 * vectors);
        for (int v = 0; v < vectors; v++)
            for (int h = 0; h < heads; h++) sum[h][v] = add_quads(sum[h][v], values + 64 * v, weights[h].values + p);
    }
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) {
            float *to = out + h * head_dim + k + 16 * v;
            store(to, add(load(to), mul(to_floats(sum[h][v]), set1(weights[h].factor))));
        }
}

BL_INLINE void mix_q8(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *rows,
                      int64_t length, int64_t lo, int64_t hi, const int heads)
{
    const int64_t head_dim = rows->head_dim;
    for (int h = 0; h < heads; h++) memset(out + h * head_dim + lo, 0, (size_t)(hi - lo) * sizeof *out);
    for (int64_t p = 0; p < length; p += BL_PAGE) {
        const int64_t n = length - p < BL_PAGE ? length - p : BL_PAGE;
        const uint8_t *strip = rows->pages[p / BL_PAGE] + rows->offset;
        const uint8_t *next = n < length - p ? rows->pages[p / BL_PAGE + 1] + rows->offset : strip;
        q8_vector quantized[BL_MAX_HEADS];
        for (int h = 0; h < heads; h++)
            quantize_weights(&quantized[h], weights + h * stride + p, scales_q8(strip, head_dim), n);
        int64_t k = lo;
        for (; k + 32 <= hi; k += 32) mix_columns_q8(out, quantized, strip, next, head_dim, n, k, 2, heads);
        for (; k < hi; k += 16) mix_columns_q8(out, quantized, strip, next, head_dim, n, k, 1, heads);
    }
    for (int h = 0; h < heads; h++)
        for (int64_t k = lo; k < hi; k++) out[h * head_dim + k] /= total[h];
}
