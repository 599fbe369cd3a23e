/* Dense block types by vpdpbusd. Included by avx512.h inside its target region. */

#include "dense_digits.h"

enum { BL_FN(MEET) = 4 };

typedef struct {
    __m512i u8x64[4];
    bl_f32x16 scale;
} BL_FN(codes);

BL_INLINE bl_f32x16 BL_FN(in_order)(bl_f32x16 sum)
{
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), sum);
}

/* Codes whose register v has groups 4 v .. 4 v + 3 in their order. */
BL_INLINE void BL_FN(transpose)(BL_FN(codes) *to, const __m512i v[4])
{
    const __m512i low0 = _mm512_unpacklo_epi32(v[0], v[1]), high0 = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i low1 = _mm512_unpacklo_epi32(v[2], v[3]), high1 = _mm512_unpackhi_epi32(v[2], v[3]);
    to->u8x64[0] = _mm512_unpacklo_epi64(low0, low1);
    to->u8x64[1] = _mm512_unpackhi_epi64(low0, low1);
    to->u8x64[2] = _mm512_unpacklo_epi64(high0, high1);
    to->u8x64[3] = _mm512_unpackhi_epi64(high0, high1);
}

BL_INLINE void BL_FN(open_q6_k)(BL_FN(codes) *to, const uint8_t *block)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i scales = _mm_loadu_si128((const __m128i *)(const void *)(block + 192));
    /* d is the last of four halves, which save a broadcast of words */
    const __m128 last = _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)(block + 202)));
    const __m512 d = _mm512_permutexvar_ps(_mm512_set1_epi32(3), _mm512_castps128_ps512(last));
    to->scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_shuffle_epi8(scales, order))), d);
    __m512i v[4];
    BL_FN(u6x128)(v, block, block + 128);
    BL_FN(u6x128)(v + 2, block + 64, block + 160);
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
    return _mm512_cvtph_ps(_mm256_permute4x64_epi64(_mm256_castsi128_si256(f16x8), 0x50));
}

BL_INLINE void BL_FN(open_q8_0)(BL_FN(codes) *to, const uint8_t *block)
{
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)(block + 68 * i + 2));
        const __m256i second = _mm256_loadu_si256((const __m256i *)(const void *)(block + 68 * i + 36));
        v[i] = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1),
                                _mm512_set1_epi8((char)0x80));
    }
    to->scale = BL_FN(scales_of_8)(block, 34);
    BL_FN(transpose)(to, v);
}

BL_INLINE void BL_FN(open_q4_0)(BL_FN(codes) *to, const uint8_t *block)
{
    const int64_t low = 0x0102040800000000, high = 0x1020408000000000; /* as bit matrices: keep, or move down, 4 bits */
    const __m512i nibbles = _mm512_set_epi64(high, high, low, low, high, high, low, low);
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        const __m128i first = _mm_loadu_si128((const __m128i *)(const void *)(block + 36 * i + 2));
        const __m128i second = _mm_loadu_si128((const __m128i *)(const void *)(block + 36 * i + 20));
        v[i] = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(first), 0xff00, second);
        v[i] = _mm512_gf2p8affine_epi64_epi8(v[i], nibbles, 0);
    }
    to->scale = BL_FN(scales_of_8)(block, 18);
    BL_FN(transpose)(to, v);
}

/* Add codes less 2^offset . activations to the sums of some rows, in the transposed order. */
BL_INLINE void BL_FN(meet)(bl_f32x16 *sum, const BL_FN(codes) *codes, const int rows, const BL_FN(fixed) *x,
                           const int offset)
{
    __m512i dot[BL_FN(MEET)]; /* a chain through all digits, highest first: rows and chunks overlap */
    for (int r = 0; r < rows; r++) dot[r] = _mm512_setzero_si512();
    for (int digit = 0; digit < 3; digit++) {
        if (digit)
            for (int r = 0; r < rows; r++) dot[r] = _mm512_slli_epi32(dot[r], 7);
        for (int i = 0; i < 4; i++) {
            const __m512i i8x64 = BL_FN(load_i8x64)(x->digit[digit][i]);
            for (int r = 0; r < rows; r++) dot[r] = BL_FN(dpbusd)(dot[r], codes[r].u8x64[i], i8x64);
        }
    }
    const __m512i added = _mm512_slli_epi32(BL_FN(load_i8x64)(x->sum), (unsigned)offset);
    const __m512 step = _mm512_loadu_ps(x->step);
    for (int r = 0; r < rows; r++) {
        const __m512 scale = _mm512_mul_ps(codes[r].scale, step);
        sum[r] = _mm512_add_ps(sum[r], _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(dot[r], added)), scale));
    }
}
