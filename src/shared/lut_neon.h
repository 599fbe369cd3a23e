/* What tl1, tl2 and tl5 share with 128-bit registers. Included by the tiers neon and up, inside their target region.
 *
 * A vector v of a panel, 16 bytes, has the rows 4 v + 0 .. 3, + 16, + 32, + 48. A sum of the tables of tl1 and tl2 is
 * split into digits, low + base * high, small enough for several of them to add up in a byte: the two planes are
 * joined once for all of those, not at each look-up. */

/* A table of 16 sums as its planes: low digits (16), high digits (16). Exact for sums of at most 384 and the bases in
 * use. */
BL_INLINE void lut_planes(uint8_t *to, const int16x8_t sums[2], const int base)
{
    const int16_t inverse = (int16_t)((32768 + base / 2) / base);
    const int16x8_t high[2] = {vqrdmulhq_n_s16(sums[0], inverse), vqrdmulhq_n_s16(sums[1], inverse)};
    const int16x8_t low[2] = {vmlsq_n_s16(sums[0], high[0], (int16_t)base),
                              vmlsq_n_s16(sums[1], high[1], (int16_t)base)};
    vst1q_s8((int8_t *)to, vcombine_s8(vmovn_s16(low[0]), vmovn_s16(low[1])));
    vst1q_s8((int8_t *)to + 16, vcombine_s8(vmovn_s16(high[0]), vmovn_s16(high[1])));
}

/* sum += low + base * high. */
BL_INLINE void lut_join(int16x8_t sum[2], int8x16_t low, int8x16_t high, const int base)
{
    const int8x16_t bases = vdupq_n_s8((int8_t)base);
    sum[0] = vmlal_s8(vaddw_s8(sum[0], vget_low_s8(low)), vget_low_s8(high), vget_low_s8(bases));
    sum[1] = vmlal_high_s8(vaddw_high_s8(sum[1], low), high, bases);
}

/* to (64 rows of a panel) += the sums of its vectors. */
BL_INLINE void lut_add(int32_t *to, int16x8_t sum[4][2])
{
    for (int v = 0; v < 4; v++)
        for (int half = 0; half < 2; half++) {
            int32_t *rows = to + 4 * v + 32 * half;
            vst1q_s32(rows, vaddw_s16(vld1q_s32(rows), vget_low_s16(sum[v][half])));
            vst1q_s32(rows + 16, vaddw_high_s16(vld1q_s32(rows + 16), sum[v][half]));
        }
}

/* Expand vector v of a packed quad, four codes a byte, to its codes in that quad. */
BL_INLINE void lut_expand(uint8_t *codes, uint8x16_t quads, int v)
{
    const uint8x16_t next = vshrq_n_u8(quads, 2), mask = vdupq_n_u8(3);
    const uint8x16_t two[2] = {vzip1q_u8(quads, next), vzip2q_u8(quads, next)};
    for (int half = 0; half < 2; half++) {
        const uint16x8_t a = vreinterpretq_u16_u8(two[half]), b = vreinterpretq_u16_u8(vshrq_n_u8(two[half], 4));
        uint8_t *to = codes + 16 * v + 128 * half;
        vst1q_u8(to, vandq_u8(vreinterpretq_u8_u16(vzip1q_u16(a, b)), mask));
        vst1q_u8(to + 64, vandq_u8(vreinterpretq_u8_u16(vzip2q_u16(a, b)), mask));
    }
}
