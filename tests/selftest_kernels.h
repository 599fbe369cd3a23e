/* Integer and dense products of every tier against plain int64 sums, on shapes that fill no tile. The dense weights and
 * inputs are small whole numbers, so that their float sums are exact in any order. */
#ifndef BL_SELFTEST_KERNELS_H
#define BL_SELFTEST_KERNELS_H

#include "selftest.h"

enum { SPARE = 3 }; /* floats or ints between two tokens of an output, which must stay as they were */

typedef enum { RANDOM, SATURATED, ALL_MAX, ALL_MIN, PATTERNS } pattern;

static int8_t pick_weight(pattern kind) { return (int8_t)(kind >= ALL_MAX ? 1 : random_below(3) - 1); }

static int8_t pick_activation(pattern kind)
{
    switch (kind) {
    case RANDOM: return (int8_t)(random_below(256) - 128);
    case SATURATED: return (int8_t)(random_below(2) ? 127 : -128);
    default: return kind == ALL_MAX ? 127 : -128;
    }
}

/* Ternary weights (rows, cols) as ternary.h draws them. */
static uint8_t *pack_ternary(const int8_t *weights, int64_t rows, int64_t cols)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    uint8_t *packed = room(rows * row_bytes);
    memset(packed, 0x55, (size_t)(rows * row_bytes));
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < cols; k++) {
            uint8_t *byte = packed + row * row_bytes + k / 128 * 32 + k % 32;
            const int shift = 6 - (int)(k % 128 / 32) * 2, code = weights[row * cols + k] + 1;
            *byte = (uint8_t)((*byte & ~(3 << shift)) | code << shift);
        }
    return packed;
}

/* products (n, rows) of weights (rows, cols) and inputs (n, cols). */
static int64_t *multiply(const int8_t *weights, const int8_t *inputs, int64_t rows, int64_t cols, int64_t n)
{
    int64_t *products = room(n * rows * 8);
    for (int64_t t = 0; t < n; t++)
        for (int64_t row = 0; row < rows; row++) {
            int64_t sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += (int64_t)weights[row * cols + k] * inputs[t * cols + k];
            products[t * rows + row] = sum;
        }
    return products;
}

/* A cell against the products, the rows in two ranges, the first of them empty at times. */
static void check_cell(const bl_tier *tier, int kernel, const uint8_t *packed, const int8_t *q, const int64_t *products,
                       int64_t rows, int64_t cols, int64_t n)
{
    const bl_cell *cell = bl_cell_of(tier, kernel);
    const int64_t token_bytes = cell->token_bytes(cols, n), stride = rows + SPARE, panel = bl_kernels[kernel]->panel;
    const int64_t ints = (n - 1) * stride + rows, middle = (rows + n) % (rows + 1) / panel * panel;
    uint8_t *prepared = room(n * token_bytes);
    int32_t *dot = room(ints * 4);
    const int32_t untouched = *dot;
    for (int64_t t = 0; t < n; t++) cell->prepare(prepared + t * token_bytes, q + t * cols, cols, n);
    cell->gemm(dot, stride, packed, prepared, rows, cols, 0, middle, n);
    cell->gemm(dot, stride, packed, prepared, rows, cols, middle, rows, n);
    for (int64_t i = 0; i < ints; i++) {
        const int64_t t = i / stride, row = i % stride, expected = row < rows ? products[t * rows + row] : untouched;
        if (dot[i] != expected)
            FAIL("%s %s gemm %lld x %lld, %lld tokens: token %lld, row %lld is %ld, not %lld", tier->name,
                 bl_kernels[kernel]->name, (long long)rows, (long long)cols, (long long)n, (long long)t, (long long)row,
                 (long)dot[i], (long long)expected);
    }
    free(prepared);
    free(dot);
}

/* The shares of some workers, by columns: each writes whole panels, and together they are the products. */
static void check_shares(const bl_tier *tier, int kernel, const uint8_t *packed, const int8_t *q,
                         const int64_t *products, int64_t rows, int64_t cols, int64_t n, int workers)
{
    const bl_cell *cell = bl_cell_of(tier, kernel);
    const int64_t token_bytes = cell->token_bytes(cols, n), stride = bl_round_up(rows, bl_kernels[kernel]->panel);
    int64_t *sum = room(n * rows * 8);
    memset(sum, 0, (size_t)(n * rows) * 8);
    for (int worker = 0; worker < workers; worker++) {
        uint8_t *prepared = room(n * token_bytes);
        int32_t *part = room(n * stride * 4);
        for (int64_t t = 0; t < n; t++)
            cell->prepare_share(prepared + t * token_bytes, q + t * cols, cols, n, worker, workers);
        cell->gemm_share(part, stride, packed, prepared, rows, cols, n, worker, workers);
        for (int64_t i = 0; i < n * rows; i++) sum[i] += part[i / rows * stride + i % rows];
        free(prepared);
        free(part);
    }
    for (int64_t i = 0; i < n * rows; i++)
        if (sum[i] != products[i])
            FAIL("%s %s gemm_share %lld x %lld, %lld tokens, %d workers: token %lld, row %lld is %lld, not %lld",
                 tier->name, bl_kernels[kernel]->name, (long long)rows, (long long)cols, (long long)n, workers,
                 (long long)(i / rows), (long long)(i % rows), (long long)sum[i], (long long)products[i]);
    free(sum);
}

