/* Kernel i2_s: the 2-bit codes of layout.h as they are in files, integer dot along the columns.
 *
 * Packed: the canonical rows themselves. Prepared, one token:
 *
 *   bl_prepared (64 bytes) | int8 values, bl_i2_s_values(cols) of them, zero beyond cols
 *
 * The order of the values within each 256 columns is the tier's own: natural here and for avx2; for avx512, whose
 * registers take two blocks at once, 64-byte vector t holds columns 32 t .. of the first block, then of the second.
 */
#ifndef BL_I2_S_H
#define BL_I2_S_H

#include "bitnet_lut/ternary.h"

/* Head of one prepared token. */
typedef struct {
    int32_t sum; /* of the int8 values: codes are weight + 1, so dot = dot(codes) - sum */
    uint8_t pad[60];
} bl_prepared;

BL_INLINE int64_t bl_i2_s_values(int64_t cols) { return bl_round_up(cols, 2 * BL_BLOCK); }
BL_INLINE int64_t bl_i2_s_prepared_bytes(int64_t cols) { return (int64_t)sizeof(bl_prepared) + bl_i2_s_values(cols); }

static int64_t bl_i2_s_token_bytes(int64_t cols, int64_t n)
{
    (void)n;
    return bl_i2_s_prepared_bytes(cols);
}

static int64_t bl_i2_s_packed_bytes(int64_t rows, int64_t cols) { return rows * bl_i2_s_row_bytes(cols); }

static void bl_i2_s_copy(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    memcpy(to + lo * row_bytes, from + lo * row_bytes, (size_t)((hi - lo) * row_bytes));
}

static const bl_kernel bl_i2_s = {"i2_s", 1, bl_i2_s_packed_bytes, bl_i2_s_copy, bl_i2_s_copy};

/* Arrange int8 activations q (cols) as above, zero beyond cols, and store their sum. */
static void bl_i2_s_prepare_scalar(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    bl_prepared head = {0};
    for (int64_t k = 0; k < cols; k++) head.sum += q[k];
    memcpy(prepared, &head, sizeof head);
    memcpy(prepared + sizeof head, q, (size_t)cols);
    memset(prepared + sizeof head + cols, 0, (size_t)(bl_i2_s_values(cols) - cols));
}

static void bl_i2_s_gemm_scalar(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                                int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    for (int64_t row = lo; row < hi; row++)
        for (int64_t t = 0; t < n; t++) {
            const uint8_t *codes = packed + row * row_bytes;
            const uint8_t *token = prepared + t * token_bytes;
            const int8_t *q = (const int8_t *)token + sizeof(bl_prepared);
            bl_prepared head;
            memcpy(&head, token, sizeof head);
            int32_t sum = -head.sum;
            for (int64_t b = 0; b < row_bytes; b += BL_BLOCK_BYTES, q += BL_BLOCK)
                for (int p = 0; p < BL_BLOCK_BYTES; p++) {
                    const int byte = codes[b + p];
                    sum += (byte >> 6) * q[p] + (byte >> 4 & 3) * q[p + 32] + (byte >> 2 & 3) * q[p + 64] +
                           (byte & 3) * q[p + 96];
                }
            dot[t * dot_stride + row] = sum;
        }
}

static const bl_cell bl_i2_s_scalar = {bl_i2_s_token_bytes, bl_i2_s_prepare_scalar, bl_i2_s_gemm_scalar};

#endif
