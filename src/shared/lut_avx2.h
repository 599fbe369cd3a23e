/* What tl1 and tl2 share with 256-bit registers: planes of digits. Included by the tiers avx2 and avxvnni inside their
 * target regions.
 *
 * A sum v of the tables is split into digits, v = low + base * high, small enough for several of them to add up in a
 * byte: the two planes are joined once for all of those, not at each look-up. */

/* The same 16 bytes in both halves. */
BL_INLINE __m256i lut_table(const uint8_t *from)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)from));
}

/* 32 bytes that stay in a register: gcc would load them again for their second use. */
BL_INLINE __m256i lut_load_kept(const uint8_t *from)
{
    __m256i u8x32 = load_u8x32(from);
#if defined(__GNUC__)
    __asm__("" : "+x"(u8x32));
#endif
    return u8x32;
}

/* gcc reorders the additions of the intrinsic, which leaves it short of registers; the instruction itself stays. */
BL_INLINE __m256i lut_add_i8(__m256i sum, __m256i i8x32)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpaddb %1, %0, %0" : "+x"(sum) : "x"(i8x32));
    return sum;
#else
    return _mm256_add_epi8(sum, i8x32);
#endif
}

/* Sums of digits to sums of v: words of the bytes 0 .. 7 of each 16 to v[0], of 8 .. 15 to v[1]. */
BL_INLINE void lut_join(__m256i v_i16x16[2], __m256i low, __m256i high, const int base)
{
    const __m256i bases = _mm256_set1_epi16((short)(base << 8 | 1));
    v_i16x16[0] = _mm256_add_epi16(v_i16x16[0], _mm256_maddubs_epi16(bases, _mm256_unpacklo_epi8(low, high)));
    v_i16x16[1] = _mm256_add_epi16(v_i16x16[1], _mm256_maddubs_epi16(bases, _mm256_unpackhi_epi8(low, high)));
}

/* sum (4 times 8 rows, 16 apart) += what lut_join put together of 32 bytes. */
BL_INLINE void lut_add(int32_t *sum, const __m256i v_i16x16[2])
{
    for (int i = 0; i < 4; i++) {
        const __m256i v = v_i16x16[i / 2], twice = i % 2 ? _mm256_unpackhi_epi16(v, v) : _mm256_unpacklo_epi16(v, v);
        __m256i *to = (__m256i *)(void *)(sum + 16 * i);
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_srai_epi32(twice, 16)));
    }
}

/* Expand a packed vector of quads to the codes of one quad. */
BL_INLINE void lut_expand(uint8_t *codes, const __m256i halves[2])
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int h = 0; h < 2; h++) {
        const __m256i quads = halves[h], next = _mm256_srli_epi16(quads, 2);
        const __m256i two[2] = {_mm256_unpacklo_epi8(quads, next), _mm256_unpackhi_epi8(quads, next)};
        for (int i = 0; i < 4; i++) {
            const __m256i a = two[i / 2], b = _mm256_srli_epi16(a, 4);
            const __m256i four = i % 2 ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b);
            _mm256_storeu_si256((__m256i *)(void *)(codes + 64 * i + 32 * h), _mm256_and_si256(four, mask));
        }
    }
}
