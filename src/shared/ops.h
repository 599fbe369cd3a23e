/* The float operations of a tier, written once over its sixteen lanes. No include guard: each tier header includes
 * this file inside its target region, with BL_TIER and bl_f32x16 defined. */

/* Lanes beyond count are zero. */
BL_INLINE bl_f32x16 BL_FN(load_part)(const float *p, int64_t count)
{
    float part[BL_LANES] = {0};
    memcpy(part, p, (size_t)count * sizeof(float));
    return BL_FN(load)(part);
}

#include "shared/dense.h"

/* ---- activations --------------------------------------------------------------------------------------------- */

/* q (n) = clip(rint(x * 127 / m), -128, 127) with m = max(1e-5, max |x|), which is returned; if any x is NaN or
 * infinite then so is m, and q is zero. */
static float BL_FN(quantize)(int8_t *q, const float *x, int64_t n)
{
    const uint32_t max_bits = BL_FN(max_bits)(x, n);
    if (max_bits >= 0x7f800000u) {
        memset(q, 0, (size_t)n);
        return bl_float(max_bits);
    }
    const float max = bl_float(max_bits);
    const float m = max < BL_ACT_MIN ? BL_ACT_MIN : max;
    BL_FN(round_i8)(q, x, n, 127.0f / m);
    return m;
}

/* Whether no x (n) is NaN or infinite. */
static int BL_FN(finite)(const float *x, int64_t n) { return BL_FN(max_bits)(x, n) < 0x7f800000u; }

/* out (n) = x / sqrt(mean of x^2 + eps) * weight. */
static void BL_FN(rms_norm)(float *out, const float *x, const float *weight, int64_t n, float eps)
{
    bl_f32x16 sum = BL_FN(zero)();
    int64_t k = 0;
    for (; k + BL_LANES <= n; k += BL_LANES) {
        const bl_f32x16 v = BL_FN(load)(x + k);
        sum = BL_FN(add)(sum, BL_FN(mul)(v, v));
    }
    if (k < n) {
        const bl_f32x16 v = BL_FN(load_part)(x + k, n - k);
        sum = BL_FN(add)(sum, BL_FN(mul)(v, v));
    }
    const float scale = 1.0f / bl_sqrt(BL_FN(reduce)(sum) / (float)n + eps);
    for (k = 0; k < n; k++) out[k] = (x[k] * scale) * weight[k];
}

/* gate (n) = silu(gate) * up. */
static void BL_FN(silu_mul)(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_silu(gate[k]) * up[k];
}

/* gate (n) = max(gate, 0)^2 * up. */
static void BL_FN(relu2_mul)(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_relu2(gate[k]) * up[k];
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

/* Rotate the first rope_dim of x by the angles whose cosine and sine (rope_dim / 2) are given: pairs (i, i + d/2),
 * or (2i, 2i + 1) when interleaved. */
static void BL_FN(rope)(float *x, const float *cosine, const float *sine, int64_t rope_dim, int interleaved)
{
    const int64_t half = rope_dim / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i * step], b = x[i * step + other];
        x[i * step] = a * cosine[i] - b * sine[i];
        x[i * step + other] = a * sine[i] + b * cosine[i];
    }
}

/* out (n) = x in half precision; n a multiple of 16. */
static void BL_FN(store_f16)(uint16_t *out, const float *x, int64_t n)
{
    for (int64_t k = 0; k < n; k += BL_LANES) BL_FN(store_f16x16)(out + k, BL_FN(load)(x + k));
}

BL_INLINE bl_f32x16 BL_FN(load_kv)(const void *cache, int64_t index, const bl_kv_kind kind)
{
    if (kind == BL_KV_F16) return BL_FN(load_f16)((const uint8_t *)cache + 2 * index);
    return BL_FN(load)((const float *)cache + index);
}

/* Fetch so many bytes of a cache, into the nearest cache of the processor. */
BL_INLINE void BL_FN(prefetch_kv)(const void *cache, int64_t from, int64_t bytes)
{
    for (int64_t line = 0; line < bytes; line += 64) BL_FN(prefetch_near)((const uint8_t *)cache + from + line);
}

