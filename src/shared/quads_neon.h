/* Products of int8, added by fours, by the tier's dot_fours. Included by the tiers neon and up inside their target
 * regions; scalar.c states what each function does. */

typedef struct { int32x4_t v[4]; } quad_sums;

/* Where dot_fours takes codes alone, the tier has another way. */
#ifndef DOT_SIGNED
#define DOT_SIGNED(sum, a, b) dot_fours(sum, a, b)
#endif

BL_INLINE quad_sums start_quads(int32_t sum)
{
    (void)sum;
    const int32x4_t none = vdupq_n_s32(0);
    const quad_sums v = {{none, none, none, none}};
    return v;
}
BL_INLINE quad_sums add_i32(quad_sums a, quad_sums b)
{
    for (int i = 0; i < 4; i++) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
    return a;
}
BL_INLINE quad_sums add_quads(quad_sums sum, const int8_t *quads, const int8_t *values)
{
    int32_t bits;
    memcpy(&bits, values, sizeof bits);
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(bits));
    for (int i = 0; i < 4; i++) sum.v[i] = DOT_SIGNED(sum.v[i], vld1q_s8(quads + 16 * i), four);
    return sum;
}
BL_INLINE f32x16 to_floats(quad_sums v)
{
    return make_f32x16(vcvtq_f32_s32(v.v[0]), vcvtq_f32_s32(v.v[1]), vcvtq_f32_s32(v.v[2]), vcvtq_f32_s32(v.v[3]));
}
