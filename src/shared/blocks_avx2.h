/* Dense block types by vpmaddubsw, 8 rows at once. Included by the tiers avx2 and avxvnni inside their target
 * regions. */

enum { SCALES_AT_ONCE = 0, STRIP_TOKENS = 8 };

/* Codes of 8 rows and 16 columns. */
BL_INLINE void unit_codes(__m256i u8x32[4], const bl_type type, const uint8_t *codes)
{
    const __m256i a = load_u8x32(codes), b = load_u8x32(codes + 64);
    if (type == BL_Q8_0) {
        u8x32[0] = a, u8x32[1] = b;
        u8x32[2] = load_u8x32(codes + 128), u8x32[3] = load_u8x32(codes + 192);
    } else if (type == BL_Q4_0) {
        const __m256i mask = _mm256_set1_epi8(15);
        u8x32[0] = _mm256_and_si256(a, mask), u8x32[2] = _mm256_and_si256(_mm256_srli_epi16(a, 4), mask);
        u8x32[1] = _mm256_and_si256(b, mask), u8x32[3] = _mm256_and_si256(_mm256_srli_epi16(b, 4), mask);
    } else {
        const __m256i mask = _mm256_set1_epi8(63), c = load_u8x32(codes + 128);
        const __m256i low = _mm256_and_si256(_mm256_srli_epi16(a, 6), _mm256_set1_epi8(3));
        const __m256i middle = _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(12));
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(c, 2), _mm256_set1_epi8(48));
        u8x32[0] = _mm256_and_si256(a, mask), u8x32[1] = _mm256_and_si256(b, mask);
        u8x32[2] = _mm256_and_si256(c, mask), u8x32[3] = _mm256_or_si256(_mm256_or_si256(low, middle), high);
    }
}

/* The scales of 8 rows of a unit, the first of which is `row`. */
BL_INLINE __m256 unit_scales(const bl_type type, const uint8_t *unit, const uint8_t *halves, int row)
{
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(halves + 2 * row)));
    return type == BL_Q6_K ? _mm256_mul_ps(i8x8((const int8_t *)unit + row), scale) : scale;
}

/* Codes . one digit of the activations. Codes below 64 leave room to add four pairs in 16 bits. */
BL_INLINE __m256i multiply_digit(const __m256i u8x32[4], const int8_t digit[BL_LANES], const bl_type type)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[4], sum;
    for (int q = 0; q < 4; q++) {
        int32_t four;
        memcpy(&four, digit + 4 * q, sizeof four);
        pairs[q] = _mm256_maddubs_epi16(u8x32[q], _mm256_set1_epi32(four));
    }
    if (type != BL_Q8_0) {
        const __m256i first = _mm256_add_epi16(pairs[0], pairs[1]), second = _mm256_add_epi16(pairs[2], pairs[3]);
        return _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
    }
    sum = _mm256_madd_epi16(pairs[0], ones);
    for (int q = 1; q < 4; q++) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[q], ones));
    return sum;
}

/* sum + the dot product of 8 rows with a group. */
BL_INLINE __m256 add_group(__m256 sum, const __m256i u8x32[4], __m256 scale, const bl_fixed *x, const bl_type type)
{
    __m256i dot[3];
    for (int d = 0; d < 3; d++) dot[d] = multiply_digit(u8x32, x->digit[d], type);
    const __m256i added = _mm256_set1_epi32(x->sum * (1 << bl_code_offset(type)));
    const __m256i high = _mm256_add_epi32(_mm256_slli_epi32(dot[0], 7), dot[1]);
    const __m256i all = _mm256_add_epi32(_mm256_slli_epi32(high, 7), _mm256_sub_epi32(dot[2], added));
    return _mm256_add_ps(sum, _mm256_mul_ps(_mm256_cvtepi32_ps(all), _mm256_mul_ps(scale, _mm256_set1_ps(x->step))));
}

BL_INLINE void lane_sums(float *sums, const bl_type type, const bl_lane *lane, const int64_t n)
{
    __m256 sum[STRIP_TOKENS][4];
    for (int64_t t = 0; t < n; t++)
        for (int h = 0; h < 4; h++) sum[t][h] = _mm256_setzero_ps();
    for (int64_t u = 0; u < lane->count; u++) {
        const uint8_t *unit = lane->units + u * bl_unit_bytes(type), *halves = lane->halves + u * lane->halves_step;
        for (int64_t line = 0; line < bl_unit_bytes(type); line += 64) prefetch_near(unit + line + BL_AHEAD);
        for (int h = 0; h < 4; h++) {
            const uint8_t *from = unit + bl_unit_scales(type) + h / 2 * bl_codes_bytes(type) + h % 2 * 32;
            __m256i codes[4];
            unit_codes(codes, type, from);
            const __m256 scale = unit_scales(type, unit, halves, 8 * h);
            for (int64_t t = 0; t < n; t++) sum[t][h] = add_group(sum[t][h], codes, scale, bl_lane_x(lane, u, t), type);
        }
    }
    for (int64_t t = 0; t < n; t++)
        for (int h = 0; h < 4; h++) _mm256_storeu_ps(sums + BL_STRIP * t + 8 * h, sum[t][h]);
}
