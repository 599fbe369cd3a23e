/* Kernel tl2 by vpermb, whose index has room for the sign. Included by the tiers avx512 and amx inside their target
 * regions.
 *
 * Tables, 64 bytes a triple: low digits (32) | high digits (32), by nibble + 16 times the sign bit. */

enum { TL2_TABLE_BYTES = 2 * BL_TL2_TABLE_BYTES };

static int64_t tl2_token_bytes(int64_t cols, int64_t n)
{
    return bl_lut_token_bytes(bl_tl2_layout(cols).steps * TL2_TABLE_BYTES, bl_tl2_quads(cols), n);
}

/* 32 bytes, twice. */
BL_INLINE __m512i tl2_table(const void *from)
{
    return lut_kept(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)from)));
}

BL_INLINE __m512i tl2_pair(const uint8_t *from)
{
    int16_t pair;
    memcpy(&pair, from, sizeof pair);
    return _mm512_set1_epi16(pair);
}

static void tl2_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    const int64_t steps = bl_tl2_layout(cols).steps;
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, bl_tl2_quads(cols), lut_sum(q, cols));
        return;
    }
    /* the weights of both signs; excess: what the 128 added to each activation comes to */
    const __m512i negative = _mm512_set_epi64(-1, -1, -1, -1, 0, 0, 0, 0);
    const __m512i twice01 = tl2_table(bl_tl2_weights01), twice2 = tl2_table(bl_tl2_weights2);
    const __m512i weights01 = _mm512_sub_epi8(_mm512_xor_si512(twice01, negative), negative);
    const __m512i weights2 = _mm512_sub_epi8(_mm512_xor_si512(twice2, negative), negative);
    const __m512i added = _mm512_set1_epi8((char)0x80), order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    const __m512i excess =
        _mm512_add_epi16(_mm512_maddubs_epi16(added, weights01), _mm512_maddubs_epi16(added, weights2));
    const __m512i base = _mm512_set1_epi16(BL_TL2_BASE);
    const __m512i inverse = _mm512_set1_epi16((32768 + BL_TL2_BASE / 2) / BL_TL2_BASE);
    uint8_t from[BL_LUT_CHUNK + 32], triples[4 * BL_TL2_TRIPLES];
    for (int64_t step = 0; step < steps; step++) {
        const int64_t k = step * BL_TL2_COLS;
        if (k % BL_LUT_CHUNK == 0) lut_load(from, q, cols, k);
        tl2_arrange(triples, from + k % BL_LUT_CHUNK);
        for (int j = 0; j < BL_TL2_TRIPLES; j++, prepared += 64) {
            const __m512i sums01 = _mm512_maddubs_epi16(tl2_pair(triples + 4 * j), weights01);
            const __m512i sums2 = _mm512_maddubs_epi16(tl2_pair(triples + 4 * j + 2), weights2);
            const __m512i sums = _mm512_sub_epi16(_mm512_add_epi16(sums01, sums2), excess);
            const __m512i high = _mm512_mulhrs_epi16(sums, inverse);
            const __m512i low = _mm512_sub_epi16(sums, _mm512_mullo_epi16(high, base));
            _mm512_storeu_si512(prepared, _mm512_permutexvar_epi64(order, _mm512_packs_epi16(low, high)));
        }
    }
}

/* The indexes of the triples of one line of nibbles, given signs in bit 4; vpermb ignores the bits above. */
BL_INLINE __m512i tl2_index(__m512i nibbles, __m512i signs)
{
    enum { SELECT = 0xca }; /* b where a, else c */
    return _mm512_ternarylogic_epi64(_mm512_set1_epi8(16), signs, nibbles, SELECT);
}

/* The sign bits of the low nibbles from bit 4 down, those of the high ones likewise: doubled, the next one is there. */
BL_INLINE __m512i tl2_low_signs(__m512i signs) { return _mm512_srli_epi16(signs, 3); }
BL_INLINE __m512i tl2_high_signs(__m512i signs) { return _mm512_add_epi8(signs, signs); }

