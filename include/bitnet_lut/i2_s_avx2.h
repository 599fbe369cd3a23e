/* Kernel i2_s by vpmaddubsw. Included by the tiers avx2 and up, inside their target region. */

static void BL_FN(i2_s_prepare)(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    bl_i2_s_prepare_scalar(prepared, q, cols, n);
}

/* A tile of rows x tokens. Codes of a block are decoded once and meet every token; the four products of a block fit
 * int16 (4 * 2 * 2 * 128), which is widened at once. */
BL_INLINE void BL_FN(i2_s_tile)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                                int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    const __m256i mask = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    __m256i sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_setzero_si256();
    for (int64_t b = 0; b < row_bytes; b += BL_BLOCK_BYTES) {
        for (int r = 0; r < rows; r++) {
            const uint8_t *from = packed + r * row_bytes + b;
            BL_FN(prefetch)(from + BL_AHEAD);
            const __m256i bytes = BL_FN(load_u8x32)(from);
            const __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(bytes, 6), mask);
            const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
            const __m256i c2 = _mm256_and_si256(_mm256_srli_epi16(bytes, 2), mask);
            const __m256i c3 = _mm256_and_si256(bytes, mask);
            for (int t = 0; t < tokens; t++) {
                const __m256i *q = (const __m256i *)(const void *)(prepared + t * token_bytes + 4 * b);
                const __m256i p01 = _mm256_add_epi16(_mm256_maddubs_epi16(c0, _mm256_loadu_si256(q)),
                                                     _mm256_maddubs_epi16(c1, _mm256_loadu_si256(q + 1)));
                const __m256i p23 = _mm256_add_epi16(_mm256_maddubs_epi16(c2, _mm256_loadu_si256(q + 2)),
                                                     _mm256_maddubs_epi16(c3, _mm256_loadu_si256(q + 3)));
                sum[r][t] = _mm256_add_epi32(sum[r][t], _mm256_madd_epi16(_mm256_add_epi16(p01, p23), ones));
            }
        }
    }
    for (int t = 0; t < tokens; t++) {
        bl_prepared head;
        memcpy(&head, prepared + t * token_bytes - sizeof head, sizeof head);
        for (int r = 0; r < rows; r++) dot[t * dot_stride + r] = BL_FN(sum_i32x8)(sum[r][t]) - head.sum;
    }
}

static void BL_FN(i2_s_gemm)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                             int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const uint8_t *values = prepared + sizeof(bl_prepared);
    int64_t row = lo;
#define BL_TILE(rows, tokens)                                                                                          \
    BL_FN(i2_s_tile)(dot + t * dot_stride + row, dot_stride, packed + row * row_bytes, values + t * token_bytes,       \
                     row_bytes, token_bytes, rows, tokens)
    for (; row + 4 <= hi; row += 4) {
        int64_t t = 0;
        for (; t + 2 <= n; t += 2) BL_TILE(4, 2);
        if (t < n) BL_TILE(4, 1);
    }
    for (; row < hi; row++)
        for (int64_t t = 0; t < n; t++) BL_TILE(1, 1);
#undef BL_TILE
}

static const bl_cell BL_FN(i2_s) = {bl_i2_s_token_bytes, BL_FN(i2_s_prepare), BL_FN(i2_s_gemm)};