/* Each key is read once for all heads, two keys at once so that more chains of additions overlap. */
BL_INLINE void BL_FN(score_block)(float *scores, int64_t stride, const float *q, const void *keys,
                                 const bl_kv_kind kind, int64_t head_dim, int64_t lo, int64_t hi, float scale,
                                 const int heads)
{
    const int64_t row_bytes = bl_kv_bytes(kind, head_dim);
    for (int64_t p = lo; p < hi; p += 2) {
        const int64_t second = p + 1 < hi ? head_dim : 0; /* of an odd last one, the same key again */
        bl_f32x16 sum[BL_MAX_HEADS][2];
        for (int h = 0; h < heads; h++) sum[h][0] = sum[h][1] = BL_FN(zero)();
        BL_FN(prefetch_kv)(keys, p * row_bytes + BL_AHEAD, 2 * row_bytes);
        for (int64_t k = 0; k < head_dim; k += BL_LANES) {
            const bl_f32x16 key0 = BL_FN(load_kv)(keys, p * head_dim + k, kind);
            const bl_f32x16 key1 = BL_FN(load_kv)(keys, p * head_dim + second + k, kind);
            for (int h = 0; h < heads; h++) {
                const bl_f32x16 query = BL_FN(load)(q + h * head_dim + k);
                sum[h][0] = BL_FN(add)(sum[h][0], BL_FN(mul)(query, key0));
                sum[h][1] = BL_FN(add)(sum[h][1], BL_FN(mul)(query, key1));
            }
        }
        for (int h = 0; h < heads; h++) {
            scores[h * stride + p] = BL_FN(reduce)(sum[h][0]) * scale;
            if (second) scores[h * stride + p + 1] = BL_FN(reduce)(sum[h][1]) * scale;
        }
    }
}

/* scores = exp(scores - max), returning their sum in 16 lanes. */
static float BL_FN(exp_scores)(float *scores, int64_t length)
{
    float lane[BL_LANES], max = scores[0];
    for (int j = 0; j < BL_LANES; j++) lane[j] = max;
    int64_t p = 0;
    for (; p + BL_LANES <= length; p += BL_LANES)
        for (int j = 0; j < BL_LANES; j++) lane[j] = scores[p + j] > lane[j] ? scores[p + j] : lane[j];
    for (; p < length; p++) max = scores[p] > max ? scores[p] : max;
    for (int j = 0; j < BL_LANES; j++) max = lane[j] > max ? lane[j] : max;
    for (p = 0; p < length; p++) scores[p] = bl_exp(scores[p] - max);
    bl_f32x16 sum = BL_FN(zero)();
    for (p = 0; p + BL_LANES <= length; p += BL_LANES) sum = BL_FN(add)(sum, BL_FN(load)(scores + p));
    if (p < length) sum = BL_FN(add)(sum, BL_FN(load_part)(scores + p, length - p));
    return BL_FN(reduce)(sum);
}

/* Columns k .. k + 16 vectors of out (heads, head_dim) += sum over positions [lo, hi), in order, of weight times value.
 * Meanwhile as many bytes from `ahead` on are fetched. */
BL_INLINE void BL_FN(mix_block)(float *out, const float *weights, int64_t stride, const void *values,
                                const bl_kv_kind kind, int64_t head_dim, int64_t lo, int64_t hi, int64_t k,
                                const uint8_t *ahead, const int vectors, const int heads)
{
    bl_f32x16 sum[BL_MAX_HEADS][4];
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) sum[h][v] = BL_FN(load)(out + h * head_dim + k + 16 * v);
    for (int64_t p = lo; p < hi; p++) {
        const int64_t bytes = bl_kv_bytes(kind, vectors * BL_LANES);
        BL_FN(prefetch_kv)(ahead, (p - lo) * bytes, bytes);
        for (int v = 0; v < vectors; v++) {
            const bl_f32x16 value = BL_FN(load_kv)(values, p * head_dim + k + 16 * v, kind);
            for (int h = 0; h < heads; h++)
                sum[h][v] = BL_FN(add)(sum[h][v], BL_FN(mul)(BL_FN(set1)(weights[h * stride + p]), value));
        }
    }
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) BL_FN(store)(out + h * head_dim + k + 16 * v, sum[h][v]);
}

/* Blocks of positions stay in the nearest cache while their columns are taken in turn, and the next block is fetched in
 * the order of its addresses. */