/* Every cell of a kernel; packed in two ranges, and unpacked again. */
static void check_kernel(int index, const uint8_t *canonical, const int8_t *q, const int64_t *products, int64_t rows,
                         int64_t cols, int64_t n)
{
    const bl_kernel *kernel = bl_kernels[index];
    const int64_t bytes = rows * bl_i2_s_row_bytes(cols), middle = rows / 2 / kernel->panel * kernel->panel;
    uint8_t *packed = room(kernel->packed_bytes(rows, cols)), *again = room(bytes);
    kernel->pack(packed, canonical, rows, cols, 0, middle);
    kernel->pack(packed, canonical, rows, cols, middle, rows);
    kernel->unpack(again, packed, rows, cols, 0, middle);
    kernel->unpack(again, packed, rows, cols, middle, rows);
    if (memcmp(again, canonical, (size_t)bytes))
        FAIL("%s %lld x %lld: unpacked it is another matrix", kernel->name, (long long)rows, (long long)cols);
    for (int i = 0; i < bl_tier_count; i++)
        if (runs_here(bl_tiers[i])) {
            check_cell(bl_tiers[i], index, packed, q, products, rows, cols, n);
            if (n > BL_OWN_TOKENS || !bl_cell_of(bl_tiers[i], index)->gemm_share) continue;
            for (int workers = 1; workers <= 5; workers += 2)
                check_shares(bl_tiers[i], index, packed, q, products, rows, cols, n, workers);
        }
    free(packed);
    free(again);
}

static void check_ternary_shape(int64_t rows, int64_t cols, int64_t n, pattern kind)
{
    int8_t *weights = room(rows * cols), *q = room(n * cols);
    for (int64_t i = 0; i < rows * cols; i++) weights[i] = pick_weight(kind);
    for (int64_t i = 0; i < n * cols; i++) q[i] = pick_activation(kind);
    uint8_t *packed = pack_ternary(weights, rows, cols);
    int64_t *products = multiply(weights, q, rows, cols, n);
    for (int kernel = 0; kernel < BL_KERNEL_COUNT; kernel++) check_kernel(kernel, packed, q, products, rows, cols, n);
    free(weights);
    free(q);
    free(packed);
    free(products);
}

/* What a cell says of its sums must allow the longest row there is. */
static void check_sums(const bl_tier *tier, int kernel)
{
    const bl_sums *sums = &bl_cell_of(tier, kernel)->sums;
    int fits = sums->column > 0 && sums->column <= INT32_MAX / BL_MAX_COLS;
    for (size_t i = 0; i < sizeof sums->narrow / sizeof *sums->narrow; i++) {
        const bl_narrow_sum narrow = sums->narrow[i];
        if (narrow.bits)
            fits &= narrow.step > 0 && narrow.steps > 0 && narrow.step * narrow.steps < 1 << (narrow.bits - 1);
    }
    if (!fits) FAIL("%s %s: its sums overflow", tier->name, bl_kernels[kernel]->name);
}

static void check_ternary(void)
{
    for (int i = 0; i < bl_tier_count; i++)
        for (int kernel = 0; kernel < BL_KERNEL_COUNT; kernel++) check_sums(bl_tiers[i], kernel);
    static const int cols[] = {1, 5, 127, 128, 129, 255, 256, 257, 384, 640, 1000};
    for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
        for (int rows = 1; rows <= 9; rows++)
            for (int n = 1; n <= 9; n++) check_ternary_shape(rows, cols[c], n, (pattern)((rows + n) % 2));
    static const int panels[] = {63, 64, 65, 128, 191, 256, 257, 330, 450}, tokens[] = {1, 2, 5, 6, 7, 13, 128, 129};
    for (size_t r = 0; r < sizeof panels / sizeof *panels; r++)
        for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
            check_ternary_shape(panels[r], cols[r % 11], tokens[t], (pattern)(t % 2));
    check_ternary_shape(70, 250, 514, 0); /* more tokens than any tier keeps the sums of */
    for (int kind = 0; kind < PATTERNS; kind++) {
        check_ternary_shape(5, 1 << 14, 5, (pattern)kind);
        check_ternary_shape(1300, 250, 13, (pattern)kind); /* many panels */
        check_ternary_shape(1, 1 << 22, 1, (pattern)kind); /* as long as a row may be */
        check_ternary_shape(330, 1100, 1, (pattern)kind);  /* shares that end within a block of tl5 */
        check_ternary_shape(330, 1100, 2, (pattern)kind);
    }
}

