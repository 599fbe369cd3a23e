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
BL_INLINE void BL_FN(prefetch_near)(const uint8_t *p) { (void)p; }

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

/* The values of 16 rows, as the registers of codes. */
BL_INLINE void BL_FN(unit_values)(int16_t values[4][64], const bl_type type, const uint8_t *codes)
{
    uint8_t q[4][64];
    bl_unit_registers(q, type, codes);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 64; i++) values[r][i] = (int16_t)(q[r][i] - (1 << bl_code_offset(type)));
}

/* The scales of 16 rows of a unit, the first of which is `row`. */
BL_INLINE bl_f32x16 BL_FN(unit_scales)(const bl_type type, const uint8_t *unit, const uint8_t *halves, int row)
{
    const bl_f32x16 scale = BL_FN(load_f16)(halves + 2 * row);
    return type == BL_Q6_K ? BL_FN(mul)(BL_FN(load_i8)((const int8_t *)unit + row), scale) : scale;
}

/* The dot products of 16 rows with a group, exact; the loops are such that compilers can do without shuffles. */
BL_INLINE bl_f32x16 BL_FN(unit_dot)(int16_t values[4][64], const bl_fixed *x)
{
    int32_t high[64] = {0}, low[64] = {0};
    for (int r = 0; r < 4; r++) {
        int16_t x_high[8], x_low[8]; /* four columns, twice */
        for (int j = 0; j < 8; j++) {
            const int at = 4 * r + j % 4;
            x_high[j] = (int16_t)(x->digit[0][at] * 128 + x->digit[1][at]);
            x_low[j] = x->digit[2][at];
        }
        for (int i = 0; i < 64; i += 8)
            for (int j = 0; j < 8; j++) {
                high[i + j] += values[r][i + j] * x_high[j];
                low[i + j] += values[r][i + j] * x_low[j];
            }
    }
    for (int i = 0; i < 64; i++) low[i] += high[i] * 128;
    bl_f32x16 dot;
    BL_EACH_LANE dot.lane[j] = (float)(low[4 * j] + low[4 * j + 1] + low[4 * j + 2] + low[4 * j + 3]);
    return dot;
}

/* sums (n, 32) = what one lane of a strip adds up to, unit after unit, for n tokens, at most BL_STRIP_TOKENS: the dot
 * product of each unit, exact, times its scale and the step of the activations. */
BL_INLINE void BL_FN(lane_sums)(float *sums, const bl_type type, const bl_lane *lane, int64_t n)
{
    memset(sums, 0, (size_t)(n * BL_STRIP) * sizeof *sums);
    for (int64_t u = 0; u < lane->count; u++) {
        const uint8_t *unit = lane->units + u * bl_unit_bytes(type), *halves = lane->halves + u * lane->halves_step;
        const uint8_t *codes = unit + bl_unit_scales(type);
        for (int row = 0; row < BL_STRIP; row += BL_LANES, codes += bl_codes_bytes(type)) {
            int16_t values[4][64];
            BL_FN(unit_values)(values, type, codes);
            const bl_f32x16 scale = BL_FN(unit_scales)(type, unit, halves, row);
            for (int64_t t = 0; t < n; t++) {
                const bl_fixed *x = bl_lane_x(lane, u, t);
                float *sum = sums + BL_STRIP * t + row;
                const bl_f32x16 scaled = BL_FN(mul)(scale, BL_FN(set1)(x->step));
                BL_FN(store)(sum, BL_FN(add)(BL_FN(load)(sum), BL_FN(mul)(BL_FN(unit_dot)(values, x), scaled)));
            }
        }
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

#define BL_TIER_CELLS                                                                                                  \
    [BL_I2_S] = &bl_i2_s_scalar, [BL_TL1] = &bl_tl1_scalar, [BL_TL2] = &bl_tl2_scalar, [BL_TL5] = &bl_tl5_scalar
#include "shared/ops.h"

#undef bl_f32x16
#undef BL_TIER
#endif
