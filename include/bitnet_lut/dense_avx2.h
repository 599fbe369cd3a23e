/* Dense block types by vpmaddwd. Included by avx2.h inside its target region.
 *
 * Whole numbers are two words, x = 1024 high + low. Codes are made unsigned and widened to words, those of even and of
 * odd columns apart, and the sum of the activations times what was added is taken off again, modulo 2^32. The order of
 * the groups is that of dense_avx512.h, whose register is two here: parts 0 and 1, then 2 and 3. */

enum { BL_FN(MEET) = 1 };

typedef struct {
    int16_t word[2][4][2][2][BL_LANES]; /* half, register, high or low, even or odd columns */
    int32_t sum[BL_LANES];
    float step[BL_LANES];
} BL_FN(fixed);

typedef struct {
    __m256i u16x16[2][4][2]; /* half, register, even or odd columns */
    bl_f32x16 scale;
} BL_FN(codes);

/* The lane of a group in the transposed order; this swap is its own inverse. */
BL_INLINE int BL_FN(lane)(int group) { return group % 4 * 4 + group / 4; }

BL_INLINE bl_f32x16 BL_FN(in_order)(bl_f32x16 sum)
{
    float lanes[BL_LANES], ordered[BL_LANES];
    BL_FN(store)(lanes, sum);
    for (int j = 0; j < BL_LANES; j++) ordered[j] = lanes[BL_FN(lane)(j)];
    return BL_FN(load)(ordered);
}

BL_INLINE void BL_FN(place_group)(BL_FN(fixed) *fixed, int group, const int32_t whole[BL_LANES], float step)
{
    const int lane = BL_FN(lane)(group);
    fixed->step[lane] = step;
    for (int j = 0; j < BL_LANES; j++) {
        const int16_t high = (int16_t)((whole[j] + 512) >> 10), low = (int16_t)(whole[j] - high * 1024);
        const int at = lane % 8 * 2 + j % 4 / 2;
        fixed->word[lane / 8][j / 4][0][j % 2][at] = high;
        fixed->word[lane / 8][j / 4][1][j % 2][at] = low;
        fixed->sum[lane] += whole[j];
    }
}

/* Codes of 256 columns in their order. */
BL_INLINE void BL_FN(transpose)(BL_FN(codes) *to, const __m256i v[8])
{
    for (int half = 0; half < 2; half++) {
        const __m256i v0 = v[half], v1 = v[half + 2], v2 = v[half + 4], v3 = v[half + 6];
        const __m256i low0 = _mm256_unpacklo_epi32(v0, v1), high0 = _mm256_unpackhi_epi32(v0, v1);
        const __m256i low1 = _mm256_unpacklo_epi32(v2, v3), high1 = _mm256_unpackhi_epi32(v2, v3);
        const __m256i u8x32[4] = {_mm256_unpacklo_epi64(low0, low1), _mm256_unpackhi_epi64(low0, low1),
                                  _mm256_unpacklo_epi64(high0, high1), _mm256_unpackhi_epi64(high0, high1)};
        for (int i = 0; i < 4; i++) {
            to->u16x16[half][i][0] = _mm256_and_si256(u8x32[i], _mm256_set1_epi16(255));
            to->u16x16[half][i][1] = _mm256_srli_epi16(u8x32[i], 8);
        }
    }
}

BL_INLINE void BL_FN(open_q6_k)(BL_FN(codes) *to, const uint8_t *block)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    int8_t scales[BL_LANES];
    _mm_storeu_si128((__m128i *)(void *)scales,
                     _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(block + 192)), order));
    to->scale = BL_FN(mul)(BL_FN(load_i8)(scales), BL_FN(set1)(BL_FN(f16)(block + 208)));
    __m256i v[8];
    BL_FN(u6x128)(v, block, block + 128);
    BL_FN(u6x128)(v + 4, block + 64, block + 160);
    BL_FN(transpose)(to, v);
}

/* The half scales of eight blocks of 32, each in the lanes of its two groups. */
BL_INLINE bl_f32x16 BL_FN(scales_of_8)(const uint8_t *block, int bytes)
{
    __m128i f16x8 = _mm_cvtsi32_si128(bl_load_u16(block));
#define BL_INSERT(lane, b) f16x8 = _mm_insert_epi16(f16x8, bl_load_u16(block + (b) * bytes), lane)
    BL_INSERT(1, 2), BL_INSERT(2, 4), BL_INSERT(3, 6), BL_INSERT(4, 1), BL_INSERT(5, 3), BL_INSERT(6, 5), BL_INSERT(7, 7);
#undef BL_INSERT
    return BL_FN(pair)(_mm256_cvtph_ps(_mm_unpacklo_epi64(f16x8, f16x8)),
                       _mm256_cvtph_ps(_mm_unpackhi_epi64(f16x8, f16x8)));
}

BL_INLINE void BL_FN(open_q8_0)(BL_FN(codes) *to, const uint8_t *block)
{
    __m256i v[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm256_xor_si256(BL_FN(load_u8x32)(block + 34 * i + 2), _mm256_set1_epi8((char)0x80));
    to->scale = BL_FN(scales_of_8)(block, 34);
    BL_FN(transpose)(to, v);
}

BL_INLINE void BL_FN(open_q4_0)(BL_FN(codes) *to, const uint8_t *block)
{
    __m256i v[8];
    for (int i = 0; i < 8; i++) v[i] = BL_FN(u4x32)(block + 18 * i + 2);
    to->scale = BL_FN(scales_of_8)(block, 18);
    BL_FN(transpose)(to, v);
}

/* Half of the lanes of meet. */
BL_INLINE void BL_FN(meet_half)(__m256i *dot, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                                const int half, const int offset)
{
    __m256i high[BL_FN(MEET)], low[BL_FN(MEET)];
    for (int r = 0; r < rows; r++) high[r] = low[r] = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        for (int odd = 0; odd < 2; odd++) {
            const __m256i x_high = BL_FN(load_u8x32)(x->word[half][i][0][odd]);
            const __m256i x_low = BL_FN(load_u8x32)(x->word[half][i][1][odd]);
            for (int r = 0; r < rows; r++) {
                const __m256i u16x16 = codes[r].u16x16[half][i][odd];
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(u16x16, x_high));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(u16x16, x_low));
            }
        }
    const __m256i added = _mm256_slli_epi32(BL_FN(load_u8x32)(x->sum + 8 * half), offset);
    for (int r = 0; r < rows; r++)
        dot[r] = _mm256_add_epi32(_mm256_slli_epi32(high[r], 10), _mm256_sub_epi32(low[r], added));
}

/* Add codes less 2^offset . activations to the sums of some rows, in the transposed order. */
BL_INLINE void BL_FN(meet)(bl_f32x16 *sum, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                           const int offset)
{
    __m256i first[BL_FN(MEET)], second[BL_FN(MEET)];
    BL_FN(meet_half)(first, codes, rows, x, 0, offset);
    BL_FN(meet_half)(second, codes, rows, x, 1, offset);
    for (int r = 0; r < rows; r++) {
        const bl_f32x16 whole = BL_FN(pair)(_mm256_cvtepi32_ps(first[r]), _mm256_cvtepi32_ps(second[r]));
        const bl_f32x16 scale = BL_FN(mul)(codes[r].scale, BL_FN(load)(x->step));
        sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(whole, scale));
    }
}
