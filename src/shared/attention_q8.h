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

BL_INLINE void quantize_query(q8_vector *to, const float *q, int64_t head_dim, float scale)
{
    quantize_q8(to, q, head_dim);
    to->factor *= scale;
}

BL_INLINE const float *scales_q8(const uint8_t *strip, int64_t head_dim)
{
    return (const float *)(const void *)(strip + BL_PAGE * head_dim);
}

/* Store the lanes lo <= j < hi. */
BL_INLINE void store_lanes(float *to, f32x16 v, int64_t lo, int64_t hi)
{
    float lane[BL_LANES];
    if (hi - lo == BL_LANES) {
        store(to, v);
        return;
    }
    store(lane, v);
    memcpy(to + lo, lane + lo, (size_t)(hi - lo) * sizeof *to);
}

/* Rows lo <= p < hi, 16 keys in the lanes of a sum; the same rows of the next strip are fetched. Two sums for each
 * query, so that more chains of additions overlap. */
BL_INLINE void score_strip_q8(float *scores, int64_t stride, const q8_vector *q, kv_strip strip, int64_t head_dim,
                              int64_t lo, int64_t hi, const int queries)
{
    const float *scales = scales_q8(strip.rows, head_dim);
    for (int64_t p = lo / Q8_KEYS * Q8_KEYS; p < hi; p += Q8_KEYS) {
        const int64_t first = p < lo ? lo - p : 0, last = hi - p < Q8_KEYS ? hi - p : Q8_KEYS;
        quad_sums sum[BL_MAX_HEADS][2];
        for (int h = 0; h < queries; h++) sum[h][0] = start_quads(q[h].sum), sum[h][1] = start_quads(0);
        for (int64_t k = 0; k < head_dim; k += 16) {
            const int64_t at = p * head_dim + Q8_KEYS * k;
            const int8_t *keys = (const int8_t *)strip.rows + at;
            prefetch_kv(strip.next + at, Q8_KEYS * 16);
            for (int i = 0; i < 4; i++)
                for (int h = 0; h < queries; h++)
                    sum[h][i % 2] = add_quads(sum[h][i % 2], keys + 64 * i, q[h].values + k + 4 * i);
        }
        for (int h = 0; h < queries; h++) {
            const f32x16 dots = to_floats(add_i32(sum[h][0], sum[h][1]));
            const f32x16 found = mul(dots, mul(set1(q[h].factor), load(scales + p)));
            store_lanes(scores + h * stride + p, found, first, last);
        }
    }
}

/* The weights of n rows, and zeros for the rows of the page that are not there. */
BL_INLINE void quantize_weights(q8_vector *to, const float *weights, const float *scales, int64_t n)
{
    float scaled[BL_PAGE] = {0};
    for (int64_t p = 0; p < n; p++) scaled[p] = weights[p] * scales[p];
    quantize_q8(to, scaled, BL_PAGE);
}

/* Columns k .. k + 16 vectors of out (queries, head_dim) += those of n rows; the same ones of the next strip are
 * fetched. */
BL_INLINE void mix_columns_q8(float *out, const q8_vector *weights, kv_strip strip, int64_t head_dim, int64_t n,
                              int64_t k, const int vectors, const int queries)
{
    quad_sums sum[BL_MAX_HEADS][2];
    for (int h = 0; h < queries; h++)
        for (int v = 0; v < vectors; v++) sum[h][v] = start_quads(weights[h].sum);
    for (int64_t p = 0; p < n; p += 4) {
        const int64_t at = p * head_dim + 4 * k;
        const int8_t *values = (const int8_t *)strip.rows + at;
        prefetch_kv(strip.next + at, 64 * vectors);
        for (int v = 0; v < vectors; v++)
            for (int h = 0; h < queries; h++) sum[h][v] = add_quads(sum[h][v], values + 64 * v, weights[h].values + p);
    }
    for (int h = 0; h < queries; h++)
        for (int v = 0; v < vectors; v++) {
            float *to = out + h * head_dim + k + 16 * v;
            store(to, add(load(to), mul(to_floats(sum[h][v]), set1(weights[h].factor))));
        }
}

BL_INLINE void mix_strip_q8(float *out, const float *weights, int64_t stride, kv_strip strip, int64_t head_dim,
                            int64_t n, int64_t lo, int64_t hi, const int queries)
{
    q8_vector quantized[BL_MAX_HEADS];
    for (int h = 0; h < queries; h++)
        quantize_weights(&quantized[h], weights + h * stride, scales_q8(strip.rows, head_dim), n);
    int64_t k = lo;
    for (; k + 32 <= hi; k += 32) mix_columns_q8(out, quantized, strip, head_dim, n, k, 2, queries);
    for (; k < hi; k += 16) mix_columns_q8(out, quantized, strip, head_dim, n, k, 1, queries);
}
