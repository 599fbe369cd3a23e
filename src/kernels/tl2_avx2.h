/* Kernel tl2 by vpshufb, and vpsignb, which negates both digits of a sum. Included by the tiers avx2 and avxvnni inside
 * their target regions. */

static void tl2_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    const int64_t steps = bl_tl2_layout(cols).steps;
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl2_quads(cols), lut_sum(q, cols));
        return;
    }
    /* excess: what the 128 added to each activation comes to */
    const __m256i weights01 = load_u8x32(bl_tl2_weights01), weights2 = load_u8x32(bl_tl2_weights2);
    const __m256i added = _mm256_set1_epi8((char)0x80);
    const __m256i excess =
        _mm256_add_epi16(_mm256_maddubs_epi16(added, weights01), _mm256_maddubs_epi16(added, weights2));
    uint8_t from[BL_LUT_CHUNK + 32], triples[4 * BL_TL2_TRIPLES];
    for (int64_t step = 0; step < steps; step++) {
        const int64_t k = step * BL_TL2_COLS;
        if (k % BL_LUT_CHUNK == 0) lut_load(from, q, cols, k);
        tl2_arrange(triples, from + k % BL_LUT_CHUNK);
        for (int j = 0; j < BL_TL2_TRIPLES; j++, prepared += 32) {
            const __m256i sums01 = _mm256_maddubs_epi16(lut_pair(triples + 4 * j), weights01);
            const __m256i sums2 = _mm256_maddubs_epi16(lut_pair(triples + 4 * j + 2), weights2);
            lut_planes(prepared, _mm256_sub_epi16(_mm256_add_epi16(sums01, sums2), excess), BL_TL2_BASE);
        }
    }
}

/* Bytes for vpsignb, for the low and for the high nibbles: negative where the sign bit of the next triple is set, and
 * never zero, because vpsignb would give zero. Doubling them brings the next bit to the top. */
typedef struct { __m256i low, high; } tl2_signs;

BL_INLINE tl2_signs tl2_load_signs(const uint8_t *from)
{
    const __m256i mask = _mm256_set1_epi8((char)0xf0), one = _mm256_set1_epi8(1), signs = load_u8x32(from);
    const tl2_signs both = {_mm256_or_si256(_mm256_and_si256(signs, mask), one),
                            _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16(signs, 4), mask), one)};
    return both;
}

BL_INLINE void tl2_next_signs(tl2_signs *signs)
{
    signs->low = _mm256_add_epi8(signs->low, signs->low);
    signs->high = _mm256_add_epi8(signs->high, signs->high);
}

/* One step of 32 rows. */
BL_INLINE void tl2_step(__m256i v_i16x16[2], const uint8_t *packed, const uint8_t *tables)
{
    const __m256i mask = _mm256_set1_epi8(15);
    tl2_signs signs = tl2_load_signs(packed);
    __m256i low = _mm256_setzero_si256(), high = low;
    for (int i = 0; i < 4; i++, tables += 64) {
        const __m256i bytes = lut_load_kept(packed + BL_PANEL * (1 + i));
        const __m256i first = _mm256_and_si256(bytes, mask);
        const __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
        const __m256i low0 = _mm256_shuffle_epi8(lut_table(tables), first);
        const __m256i high0 = _mm256_shuffle_epi8(lut_table(tables + 16), first);
        const __m256i low1 = _mm256_shuffle_epi8(lut_table(tables + 32), second);
        const __m256i high1 = _mm256_shuffle_epi8(lut_table(tables + 48), second);
        low = lut_add_i8(low, _mm256_sign_epi8(low0, signs.low));
        high = lut_add_i8(high, _mm256_sign_epi8(high0, signs.low));
        low = lut_add_i8(low, _mm256_sign_epi8(low1, signs.high));
        high = lut_add_i8(high, _mm256_sign_epi8(high1, signs.high));
        tl2_next_signs(&signs);
    }
    lut_join(v_i16x16, low, high, BL_TL2_BASE);
}

BL_INLINE void tl2_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
    for (int64_t p = 0; p < panels; p++) {
        __m256i v_i16x16[2][2];
        v_i16x16[0][0] = v_i16x16[0][1] = v_i16x16[1][0] = v_i16x16[1][1] = _mm256_setzero_si256();
        for (int64_t s = 0; s < steps; s++) {
            const uint8_t *from = packed + s * stride + BL_TL2_STEP_BYTES * p;
            for (int line = 0; line < 5; line++) prefetch_near(from + BL_PANEL * line + BL_LUT_AHEAD);
            for (int h = 0; h < 2; h++) tl2_step(v_i16x16[h], from + 32 * h, tables + s * BL_TL2_TABLE_BYTES);
        }
        for (int h = 0; h < 2; h++) lut_add(sum + BL_PANEL * p + 8 * h, v_i16x16[h]);
    }
}

/* quads (6) of one step of 32 rows: the codes of triples in two bits each, as digits of base 4 looked up, negated where
 * they must be, and raised by the code of weight zero. */
BL_INLINE void tl2_quads(__m256i quads[BL_TL2_QUADS], const uint8_t *packed)
{
    const __m256i mask = _mm256_set1_epi8(15), zeros = _mm256_set1_epi8(0x15), top = _mm256_set1_epi8((char)0xc0);
    const __m256i weights = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 3, 4, 5, 11, 12, 13, 15, 16, 17, 19, 20, 21, 0, 0)); /* w0 + 4 w1 + 16 w2 by nibble */
    tl2_signs signs = tl2_load_signs(packed);
    for (int half = 0; half < 2; half++) {
        __m256i codes[4];
        for (int i = 0; i < 2; i++) {
            const __m256i bytes = lut_load_kept(packed + BL_PANEL * (1 + 2 * half + i));
            const __m256i first = _mm256_and_si256(bytes, mask);
            const __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
            codes[2 * i] = _mm256_sign_epi8(_mm256_shuffle_epi8(weights, first), signs.low);
            codes[2 * i + 1] = _mm256_sign_epi8(_mm256_shuffle_epi8(weights, second), signs.high);
            tl2_next_signs(&signs);
        }
        for (int i = 0; i < 4; i++) codes[i] = _mm256_add_epi8(codes[i], zeros);
        for (int i = 0; i < 3; i++) {
            const __m256i fourth = _mm256_and_si256(_mm256_slli_epi16(codes[3], 6 - 2 * i), top);
            quads[3 * half + i] = _mm256_or_si256(codes[i], fourth);
        }
    }
}

BL_INLINE void tl2_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const uint8_t *from = packed + bl_lut_first(layout, panel) + quad / BL_TL2_QUADS * stride;
    for (int64_t step = 0; step < quads / BL_TL2_QUADS; step++, from += stride) {
        __m256i low[BL_TL2_QUADS], high[BL_TL2_QUADS];
        for (int line = 0; line < 5; line++) prefetch(from + BL_PANEL * line + BL_LUT_AHEAD);
        tl2_quads(low, from);
        tl2_quads(high, from + 32);
        for (int i = 0; i < BL_TL2_QUADS; i++, codes += BL_QUAD_BYTES) {
            const __m256i halves[2] = {low[i], high[i]};
            lut_expand(codes, halves);
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
