/* Kernel i2_s by 256-bit integer dots. Included by the tiers avx2 and avxvnni inside their target regions; their
 * add_products sums in int16 or int32, and widen gives int32. */

#include "kernels/i2_s_quads_avx2.h"

static void i2_s_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    bl_i2_s_arrange(prepared, q, cols);
}

/* Bytes of a row whose sums of products fit int16: a pair of products is at least -768, and a lane has four pairs in a
 * block. */
enum { I2_S_BYTES = 10 * BL_BLOCK_BYTES };

BL_INLINE int32_t token_sum(const uint8_t *values)
{
    bl_prepared head;
    memcpy(&head, values - sizeof head, sizeof head);
    return head.sum;
}

/* ---- one token ------------------------------------------------------------------------------------------------- */

/* One block of a row. The codes stay in place in their nibble, so half of the products are 4 times too large. */
BL_INLINE void i2_s_block(__m256i *once, __m256i *fourfold, const uint8_t *packed, const uint8_t *values)
{
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    const __m256i bytes = load_u8x32(packed), upper = _mm256_srli_epi16(bytes, 4);
    *fourfold = add_products(*fourfold, _mm256_and_si256(upper, high), load_u8x32(values));
    *once = add_products(*once, _mm256_and_si256(upper, low), load_u8x32(values + 32));
    *fourfold = add_products(*fourfold, _mm256_and_si256(bytes, high), load_u8x32(values + 64));
    *once = add_products(*once, _mm256_and_si256(bytes, low), load_u8x32(values + 96));
}

BL_INLINE void i2_s_rows(int32_t *dot, const uint8_t *packed, const uint8_t *values, int64_t row_bytes, const int rows)
{
    __m256i sum[2];
    for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_si256();
    for (int64_t b = 0; b < row_bytes;) {
        const int64_t most = I2_S_BYTES / 2; /* fourfold sums fit for half as many */
        const int64_t end = row_bytes - b < most ? row_bytes : b + most;
        __m256i once[2], fourfold[2];
        for (int r = 0; r < rows; r++) once[r] = fourfold[r] = _mm256_setzero_si256();
        for (; b < end; b += BL_BLOCK_BYTES) {
            prefetch_near(packed + rows * b + BL_AHEAD);
            for (int r = 0; r < rows; r++)
                i2_s_block(&once[r], &fourfold[r], packed + r * row_bytes + b, values + 4 * b);
        }
        for (int r = 0; r < rows; r++) {
            const __m256i both = _mm256_add_epi32(widen(once[r]), widen_quarter(fourfold[r]));
            sum[r] = _mm256_add_epi32(sum[r], both);
        }
    }
    for (int r = 0; r < rows; r++) dot[r] = sum_i32x8(sum[r]) - token_sum(values);
}

/* ---- a few tokens ---------------------------------------------------------------------------------------------- */

/* A tile of rows x tokens: codes are decoded once and multiplied with every token. */
BL_INLINE void i2_s_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                         int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i sum[2][6];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_setzero_si256();
    for (int64_t b = 0, end; b < row_bytes; b = end) {
        end = row_bytes - b < I2_S_BYTES ? row_bytes : b + I2_S_BYTES;
        __m256i part[2][6];
        for (int r = 0; r < rows; r++)
            for (int t = 0; t < tokens; t++) part[r][t] = _mm256_setzero_si256();
        for (int64_t i = b; i < end; i += BL_BLOCK_BYTES) {
            prefetch_near(packed + rows * i + BL_AHEAD);
            for (int f = 0; f < 4; f++) {
                __m256i codes[2];
                for (int r = 0; r < rows; r++)
                    codes[r] =
                        _mm256_and_si256(_mm256_srli_epi16(load_u8x32(packed + r * row_bytes + i), 6 - 2 * f), mask);
                for (int t = 0; t < tokens; t++) {
                    const __m256i q = load_u8x32(values + t * token_bytes + 4 * i + 32 * f);
                    for (int r = 0; r < rows; r++) part[r][t] = add_products(part[r][t], codes[r], q);
                }
            }
        }
        for (int r = 0; r < rows; r++)
            for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_add_epi32(sum[r][t], widen(part[r][t]));
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            dot[t * dot_stride + r] = sum_i32x8(sum[r][t]) - token_sum(values + t * token_bytes);
}

/* ---- any number ------------------------------------------------------------------------------------------------- */

/* A few rows, in tiles of up to six tokens. */
BL_INLINE void i2_s_tiles(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                          int64_t row_bytes, int64_t token_bytes, int64_t n, const int rows)
{
#define BL_TILE(tokens)                                                                                                \
    i2_s_tile(dot + t * dot_stride, dot_stride, packed, values + t * token_bytes, row_bytes, token_bytes, rows, tokens)
    for (int64_t t = 0, tokens; t < n; t += tokens) {
        tokens = bl_even_share(n - t, 6);
        switch (tokens) {
        case 1: BL_TILE(1); break;
        case 2: BL_TILE(2); break;
        case 3: BL_TILE(3); break;
        case 4: BL_TILE(4); break;
        case 5: BL_TILE(5); break;
        default: BL_TILE(6); break;
        }
    }
#undef BL_TILE
}

/* Whether decoding to memory pays: from nine tokens on, or when the tokens do not stay in the first cache. */
BL_INLINE int i2_s_by_panels(int64_t token_bytes, int64_t n) { return n > 8 || (n > 2 && n * token_bytes > 32768); }

static void i2_s_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                      int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const uint8_t *values = prepared + sizeof(bl_prepared);
    int64_t row = lo;
    if (i2_s_by_panels(token_bytes, n)) {
        const int64_t whole = (hi - lo) / BL_PANEL * BL_PANEL;
        bl_panel_gemm_by(dot + lo, dot_stride, packed + lo * row_bytes, prepared, whole, cols, 0, whole, n, row_bytes,
                         token_bytes, i2_s_decode, I2_S_QUADS, panel_dot);
        row += whole;
    }
    if (n == 1)
        for (; row + 2 <= hi; row += 2) i2_s_rows(dot + row, packed + row * row_bytes, values, row_bytes, 2);
    if (n == 2)
        for (; row + 2 <= hi; row += 2)
            i2_s_tile(dot + row, dot_stride, packed + row * row_bytes, values, row_bytes, token_bytes, 2, 2);
    for (; row + I2_S_TILE_ROWS <= hi; row += I2_S_TILE_ROWS)
        i2_s_tiles(dot + row, dot_stride, packed + row * row_bytes, values, row_bytes, token_bytes, n, I2_S_TILE_ROWS);
    for (; row < hi; row++)
        i2_s_tiles(dot + row, dot_stride, packed + row * row_bytes, values, row_bytes, token_bytes, n, 1);
}

static const bl_cell i2_s_cell = {.token_bytes = bl_i2_s_token_bytes,
                                  .prepare = i2_s_prepare,
                                  .gemm = i2_s_gemm,
                                  .sums = {BL_CODE_3_MOST, 0, {DOT_NARROW(4 * I2_S_BYTES / BL_BLOCK_BYTES)}}};
