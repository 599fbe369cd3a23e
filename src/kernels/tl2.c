/* Kernel tl2: packing, and products in plain C. */
#include "kernels/tl2.h"

static int64_t packed_bytes(int64_t rows, int64_t cols)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    return bl_panels(rows) * layout.steps * layout.step_bytes;
}

BL_INLINE int sign_bit(int triple) { return 7 - triple / 2 - triple % 2 * 4; }

/* Nibble, and sign in bit 7, of a triple given as its codes, two bits each. */
BL_INLINE uint8_t encode(int codes)
{
    const int v = (codes & 3) + 3 * (codes >> 2 & 3) + 9 * (codes >> 4) - 13;
    return (uint8_t)(v < 0 ? -v | 0x80 : v);
}

/* The codes of a triple, two bits each. */
BL_INLINE int codes_of(int nibble, int negative)
{
    const int v = (negative ? -nibble : nibble) + 13;
    return v % 3 | v / 3 % 3 << 2 | v / 9 << 4;
}

/* One row's 5 bytes of a step, 64 apart, from its 6 quads. */
BL_INLINE void pack_step(uint8_t *to, const uint8_t *quads, const uint8_t encoded[64])
{
    int signs = 0;
    for (int half = 0; half < 2; half++, quads += 3) {
        const int last = quads[0] >> 6 | quads[1] >> 6 << 2 | quads[2] >> 6 << 4;
        const int e0 = encoded[quads[0] & 63], e1 = encoded[quads[1] & 63], e2 = encoded[quads[2] & 63];
        const int e3 = encoded[last];
        to[BL_PANEL * (1 + 2 * half)] = (uint8_t)((e0 & 15) | e1 << 4);
        to[BL_PANEL * (2 + 2 * half)] = (uint8_t)((e2 & 15) | e3 << 4);
        signs = signs << 2 | (e0 & 0x80) >> 2 | (e2 & 0x80) >> 3 | (e1 & 0x80) >> 6 | (e3 & 0x80) >> 7;
    }
    *to = (uint8_t)signs;
}

/* The 6 quads of one row from its 5 bytes of a step. */
BL_INLINE void unpack_step(uint8_t *quads, const uint8_t *from)
{
    int triples[BL_TL2_TRIPLES];
    for (int j = 0; j < BL_TL2_TRIPLES; j++)
        triples[j] = codes_of(from[BL_PANEL * (1 + j / 2)] >> 4 * (j % 2) & 15, *from >> sign_bit(j) & 1);
    for (int quad = 0; quad < BL_TL2_QUADS; quad++) {
        const int half = quad / 3, place = quad % 3;
        quads[quad] = (uint8_t)(triples[4 * half + place] | (triples[4 * half + 3] >> 2 * place & 3) << 6);
    }
}

static void pack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    enum { STEPS = BL_LUT_CHUNK / BL_TL2_COLS };
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout layout = bl_tl2_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES], encoded[64], packed[STEPS][BL_TL2_STEP_BYTES];
    for (int codes = 0; codes < 64; codes++) encoded[codes] = encode(codes);
    for (int64_t row = lo; row < hi; row += BL_PANEL) {
        const int64_t stride = bl_lut_stride(layout, rows, row / BL_PANEL);
        uint8_t *panel = to + bl_lut_first(layout, row / BL_PANEL);
        memset(packed, 0, sizeof packed);
        for (int64_t step = 0; step < layout.steps; step += STEPS) {
            for (int r = 0; r < BL_PANEL && row + r < hi; r++) {
                bl_lut_read(quads, from + (row + r) * row_bytes, row_bytes, BL_TL2_COLS * step / BL_BLOCK);
                for (int s = 0; s < STEPS; s++)
                    pack_step(packed[s] + bl_panel_place(r), quads + BL_TL2_QUADS * s, encoded);
            }
            for (int s = 0; s < STEPS && step + s < layout.steps; s++)
                memcpy(panel + (step + s) * stride, packed[s], BL_TL2_STEP_BYTES);
        }
    }
}

