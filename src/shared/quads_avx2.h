/* Products of int8 in -127 .. 127, added by fours, by the tier's add_products. Included by the tiers avx2 and avxvnni
 * inside their target regions; scalar.c states what each function does. */

typedef struct { __m256i low, high; } quad_sums;

BL_INLINE quad_sums make_sums(__m256i low, __m256i high)
{
    quad_sums v = {low, high};
    return v;
}
BL_INLINE quad_sums start_quads(int32_t sum)
{
    (void)sum;
    return make_sums(_mm256_setzero_si256(), _mm256_setzero_si256());
}
BL_INLINE quad_sums add_i32(quad_sums a, quad_sums b)
{
    return make_sums(_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high));
}

/* Magnitudes are unsigned, as add_products wants its first operand; the second one takes the signs. Two products of
 * 127 times 127 fit in 16 bits. */
BL_INLINE __m256i quads_i32x8(const int8_t *quads, __m256i four)
{
    const __m256i i8x32 = load_u8x32(quads);
    return widen(add_products(_mm256_setzero_si256(), _mm256_abs_epi8(i8x32), _mm256_sign_epi8(four, i8x32)));
}
BL_INLINE quad_sums add_quads(quad_sums sum, const int8_t *quads, const int8_t *values)
{
    int32_t bits;
    memcpy(&bits, values, sizeof bits);
    const __m256i four = _mm256_set1_epi32(bits);
    return add_i32(sum, make_sums(quads_i32x8(quads, four), quads_i32x8(quads + 32, four)));
}
BL_INLINE f32x16 to_floats(quad_sums v) { return make_f32x16(_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)); }
