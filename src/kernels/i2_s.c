/* Kernel i2_s: packing, and products in plain C. */
#include "bitnet_lut/bitnet_lut.h"
#include "kernels/i2_s.h"

static int64_t packed_bytes(int64_t rows, int64_t cols) { return rows * bl_i2_s_row_bytes(cols); }

static void copy(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    memcpy(to + lo * row_bytes, from + lo * row_bytes, (size_t)((hi - lo) * row_bytes));
}

static void prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    bl_i2_s_arrange(prepared, q, cols);
}

static void gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                 int64_t cols, int64_t lo, int64_t hi, int64_t n)
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

int bl_has_code_3(const uint8_t *codes, int64_t n)
{
    uint8_t found = 0;
    for (int64_t i = 0; i < n; i++) found |= (uint8_t)(codes[i] & codes[i] >> 1 & 0x55);
    return found != 0;
}

const bl_kernel bl_i2_s = {
    .name = "i2_s",
    .panel = 1,
    .packed_bytes = packed_bytes,
    .pack = copy,
    .unpack = copy,
    .plain = {.token_bytes = bl_i2_s_token_bytes, .prepare = prepare, .gemm = gemm, .sums = {BL_CODE_3_MOST, 0, {{0}}}},
};