static void unpack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    enum { STEPS = BL_LUT_CHUNK / BL_TL2_COLS };
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    const bl_lut_layout layout = bl_tl2_layout(cols);
    uint8_t quads[BL_LUT_CHUNK_BYTES];
    for (int64_t row = lo; row < hi; row++) {
        const int64_t stride = bl_lut_stride(layout, rows, row / BL_PANEL);
        const uint8_t *bytes = from + bl_lut_first(layout, row / BL_PANEL) + bl_panel_place((int)(row % BL_PANEL));
        for (int64_t step = 0; step < layout.steps; step += STEPS) {
            memset(quads, BL_LUT_ZEROS, sizeof quads);
            for (int s = 0; s < STEPS && step + s < layout.steps; s++)
                unpack_step(quads + BL_TL2_QUADS * s, bytes + (step + s) * stride);
            bl_lut_write(to + row * row_bytes, quads, row_bytes, BL_TL2_COLS * step / BL_BLOCK);
        }
    }
}

static void prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl2_quads(cols), bl_lut_sum(q, cols));
        return;
    }
    for (int64_t k = 0; k < BL_TL2_COLS * bl_tl2_layout(cols).steps; k += 12) {
        int8_t part[12] = {0};
        if (k < cols) memcpy(part, q + k, (size_t)(cols - k < 12 ? cols - k : 12));
        for (int j = 0; j < 4; j++, prepared += 32) {
            const int first = j < 3 ? 4 * j : 3, apart = j < 3 ? 1 : 4;
            int16_t sums[16];
            for (int e = 0; e < 16; e++)
                sums[e] =
                    (int16_t)(bl_tl2_weights01[e][0] * part[first] + bl_tl2_weights01[e][1] * part[first + apart] +
                              bl_tl2_weights2[e][0] * part[first + 2 * apart]);
            memcpy(prepared, sums, sizeof sums);
        }
    }
}

BL_INLINE void span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                    int64_t panels)
{
    for (int64_t step = 0; step < steps; step++, packed += stride, tables += BL_TL2_TABLE_BYTES) {
        int16_t sums[BL_TL2_TRIPLES][16];
        memcpy(sums, tables, sizeof sums);
        for (int64_t p = 0; p < panels; p++)
            for (int r = 0; r < BL_PANEL; r++) {
                const uint8_t *bytes = packed + BL_TL2_STEP_BYTES * p + bl_panel_place(r);
                for (int j = 0; j < BL_TL2_TRIPLES; j++) {
                    const int found = sums[j][bytes[BL_PANEL * (1 + j / 2)] >> 4 * (j % 2) & 15];
                    sum[BL_PANEL * p + r] += *bytes >> sign_bit(j) & 1 ? -found : found;
                }
            }
    }
}

static void decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel, int64_t quad,
                   int64_t quads)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *bytes = packed + bl_lut_first(layout, panel) + quad / BL_TL2_QUADS * stride;
    for (int64_t step = 0; step < quads / BL_TL2_QUADS; step++, bytes += stride, codes += BL_TL2_QUADS * BL_QUAD_BYTES)
        for (int r = 0; r < BL_PANEL; r++) {
            uint8_t four[BL_TL2_QUADS];
            unpack_step(four, bytes + bl_panel_place(r));
            for (int k = 0; k < BL_TL2_COLS; k++)
                codes[BL_QUAD_BYTES * (k / 4) + 4 * r + k % 4] = four[k / 4] >> 2 * (k % 4) & 3;
        }
}

static void gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                 int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, layout, layout.steps, BL_TL2_TABLE_BYTES, span);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl2_quads(cols),
                      bl_tl2_token_bytes(cols, n), decode, bl_panel_dot_plain);
}

const bl_kernel bl_tl2 = {
    .name = "tl2",
    .panel = BL_PANEL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack = unpack,
    .plain = {.token_bytes = bl_tl2_token_bytes, .prepare = prepare, .gemm = gemm, .sums = {BL_CODE_MOST, 3, {{0}}}},
};
