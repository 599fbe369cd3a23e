/* Kernel tl2 by tbl, with a product to negate. Included by the tiers neon and up, inside their target region. */

/* The weights of a triple by nibble. */
typedef struct { int16x8_t w[3][2]; } tl2_weights;

BL_INLINE tl2_weights tl2_load_weights(void)
{
    const int8x16x2_t weights01 = vld2q_s8(bl_tl2_weights01[0]), weights2 = vld2q_s8(bl_tl2_weights2[0]);
    const int8x16_t i8x16[3] = {weights01.val[0], weights01.val[1], weights2.val[0]};
    tl2_weights weights;
    for (int i = 0; i < 3; i++) {
        weights.w[i][0] = vmovl_s8(vget_low_s8(i8x16[i]));
        weights.w[i][1] = vmovl_high_s8(i8x16[i]);
    }
    return weights;
}

/* The tables of 12 columns. */
BL_INLINE void tl2_tables(uint8_t *tables, const int8_t *q, const tl2_weights *weights)
{
    for (int j = 0; j < 4; j++) {
        const int first = j < 3 ? 4 * j : 3, apart = j < 3 ? 1 : 4;
        int16x8_t sums[2];
        for (int half = 0; half < 2; half++) {
            sums[half] = vmulq_n_s16(weights->w[0][half], q[first]);
            sums[half] = vmlaq_n_s16(sums[half], weights->w[1][half], q[first + apart]);
            sums[half] = vmlaq_n_s16(sums[half], weights->w[2][half], q[first + 2 * apart]);
        }
        lut_planes(tables + 32 * j, sums, BL_TL2_BASE);
    }
}

static void tl2_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl2_quads(cols), bl_lut_sum(q, cols));
        return;
    }
    const tl2_weights weights = tl2_load_weights();
    int8_t last[BL_TL2_COLS] = {0};
    for (; cols > 0; cols -= BL_TL2_COLS, q += BL_TL2_COLS, prepared += BL_TL2_TABLE_BYTES) {
        if (cols < BL_TL2_COLS) q = memcpy(last, q, (size_t)cols);
        tl2_tables(prepared, q, &weights);
        tl2_tables(prepared + BL_TL2_TABLE_BYTES / 2, q + BL_TL2_COLS / 2, &weights);
    }
}

/* -1 where this bit is set, else 1. */
BL_INLINE int8x16_t tl2_signs(uint8x16_t signs, int bit)
{
    return vreinterpretq_s8_u8(vorrq_u8(vtstq_u8(signs, vdupq_n_u8((uint8_t)(1 << bit))), vdupq_n_u8(1)));
}

/* One step of a panel. */
BL_INLINE void tl2_step(int16x8_t sum[4][2], const uint8_t *packed, const uint8_t *tables)
{
    int8x16_t low[4], high[4];
    for (int v = 0; v < 4; v++) low[v] = high[v] = vdupq_n_s8(0);
    for (int line = 0; line < 5; line++) prefetch_near(packed + BL_PANEL * line + BL_LUT_AHEAD);
    for (int i = 0; i < 4; i++) {
        const int8_t *from = (const int8_t *)tables + 64 * i;
        const int8x16_t low0 = vld1q_s8(from), high0 = vld1q_s8(from + 16);
        const int8x16_t low1 = vld1q_s8(from + 32), high1 = vld1q_s8(from + 48);
        for (int v = 0; v < 4; v++) {
            const uint8x16_t signs = vld1q_u8(packed + 16 * v), bytes = vld1q_u8(packed + BL_PANEL * (1 + i) + 16 * v);
            const uint8x16_t first = vandq_u8(bytes, vdupq_n_u8(15)), second = vshrq_n_u8(bytes, 4);
            const int8x16_t sign0 = tl2_signs(signs, 7 - i), sign1 = tl2_signs(signs, 3 - i);
            low[v] = vmlaq_s8(low[v], vqtbl1q_s8(low0, first), sign0);
            high[v] = vmlaq_s8(high[v], vqtbl1q_s8(high0, first), sign0);
            low[v] = vmlaq_s8(low[v], vqtbl1q_s8(low1, second), sign1);
            high[v] = vmlaq_s8(high[v], vqtbl1q_s8(high1, second), sign1);
        }
    }
    for (int v = 0; v < 4; v++) lut_join(sum[v], low[v], high[v], BL_TL2_BASE);
}

