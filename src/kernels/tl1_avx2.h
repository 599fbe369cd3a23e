/* Kernel tl1 by vpshufb. Included by the tiers avx2 and avxvnni inside their target regions. */

/* A few steps of one panel, ten digits at most. */
BL_INLINE void tl1_block(__m256i v_i16x16[2][2], const uint8_t *packed, int64_t stride, const uint8_t *tables,
                         const int steps)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i low[2], high[2];
    low[0] = low[1] = high[0] = high[1] = _mm256_setzero_si256();
    for (int s = 0; s < steps; s++, packed += stride, tables += BL_TL1_TABLE_BYTES) {
        prefetch_near(packed + BL_LUT_AHEAD);
        for (int h = 0; h < 2; h++) {
            const __m256i bytes = lut_load_kept(packed + 32 * h);
            const __m256i first = _mm256_and_si256(bytes, mask);
            const __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
            low[h] = lut_add_i8(low[h], _mm256_shuffle_epi8(lut_table(tables), first));
            high[h] = lut_add_i8(high[h], _mm256_shuffle_epi8(lut_table(tables + 16), first));
            low[h] = lut_add_i8(low[h], _mm256_shuffle_epi8(lut_table(tables + 32), second));
            high[h] = lut_add_i8(high[h], _mm256_shuffle_epi8(lut_table(tables + 48), second));
        }
    }
    for (int h = 0; h < 2; h++) lut_join(v_i16x16[h], low[h], high[h], BL_TL1_BASE);
}

BL_INLINE void tl1_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
    for (int64_t p = 0; p < panels; p++) {
        const uint8_t *from = packed + BL_PANEL * p;
        __m256i v_i16x16[2][2];
        v_i16x16[0][0] = v_i16x16[0][1] = v_i16x16[1][0] = v_i16x16[1][1] = _mm256_setzero_si256();
        int64_t s = 0;
        for (; s + BL_TL1_BLOCK <= steps; s += BL_TL1_BLOCK)
            tl1_block(v_i16x16, from + s * stride, stride, tables + s * BL_TL1_TABLE_BYTES, BL_TL1_BLOCK);
        for (; s < steps; s++) tl1_block(v_i16x16, from + s * stride, stride, tables + s * BL_TL1_TABLE_BYTES, 1);
        for (int h = 0; h < 2; h++) lut_add(sum + BL_PANEL * p + 8 * h, v_i16x16[h]);
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
        const __m256i halves[2] = {load_u8x32(from), load_u8x32(from + 32)};
        lut_expand(codes, halves);
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
