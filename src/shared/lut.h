/* What tl1 and tl2 have in common. Their panels are packed in tiles of four, the last one of fewer, of which every step
 * of columns lies side by side: a tile is read in one stream, and every table that is loaded serves four panels.
 *
 *   tile 0: step 0 of panels 0 1 2 3 | step 1 of panels 0 1 2 3 | ...
 *   tile 1: step 0 of panels 4 5 6 7 | ...
 *
 * A few tokens are computed by look-up, one after the other, while a span of the weights is in the nearest cache; more
 * of them by decoding as panel.h describes, in quads of natural order. Prepared accordingly, one token is
 *
 *   the tables of every step          or          bl_prepared (64 bytes) | int8 values, zero beyond cols
 */
#ifndef BL_LUT_H
#define BL_LUT_H

#include "shared/panel.h"

enum {
    BL_LUT_PANELS = 4, /* of a tile */
    BL_LUT_ROWS = BL_LUT_PANELS * BL_PANEL,
    BL_LUT_TOKENS = 4,  /* the most that are computed by look-up; beyond, decoding is faster */
    BL_LUT_CHUNK = 384, /* columns that are packed at once: whole blocks of i2_s, whole steps of tl1 and tl2 */
    BL_LUT_CHUNK_BYTES = BL_LUT_CHUNK / 4,
    BL_LUT_ZEROS = 0x55, /* four weights of zero */
    BL_LUT_AHEAD = 16384 /* bytes ahead that are fetched: some tiers read a span of steps panel after panel */
};

/* A layout for some number of columns. */
typedef struct { int64_t steps, step_bytes; } bl_lut_layout;

/* From one step of a panel to the next. */
BL_INLINE int64_t bl_lut_stride(bl_lut_layout layout, int64_t rows, int64_t panel)
{
    const int64_t left = bl_panels(rows) - panel / BL_LUT_PANELS * BL_LUT_PANELS;
    return layout.step_bytes * (left < BL_LUT_PANELS ? left : BL_LUT_PANELS);
}

/* Where the first step of a panel starts. */
BL_INLINE int64_t bl_lut_first(bl_lut_layout layout, int64_t panel)
{
    const int64_t in_tile = panel % BL_LUT_PANELS;
    return layout.step_bytes * ((panel - in_tile) * layout.steps + in_tile);
}

/* quads (96) = 384 columns of a canonical row from block b on, four codes a byte, the first column in the lowest bits;
 * zeros beyond its row_bytes. */
BL_INLINE void bl_lut_read(uint8_t *quads, const uint8_t *row, int64_t row_bytes, int64_t block)
{
    for (int b = 0; b < BL_LUT_CHUNK / BL_BLOCK; b++, quads += BL_BLOCK / 4) {
        const int64_t at = (block + b) * BL_BLOCK_BYTES;
        if (at >= row_bytes) {
            memset(quads, BL_LUT_ZEROS, BL_BLOCK / 4);
            continue;
        }
        for (int p = 0; p < 8; p++) {
            uint32_t bytes;
            memcpy(&bytes, row + at + 4 * p, 4);
            for (int field = 0; field < 4; field++) /* one product moves the codes of four bytes to the top one */
                quads[8 * field + p] = (uint8_t)((bytes >> (6 - 2 * field) & 0x03030303u) * 0x01041040u >> 24);
        }
    }
}

/* Back from quads to those blocks that the row has. */
BL_INLINE void bl_lut_write(uint8_t *row, const uint8_t *quads, int64_t row_bytes, int64_t block)
{
    for (int b = 0; b < BL_LUT_CHUNK / BL_BLOCK; b++, quads += BL_BLOCK / 4) {
        const int64_t at = (block + b) * BL_BLOCK_BYTES;
        if (at >= row_bytes) return;
        for (int p = 0; p < BL_BLOCK_BYTES; p++) {
            int byte = 0;
            for (int field = 0; field < 4; field++)
                byte |= (quads[8 * field + p / 4] >> 2 * (p % 4) & 3) << (6 - 2 * field);
            row[at + p] = (uint8_t)byte;
        }
    }
}

BL_INLINE int64_t bl_lut_values_bytes(int64_t quads)
{
    return bl_round_up((int64_t)sizeof(bl_prepared) + 4 * quads, 64);
}

/* Bytes of a token of n, given those of its tables. */
BL_INLINE int64_t bl_lut_token_bytes(int64_t table_bytes, int64_t quads, int64_t n)
{
    return n <= BL_LUT_TOKENS ? table_bytes : bl_lut_values_bytes(quads);
}

/* Prepare a token as values, given the sum of its activations q (cols). */
BL_INLINE void bl_lut_values(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t quads, int32_t sum)
{
    const bl_prepared head = {.sum = sum};
    memcpy(prepared, &head, sizeof head);
    memcpy(prepared + sizeof head, q, (size_t)cols);
    memset(prepared + sizeof head + cols, 0, (size_t)(bl_lut_values_bytes(quads) - (int64_t)sizeof head - cols));
}

BL_INLINE int32_t bl_lut_sum(const int8_t *q, int64_t cols)
{
    int32_t sum = 0;
    for (int64_t k = 0; k < cols; k++) sum += q[k];
    return sum;
}

/* sum[64 p + r] += what the tables say of `steps` steps of `panels` panels side by side, given the first step of the
 * first panel and of the tables. */
typedef void (*bl_lut_span)(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                            int64_t panels);

/* The gemm by look-up of 1 to 4 tokens, given how many steps make a span, the bytes of tables of one step and what
 * looks a span up: a function known to the compiler, so that it is inlined. */
BL_INLINE void bl_lut_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                           int64_t rows, int64_t lo, int64_t hi, int64_t n, bl_lut_layout layout, int64_t span_steps,
                           int64_t table_bytes, bl_lut_span look_up)
{
    int32_t sum[BL_LUT_TOKENS][BL_LUT_ROWS];
    const int64_t end = bl_panels(hi);
    for (int64_t panel = lo / BL_PANEL, panels; panel < end; panel += panels) {
        panels = BL_LUT_PANELS - panel % BL_LUT_PANELS;
        if (panels > end - panel) panels = end - panel;
        const uint8_t *first = packed + bl_lut_first(layout, panel);
        const int64_t stride = bl_lut_stride(layout, rows, panel);
        memset(sum, 0, (size_t)n * sizeof *sum);
        for (int64_t step = 0; step < layout.steps; step += span_steps) {
            const int64_t steps = layout.steps - step < span_steps ? layout.steps - step : span_steps;
            for (int64_t t = 0; t < n; t++)
                look_up(sum[t], first + step * stride, stride, prepared + (t * layout.steps + step) * table_bytes,
                        steps, panels);
        }
        const int64_t row = panel * BL_PANEL, count = hi - row < panels * BL_PANEL ? hi - row : panels * BL_PANEL;
        for (int64_t t = 0; t < n; t++) memcpy(dot + t * dot_stride + row, sum[t], (size_t)count * sizeof **sum);
    }
}

#endif
