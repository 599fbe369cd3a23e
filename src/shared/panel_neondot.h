/* The dot of decoded panels by sdot: 16 rows times up to four tokens in registers. Included by the tier neondot inside
 * its target region. */

/* sum + the dots of four rows with quad i of the four in q. */
BL_INLINE int32x4_t dot_quad(int32x4_t sum, int8x16_t codes, int8x16_t q, const int i)
{
    switch (i) {
    case 0: return vdotq_laneq_s32(sum, codes, q, 0);
    case 1: return vdotq_laneq_s32(sum, codes, q, 1);
    case 2: return vdotq_laneq_s32(sum, codes, q, 2);
    default: return vdotq_laneq_s32(sum, codes, q, 3);
    }
}

/* sum (tokens, 64) += codes . values for 16 rows and up to four quads. All 16 bytes of values are read, which exist
 * because a token is a multiple of 64 bytes. */
BL_INLINE void panel_quads(int32x4_t sum[4][4], const uint8_t *codes, const uint8_t *values, int64_t token_bytes,
                           const int quads, const int tokens)
{
    int8x16_t q[4];
    for (int t = 0; t < tokens; t++) q[t] = vreinterpretq_s8_u8(vld1q_u8(values + t * token_bytes));
    for (int i = 0; i < quads; i++)
        for (int v = 0; v < 4; v++) {
            const int8x16_t c = vreinterpretq_s8_u8(vld1q_u8(codes + BL_QUAD_BYTES * i + 16 * v));
            for (int t = 0; t < tokens; t++) sum[t][v] = dot_quad(sum[t][v], c, q[t], i);
        }
}

BL_INLINE void panel_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                          const int tokens)
{
    int32x4_t sum_i32x4[4][4];
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < 4; v++) sum_i32x4[t][v] = vld1q_s32(sum + BL_PANEL * t + 4 * v);
    for (; quads >= 4; quads -= 4, codes += 4 * BL_QUAD_BYTES, values += 16)
        panel_quads(sum_i32x4, codes, values, token_bytes, 4, tokens);
    switch (quads) {
    case 1: panel_quads(sum_i32x4, codes, values, token_bytes, 1, tokens); break;
    case 2: panel_quads(sum_i32x4, codes, values, token_bytes, 2, tokens); break;
    case 3: panel_quads(sum_i32x4, codes, values, token_bytes, 3, tokens); break;
    }
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < 4; v++) vst1q_s32(sum + BL_PANEL * t + 4 * v, sum_i32x4[t][v]);
}

BL_INLINE void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
#define BL_TILE(tokens) panel_tile(sum + row, codes + 4 * row, values, token_bytes, quads, tokens)
    for (; n > 0; n -= 4, sum += 4 * BL_PANEL, values += 4 * token_bytes)
        for (int row = 0; row < BL_PANEL; row += 16) switch (n) {
            case 1: BL_TILE(1); break;
            case 2: BL_TILE(2); break;
            case 3: BL_TILE(3); break;
            default: BL_TILE(4); break;
            }
#undef BL_TILE
}
