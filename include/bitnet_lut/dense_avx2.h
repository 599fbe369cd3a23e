/* Dense block types by vpmaddubsw. Included by avx2.h inside its target region. */

#include "dense_digits.h"

enum { BL_FN(MEET) = 1 };

typedef struct {
    __m256i u8x32[2][4]; /* half, register */
    bl_f32x16 scale;
} BL_FN(codes);

BL_INLINE bl_f32x16 BL_FN(in_order)(bl_f32x16 sum)
{
    float lanes[BL_LANES], ordered[BL_LANES];
    BL_FN(store)(lanes, sum);
    for (int j = 0; j < BL_LANES; j++) ordered[j] = lanes[BL_FN(lane)(j)];
    return BL_FN(load)(ordered);
}

/* Codes of 256 columns in their order. */
BL_INLINE void BL_FN(transpose)(BL_FN(codes) *to, const __m256i v[8])
{
    for (int half = 0; half < 2; half++) {
        const __m256i v0 = v[half], v1 = v[half + 2], v2 = v[half + 4], v3 = v[half + 6];
        const __m256i low0 = _mm256_unpacklo_epi32(v0, v1), high0 = _mm256_unpackhi_epi32(v0, v1);
        const __m256i low1 = _mm256_unpacklo_epi32(v2, v3), high1 = _mm256_unpackhi_epi32(v2, v3);
        to->u8x32[half][0] = _mm256_unpacklo_epi64(low0, low1);
        to->u8x32[half][1] = _mm256_unpackhi_epi64(low0, low1);
        to->u8x32[half][2] = _mm256_unpacklo_epi64(high0, high1);
        to->u8x32[half][3] = _mm256_unpackhi_epi64(high0, high1);
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
    BL_INSERT(1, 2), BL_INSERT(2, 4), BL_INSERT(3, 6), BL_INSERT(4, 1);
    BL_INSERT(5, 3), BL_INSERT(6, 5), BL_INSERT(7, 7);
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

/* Codes . one digit of the activations, half of the lanes. Codes below 64 leave room to add four pairs in 16 bits. */
BL_INLINE __m256i BL_FN(meet_digit)(const __m256i codes[4], const int8_t digit[4][64], const int half, const int offset)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[4], sum;
    for (int i = 0; i < 4; i++) pairs[i] = _mm256_maddubs_epi16(codes[i], BL_FN(load_u8x32)(digit[i] + 32 * half));
    if (offset <= 5) {
        const __m256i first = _mm256_add_epi16(pairs[0], pairs[1]), second = _mm256_add_epi16(pairs[2], pairs[3]);
        return _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
    }
    sum = _mm256_madd_epi16(pairs[0], ones);
    for (int i = 1; i < 4; i++) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[i], ones));
    return sum;
}

/* Codes less 2^offset . activations, half of the lanes. */
BL_INLINE __m256 BL_FN(meet_half)(const BL_FN(codes) *codes, const BL_FN(fixed) *x, const int half, const int offset)
{
    __m256i dot[3];
    for (int d = 0; d < 3; d++) dot[d] = BL_FN(meet_digit)(codes->u8x32[half], x->digit[d], half, offset);
    const __m256i added = _mm256_slli_epi32(BL_FN(load_u8x32)(x->sum + 8 * half), offset);
    const __m256i high = _mm256_add_epi32(_mm256_slli_epi32(dot[0], 7), dot[1]);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(high, 7), _mm256_sub_epi32(dot[2], added)));
}

/* Add codes less 2^offset . activations to the sums of some rows, in the transposed order. */
BL_INLINE void BL_FN(meet)(bl_f32x16 *sum, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                           const int offset)
{
    for (int r = 0; r < rows; r++) {
        const __m256 low = BL_FN(meet_half)(&codes[r], x, 0, offset), high = BL_FN(meet_half)(&codes[r], x, 1, offset);
        const bl_f32x16 scale = BL_FN(mul)(codes[r].scale, BL_FN(load)(x->step));
        sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(BL_FN(pair)(low, high), scale));
    }
}
