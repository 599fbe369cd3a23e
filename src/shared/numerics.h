/* The arithmetic that is the same on every tier, defined once: one rounding per operation, multiply and add never
 * fused, so that SSE2, AVX, NEON and WebAssembly give the same bits. Sums of floats run in 16 lanes (lane j takes the
 * elements j, j + 16, ...) which are then added as a tree: j with j + 8, + 4, + 2, + 1. */
#ifndef BL_NUMERICS_H
#define BL_NUMERICS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "target.h"

enum { BL_LANES = 16 };

BL_INLINE uint32_t bl_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
BL_INLINE float bl_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}
BL_INLINE uint16_t bl_load_u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, 2);
    return u;
}

/* IEEE half to float, exact; scaling by 2^112 lets the multiplier normalize subnormals. */
BL_INLINE float bl_from_f16(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t scaled = bl_bits(bl_float(magnitude) * 0x1p112f);
    return bl_float(sign | (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : scaled));
}

/* Float to IEEE half, to nearest even; overflow gives infinity, NaN stays NaN. */
BL_INLINE uint16_t bl_to_f16(float x)
{
    const uint32_t bits = bl_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000u) /* subnormal half: adding 0.5 leaves its bits at the end of the mantissa */
        return (uint16_t)(sign | (bl_bits(bl_float(magnitude) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

BL_INLINE float bl_from_bf16(uint16_t upper) { return bl_float((uint32_t)upper << 16); }

/* IEEE 754 rounds sqrt correctly, so every platform agrees. */
BL_INLINE float bl_sqrt(float x) { return sqrtf(x); }

/* To the nearest integer, ties to even, for |x| < 2^22. */
BL_INLINE float bl_rint(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* exp(x) to 2 ulp, of x at most 88; below -87 it is that of -87, NaN stays NaN. Polynomial of degree 6 after Cephes. */
BL_INLINE float bl_exp_to_88(float x)
{
    x = x < -87.0f ? -87.0f : x;
    const float n = bl_rint(x * 1.44269504088896341f);
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    /* The magic number leaves n in the low bits: 2^n without a conversion that NaN would make undefined. */
    const uint32_t exponent = bl_bits(n + 12582912.0f) - 0x4b400000u + 127u;
    return p * bl_float(exponent << 23);
}

/* The same of any x, clamped to 88 too. */
BL_INLINE float bl_exp(float x) { return bl_exp_to_88(x > 88.0f ? 88.0f : x); }

/* exp(x) of x at most 88, or 0 below e^-87: how much a logit weighs. */
BL_INLINE float bl_weight(float x)
{
    const float weight = bl_exp_to_88(x);
    return x < -87.0f ? 0.0f : weight;
}

BL_INLINE float bl_silu(float x) { return x / (1.0f + bl_exp(-x)); }

BL_INLINE float bl_relu2(float x)
{
    const float positive = x < 0.0f ? 0.0f : x; /* written so that NaN stays NaN */
    return positive * positive;
}

/* Largest |x| that quantization divides by; smaller rows are treated as if they reached it (b1.58 reference). */
#define BL_ACT_MIN 1e-5f

/* The factor of an int32 dot product: weight scale times activation maximum over 127. */
BL_INLINE float bl_rescale(float weight_scale, float act_max) { return weight_scale * act_max / 127.0f; }

/* Largest |x| as float bits compared as integers, so that NaN beats infinity beats every number. */
BL_INLINE uint32_t bl_largest_bits(const float *x, int64_t n)
{
    uint32_t max = 0;
    for (int64_t k = 0; k < n; k++) {
        const uint32_t bits = bl_bits(x[k]) & 0x7fffffff;
        max = bits > max ? bits : max;
    }
    return max;
}

/* q = rint(x * scale) in [-128, 127]; scale is 127 / max |x|. */
BL_INLINE void bl_round_i8(int8_t *q, const float *x, int64_t n, float scale)
{
    for (int64_t k = 0; k < n; k++) {
        const float r = bl_rint(x[k] * scale);
        q[k] = (int8_t)(r > 127.0f ? 127.0f : r);
    }
}

/* Sixteen activations in fixed point: x = whole * step to the nearest, |whole| < 2^20. The step, which is returned, is
 * a power of two, so only the rounding to whole numbers loses anything. If a group holds NaN or infinity, the step is
 * that value and the numbers are zero. */
BL_INLINE float bl_fixed_group(int32_t whole[16], const float x[16])
{
    uint32_t max_bits = 0;
    for (int j = 0; j < 16; j++) {
        const uint32_t bits = bl_bits(x[j]) & 0x7fffffff;
        max_bits = bits > max_bits ? bits : max_bits;
    }
    if (max_bits >= 0x7f800000u) {
        memset(whole, 0, 16 * sizeof *whole);
        return bl_float(max_bits);
    }
    uint32_t exponent = max_bits >> 23; /* biased: the largest |x| is below 2^(exponent - 126) */
    if (exponent < 20) exponent = 20;   /* that scale and step are normal numbers */
    const float scale = bl_float((273 - exponent) << 23);
    for (int j = 0; j < 16; j++) {
        const float rounded = bl_rint(x[j] * scale), limit = 1048575.0f;
        whole[j] = (int32_t)(rounded > limit ? limit : rounded < -limit ? -limit : rounded);
    }
    return bl_float((exponent - 19) << 23);
}

/* sin and cos of position * inverse frequency (the product rounded to float, as transformers does), evaluated in
 * double after reduction to [-pi/4, pi/4], then rounded to float. */
BL_INLINE void bl_sincos(float angle, float *sine, float *cosine)
{
    const double x = angle;
    const double n = (x * 0.63661977236758134308 + 6755399441055744.0) - 6755399441055744.0;
    const double r = (x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    const double z = r * r;
    double s = 1.58969099521155010221e-10;
    s = -2.50507602534068634195e-08 + z * s;
    s = 2.75573137070700676789e-06 + z * s;
    s = -1.98412698298579493134e-04 + z * s;
    s = 8.33333333332248946124e-03 + z * s;
    s = -1.66666666666666324348e-01 + z * s;
    s = r + r * z * s;
    double c = -1.13596475577881948265e-11;
    c = 2.08757232129817482790e-09 + z * c;
    c = -2.75573143513906633035e-07 + z * c;
    c = 2.48015872894767294178e-05 + z * c;
    c = -1.38888888888741095749e-03 + z * c;
    c = 4.16666666666666019037e-02 + z * c;
    c = 1.0 - 0.5 * z + z * z * c;
    const int quadrant = (int)((int64_t)n & 3);
    const double sines[4] = {s, c, -s, -c};
    *sine = (float)sines[quadrant];
    *cosine = (float)sines[(quadrant + 1) & 3];
}

#endif
