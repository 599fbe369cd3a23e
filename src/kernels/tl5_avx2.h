/* Kernel tl5 by arithmetic: 256-bit registers cannot look up 128 entries, so bytes are decoded to codes, even for one
 * token. Included by the tiers avx2 and avxvnni inside their target regions. */

static int64_t tl5_token_bytes(int64_t cols, int64_t n)
{
    (void)n;
    return bl_tl5_token_bytes(cols, 2);
}

static void tl5_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    bl_tl5_prepare_quads(prepared, q, cols);
}

/* A third of each of 16 numbers below 256, rounded down. */
BL_INLINE __m256i third(__m256i u16x16) { return _mm256_mulhi_epu16(u16x16, _mm256_set1_epi16(21846)); }

/* Five codes of each of 32 bytes, to a vector of each of five quads. */
BL_INLINE void tl5_decode_bytes(uint8_t *codes, __m256i bytes)
{
    const __m256i negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), bytes);
    const __m256i magnitude = _mm256_and_si256(bytes, _mm256_set1_epi8(0x7f));
    const __m256i value = _mm256_sub_epi8(_mm256_xor_si256(magnitude, negative), negative);
    __m256i digits = _mm256_add_epi8(value, _mm256_set1_epi8(BL_TL5_MOST)); /* in base 3, unsigned */
    __m256i even = _mm256_and_si256(digits, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(digits, 8);
    for (int k = 0; k < BL_TL5_GROUP - 1; k++, codes += BL_QUAD_BYTES) {
        even = third(even);
        odd = third(odd);
        const __m256i rest = _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
        const __m256i thrice = _mm256_add_epi8(rest, _mm256_add_epi8(rest, rest));
        _mm256_storeu_si256((__m256i *)(void *)codes, _mm256_sub_epi8(digits, thrice));
        digits = rest;
    }
    _mm256_storeu_si256((__m256i *)(void *)codes, digits);
}

/* Four groups of 32 rows, half of a panel, to five quads: transposed to bytes of 8 rows x 4 groups. */
BL_INLINE void tl5_decode_half(uint8_t *codes, const __m256i group[4])
{
    const __m256i low01 = _mm256_unpacklo_epi8(group[0], group[1]), high01 = _mm256_unpackhi_epi8(group[0], group[1]);
    const __m256i low23 = _mm256_unpacklo_epi8(group[2], group[3]), high23 = _mm256_unpackhi_epi8(group[2], group[3]);
    tl5_decode_bytes(codes, _mm256_unpacklo_epi16(low01, low23));
    tl5_decode_bytes(codes + 64, _mm256_unpackhi_epi16(low01, low23));
    tl5_decode_bytes(codes + 128, _mm256_unpacklo_epi16(high01, high23));
    tl5_decode_bytes(codes + 192, _mm256_unpackhi_epi16(high01, high23));
}

BL_INLINE void tl5_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t g = quad / 5 * 4; quads > 0; g += 4, quads -= 5, codes += 5 * BL_QUAD_BYTES) {
        const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
        for (int half = 0; half < 2; half++) {
            __m256i group[4];
            for (int i = 0; i < 4; i++)
                group[i] = g + i < groups ? load_u8x32(vectors + BL_PANEL * i + 32 * half) : _mm256_setzero_si256();
            tl5_decode_half(codes + 32 * half, group);
        }
        for (int i = 0; i < 4; i++) prefetch(vectors + BL_PANEL * i + BL_AHEAD);
    }
}

static void tl5_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols),
                  tl5_token_bytes(cols, n), tl5_decode, panel_dot);
}

static const bl_cell tl5_cell = {.token_bytes = tl5_token_bytes,
                                 .prepare = tl5_prepare,
                                 .gemm = tl5_gemm,
                                 .sums = {BL_CODE_MOST, 0, {DOT_NARROW(PANEL_STEPS)}}};
