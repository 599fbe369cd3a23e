/* Dense block types by vpdpbusd, 32 rows at once: they share the digits that are broadcast. Included by the tiers
 * avx512 and amx inside their target regions. */

enum { SCALES_AT_ONCE = 0, LANE_TOKENS = 4 /* whose sums registers hold */ };

/* Codes of 16 rows and 16 columns. */
BL_INLINE void unit_codes(__m512i u8x64[4], const bl_type type, const uint8_t *codes)
{
    const __m512i a = load_i8x64(codes), b = load_i8x64(codes + 64);
    if (type == BL_Q8_0) {
        u8x64[0] = a, u8x64[1] = b;
        u8x64[2] = load_i8x64(codes + 128), u8x64[3] = load_i8x64(codes + 192);
    } else if (type == BL_Q4_0) {
        const __m512i mask = _mm512_set1_epi8(15);
        u8x64[0] = _mm512_and_si512(a, mask), u8x64[2] = _mm512_and_si512(_mm512_srli_epi16(a, 4), mask);
        u8x64[1] = _mm512_and_si512(b, mask), u8x64[3] = _mm512_and_si512(_mm512_srli_epi16(b, 4), mask);
    } else {
        enum { SELECT = 0xe4 }; /* the first where the mask has ones, else the second */
        const __m512i mask = _mm512_set1_epi8(63), low = _mm512_set1_epi8(3), middle = _mm512_set1_epi8(12);
        const __m512i c = load_i8x64(codes + 128);
        const __m512i upper =
            _mm512_ternarylogic_epi64(_mm512_srli_epi16(b, 4), _mm512_srli_epi16(c, 2), middle, SELECT);
        const __m512i all = _mm512_ternarylogic_epi64(_mm512_srli_epi16(a, 6), upper, low, SELECT);
        u8x64[0] = _mm512_and_si512(a, mask), u8x64[1] = _mm512_and_si512(b, mask);
        u8x64[2] = _mm512_and_si512(c, mask), u8x64[3] = _mm512_and_si512(all, mask);
    }
}

/* The scales of 16 rows of a unit, the first of which is `row`. */
BL_INLINE __m512 unit_scales(const bl_type type, const uint8_t *unit, const uint8_t *halves, int row)
{
    const __m512 scale = load_f16(halves + 2 * row);
    return type == BL_Q6_K ? _mm512_mul_ps(load_i8((const int8_t *)unit + row), scale) : scale;
}

/* sum + the dot products of 16 rows with the digits of a group, times scale and step. */
BL_INLINE __m512 add_dots(__m512 sum, const __m512i dot[3], __m512 scale, __m512 step)
{
    const __m512i high = _mm512_add_epi32(_mm512_slli_epi32(dot[0], 7), dot[1]);
    const __m512 all = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 7), dot[2]));
    return _mm512_add_ps(sum, _mm512_mul_ps(all, _mm512_mul_ps(scale, step)));
}

/* Add the dot products of 32 rows with a group. */
BL_INLINE void add_group(__m512 sum[2], const __m512i u8x64[2][4], const __m512 scale[2], const bl_fixed *x,
                         const int offset)
{
    __m512i dot[2][3];
    for (int d = 0; d < 3; d++) {
        const __m512i start = d < 2 ? _mm512_setzero_si512() : _mm512_set1_epi32(-(x->sum * (1 << offset)));
        dot[0][d] = dot[1][d] = start;
        for (int q = 0; q < 4; q++) {
            int32_t four;
            memcpy(&four, x->digit[d] + 4 * q, sizeof four);
            const __m512i digits = _mm512_set1_epi32(four);
            for (int h = 0; h < 2; h++) dot[h][d] = dpbusd(dot[h][d], u8x64[h][q], digits);
        }
    }
    const __m512 step = _mm512_set1_ps(x->step);
    for (int h = 0; h < 2; h++) sum[h] = add_dots(sum[h], dot[h], scale[h], step);
}

/* lane_sums of up to LANE_TOKENS tokens from the first on. */
BL_INLINE void lane_tile(float *sums, const bl_type type, const bl_lane *lane, int64_t first, const int tokens)
{
    __m512 sum[LANE_TOKENS][2];
    for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
    for (int64_t u = 0; u < lane->count; u++) {
        const uint8_t *unit = lane->units + u * bl_unit_bytes(type), *halves = lane->halves + u * lane->halves_step;
        __m512i codes[2][4];
        __m512 scale[2];
        for (int64_t line = 0; line < bl_unit_bytes(type); line += 64) prefetch_near(unit + line + BL_AHEAD);
        for (int h = 0; h < 2; h++) {
            unit_codes(codes[h], type, unit + bl_unit_scales(type) + h * bl_codes_bytes(type));
            scale[h] = unit_scales(type, unit, halves, BL_LANES * h);
        }
        for (int t = 0; t < tokens; t++)
            add_group(sum[t], (const __m512i(*)[4])codes, scale, bl_lane_x(lane, u, first + t), bl_code_offset(type));
    }
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(sums + BL_STRIP * (first + t) + BL_LANES * h, sum[t][h]);
}

/* lane_sums of any number of tokens: codes, in the nearest cache, are decoded again for every few of them, which is
 * cheaper than sums in memory (Zen 5). */
BL_INLINE void lane_in_registers(float *sums, const bl_type type, const bl_lane *lane, const int64_t n)
{
    for (int64_t t = 0, tokens; t < n; t += tokens) {
        tokens = bl_even_share(n - t, LANE_TOKENS);
        switch (tokens) { /* instantiated for numbers known to the compiler */
        case 1: lane_tile(sums, type, lane, t, 1); break;
        case 2: lane_tile(sums, type, lane, t, 2); break;
        case 3: lane_tile(sums, type, lane, t, 3); break;
        default: lane_tile(sums, type, lane, t, 4); break;
        }
    }
}
