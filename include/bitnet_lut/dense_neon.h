/* Block types on NEON: codes meet words of 16 bits. Included by the tiers neon and up, inside their target region. The
 * contracts are in scalar.h. */

enum { BL_FN(MEET) = 1 };

/* Fixed-point activations of 256 columns: 1024 high + low. */
typedef struct {
    int16_t high[256], low[256];
    float step[BL_LANES];
} BL_FN(fixed);

typedef struct {
    int8_t q[256];
    float scale[BL_LANES];
} BL_FN(codes);

BL_INLINE bl_f32x16 BL_FN(in_order)(bl_f32x16 sum) { return sum; }

BL_INLINE void BL_FN(place_group)(BL_FN(fixed) *fixed, int group, const int32_t whole[BL_LANES], float step)
{
    fixed->step[group] = step;
    for (int j = 0; j < BL_LANES; j++) {
        const int high = (whole[j] + 512) >> 10;
        fixed->high[BL_LANES * group + j] = (int16_t)high;
        fixed->low[BL_LANES * group + j] = (int16_t)(whole[j] - high * 1024);
    }
}

BL_INLINE void BL_FN(open_q6_k)(BL_FN(codes) *to, const uint8_t *block)
{
    BL_FN(unpack_i6x128)(to->q, block, block + 128);
    BL_FN(unpack_i6x128)(to->q + 128, block + 64, block + 160);
    const bl_f32x16 scales = BL_FN(load_i8)((const int8_t *)block + 192);
    BL_FN(store)(to->scale, BL_FN(mul)(scales, BL_FN(set1)(BL_FN(f16)(block + 208))));
}

BL_INLINE void BL_FN(open_q8_0)(BL_FN(codes) *to, const uint8_t *block)
{
    for (int i = 0; i < 8; i++, block += 34) {
        to->scale[2 * i] = to->scale[2 * i + 1] = BL_FN(f16)(block);
        memcpy(to->q + 32 * i, block + 2, 32);
    }
}

BL_INLINE void BL_FN(open_q4_0)(BL_FN(codes) *to, const uint8_t *block)
{
    for (int i = 0; i < 8; i++, block += 18) {
        to->scale[2 * i] = to->scale[2 * i + 1] = BL_FN(f16)(block);
        BL_FN(unpack_i4x32)(to->q + 32 * i, block + 2);
    }
}

/* Sum of 16 products of codes and words. */
BL_INLINE int32_t BL_FN(dot_group)(int8x16_t q, const int16_t *words)
{
    const int16x8_t first = vmovl_s8(vget_low_s8(q)), second = vmovl_s8(vget_high_s8(q));
    const int16x8_t x0 = vld1q_s16(words), x1 = vld1q_s16(words + 8);
    int32x4_t sum = vmull_s16(vget_low_s16(first), vget_low_s16(x0));
    sum = vmlal_s16(sum, vget_high_s16(first), vget_high_s16(x0));
    sum = vmlal_s16(sum, vget_low_s16(second), vget_low_s16(x1));
    return vaddvq_s32(vmlal_s16(sum, vget_high_s16(second), vget_high_s16(x1)));
}

BL_INLINE void BL_FN(meet)(bl_f32x16 *sum, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                           const int offset)
{
    (void)offset, (void)rows;
    float dot[BL_LANES];
    for (int g = 0; g < BL_LANES; g++) {
        const int8x16_t q = vld1q_s8(codes->q + BL_LANES * g);
        const int32_t high = BL_FN(dot_group)(q, x->high + BL_LANES * g);
        dot[g] = (float)(high * 1024 + BL_FN(dot_group)(q, x->low + BL_LANES * g));
    }
    const bl_f32x16 scale = BL_FN(mul)(BL_FN(load)(codes->scale), BL_FN(load)(x->step));
    *sum = BL_FN(add)(*sum, BL_FN(mul)(BL_FN(load)(dot), scale));
}
