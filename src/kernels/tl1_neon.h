/* Kernel tl1 by tbl. Included by the tiers neon and up, inside their target region. */

static void tl1_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl1_layout(cols).steps, bl_lut_sum(q, cols));
        return;
    }
    const int8x16x2_t weights = vld2q_s8(bl_tl1_weights[0]);
    const int16x8_t first[2] = {vmovl_s8(vget_low_s8(weights.val[0])), vmovl_high_s8(weights.val[0])};
    const int16x8_t second[2] = {vmovl_s8(vget_low_s8(weights.val[1])), vmovl_high_s8(weights.val[1])};
    int8_t last[4] = {0};
    for (; cols > 0; cols -= 4, q += 4, prepared += BL_TL1_TABLE_BYTES) {
        if (cols < 4) q = memcpy(last, q, (size_t)cols);
        for (int pair = 0; pair < 2; pair++) {
            int16x8_t sums[2];
            for (int half = 0; half < 2; half++)
                sums[half] = vmlaq_n_s16(vmulq_n_s16(first[half], q[2 * pair]), second[half], q[2 * pair + 1]);
            lut_planes(prepared + 32 * pair, sums, BL_TL1_BASE);
        }
    }
}

/* A few steps of one panel, ten digits at most. */
BL_INLINE void tl1_block(int16x8_t sum[4][2], const uint8_t *packed, int64_t stride, const uint8_t *tables,
                         int64_t steps)
{
    int8x16_t low[4], high[4];
    for (int v = 0; v < 4; v++) low[v] = high[v] = vdupq_n_s8(0);
    for (int64_t s = 0; s < steps; s++, packed += stride, tables += BL_TL1_TABLE_BYTES) {
        const int8_t *from = (const int8_t *)tables;
        const int8x16_t low0 = vld1q_s8(from), high0 = vld1q_s8(from + 16);
        const int8x16_t low1 = vld1q_s8(from + 32), high1 = vld1q_s8(from + 48);
        prefetch_near(packed + BL_LUT_AHEAD);
        for (int v = 0; v < 4; v++) {
            const uint8x16_t bytes = vld1q_u8(packed + 16 * v);
            const uint8x16_t first = vandq_u8(bytes, vdupq_n_u8(15)), second = vshrq_n_u8(bytes, 4);
            low[v] = vaddq_s8(vaddq_s8(low[v], vqtbl1q_s8(low0, first)), vqtbl1q_s8(low1, second));
            high[v] = vaddq_s8(vaddq_s8(high[v], vqtbl1q_s8(high0, first)), vqtbl1q_s8(high1, second));
        }
    }
    for (int v = 0; v < 4; v++) lut_join(sum[v], low[v], high[v], BL_TL1_BASE);
}

BL_INLINE void tl1_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
    for (int64_t p = 0; p < panels; p++) {
        int16x8_t part[4][2];
        for (int v = 0; v < 4; v++) part[v][0] = part[v][1] = vdupq_n_s16(0);
        for (int64_t s = 0; s < steps; s += BL_TL1_BLOCK)
            tl1_block(part, packed + BL_PANEL * p + s * stride, stride, tables + s * BL_TL1_TABLE_BYTES,
                      steps - s < BL_TL1_BLOCK ? steps - s : BL_TL1_BLOCK);
        lut_add(sum + BL_PANEL * p, part);
    }
}

BL_INLINE void tl1_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *from = packed + bl_lut_first(layout, panel) + quad * stride;
    for (int64_t step = 0; step < quads; step++, from += stride, codes += BL_QUAD_BYTES) {
        prefetch(from + BL_LUT_AHEAD);
        for (int v = 0; v < 4; v++) lut_expand(codes, vld1q_u8(from + 16 * v), v);
    }
}

static void tl1_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, layout, BL_TL1_SPAN, BL_TL1_TABLE_BYTES,
                    tl1_span);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, layout.steps,
                      bl_tl1_token_bytes(cols, n), tl1_decode, panel_dot);
}

static const bl_cell tl1_cell = {.token_bytes = bl_tl1_token_bytes,
                                 .prepare = tl1_prepare,
                                 .gemm = tl1_gemm,
                                 .sums = {BL_CODE_MOST, 2, {BL_TL1_DIGITS, BL_TL1_WORDS, DOT_NARROW(PANEL_STEPS)}}};
