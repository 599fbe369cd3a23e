/* Kernel i2_s by sdot. Included by the tiers neondot and wasmrelaxed inside their target regions, which say how many
 * tokens a tile has at most: I2_S_TOKENS, 4 or more. */

/* A tile of rows x tokens: codes are decoded once and multiplied with every token. */
BL_INLINE void i2_s_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                         int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    int32x4_t sum[4][I2_S_TOKENS];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = vdupq_n_s32(0);
    for (int64_t b = 0; b < row_bytes; b += 16) {
        uint8x16_t bytes[4];
        for (int r = 0; r < rows; r++) {
            if (b % BL_BLOCK_BYTES == 0) prefetch_near(packed + r * row_bytes + b + BL_AHEAD);
            bytes[r] = vld1q_u8(packed + r * row_bytes + b);
        }
        for (int f = 0; f < 4; f++) {
            int8x16_t codes[4];
            for (int r = 0; r < rows; r++) codes[r] = vreinterpretq_s8_u8(i2_s_codes(bytes[r], f));
            for (int t = 0; t < tokens; t++) {
                const int8x16_t q = i2_s_values(values + t * token_bytes, b, f);
                for (int r = 0; r < rows; r++) sum[r][t] = vdotq_s32(sum[r][t], codes[r], q);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            dot[t * dot_stride + r] = vaddvq_s32(sum[r][t]) - token_sum(values + t * token_bytes);
}

static void i2_s_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                      int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const uint8_t *values = prepared + sizeof(bl_prepared);
    int64_t row = lo;
#define BL_TILE(rows, tokens)                                                                                          \
    i2_s_tile(dot + t * dot_stride + row, dot_stride, packed + row * row_bytes, values + t * token_bytes, row_bytes,   \
              token_bytes, rows, tokens)
#define BL_ROWS(rows)                                                                                                  \
    i2_s_rows(dot + t * dot_stride + row, packed + row * row_bytes, values + t * token_bytes, row_bytes, rows)
    for (; row + 4 <= hi; row += 4) {
        int64_t t = 0;
        for (; t + I2_S_TOKENS <= n; t += I2_S_TOKENS) BL_TILE(4, I2_S_TOKENS);
        for (; t + 4 <= n; t += 4) BL_TILE(4, 4);
        if (n - t == 3) BL_TILE(4, 3);
        if (n - t == 2) BL_TILE(4, 2);
        if (n - t == 1) BL_ROWS(4);
    }
    for (; row < hi; row++)
        for (int64_t t = 0; t < n; t++) BL_ROWS(1);
#undef BL_TILE
#undef BL_ROWS
}

static const bl_cell i2_s_cell = {
    .token_bytes = bl_i2_s_token_bytes, .prepare = i2_s_prepare, .gemm = i2_s_gemm, .sums = {BL_CODE_3_MOST, 0, {{0}}}};
