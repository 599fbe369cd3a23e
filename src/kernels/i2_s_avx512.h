/* Kernel i2_s by vpdpbusd, two blocks a register. Included by the tiers avx512 and amx inside their target regions. */

static void i2_s_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    const int64_t values = bl_i2_s_values(cols);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum_i32x16 = _mm512_setzero_si512();
    uint8_t *to = prepared + sizeof(bl_prepared);
    for (int64_t k = 0; k < values; k += 2 * BL_BLOCK, to += 2 * BL_BLOCK) {
        int8_t part[2 * BL_BLOCK];
        const int8_t *from = q + k;
        if (cols - k < 2 * BL_BLOCK) {
            memset(part, 0, sizeof part);
            memcpy(part, from, (size_t)(cols - k));
            from = part;
        }
        for (int t = 0; t < 4; t++) {
            const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32 * t));
            const __m256i second = _mm256_loadu_si256((const __m256i *)(const void *)(from + BL_BLOCK + 32 * t));
            const __m512i q_i8x64 = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
            _mm512_storeu_si512(to + 64 * t, q_i8x64);
            sum_i32x16 = _mm512_dpbusd_epi32(sum_i32x16, ones, q_i8x64);
        }
    }
    const bl_prepared head = {.sum = _mm512_reduce_add_epi32(sum_i32x16)};
    memcpy(prepared, &head, sizeof head);
}

/* Load 64 bytes of each row. Where a row has only 32 left, the rest is zero; the activations there are zero too. */
BL_INLINE void load_codes(__m512i *codes, const uint8_t *packed, int64_t b, int64_t row_bytes, const int rows)
{
    for (int r = 0; r < rows; r++) {
        const uint8_t *from = packed + r * row_bytes + b;
        prefetch_near(packed + rows * b + 64 * r + BL_AHEAD);
        codes[r] = row_bytes - b >= 64 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(0xffffffffu, from);
    }
}

BL_INLINE int32_t token_sum(const uint8_t *values)
{
    bl_prepared head;
    memcpy(&head, values - sizeof head, sizeof head);
    return head.sum;
}

/* One token. The codes stay in place in their byte: masked, they are 64, 16, 4 and 1 times the code. Each kind is
 * summed on its own and shifted down at the end, which is exact. */
BL_INLINE void i2_s_rows(int32_t *dot, const uint8_t *packed, const uint8_t *values, int64_t row_bytes, const int rows)
{
    const __m512i mask[4] = {_mm512_set1_epi8((char)0xc0), _mm512_set1_epi8(0x30), _mm512_set1_epi8(0x0c),
                             _mm512_set1_epi8(0x03)};
    __m512i sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int f = 0; f < 4; f++) sum[r][f] = _mm512_setzero_si512();
    for (int64_t b = 0; b < row_bytes; b += 64) {
        __m512i codes[4];
        load_codes(codes, packed, b, row_bytes, rows);
        for (int f = 0; f < 4; f++) {
            const __m512i q = load_i8x64(values + 4 * b + 64 * f);
            for (int r = 0; r < rows; r++) sum[r][f] = dpbusd(sum[r][f], _mm512_and_si512(codes[r], mask[f]), q);
        }
    }
    for (int r = 0; r < rows; r++) {
        const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[r][0], 6), _mm512_srai_epi32(sum[r][1], 4));
        const __m512i low = _mm512_add_epi32(_mm512_srai_epi32(sum[r][2], 2), sum[r][3]);
        dot[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(high, low)) - token_sum(values);
    }
}

/* A tile of rows x tokens: codes are decoded once and multiplied with every token. */
BL_INLINE void i2_s_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                         int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = _mm512_setzero_si512();
    for (int64_t b = 0; b < row_bytes; b += 64) {
        __m512i bytes[4], codes[4];
        load_codes(bytes, packed, b, row_bytes, rows);
        for (int f = 0; f < 4; f++) {
            for (int r = 0; r < rows; r++)
                codes[r] = _mm512_and_si512(_mm512_srli_epi16(bytes[r], (unsigned)(6 - 2 * f)), mask);
            for (int t = 0; t < tokens; t++) {
                const __m512i q = load_i8x64(values + t * token_bytes + 4 * b + 64 * f);
                for (int r = 0; r < rows; r++) sum[r][t] = dpbusd(sum[r][t], codes[r], q);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            dot[t * dot_stride + r] = _mm512_reduce_add_epi32(sum[r][t]) - token_sum(values + t * token_bytes);
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
