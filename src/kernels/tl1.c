/* Kernel tl1: packing, and products in plain C. */
#include "kernels/tl1.h"

static int64_t packed_bytes(int64_t rows, int64_t cols)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    return bl_panels(rows) * layout.steps * layout.step_bytes;
}

static void pack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout layout = bl_tl1_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES], vectors[BL_LUT_CHUNK_BYTES][BL_PANEL];
    for (int64_t row = lo; row < hi; row += BL_PANEL) {
        const int64_t stride = bl_lut_stride(layout, rows, row / BL_PANEL);
        uint8_t *panel = to + bl_lut_first(layout, row / BL_PANEL);
        memset(vectors, BL_LUT_ZEROS, sizeof vectors);
        for (int64_t step = 0; step < layout.steps; step += BL_LUT_CHUNK_BYTES) {
            for (int r = 0; r < BL_PANEL && row + r < hi; r++) {
                bl_lut_read(quads, from + (row + r) * row_bytes, row_bytes, 4 * step / BL_BLOCK);
                for (int s = 0; s < BL_LUT_CHUNK_BYTES; s++) vectors[s][bl_panel_place(r)] = quads[s];
            }
            for (int s = 0; s < BL_LUT_CHUNK_BYTES && step + s < layout.steps; s++)
                memcpy(panel + (step + s) * stride, vectors[s], BL_PANEL);
        }
    }
}

static void unpack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout layout = bl_tl1_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES];
    for (int64_t row = lo; row < hi; row++) {
        const int64_t stride = bl_lut_stride(layout, rows, row / BL_PANEL);
        const uint8_t *bytes = from + bl_lut_first(layout, row / BL_PANEL) + bl_panel_place((int)(row % BL_PANEL));
        for (int64_t step = 0; step < layout.steps; step += BL_LUT_CHUNK_BYTES) {
            for (int s = 0; s < BL_LUT_CHUNK_BYTES; s++)
                quads[s] = step + s < layout.steps ? bytes[(step + s) * stride] : BL_LUT_ZEROS;
            bl_lut_write(to + row * row_bytes, quads, row_bytes, 4 * step / BL_BLOCK);
        }
    }
}

static void prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl1_layout(cols).steps, bl_lut_sum(q, cols));
        return;
    }
    for (int64_t k = 0; k < 4 * bl_tl1_layout(cols).steps; k += 2, prepared += 32) {
        const int a = k < cols ? q[k] : 0, b = k + 1 < cols ? q[k + 1] : 0;
        int16_t sums[16];
        for (int e = 0; e < 16; e++) sums[e] = (int16_t)(bl_tl1_weights[e][0] * a + bl_tl1_weights[e][1] * b);
        memcpy(prepared, sums, sizeof sums);
    }
}

BL_INLINE void span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                    int64_t panels)
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

static void decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel, int64_t quad,
                   int64_t quads)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *bytes = packed + bl_lut_first(layout, panel) + quad * stride;
    for (int64_t step = 0; step < quads; step++, bytes += stride)
        for (int r = 0; r < BL_PANEL; r++)
            for (int i = 0; i < 4; i++) *codes++ = bytes[bl_panel_place(r)] >> 2 * i & 3;
}

static void gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                 int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, layout, layout.steps, BL_TL1_TABLE_BYTES, span);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, layout.steps,
                      bl_tl1_token_bytes(cols, n), decode, bl_panel_dot_plain);
}

const bl_kernel bl_tl1 = {
    .name = "tl1",
    .panel = BL_PANEL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack = unpack,
    .plain = {.token_bytes = bl_tl1_token_bytes, .prepare = prepare, .gemm = gemm, .sums = {BL_CODE_MOST, 2, {{0}}}},
};