BL_INLINE void tl2_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
    for (int64_t p = 0; p < panels; p++) {
        int16x8_t part[4][2];
        for (int v = 0; v < 4; v++) part[v][0] = part[v][1] = vdupq_n_s16(0);
        for (int64_t s = 0; s < steps; s++)
            tl2_step(part, packed + s * stride + BL_TL2_STEP_BYTES * p, tables + s * BL_TL2_TABLE_BYTES);
        lut_add(sum + BL_PANEL * p, part);
    }
}

/* quads (6) of one step of 16 rows: the codes of triples in two bits each, as digits of base 4 looked up, negated where
 * they must be, and raised by the code of weight zero. */
BL_INLINE void tl2_quads(uint8x16_t quads[BL_TL2_QUADS], const uint8_t *packed)
{
    static const int8_t digits[16] = {0, 1, 3, 4, 5, 11, 12, 13, 15, 16, 17, 19, 20, 21}; /* w0 + 4 w1 + 16 w2 */
    const int8x16_t weights = vld1q_s8(digits), zeros = vdupq_n_s8(0x15);
    const uint8x16_t signs = vld1q_u8(packed);
    for (int half = 0; half < 2; half++) {
        uint8x16_t codes[4];
        for (int i = 0; i < 2; i++) {
            const int line = 2 * half + i;
            const uint8x16_t bytes = vld1q_u8(packed + BL_PANEL * (1 + line));
            const int8x16_t first = vqtbl1q_s8(weights, vandq_u8(bytes, vdupq_n_u8(15)));
            const int8x16_t second = vqtbl1q_s8(weights, vshrq_n_u8(bytes, 4));
            codes[2 * i] = vreinterpretq_u8_s8(vmlaq_s8(zeros, first, tl2_signs(signs, 7 - line)));
            codes[2 * i + 1] = vreinterpretq_u8_s8(vmlaq_s8(zeros, second, tl2_signs(signs, 3 - line)));
        }
        quads[3 * half] = vsliq_n_u8(codes[0], codes[3], 6);
        quads[3 * half + 1] = vsliq_n_u8(codes[1], vshrq_n_u8(codes[3], 2), 6);
        quads[3 * half + 2] = vsliq_n_u8(codes[2], vshrq_n_u8(codes[3], 4), 6);
    }
}

BL_INLINE void tl2_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *from = packed + bl_lut_first(layout, panel) + quad / BL_TL2_QUADS * stride;
    for (int64_t step = 0; step < quads / BL_TL2_QUADS; step++, from += stride, codes += BL_TL2_QUADS * BL_QUAD_BYTES) {
        for (int line = 0; line < 5; line++) prefetch(from + BL_PANEL * line + BL_LUT_AHEAD);
        for (int v = 0; v < 4; v++) {
            uint8x16_t six[BL_TL2_QUADS];
            tl2_quads(six, from + 16 * v);
            for (int i = 0; i < BL_TL2_QUADS; i++) lut_expand(codes + BL_QUAD_BYTES * i, six[i], v);
        }
    }
}

static void tl2_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, layout, BL_TL2_SPAN, BL_TL2_TABLE_BYTES,
                    tl2_span);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl2_quads(cols),
                      bl_tl2_token_bytes(cols, n), tl2_decode, panel_dot);
}

static const bl_cell tl2_cell = {.token_bytes = bl_tl2_token_bytes,
                                 .prepare = tl2_prepare,
                                 .gemm = tl2_gemm,
                                 .sums = {BL_CODE_MOST, 3, {BL_TL2_DIGITS, BL_TL2_WORDS, DOT_NARROW(PANEL_STEPS)}}};
