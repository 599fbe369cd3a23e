/* What every x86 tier does with AVX2 and F16C. Included inside their target regions. */

BL_INLINE float f16(const uint8_t *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bl_load_u16(p)))); }
BL_INLINE void prefetch(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
BL_INLINE void prefetch_near(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

BL_INLINE __m256i load_u8x32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The low nibbles of p (16), then the high ones. */
BL_INLINE __m256i u4x32(const uint8_t *p)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m256i spread = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(spread, _mm256_set1_epi8(15));
}

/* u8x32 (4) = 4 bits of low (64) and 2 bits of high (32) each. */
BL_INLINE void u6x128(__m256i u8x32[4], const uint8_t *low, const uint8_t *high)
{
    const __m256i nibble = _mm256_set1_epi8(15), pair = _mm256_set1_epi8(0x30);
    const __m256i low0 = load_u8x32(low), low1 = load_u8x32(low + 32), bits = load_u8x32(high);
    const __m256i fours[4] = {low0, low1, _mm256_srli_epi16(low0, 4), _mm256_srli_epi16(low1, 4)};
    const __m256i twos[4] = {_mm256_slli_epi16(bits, 4), _mm256_slli_epi16(bits, 2), bits, _mm256_srli_epi16(bits, 2)};
    for (int i = 0; i < 4; i++)
        u8x32[i] = _mm256_or_si256(_mm256_and_si256(fours[i], nibble), _mm256_and_si256(twos[i], pair));
}

BL_INLINE void unpack_i4x32(int8_t *q, const uint8_t *p)
{
    _mm256_storeu_si256((__m256i *)(void *)q, _mm256_sub_epi8(u4x32(p), _mm256_set1_epi8(8)));
}

BL_INLINE void unpack_i6x128(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    __m256i u8x32[4];
    u6x128(u8x32, low, high);
    for (int i = 0; i < 4; i++)
        _mm256_storeu_si256((__m256i *)(void *)(q + 32 * i), _mm256_sub_epi8(u8x32[i], _mm256_set1_epi8(32)));
}

BL_INLINE int32_t sum_i32x8(__m256i v)
{
    const __m128i i32x4 = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i i32x2 = _mm_add_epi32(i32x4, _mm_unpackhi_epi64(i32x4, i32x4));
    return _mm_cvtsi128_si32(_mm_add_epi32(i32x2, _mm_shuffle_epi32(i32x2, 1)));
}
