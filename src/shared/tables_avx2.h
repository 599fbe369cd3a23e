/* The tables of tl1 and tl2 by 256-bit registers, for every x86 tier; lut_avx2.h says what planes are. Included inside
 * their target regions. */

/* A table of 16 sums as its planes: low digits (16), high digits (16). Exact for |v| <= 384 and the bases in use. */
BL_INLINE void lut_planes(uint8_t *to, __m256i v_i16x16, const int base)
{
    const __m256i high = _mm256_mulhrs_epi16(v_i16x16, _mm256_set1_epi16((short)((32768 + base / 2) / base)));
    const __m256i low = _mm256_sub_epi16(v_i16x16, _mm256_mullo_epi16(high, _mm256_set1_epi16((short)base)));
    const __m256i planes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
    _mm256_storeu_si256((__m256i *)(void *)to, planes);
}

BL_INLINE int32_t lut_sum(const int8_t *q, int64_t cols)
{
    const __m256i ones_u8 = _mm256_set1_epi8(1), ones_i16 = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + 32 <= cols; k += 32) {
        const __m256i pairs = _mm256_maddubs_epi16(ones_u8, load_u8x32(q + k));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones_i16));
    }
    return sum_i32x8(sum) + bl_lut_sum(q + k, cols - k);
}

/* from (384 bytes, and room for a register) = activations plus 128 from column k on; activations beyond cols are
 * zero. */
BL_INLINE void lut_load(uint8_t from[BL_LUT_CHUNK + 32], const int8_t *q, int64_t cols, int64_t k)
{
    const int64_t count = cols - k < BL_LUT_CHUNK ? cols - k : BL_LUT_CHUNK;
    if (count < BL_LUT_CHUNK) memset(from, 0, BL_LUT_CHUNK);
    memcpy(from, q + k, (size_t)count);
    for (int i = 0; i < BL_LUT_CHUNK; i += 32) {
        __m256i *at = (__m256i *)(void *)(from + i);
        _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), _mm256_set1_epi8((char)0x80)));
    }
}

BL_INLINE __m256i lut_pair(const uint8_t *from)
{
    int16_t pair;
    memcpy(&pair, from, sizeof pair);
    return _mm256_set1_epi16(pair);
}

static void tl1_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    const int64_t steps = bl_tl1_layout(cols).steps;
    if (n > BL_LUT_TOKENS) {
        bl_lut_values(prepared, q, cols, steps, lut_sum(q, cols));
        return;
    }
    /* excess: the part of a sum that the added 128 make up */
    const __m256i weights = load_u8x32(bl_tl1_weights);
    const __m256i excess = _mm256_maddubs_epi16(_mm256_set1_epi8((char)0x80), weights);
    uint8_t from[BL_LUT_CHUNK + 32];
    for (int64_t step = 0; step < steps; step++, prepared += BL_TL1_TABLE_BYTES) {
        const int at = (int)(step % BL_LUT_CHUNK_BYTES);
        if (at == 0) lut_load(from, q, cols, 4 * step);
        for (int pair = 0; pair < 2; pair++) {
            const __m256i sums = _mm256_maddubs_epi16(lut_pair(from + 4 * at + 2 * pair), weights);
            lut_planes(prepared + 32 * pair, _mm256_sub_epi16(sums, excess), BL_TL1_BASE);
        }
    }
}

/* Activations of a step from column order to triples, four bytes each, of which the last is not used. */
BL_INLINE void tl2_arrange(uint8_t to[32], const uint8_t *from)
{
    const __m128i order = _mm_setr_epi8(0, 1, 2, 2, 4, 5, 6, 6, 8, 9, 10, 10, 3, 7, 11, 11);
    for (int half = 0; half < 2; half++) {
        const __m128i columns = _mm_loadu_si128((const __m128i *)(const void *)(from + 12 * half));
        _mm_storeu_si128((__m128i *)(void *)(to + 16 * half), _mm_shuffle_epi8(columns, order));
    }
}
