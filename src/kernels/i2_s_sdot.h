/* Kernel i2_s for one token by sdot. Included inside the target regions of the tiers neondot and neoni8mm. */

/* One token. All codes except the highest stay in place in their byte: masked, they are 16, 4 and 1 times the code.
 * Each kind is summed on its own and shifted down at the end, which is exact. */
BL_INLINE void i2_s_rows(int32_t *dot, const uint8_t *packed, const uint8_t *values, int64_t row_bytes, const int rows)
{
    const uint8x16_t mask[3] = {vdupq_n_u8(0x30), vdupq_n_u8(0x0c), vdupq_n_u8(0x03)};
    int32x4_t sum[4][3];
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = sum[r][2] = vdupq_n_s32(0);
    for (int64_t b = 0; b < row_bytes; b += 16) {
        uint8x16_t bytes[4];
        for (int r = 0; r < rows; r++) {
            if (b % BL_BLOCK_BYTES == 0) prefetch_near(packed + r * row_bytes + b + BL_AHEAD);
            bytes[r] = vld1q_u8(packed + r * row_bytes + b);
        }
        const int8x16_t first = i2_s_values(values, b, 0);
        for (int r = 0; r < rows; r++)
            sum[r][2] = vdotq_s32(sum[r][2], vreinterpretq_s8_u8(vshrq_n_u8(bytes[r], 6)), first);
        for (int f = 0; f < 3; f++) {
            const int8x16_t q = i2_s_values(values, b, f + 1);
            for (int r = 0; r < rows; r++)
                sum[r][f] = vdotq_s32(sum[r][f], vreinterpretq_s8_u8(vandq_u8(bytes[r], mask[f])), q);
        }
    }
    for (int r = 0; r < rows; r++) {
        const int32x4_t high = vaddq_s32(vshrq_n_s32(sum[r][0], 4), vshrq_n_s32(sum[r][1], 2));
        dot[r] = vaddvq_s32(vaddq_s32(high, sum[r][2])) - token_sum(values);
    }
}
