/* The dot of decoded panels by smlal: 16 rows times up to two tokens in registers. Included by the tier neon. */

/* Quads whose products, one of each in a lane, add up in an int16. */
enum { PANEL_STEPS = 120 };

/* sum (tokens, 64) += codes . values for 16 rows. */
BL_INLINE void panel_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                          const int tokens)
{
    for (int64_t first = 0; first < quads; first += PANEL_STEPS) {
        const int64_t end = quads - first < PANEL_STEPS ? quads : first + PANEL_STEPS;
        int16x8_t part[2][8]; /* two rows, four products each */
        for (int t = 0; t < tokens; t++)
            for (int v = 0; v < 8; v++) part[t][v] = vdupq_n_s16(0);
        for (int64_t quad = first; quad < end; quad++)
            for (int t = 0; t < tokens; t++) {
                int32_t four;
                memcpy(&four, values + t * token_bytes + 4 * quad, sizeof four);
                const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
                for (int v = 0; v < 4; v++) {
                    const int8x16_t c = vreinterpretq_s8_u8(vld1q_u8(codes + BL_QUAD_BYTES * quad + 16 * v));
                    part[t][2 * v] = vmlal_s8(part[t][2 * v], vget_low_s8(c), vget_low_s8(q));
                    part[t][2 * v + 1] = vmlal_high_s8(part[t][2 * v + 1], c, q);
                }
            }
        for (int t = 0; t < tokens; t++)
            for (int v = 0; v < 4; v++) {
                int32_t *to = sum + BL_PANEL * t + 4 * v;
                const int32x4_t rows4 = vpaddq_s32(vpaddlq_s16(part[t][2 * v]), vpaddlq_s16(part[t][2 * v + 1]));
                vst1q_s32(to, vaddq_s32(vld1q_s32(to), rows4));
            }
    }
}

BL_INLINE void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
    for (; n > 0; n -= 2, sum += 2 * BL_PANEL, values += 2 * token_bytes)
        for (int row = 0; row < BL_PANEL; row += 16)
            if (n == 1) panel_tile(sum + row, codes + 4 * row, values, token_bytes, quads, 1);
            else panel_tile(sum + row, codes + 4 * row, values, token_bytes, quads, 2);
}
