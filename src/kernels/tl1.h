/* Kernel tl1: two weights a nibble, looked up in a table of their sums.
 *
 * Packed: tiles as in lut.h, a step of a panel is 4 columns in 64 bytes. Row r has the byte bl_panel_place(r),
 *
 *   bits 1:0 | 3:2 | 5:4 | 7:6
 *   column 4 step | + 1 | + 2 | + 3          code = weight + 1
 *
 * whose low nibble is the pair of columns + 0 and + 1 and whose high nibble that of + 2 and + 3. Rows and columns
 * beyond the matrix have weight zero.
 *
 * Tables, 64 bytes a step, 32 for each pair (a, b) of activations: the 16 sums w0 a + w1 b by nibble, of which those
 * with a code 3 are never read. |sum| <= 256. Here they are int16; the other tiers split them into two digits, low +
 * 23 high, each in -11 .. 11, and keep the 16 low ones, then the 16 high ones.
 */
#ifndef BL_TL1_H
#define BL_TL1_H

#include "shared/lut.h"

enum {
    BL_TL1_TABLE_BYTES = 64,
    BL_TL1_BASE = 23, /* of the digits */
    BL_TL1_BLOCK = 5, /* steps whose digits add up in a byte: ten of at most 11 */
    BL_TL1_SPAN = 60  /* steps that add up in an int16: 120 sums of at most 256 */
};

/* The weights of a pair by nibble, those with a code 3 zero. */
static const int8_t bl_tl1_weights[16][2] = {{-1, -1}, {0, -1}, {1, -1}, {0, 0}, {-1, 0}, {0, 0}, {1, 0}, {0, 0},
                                             {-1, 1},  {0, 1},  {1, 1},  {0, 0}, {0, 0},  {0, 0}, {0, 0}, {0, 0}};

BL_INLINE bl_lut_layout bl_tl1_layout(int64_t cols)
{
    const bl_lut_layout of = {bl_round_up(cols, 4) / 4, BL_PANEL};
    return of;
}

static int64_t bl_tl1_packed_bytes(int64_t rows, int64_t cols)
{
    const bl_lut_layout of = bl_tl1_layout(cols);
    return bl_panels(rows) * of.steps * of.step_bytes;
}

static void bl_tl1_pack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout of = bl_tl1_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES], vectors[BL_LUT_CHUNK_BYTES][BL_PANEL];
    for (int64_t row = lo; row < hi; row += BL_PANEL) {
        const int64_t stride = bl_lut_stride(of, rows, row / BL_PANEL);
        uint8_t *panel = to + bl_lut_first(of, row / BL_PANEL);
        memset(vectors, BL_LUT_ZEROS, sizeof vectors);
        for (int64_t step = 0; step < of.steps; step += BL_LUT_CHUNK_BYTES) {
            for (int r = 0; r < BL_PANEL && row + r < hi; r++) {
                bl_lut_read(quads, from + (row + r) * row_bytes, row_bytes, 4 * step / BL_BLOCK);
                for (int s = 0; s < BL_LUT_CHUNK_BYTES; s++) vectors[s][bl_panel_place(r)] = quads[s];
            }
            for (int s = 0; s < BL_LUT_CHUNK_BYTES && step + s < of.steps; s++)
                memcpy(panel + (step + s) * stride, vectors[s], BL_PANEL);
        }
    }
}

static void bl_tl1_unpack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout of = bl_tl1_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES];
    for (int64_t row = lo; row < hi; row++) {
        const int64_t stride = bl_lut_stride(of, rows, row / BL_PANEL);
        const uint8_t *bytes = from + bl_lut_first(of, row / BL_PANEL) + bl_panel_place((int)(row % BL_PANEL));
        for (int64_t step = 0; step < of.steps; step += BL_LUT_CHUNK_BYTES) {
            for (int s = 0; s < BL_LUT_CHUNK_BYTES; s++)
                quads[s] = step + s < of.steps ? bytes[(step + s) * stride] : BL_LUT_ZEROS;
            bl_lut_write(to + row * row_bytes, quads, row_bytes, 4 * step / BL_BLOCK);
        }
    }
}

static const bl_kernel bl_tl1 = {"tl1", BL_PANEL, bl_tl1_packed_bytes, bl_tl1_pack, bl_tl1_unpack};

static int64_t bl_tl1_token_bytes(int64_t cols, int64_t n)
{
    const int64_t steps = bl_tl1_layout(cols).steps;
    return bl_lut_token_bytes(steps * BL_TL1_TABLE_BYTES, steps, n);
}

static void bl_tl1_prepare_scalar(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl1_layout(cols).steps, bl_lut_sum_scalar(q, cols));
        return;
    }
    for (int64_t k = 0; k < 4 * bl_tl1_layout(cols).steps; k += 2, prepared += 32) {
        const int a = k < cols ? q[k] : 0, b = k + 1 < cols ? q[k + 1] : 0;
        int16_t sums[16];
        for (int e = 0; e < 16; e++) sums[e] = (int16_t)(bl_tl1_weights[e][0] * a + bl_tl1_weights[e][1] * b);
        memcpy(prepared, sums, sizeof sums);
    }
}

BL_INLINE void bl_tl1_span_scalar(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables,
                                  int64_t steps, int64_t panels)
{
    for (int64_t step = 0; step < steps; step++, packed += stride, tables += BL_TL1_TABLE_BYTES) {
        int16_t low[16], high[16];
        memcpy(low, tables, sizeof low);
        memcpy(high, tables + sizeof low, sizeof high);
        for (int64_t p = 0; p < panels; p++)
            for (int r = 0; r < BL_PANEL; r++) {
                const int byte = packed[BL_PANEL * p + bl_panel_place(r)];
                sum[BL_PANEL * p + r] += low[byte & 15] + high[byte >> 4];
            }
    }
}

static void bl_tl1_decode_scalar(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                                 int64_t quad, int64_t quads)
{
    const bl_lut_layout of = bl_tl1_layout(cols);
    const int64_t stride = bl_lut_stride(of, rows, panel);
    const uint8_t *bytes = packed + bl_lut_first(of, panel) + quad * stride;
    for (int64_t step = 0; step < quads; step++, bytes += stride)
        for (int r = 0; r < BL_PANEL; r++)
            for (int i = 0; i < 4; i++) *codes++ = bytes[bl_panel_place(r)] >> 2 * i & 3;
}

static void bl_tl1_gemm_scalar(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                               int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout of = bl_tl1_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, of, of.steps, BL_TL1_TABLE_BYTES,
                    bl_tl1_span_scalar);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, of.steps,
                      bl_tl1_token_bytes(cols, n), bl_tl1_decode_scalar, bl_panel_dot_scalar);
}

static const bl_cell bl_tl1_scalar = {bl_tl1_token_bytes, bl_tl1_prepare_scalar, bl_tl1_gemm_scalar};

#endif
