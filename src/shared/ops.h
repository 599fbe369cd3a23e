/* The float operations of a tier, written once over its sixteen lanes (f32x16). Included by every tier inside its
 * target region. */

/* Lanes beyond count are zero. */
BL_INLINE f32x16 load_part(const float *p, int64_t count)
{
    float part[BL_LANES] = {0};
    memcpy(part, p, (size_t)count * sizeof(float));
    return load(part);
}

#include "shared/dense.h"
#include "shared/weights.h"

/* ---- activations --------------------------------------------------------------------------------------------- */

/* q (n) = clip(rint(x * 127 / m), -128, 127) with m = max(1e-5, max |x|), which is returned; if any x is NaN or
 * infinite then so is m, and q is zero. */
static float quantize(int8_t *q, const float *x, int64_t n)
{
    const uint32_t max_bits = largest_bits(x, n);
    if (max_bits >= 0x7f800000u) {
        memset(q, 0, (size_t)n);
        return bl_float(max_bits);
    }
    const float max = bl_float(max_bits);
    const float m = max < BL_ACT_MIN ? BL_ACT_MIN : max;
    round_i8(q, x, n, 127.0f / m);
    return m;
}

#include "shared/attention.h"

/* Whether no x (n) is NaN or infinite. */
static int all_finite(const float *x, int64_t n) { return largest_bits(x, n) < 0x7f800000u; }

/* out (n) = x / sqrt(mean of x^2 + eps) * weight. */
static void rms_norm(float *out, const float *x, const float *weight, int64_t n, float eps)
{
    f32x16 sum = zero();
    int64_t k = 0;
    for (; k + BL_LANES <= n; k += BL_LANES) {
        const f32x16 v = load(x + k);
        sum = add(sum, mul(v, v));
    }
    if (k < n) {
        const f32x16 v = load_part(x + k, n - k);
        sum = add(sum, mul(v, v));
    }
    const float scale = 1.0f / bl_sqrt(reduce(sum) / (float)n + eps);
    for (k = 0; k < n; k++) out[k] = (x[k] * scale) * weight[k];
}

/* gate (n) = silu(gate) * up. */
static void silu_mul(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_silu(gate[k]) * up[k];
}

/* gate (n) = max(gate, 0)^2 * up. */
static void relu2_mul(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_relu2(gate[k]) * up[k];
}

/* Rotate the first rope_dim of x by the angles whose cosine and sine (rope_dim / 2) are given: pairs (i, i + d/2),
 * or (2i, 2i + 1) when interleaved. */
static void rope(float *x, const float *cosine, const float *sine, int64_t rope_dim, int interleaved)
{
    const int64_t half = rope_dim / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i * step], b = x[i * step + other];
        x[i * step] = a * cosine[i] - b * sine[i];
        x[i * step + other] = a * sine[i] + b * cosine[i];
    }
}

/* out (n) = x in half precision; n a multiple of 16. */
static void store_f16(uint16_t *out, const float *x, int64_t n)
{
    for (int64_t k = 0; k < n; k += BL_LANES) store_f16x16(out + k, load(x + k));
}

/* These functions as fields of bl_tier. */
#define TIER_OPS                                                                                                       \
    .dense_bytes = dense_bytes, .dense_prepare = dense_prepare, .dense_gemm = dense_gemm, .dense_row = dense_row,      \
    .quantize = quantize, .finite = all_finite, .rms_norm = rms_norm, .silu_mul = silu_mul, .relu2_mul = relu2_mul,    \
    .rope = rope, .store_f16 = store_f16, .score_keys = score_keys, .exp_scores = exp_scores,                          \
    .mix_values = mix_values, .part_maxima = part_maxima, .weigh = weigh
