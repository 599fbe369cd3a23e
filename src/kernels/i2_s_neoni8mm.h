/* Kernel i2_s by usmmla, for one token by sdot. Included by the tier neoni8mm inside its target region. */

/* Two halves of registers: the operands of a product of 2 x 8 by 8 x 2. */
BL_INLINE uint8x16_t low_halves(uint8x16_t a, uint8x16_t b)
{
    return vreinterpretq_u8_u64(vzip1q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}
BL_INLINE uint8x16_t high_halves(uint8x16_t a, uint8x16_t b)
{
    return vreinterpretq_u8_u64(vzip2q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

/* 4 rows and all tokens of `pairs` pairs, two rows and two tokens a product; the last of an odd number of tokens is its
 * own partner. */
BL_INLINE void i2_s_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                         int64_t row_bytes, int64_t token_bytes, const int pairs, int64_t tokens)
{
    const uint8_t *token[8];
    for (int t = 0; t < 2 * pairs; t++) token[t] = values + (t < tokens ? t : tokens - 1) * token_bytes;
    int32x4_t sum[2][4]; /* (row, token): 0 0 | 0 1 | 1 0 | 1 1 */
    for (int p = 0; p < pairs; p++) sum[0][p] = sum[1][p] = vdupq_n_s32(0);
    for (int64_t b = 0; b < row_bytes; b += 16) {
        uint8x16_t low[2], high[2];
        for (int r = 0; r < 2; r++) {
            const uint8_t *row0 = packed + 2 * r * row_bytes + b, *row1 = row0 + row_bytes;
            const uint8x16_t bytes0 = vld1q_u8(row0), bytes1 = vld1q_u8(row1);
            if (b % BL_BLOCK_BYTES == 0) {
                prefetch_near(row0 + BL_AHEAD);
                prefetch_near(row1 + BL_AHEAD);
            }
            low[r] = low_halves(bytes0, bytes1);
            high[r] = high_halves(bytes0, bytes1);
        }
        for (int f = 0; f < 4; f++)
            for (int p = 0; p < pairs; p++) {
                const uint8x16_t q0 = vreinterpretq_u8_s8(i2_s_values(token[2 * p], b, f));
                const uint8x16_t q1 = vreinterpretq_u8_s8(i2_s_values(token[2 * p + 1], b, f));
                const int8x16_t q_low = vreinterpretq_s8_u8(low_halves(q0, q1));
                const int8x16_t q_high = vreinterpretq_s8_u8(high_halves(q0, q1));
                for (int r = 0; r < 2; r++) {
                    sum[r][p] = vusmmlaq_s32(sum[r][p], i2_s_codes(low[r], f), q_low);
                    sum[r][p] = vusmmlaq_s32(sum[r][p], i2_s_codes(high[r], f), q_high);
                }
            }
    }
    for (int64_t t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++) {
            int32_t product[4];
            vst1q_s32(product, sum[r / 2][t / 2]);
            dot[t * dot_stride + r] = product[r % 2 * 2 + t % 2] - token_sum(token[t]);
        }
}

static void i2_s_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                      int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const uint8_t *values = prepared + sizeof(bl_prepared);
    int64_t row = lo;
#define BL_TILE(pairs)                                                                                                 \
    i2_s_tile(dot + t * dot_stride + row, dot_stride, packed + row * row_bytes, values + t * token_bytes, row_bytes,   \
              token_bytes, pairs, n - t < 8 ? n - t : 8)
#define BL_ROWS(rows)                                                                                                  \
    i2_s_rows(dot + t * dot_stride + row, packed + row * row_bytes, values + t * token_bytes, row_bytes, rows)
    for (; row + 4 <= hi; row += 4)
        for (int64_t t = 0; t < n; t += 8) switch (n - t) {
            case 1: BL_ROWS(4); break;
            case 2: BL_TILE(1); break;
            case 3:
            case 4: BL_TILE(2); break;
            case 5:
            case 6: BL_TILE(3); break;
            default: BL_TILE(4); break;
            }
    for (; row < hi; row++)
        for (int64_t t = 0; t < n; t++) BL_ROWS(1);
#undef BL_TILE
#undef BL_ROWS
}

static const bl_cell i2_s_cell = {
    .token_bytes = bl_i2_s_token_bytes, .prepare = i2_s_prepare, .gemm = i2_s_gemm, .sums = {BL_CODE_3_MOST, 0, {{0}}}};
