/* Kernel i2_s on the tier amx: a few tokens as on avx512, more of them by decoded panels. Included by the tier inside
 * its target region, behind i2_s_avx512.h. */

#include "kernels/i2_s_quads_avx2.h"

/* The most tokens that do without tiles. */
enum { I2_S_IN_REGISTERS = 8 };

static void i2_s_amx_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n <= I2_S_IN_REGISTERS) i2_s_prepare(prepared, q, cols, n);
    else bl_i2_s_arrange(prepared, q, cols);
}

/* One row times one token in natural order. */
BL_INLINE int32_t i2_s_row(const uint8_t *packed, const uint8_t *values, int64_t row_bytes)
{
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i sum = _mm256_setzero_si256();
    for (int64_t b = 0; b < row_bytes; b += BL_BLOCK_BYTES, values += BL_BLOCK) {
        const __m256i bytes = load_u8x32(packed + b);
        for (int f = 0; f < 4; f++) {
            const __m256i codes = _mm256_and_si256(_mm256_srli_epi16(bytes, 6 - 2 * f), mask);
            sum = _mm256_dpbusd_epi32(sum, codes, load_u8x32(values + 32 * f));
        }
    }
    return sum_i32x8(sum);
}

static void i2_s_amx_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                          int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n <= I2_S_IN_REGISTERS) {
        i2_s_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n);
        return;
    }
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const int64_t whole = (hi - lo) / BL_PANEL * BL_PANEL;
    bl_panel_gemm_by(dot + lo, dot_stride, packed + lo * row_bytes, prepared, whole, cols, 0, whole, n, row_bytes,
                     token_bytes, i2_s_decode, I2_S_QUADS, panel_dot);
    for (int64_t row = lo + whole; row < hi; row++)
        for (int64_t t = 0; t < n; t++) {
            const uint8_t *values = prepared + t * token_bytes + sizeof(bl_prepared);
            dot[t * dot_stride + row] = i2_s_row(packed + row * row_bytes, values, row_bytes) - token_sum(values);
        }
}

static const bl_cell i2_s_amx_cell = {.token_bytes = bl_i2_s_token_bytes,
                                      .prepare = i2_s_amx_prepare,
                                      .gemm = i2_s_amx_gemm,
                                      .sums = {BL_CODE_3_MOST, 0, {{0}}}};
