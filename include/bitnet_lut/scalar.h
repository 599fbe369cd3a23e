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

enum { BL_FN(MEET) = 1 };

/* Fixed-point activations of 256 columns, as words whose products the compiler can add in pairs: 1024 high + low. */
typedef struct {
    int16_t high[256], low[256];
    float step[BL_LANES];
} BL_FN(fixed);

/* Weights of 256 columns: codes, and the scale of every 16. */
typedef struct {
    int8_t q[256];
    bl_f32x16 scale;
} BL_FN(codes);

/* The float lanes of fixed-point sums, which a tier may keep in another order, in that of the groups. */
BL_INLINE bl_f32x16 BL_FN(in_order)(bl_f32x16 sum) { return sum; }

/* Put the whole numbers of a group, and their step, into a zeroed chunk. */
BL_INLINE void BL_FN(place_group)(BL_FN(fixed) *fixed, int group, const int32_t whole[BL_LANES], float step)
{
    fixed->step[group] = step;
    BL_EACH_LANE fixed->high[BL_LANES * group + j] = (int16_t)((whole[j] + 512) >> 10);
    BL_EACH_LANE fixed->low[BL_LANES * group + j] = (int16_t)(whole[j] - fixed->high[BL_LANES * group + j] * 1024);
}

BL_INLINE void BL_FN(open_q6_k)(BL_FN(codes) *to, const uint8_t *block)
{
    BL_FN(unpack_i6x128)(to->q, block, block + 128);
    BL_FN(unpack_i6x128)(to->q + 128, block + 64, block + 160);
    to->scale = BL_FN(mul)(BL_FN(load_i8)((const int8_t *)block + 192), BL_FN(set1)(BL_FN(f16)(block + 208)));
}

/* Eight blocks, as of the next type. */
BL_INLINE void BL_FN(open_q8_0)(BL_FN(codes) *to, const uint8_t *block)
{
    for (int i = 0; i < 8; i++, block += 34) {
        to->scale.lane[2 * i] = to->scale.lane[2 * i + 1] = BL_FN(f16)(block);
        memcpy(to->q + 32 * i, block + 2, 32);
    }
}

BL_INLINE void BL_FN(open_q4_0)(BL_FN(codes) *to, const uint8_t *block)
{
    for (int i = 0; i < 8; i++, block += 18) {
        to->scale.lane[2 * i] = to->scale.lane[2 * i + 1] = BL_FN(f16)(block);
        BL_FN(unpack_i4x32)(to->q + 32 * i, block + 2);
    }
}

/* Add to the sums of some rows, at most MEET, the dot product of each group, exact, times its scales. offset is what a
 * tier may add to codes, as a power of two. */
BL_INLINE void BL_FN(meet)(bl_f32x16 *sum, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                           const int offset)
{
    (void)offset, (void)rows;
    for (int g = 0; g < BL_LANES; g++) {
        int32_t high = 0, low = 0;
        for (int j = BL_LANES * g; j < BL_LANES * (g + 1); j++) {
            high += codes->q[j] * x->high[j];
            low += codes->q[j] * x->low[j];
        }
        sum->lane[g] += (float)(high * 1024 + low) * (codes->scale.lane[g] * x->step[g]);
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
#include "ops.h"

#undef bl_f32x16
#undef BL_TIER
#endif