/* Weights of a dense type that are whole numbers: floats of -8 .. 8, or any code with scales that are whole. */
static uint8_t *make_dense(bl_type type, int64_t rows, int64_t cols)
{
    const int64_t bytes = rows * bl_row_bytes(type, cols);
    uint8_t *data = room(bytes);
    const uint16_t one = bl_to_f16(1.0f);
    for (int64_t i = 0; i < bytes; i++) data[i] = (uint8_t)random_bits();
    if (type == BL_Q6_K) {
        for (uint8_t *block = data; block < data + bytes; block += 210) {
            for (int g = 0; g < 16; g++) block[192 + g] = (uint8_t)(random_below(8) - 3); /* times -32 .. 31: an int8 */
            memcpy(block + 208, &one, 2);
        }
        return data;
    }
    const int64_t step = bl_row_bytes(type, type == BL_Q8_0 || type == BL_Q4_0 ? 32 : 1);
    for (uint8_t *block = data; block < data + bytes; block += step) {
        const float value = (float)(random_below(17) - 8);
        const uint16_t bf16 = (uint16_t)(bl_bits(value) >> 16);
        const uint16_t half = type == BL_F16 ? bl_to_f16(value) : type == BL_BF16 ? bf16 : one;
        if (type == BL_F32) memcpy(block, &value, 4);
        else memcpy(block, &half, 2);
    }
    return data;
}

static void check_dense_tier(const bl_tier *tier, bl_type type, const uint8_t *data, const float *x,
                             const int64_t *products, int64_t rows, int64_t cols, int64_t n)
{
    const int64_t stride = rows + SPARE, floats = (n - 1) * stride + rows;
    const int64_t middle = bl_is_block_type(type) ? rows / BL_STRIP * BL_STRIP : (rows + n) % (rows + 1);
    float *out = room(floats * 4);
    const int64_t token_bytes = tier->dense_bytes(cols);
    uint8_t *prepared = room(n * token_bytes);
    const uint32_t untouched = bl_bits(*out);
    for (int64_t t = 0; t < n; t++) tier->dense_prepare(prepared + t * token_bytes, x + t * cols, cols);
    tier->dense_gemm(out, stride, type, data, prepared, cols, 0, middle, n);
    tier->dense_gemm(out, stride, type, data, prepared, cols, middle, rows, n);
    for (int64_t i = 0; i < floats; i++) {
        const int64_t t = i / stride, row = i % stride;
        const uint32_t expected = row < rows ? bl_bits((float)products[t * rows + row]) : untouched;
        if (bl_bits(out[i]) != expected && !(row < rows && products[t * rows + row] == 0 && out[i] == 0.0f))
            FAIL("%s dense_gemm of type %d, %lld x %lld, %lld tokens: token %lld, row %lld is %g, not %lld", tier->name,
                 (int)type, (long long)rows, (long long)cols, (long long)n, (long long)t, (long long)row,
                 (double)out[i], row < rows ? (long long)products[t * rows + row] : 0LL);
    }
    free(prepared);
    free(out);
}

static void check_dense_shape(bl_type type, int64_t rows, int64_t cols, int64_t n)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    uint8_t *data = make_dense(type, rows, cols);
    int8_t *weights = room(rows * cols), *inputs = room(n * cols);
    float *decoded = room(cols * 4), *x = room(n * cols * 4);
    for (int64_t i = 0; i < n * cols; i++) x[i] = inputs[i] = (int8_t)(random_below(17) - 8);
    for (int64_t row = 0; row < rows; row++) {
        bl_tier_scalar.dense_row(decoded, type, data + row * row_bytes, cols);
        for (int64_t k = 0; k < cols; k++) weights[row * cols + k] = (int8_t)decoded[k];
    }
    int64_t *products = multiply(weights, inputs, rows, cols, n);
    if (bl_is_block_type(type)) {
        uint8_t *strips = room(bl_dense_packed_bytes(type, rows, cols));
        bl_pack_blocks(strips, data, type, rows, cols, 0, rows);
        uint8_t *again = room(rows * row_bytes);
        bl_unpack_blocks(again, strips, type, cols, 0, rows);
        if (memcmp(again, data, (size_t)(rows * row_bytes)))
            FAIL("strips of type %d, %lld x %lld, are not what was packed", (int)type, (long long)rows,
                 (long long)cols);
        free(again);
        free(data);
        data = strips;
    }
    for (int i = 0; i < bl_tier_count; i++)
        if (runs_here(bl_tiers[i])) check_dense_tier(bl_tiers[i], type, data, x, products, rows, cols, n);
    free(data);
    free(weights);
    free(inputs);
    free(decoded);
    free(x);
    free(products);
}

static void check_dense(void)
{
    static const int cols[] = {1, 5, 15, 16, 17, 96, 255, 256, 257, 320, 512, 640}, tokens[] = {1, 2, 5, 9, 32, 33, 70};
    static const int rows[] = {1, 2, 3, 4, 5, 8, 9, 32, 33, 71};
    for (int type = BL_F32; type < BL_TYPE_COUNT; type++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                const int block = type == BL_Q6_K ? 256 : type == BL_Q8_0 || type == BL_Q4_0 ? 32 : 1;
                if (cols[c] % block == 0) check_dense_shape((bl_type)type, rows[r], cols[c], tokens[(r + c) % 7]);
            }
    check_dense_shape(BL_Q6_K, 33, 65 * 256, 2); /* more blocks than have their scales converted at once */
}

#endif