BL_INLINE void BL_FN(mix_blocks)(float *out, const float *weights, int64_t stride, const float *total,
                                 const void *values, const bl_kv_kind kind, int64_t head_dim, int64_t length,
                                 int64_t lo, int64_t hi, const int heads)
{
    enum { BLOCK = 32 };
    const int64_t row_bytes = bl_kv_bytes(kind, head_dim);
    for (int h = 0; h < heads; h++) memset(out + h * head_dim + lo, 0, (size_t)(hi - lo) * sizeof *out);
    for (int64_t p = 0; p < length; p += BLOCK) {
        const int64_t end = length - p < BLOCK ? length : p + BLOCK;
        const uint8_t *ahead = (const uint8_t *)values + (p + BLOCK) * row_bytes;
        int64_t k = lo;
#define BL_MIX(vectors)                                                                                                \
    BL_FN(mix_block)(out, weights, stride, values, kind, head_dim, p, end, k, ahead + bl_kv_bytes(kind, BLOCK * k),    \
                     vectors, heads)
        for (; k + 64 <= hi; k += 64) BL_MIX(4); /* whole lines */
        for (; k + 32 <= hi; k += 32) BL_MIX(2);
        for (; k < hi; k += 16) BL_MIX(1);
#undef BL_MIX
    }
    for (int h = 0; h < heads; h++)
        for (int64_t k = lo; k < hi; k++) out[h * head_dim + k] /= total[h];
}

/* Call one of the above for a number of heads known to the compiler; caches of floats head by head. */
#define BL_EACH_HEADS(call)                                                                                            \
    if (kind == BL_KV_F16) switch (heads) {                                                                            \
        case 1: call(0, BL_KV_F16, 1); return;                                                                         \
        case 2: call(0, BL_KV_F16, 2); return;                                                                         \
        case 3: call(0, BL_KV_F16, 3); return;                                                                         \
        default: call(0, BL_KV_F16, 4); return;                                                                        \
        }                                                                                                              \
    for (int h = 0; h < heads; h++) call(h, BL_KV_F32, 1)

/* scores (heads, stride), at positions lo <= p < hi, = q (heads, head_dim) . keys (., head_dim) * scale. */
static void BL_FN(score_keys)(float *scores, int64_t stride, const float *q, const void *keys, bl_kv_kind kind,
                              int64_t head_dim, int64_t lo, int64_t hi, float scale, int heads)
{
#define BL_SCORE(first, kind, count)                                                                                   \
    BL_FN(score_block)(scores + first * stride, stride, q + first * head_dim, keys, kind, head_dim, lo, hi, scale,    \
                       count)
    BL_EACH_HEADS(BL_SCORE);
#undef BL_SCORE
}

/* Columns lo <= k < hi, multiples of 16, of out (heads, head_dim) = weights (heads, stride) . values (length, head_dim)
 * / total (heads). */
static void BL_FN(mix_values)(float *out, const float *weights, int64_t stride, const float *total, const void *values,
                              bl_kv_kind kind, int64_t head_dim, int64_t length, int64_t lo, int64_t hi, int heads)
{
#define BL_MIX(first, kind, count)                                                                                     \
    BL_FN(mix_blocks)(out + first * head_dim, weights + first * stride, stride, total + first, values, kind, head_dim, \
                      length, lo, hi, count)
    BL_EACH_HEADS(BL_MIX);
#undef BL_MIX
}
#undef BL_EACH_HEADS

#define BL_TIER_STRING2(tier) #tier
#define BL_TIER_STRING(tier) BL_TIER_STRING2(tier)
#ifndef BL_TIER_NEEDS
#define BL_TIER_NEEDS 0
#endif
static const bl_tier BL_FN(tier) = {
    BL_TIER_STRING(BL_TIER), BL_TIER_NEEDS, {BL_TIER_CELLS}, BL_FN(dense_bytes), BL_FN(dense_prepare),
    BL_FN(dense_gemm), BL_FN(dense_row), BL_FN(quantize), BL_FN(finite), BL_FN(rms_norm), BL_FN(silu_mul),
    BL_FN(relu2_mul), BL_FN(rope), BL_FN(store_f16), BL_FN(score_keys),
    BL_FN(exp_scores), BL_FN(mix_values)};
#undef BL_TIER_STRING
#undef BL_TIER_STRING2
#undef BL_TIER_NEEDS
#undef BL_TIER_CELLS
