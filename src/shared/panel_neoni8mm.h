/* The dot of decoded panels by usmmla: 8 rows times up to eight tokens in registers. Included by the tier neoni8mm
 * inside its target region. */

/* Rows 2 i and 2 i + 1 of 8, with the 8 columns of two quads each: the left operands of four products. */
typedef struct { uint8x16_t pair[4]; } panel_rows;

BL_INLINE panel_rows panel_load(const uint8_t *codes, const int quads)
{
    panel_rows rows;
    for (int v = 0; v < 2; v++) {
        const uint32x4_t first = vreinterpretq_u32_u8(vld1q_u8(codes + 16 * v));
        const uint32x4_t second =
            quads == 2 ? vreinterpretq_u32_u8(vld1q_u8(codes + BL_QUAD_BYTES + 16 * v)) : vdupq_n_u32(0);
        rows.pair[2 * v] = vreinterpretq_u8_u32(vzip1q_u32(first, second));
        rows.pair[2 * v + 1] = vreinterpretq_u8_u32(vzip2q_u32(first, second));
    }
    return rows;
}

/* The dots of 8 rows with the tokens of `pairs` pairs in two quads. For a single quad, 8 bytes of values are read as
 * well, which exist because a token is a multiple of 64 bytes. */
BL_INLINE void panel_quads(int32x4_t sum[4][4], const uint8_t *codes, const uint8_t *const *token, int64_t quad,
                           const int quads, const int pairs)
{
    const panel_rows rows = panel_load(codes + BL_QUAD_BYTES * quad, quads);
    for (int p = 0; p < pairs; p++) {
        const uint8x8_t q0 = vld1_u8(token[2 * p] + 4 * quad), q1 = vld1_u8(token[2 * p + 1] + 4 * quad);
        const int8x16_t q = vreinterpretq_s8_u8(vcombine_u8(q0, q1));
        for (int v = 0; v < 4; v++) sum[p][v] = vusmmlaq_s32(sum[p][v], rows.pair[v], q);
    }
}

/* sum (tokens, 64) += codes . values for 8 rows and all tokens of `pairs` pairs; the last of an odd number of tokens is
 * its own partner. */
BL_INLINE void panel_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                          const int pairs, int64_t tokens)
{
    const uint8_t *token[8];
    for (int t = 0; t < 2 * pairs; t++) token[t] = values + (t < tokens ? t : tokens - 1) * token_bytes;
    int32x4_t part[4][4]; /* (row, token): 0 0 | 0 1 | 1 0 | 1 1 */
    for (int p = 0; p < pairs; p++)
        for (int v = 0; v < 4; v++) part[p][v] = vdupq_n_s32(0);
    int64_t quad = 0;
    for (; quad + 2 <= quads; quad += 2) panel_quads(part, codes, token, quad, 2, pairs);
    if (quad < quads) panel_quads(part, codes, token, quad, 1, pairs);
    for (int p = 0; p < pairs; p++)
        for (int v = 0; v < 4; v += 2) {
            int32_t *to = sum + 2 * p * BL_PANEL + 2 * v;
            vst1q_s32(to, vaddq_s32(vld1q_s32(to), vuzp1q_s32(part[p][v], part[p][v + 1])));
            if (2 * p + 1 == tokens) continue;
            to += BL_PANEL;
            vst1q_s32(to, vaddq_s32(vld1q_s32(to), vuzp2q_s32(part[p][v], part[p][v + 1])));
        }
}

BL_INLINE void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
#define BL_TILE(pairs)                                                                                                 \
    panel_tile(sum + row, codes + 4 * row, values, token_bytes, quads, pairs, n < 2 * pairs ? n : 2 * pairs)
    for (; n > 0; n -= 8, sum += 8 * BL_PANEL, values += 8 * token_bytes)
        for (int row = 0; row < BL_PANEL; row += 8) switch (n) {
            case 1:
            case 2: BL_TILE(1); break;
            case 3:
            case 4: BL_TILE(2); break;
            case 5:
            case 6: BL_TILE(3); break;
            default: BL_TILE(4); break;
            }
#undef BL_TILE
}