/* Neighboring panels, up to a span of steps. */
BL_INLINE void tl2_panels(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                          const int panels)
{
    __m512i v_i16x32[BL_LUT_PANELS][2];
    for (int p = 0; p < panels; p++) v_i16x32[p][0] = v_i16x32[p][1] = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; s++, packed += stride) {
        __m512i low[BL_LUT_PANELS], high[BL_LUT_PANELS], signs0[BL_LUT_PANELS], signs1[BL_LUT_PANELS];
        for (int p = 0; p < panels; p++) {
            const __m512i signs = lut_kept(_mm512_loadu_si512(packed + BL_TL2_STEP_BYTES * p));
            prefetch_near(packed + BL_TL2_STEP_BYTES * p + BL_LUT_AHEAD);
            low[p] = high[p] = _mm512_setzero_si512();
            signs0[p] = tl2_low_signs(signs);
            signs1[p] = tl2_high_signs(signs);
        }
        for (int i = 0; i < 4; i++, tables += 128) {
            const __m512i low0 = tl2_table(tables), high0 = tl2_table(tables + 32);
            const __m512i low1 = tl2_table(tables + 64), high1 = tl2_table(tables + 96);
            for (int p = 0; p < panels; p++) {
                const uint8_t *line = packed + BL_TL2_STEP_BYTES * p + BL_PANEL * (1 + i);
                prefetch_near(line + BL_LUT_AHEAD);
                const __m512i nibbles = lut_kept(_mm512_loadu_si512(line));
                const __m512i first = tl2_index(nibbles, signs0[p]);
                const __m512i second = tl2_index(_mm512_srli_epi16(nibbles, 4), signs1[p]);
                low[p] = lut_add_i8(low[p], _mm512_permutexvar_epi8(first, low0));
                high[p] = lut_add_i8(high[p], _mm512_permutexvar_epi8(first, high0));
                low[p] = lut_add_i8(low[p], _mm512_permutexvar_epi8(second, low1));
                high[p] = lut_add_i8(high[p], _mm512_permutexvar_epi8(second, high1));
                signs0[p] = _mm512_add_epi8(signs0[p], signs0[p]);
                signs1[p] = _mm512_add_epi8(signs1[p], signs1[p]);
            }
        }
        for (int p = 0; p < panels; p++) lut_join(v_i16x32[p], low[p], high[p], BL_TL2_BASE);
    }
    for (int p = 0; p < panels; p++) lut_add(sum + BL_PANEL * p, v_i16x32[p]);
}

BL_INLINE void tl2_span(int32_t *sum, const uint8_t *packed, int64_t stride, const uint8_t *tables, int64_t steps,
                        int64_t panels)
{
#define BL_PANELS(panels) tl2_panels(sum, packed, stride, tables, steps, panels)
    switch (panels) {
    case 1: BL_PANELS(1); break;
    case 2: BL_PANELS(2); break;
    case 3: BL_PANELS(3); break;
    default: BL_PANELS(4); break;
    }
#undef BL_PANELS
}

/* The codes of a triple, two bits each, by nibble + 16 times the sign bit. */
BL_INLINE __m512i tl2_codes(void)
{
    const __m256i codes = _mm256_setr_epi8(21, 22, 24, 25, 26, 32, 33, 34, 36, 37, 38, 40, 41, 42, 21, 21, /* + */
                                           21, 20, 18, 17, 16, 10, 9, 8, 6, 5, 4, 2, 1, 0, 21, 21);        /* - */
    return _mm512_broadcast_i64x4(codes);
}

BL_INLINE void tl2_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    const int64_t stride = bl_lut_stride(layout, rows, panel);
    const __m512i table = tl2_codes(), top = _mm512_set1_epi8((char)0xc0);
    const uint8_t *from = packed + bl_lut_first(layout, panel) + quad / BL_TL2_QUADS * stride;
    for (int64_t step = 0; step < quads / BL_TL2_QUADS; step++, from += stride) {
        const __m512i signs = _mm512_loadu_si512(from);
        __m512i signs0 = tl2_low_signs(signs), signs1 = tl2_high_signs(signs);
        for (int line = 0; line < 5; line++) prefetch(from + BL_PANEL * line + BL_LUT_AHEAD);
        for (int half = 0; half < 2; half++) {
            __m512i triple[4];
            for (int i = 0; i < 2; i++) {
                const __m512i nibbles = _mm512_loadu_si512(from + BL_PANEL * (1 + 2 * half + i));
                const __m512i second = _mm512_srli_epi16(nibbles, 4);
                triple[2 * i] = _mm512_permutexvar_epi8(tl2_index(nibbles, signs0), table);
                triple[2 * i + 1] = _mm512_permutexvar_epi8(tl2_index(second, signs1), table);
                signs0 = _mm512_add_epi8(signs0, signs0);
                signs1 = _mm512_add_epi8(signs1, signs1);
            }
            for (int i = 0; i < 3; i++, codes += BL_QUAD_BYTES) {
                const __m512i fourth = _mm512_and_si512(_mm512_slli_epi16(triple[3], (unsigned)(6 - 2 * i)), top);
                lut_expand(codes, _mm512_or_si512(triple[i], fourth));
            }
        }
    }
}

static void tl2_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const bl_lut_layout layout = bl_tl2_layout(cols);
    if (n <= BL_LUT_TOKENS)
        bl_lut_gemm(dot, dot_stride, packed, prepared, rows, lo, hi, n, layout, BL_TL2_SPAN, TL2_TABLE_BYTES, tl2_span);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl2_quads(cols),
                      tl2_token_bytes(cols, n), tl2_decode, panel_dot);
}

static const bl_cell tl2_cell = {.token_bytes = tl2_token_bytes,
                                 .prepare = tl2_prepare,
                                 .gemm = tl2_gemm,
                                 .sums = {BL_CODE_MOST, 3, {BL_TL2_DIGITS, BL_TL2_WORDS}}};
