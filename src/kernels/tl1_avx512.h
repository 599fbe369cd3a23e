/* Kernel tl1 by vpermb, whose index needs no masking where the table repeats. Included by the tier avx512 inside its
 * target region. */

/* 16 bytes, four times. */
BL_INLINE __m512i tl1_table(const uint8_t *from)
{
    return lut_kept(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)from)));
}

/* Neighboring panels, up to a span of steps. */
BL_INLINE void tl1_panels(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                          const int panels)
{
    __m512i v_i16x32[BL_LUT_PANELS][2];
    for (int p = 0; p < panels; p++) v_i16x32[p][0] = v_i16x32[p][1] = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps;) {
        const int64_t end = steps - s < BL_TL1_BLOCK ? steps : s + BL_TL1_BLOCK;
        __m512i low[BL_LUT_PANELS], high[BL_LUT_PANELS];
        for (int p = 0; p < panels; p++) low[p] = high[p] = _mm512_setzero_si512();
        for (; s < end; s++, packed += stride, tables += BL_TL1_TABLE_BYTES) {
            const __m512i low0 = tl1_table(tables), high0 = tl1_table(tables + 16);
            const __m512i low1 = tl1_table(tables + 32), high1 = tl1_table(tables + 48);
            for (int p = 0; p < panels; p++) {
                prefetch_near(packed + BL_PANEL * p + BL_LUT_AHEAD);
                const __m512i first = lut_kept(_mm512_loadu_si512(packed + BL_PANEL * p));
                const __m512i second = _mm512_srli_epi16(first, 4);
                low[p] = lut_add_i8(low[p], _mm512_permutexvar_epi8(first, low0));
                high[p] = lut_add_i8(high[p], _mm512_permutexvar_epi8(first, high0));
                low[p] = lut_add_i8(low[p], _mm512_permutexvar_epi8(second, low1));
                high[p] = lut_add_i8(high[p], _mm512_permutexvar_epi8(second, high1));
            }
        }
        for (int p = 0; p < panels; p++) lut_join(v_i16x32[p], low[p], high[p], BL_TL1_BASE);
    }
    for (int p = 0; p < panels; p++) lut_add(sum + BL_PANEL * p, v_i16x32[p]);
}

BL_INLINE void tl1_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
#define BL_PANELS(panels) tl1_panels(sum, packed, stride, tables, steps, panels)
    switch (panels) {
    case 1: BL_PANELS(1); break;
    case 2: BL_PANELS(2); break;
    case 3: BL_PANELS(3); break;
    default: BL_PANELS(4); break;
    }
#undef BL_PANELS
}

BL_INLINE void tl1_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const bl_lut_layout layout = bl_tl1_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *from = packed + bl_lut_first(layout, panel) + quad * stride;
    for (int64_t step = 0; step < quads; step++, from += stride, codes += BL_QUAD_BYTES) {
        prefetch(from + BL_LUT_AHEAD);
        lut_expand(codes, _mm512_loadu_si512(from));
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
                                 .sums = {BL_CODE_MOST, 2, {BL_TL1_DIGITS, BL_TL1_WORDS}}};
