/* Plain C for any CPU: the contract of every function of a tier, and its result bit for bit. */
#ifndef BL_SCALAR_H
#define BL_SCALAR_H

#define BL_TIER scalar

/* Sixteen float lanes: the unit in which every sum of floats runs. */
typedef struct { float lane[BL_LANES]; } bl_f32x16_scalar;
#define bl_f32x16 bl_f32x16_scalar
#define BL_EACH_LANE for (int j = 0; j < BL_LANES; j++)

BL_INLINE bl_f32x16 BL_FN(zero)(void) { bl_f32x16 v; BL_EACH_LANE v.lane[j] = 0.0f; return v; }
BL_INLINE bl_f32x16 BL_FN(set1)(float x) { bl_f32x16 v; BL_EACH_LANE v.lane[j] = x; return v; }
BL_INLINE bl_f32x16 BL_FN(load)(const float *p) { bl_f32x16 v; memcpy(&v, p, sizeof v); return v; }
BL_INLINE void BL_FN(store)(float *p, bl_f32x16 v) { memcpy(p, &v, sizeof v); }
BL_INLINE bl_f32x16 BL_FN(load_f16)(const uint8_t *p)
{
    bl_f32x16 v;
    BL_EACH_LANE v.lane[j] = bl_from_f16(bl_load_u16(p + 2 * j));
    return v;
}
BL_INLINE bl_f32x16 BL_FN(load_bf16)(const uint8_t *p)
{
    bl_f32x16 v;
    BL_EACH_LANE v.lane[j] = bl_from_bf16(bl_load_u16(p + 2 * j));
    return v;
}
BL_INLINE bl_f32x16 BL_FN(load_i8)(const int8_t *p) { bl_f32x16 v; BL_EACH_LANE v.lane[j] = (float)p[j]; return v; }
BL_INLINE bl_f32x16 BL_FN(add)(bl_f32x16 a, bl_f32x16 b) { BL_EACH_LANE a.lane[j] += b.lane[j]; return a; }
BL_INLINE bl_f32x16 BL_FN(mul)(bl_f32x16 a, bl_f32x16 b) { BL_EACH_LANE a.lane[j] *= b.lane[j]; return a; }
BL_INLINE float BL_FN(reduce)(bl_f32x16 v)
{
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) v.lane[j] += v.lane[j + width];
    return v.lane[0];
}
BL_INLINE void BL_FN(store_f16x16)(uint16_t *p, bl_f32x16 v) { BL_EACH_LANE p[j] = bl_to_f16(v.lane[j]); }

BL_INLINE float BL_FN(f16)(const uint8_t *p) { return bl_from_f16(bl_load_u16(p)); }
BL_INLINE void BL_FN(prefetch)(const uint8_t *p) { (void)p; }

/* q (32) = the low nibbles of p (16), then the high ones, minus 8. */
BL_INLINE void BL_FN(unpack_i4x32)(int8_t *q, const uint8_t *p)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) - 8);
        q[i + 16] = (int8_t)((p[i] >> 4) - 8);
    }
}

/* q (128) = 4 bits of low (64) and 2 bits of high (32) each, minus 32. */
BL_INLINE void BL_FN(unpack_i6x128)(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    for (int p = 0; p < 32; p++) {
        q[p] = (int8_t)(((low[p] & 15) | (high[p] & 3) << 4) - 32);
        q[p + 32] = (int8_t)(((low[p + 32] & 15) | (high[p] >> 2 & 3) << 4) - 32);
        q[p + 64] = (int8_t)((low[p] >> 4 | (high[p] >> 4 & 3) << 4) - 32);
        q[p + 96] = (int8_t)((low[p + 32] >> 4 | high[p] >> 6 << 4) - 32);
    }
}

/* Largest |x| as float bits compared as integers, so that NaN beats infinity beats every number. */
BL_INLINE uint32_t BL_FN(max_bits)(const float *x, int64_t n)
{
    uint32_t max = 0;
    for (int64_t k = 0; k < n; k++) {
        const uint32_t bits = bl_bits(x[k]) & 0x7fffffff;
        max = bits > max ? bits : max;
    }
    return max;
}

/* q = rint(x * 127 / m) in [-128, 127]. */
BL_INLINE void BL_FN(round_i8)(int8_t *q, const float *x, int64_t n, float scale)
{
    for (int64_t k = 0; k < n; k++) {
        const float r = bl_rint(x[k] * scale);
        q[k] = (int8_t)(r > 127.0f ? 127.0f : r);
    }
}

#define BL_TIER_CELLS [BL_I2_S] = &bl_i2_s_scalar, [BL_TL5] = &bl_tl5_scalar
#include "ops.h"

#undef bl_f32x16
#undef BL_TIER
#endif
