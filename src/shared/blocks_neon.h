/* Dense block types on NEON, 4 rows at once. Included by the tiers neon and up, inside their target region, after they
 * have defined dot_fours. */

enum { SCALES_AT_ONCE = 1, STRIP_TOKENS = 8 };

/* Codes of 4 rows and 16 columns; for Q8_0 the values themselves. */
BL_INLINE void unit_codes(int8x16_t q[4], const bl_type type, const uint8_t *codes)
{
    const uint8x16_t a = vld1q_u8(codes), b = vld1q_u8(codes + 64);
    uint8x16_t u[4] = {a, b, a, b};
    if (type == BL_Q8_0) {
        u[2] = vld1q_u8(codes + 128), u[3] = vld1q_u8(codes + 192);
        for (int i = 0; i < 4; i++) u[i] = veorq_u8(u[i], vdupq_n_u8(0x80));
    } else if (type == BL_Q4_0) {
        u[0] = vandq_u8(a, vdupq_n_u8(15)), u[2] = vshrq_n_u8(a, 4);
        u[1] = vandq_u8(b, vdupq_n_u8(15)), u[3] = vshrq_n_u8(b, 4);
    } else {
        const uint8x16_t mask = vdupq_n_u8(63), c = vld1q_u8(codes + 128);
        u[0] = vandq_u8(a, mask), u[1] = vandq_u8(b, mask), u[2] = vandq_u8(c, mask);
        u[3] = vsliq_n_u8(vsliq_n_u8(vshrq_n_u8(a, 6), vshrq_n_u8(b, 6), 2), vshrq_n_u8(c, 6), 4);
    }
    for (int i = 0; i < 4; i++) q[i] = vreinterpretq_s8_u8(u[i]);
}

/* The dot product of 4 rows with a group, exact, less what the codes have too much. */
BL_INLINE int32x4_t group_dot(const int8x16_t q[4], const bl_fixed *x, int32_t added)
{
    int32x4_t dot[3] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(-added)};
    for (int d = 0; d < 3; d++)
        for (int i = 0; i < 4; i++) {
            int32_t four;
            memcpy(&four, x->digit[d] + 4 * i, sizeof four);
            dot[d] = dot_fours(dot[d], q[i], vreinterpretq_s8_s32(vdupq_n_s32(four)));
        }
    const int32x4_t high = vaddq_s32(vshlq_n_s32(dot[0], 7), dot[1]);
    return vaddq_s32(vshlq_n_s32(high, 7), dot[2]);
}

/* Where dot_fours is slow, or takes codes alone, the tier has another way. */
#ifndef GROUP_DOT
#define GROUP_DOT(q, x, added, type) group_dot(q, x, added)
#endif

/* sum + the dot product of 4 rows with a group. */
BL_INLINE float32x4_t add_group(float32x4_t sum, const int8x16_t q[4], float32x4_t scale, const bl_fixed *x,
                                const bl_type type)
{
    const int32_t added = type == BL_Q8_0 ? 0 : x->sum * (1 << bl_code_offset(type));
    const int32x4_t all = GROUP_DOT(q, x, added, type);
    return vaddq_f32(sum, vmulq_f32(vcvtq_f32_s32(all), vmulq_n_f32(scale, x->step)));
}

/* 16 rows of a unit, the first of which is `row`. */
BL_INLINE void add_rows(float *sums, const bl_type type, const bl_lane *lane, int64_t u, const int row, int64_t n)
{
    const uint8_t *unit = lane->units + u * bl_unit_bytes(type);
    const uint8_t *from = unit + bl_unit_scales(type) + row / BL_LANES * bl_codes_bytes(type);
    f32x16 scale = lane->scales ? load(lane->scales + BL_STRIP * u + row)
                                : load_f16(lane->halves + u * lane->halves_step + 2 * row);
    if (type == BL_Q6_K) scale = mul(load_i8((const int8_t *)unit + row), scale);
    for (int v = 0; v < 4; v++) {
        int8x16_t codes[4];
        unit_codes(codes, type, from + 16 * v);
        for (int64_t t = 0; t < n; t++) {
            float *sum = sums + BL_STRIP * t + row + 4 * v;
            vst1q_f32(sum, add_group(vld1q_f32(sum), codes, scale.v[v], bl_lane_x(lane, u, t), type));
        }
    }
}

BL_INLINE void lane_sums(float *sums, const bl_type type, const bl_lane *lane, const int64_t n)
{
    memset(sums, 0, (size_t)(n * BL_STRIP) * sizeof *sums);
    for (int64_t u = 0; u < lane->count; u++) {
        const uint8_t *ahead = lane->units + u * bl_unit_bytes(type) + BL_AHEAD;
        for (int64_t line = 0; line < bl_unit_bytes(type); line += 64) prefetch_near(ahead + line);
        for (int row = 0; row < BL_STRIP; row += BL_LANES) add_rows(sums, type, lane, u, row, n);
    }
}
