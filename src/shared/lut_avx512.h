/* What the look-up kernels share with 512-bit registers; see lut_avx2.h. Included by the tiers avx512 and amx inside
 * their target regions. */

/* A value that stays in a register: gcc would load it again for each use, and loads are as scarce as look-ups. */
BL_INLINE __m512i lut_kept(__m512i v)
{
#if defined(__GNUC__)
    __asm__("" : "+v"(v));
#endif
    return v;
}

/* gcc reorders the additions of the intrinsic, which leaves it short of registers; the instruction itself stays. */
BL_INLINE __m512i lut_add_i8(__m512i sum, __m512i i8x64)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpaddb %1, %0, %0" : "+v"(sum) : "v"(i8x64));
    return sum;
#else
    return _mm512_add_epi8(sum, i8x64);
#endif
}

/* Sums of digits to sums of v: words of the bytes 0 .. 7 of each 16 to v[0], of 8 .. 15 to v[1]. */
BL_INLINE void lut_join(__m512i v_i16x32[2], __m512i low, __m512i high, const int base)
{
    const __m512i bases = _mm512_set1_epi16((short)(base << 8 | 1));
    v_i16x32[0] = _mm512_add_epi16(v_i16x32[0], _mm512_maddubs_epi16(bases, _mm512_unpacklo_epi8(low, high)));
    v_i16x32[1] = _mm512_add_epi16(v_i16x32[1], _mm512_maddubs_epi16(bases, _mm512_unpackhi_epi8(low, high)));
}

/* sum (64) += what lut_join put together, by now in order of rows. */
BL_INLINE void lut_add(int32_t *sum, const __m512i v_i16x32[2])
{
    for (int i = 0; i < 4; i++) {
        const __m512i v = v_i16x32[i / 2], twice = i % 2 ? _mm512_unpackhi_epi16(v, v) : _mm512_unpacklo_epi16(v, v);
        const __m512i before = _mm512_loadu_si512(sum + 16 * i);
        _mm512_storeu_si512(sum + 16 * i, _mm512_add_epi32(before, _mm512_srai_epi32(twice, 16)));
    }
}

/* Expand a packed vector of quads to the codes of one quad. */
BL_INLINE void lut_expand(uint8_t *codes, __m512i quads)
{
    const __m512i mask = _mm512_set1_epi8(3), shifts = _mm512_set1_epi64(0x2624222006040200);
    const __m512i rows = _mm512_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x10101010, 0x11111111,
                                           0x12121212, 0x13131313, 0x20202020, 0x21212121, 0x22222222, 0x23232323,
                                           0x30303030, 0x31313131, 0x32323232, 0x33333333);
    for (int i = 0; i < 4; i++) {
        const __m512i places = _mm512_add_epi8(rows, _mm512_set1_epi8((char)(4 * i)));
        const __m512i four = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(places, quads));
        _mm512_storeu_si512(codes + 64 * i, _mm512_and_si512(four, mask));
    }
}
