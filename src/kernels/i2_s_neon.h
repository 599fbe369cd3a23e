/* Kernel i2_s by smlal. Included by the tier neon. */

/* Blocks whose products, 16 of each in a lane, add up in an int16. */
enum { I2_S_BLOCKS = 4 };

/* A tile of rows x tokens: codes are decoded once and multiplied with every token. */
BL_INLINE void i2_s_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                         int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    enum { STEP = I2_S_BLOCKS * BL_BLOCK_BYTES };
    int32x4_t sum[4][2];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = vdupq_n_s32(0);
    for (int64_t step = 0; step < row_bytes; step += STEP) {
        const int64_t end = row_bytes - step < STEP ? row_bytes : step + STEP;
        int16x8_t part[4][2];
        for (int r = 0; r < rows; r++) {
            prefetch_near(packed + r * row_bytes + step + BL_AHEAD);
            prefetch_near(packed + r * row_bytes + step + BL_AHEAD + 64);
            for (int t = 0; t < tokens; t++) part[r][t] = vdupq_n_s16(0);
        }
        for (int64_t b = step; b < end; b += 16) {
            uint8x16_t bytes[4];
            for (int r = 0; r < rows; r++) bytes[r] = vld1q_u8(packed + r * row_bytes + b);
            for (int f = 0; f < 4; f++) {
                int8x16_t codes[4];
                for (int r = 0; r < rows; r++) codes[r] = vreinterpretq_s8_u8(i2_s_codes(bytes[r], f));
                for (int t = 0; t < tokens; t++) {
                    const int8x16_t q = i2_s_values(values + t * token_bytes, b, f);
                    for (int r = 0; r < rows; r++) {
                        part[r][t] = vmlal_s8(part[r][t], vget_low_s8(codes[r]), vget_low_s8(q));
                        part[r][t] = vmlal_high_s8(part[r][t], codes[r], q);
                    }
                }
            }
        }
        for (int r = 0; r < rows; r++)
            for (int t = 0; t < tokens; t++) sum[r][t] = vpadalq_s16(sum[r][t], part[r][t]);
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
    for (; row + 4 <= hi; row += 4) {
        int64_t t = 0;
        for (; t + 2 <= n; t += 2) BL_TILE(4, 2);
        if (t < n) BL_TILE(4, 1);
    }
    for (; row < hi; row++)
        for (int64_t t = 0; t < n; t++) BL_TILE(1, 1);
#undef BL_TILE
}

static const bl_cell i2_s_cell = {.token_bytes = bl_i2_s_token_bytes,
                                  .prepare = i2_s_prepare,
                                  .gemm = i2_s_gemm,
                                  .sums = {BL_CODE_3_MOST, 0, {{16, BL_CODE_3_MOST, 16 * I2_S_BLOCKS}}}};
