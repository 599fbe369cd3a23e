/* Sixteen float lanes in one register, and integer dots by vpdpbusd. Included by the tiers avx512 and amx inside their
 * target regions; scalar.c states what each function does. */

#include "shared/x86.h"

typedef __m512 f32x16;

BL_INLINE f32x16 zero(void) { return _mm512_setzero_ps(); }
BL_INLINE f32x16 set1(float x) { return _mm512_set1_ps(x); }
BL_INLINE f32x16 load(const float *p) { return _mm512_loadu_ps(p); }
BL_INLINE void store(float *p, f32x16 v) { _mm512_storeu_ps(p, v); }
BL_INLINE f32x16 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
BL_INLINE f32x16 load_bf16(const uint8_t *p)
{
    const __m512i u32x16 = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u32x16, 16));
}
BL_INLINE f32x16 load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
BL_INLINE f32x16 add(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
BL_INLINE f32x16 mul(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
BL_INLINE float reduce(f32x16 v)
{
    const __m256 f32x8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 f32x4 = _mm_add_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_add_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_add_ss(f32x2, _mm_movehdup_ps(f32x2)));
}
BL_INLINE f32x16 larger(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
BL_INLINE float largest(f32x16 v)
{
    const __m256 f32x8 = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 f32x4 = _mm_max_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_max_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_max_ss(f32x2, _mm_movehdup_ps(f32x2)));
}

/* Attention of several queries is made in tiles of so many queries and keys. */
#define TILE_QUERIES 4
#define TILE_KEYS 4

/* Half as many vectors, of the sums of two parts of each: parts of 4 lanes, or lanes within them. */
#define BL_FOLD(v, half, shuffle, first, second)                                                                       \
    for (int i = 0; i < half; i++)                                                                                     \
    v[i] = _mm512_add_ps(shuffle(v[i], v[i + half], first), shuffle(v[i], v[i + half], second))

/* scores (queries, stride) = reduce(sum) * scale of each query and key, in the order of additions that reduce has. */
BL_INLINE void reduce_tile(float *scores, int64_t stride, f32x16 sum[TILE_QUERIES][TILE_KEYS], float scale)
{
    /* Where folding leaves vector i: in part 0 2 1 3 by its upper two bits, at lane 0 2 1 3 of it by the lower two. */
    static const int order[4] = {0, 2, 1, 3};
    __m512 v[16];
    for (int q = 0; q < TILE_QUERIES; q++)
        for (int k = 0; k < TILE_KEYS; k++) v[4 * order[q] + order[k]] = sum[q][k];
    BL_FOLD(v, 8, _mm512_shuffle_f32x4, 0x44, 0xee);
    BL_FOLD(v, 4, _mm512_shuffle_f32x4, 0x88, 0xdd);
    BL_FOLD(v, 2, _mm512_shuffle_ps, 0x44, 0xee);
    BL_FOLD(v, 1, _mm512_shuffle_ps, 0x88, 0xdd);
    const __m512 all = _mm512_mul_ps(v[0], _mm512_set1_ps(scale));
    _mm_storeu_ps(scores, _mm512_castps512_ps128(all));
    _mm_storeu_ps(scores + stride, _mm512_extractf32x4_ps(all, 1));
    _mm_storeu_ps(scores + 2 * stride, _mm512_extractf32x4_ps(all, 2));
    _mm_storeu_ps(scores + 3 * stride, _mm512_extractf32x4_ps(all, 3));
}
#undef BL_FOLD

BL_INLINE void store_f16x16(uint16_t *p, f32x16 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

BL_INLINE __m512i load_i8x64(const void *p) { return _mm512_loadu_si512(p); }

/* Four activations for every row. */
BL_INLINE __m512i broadcast_quad(const uint8_t *values)
{
    int32_t four;
    memcpy(&four, values, sizeof four);
    return _mm512_set1_epi32(four);
}

/* gcc spills the accumulators of the intrinsic even with registers to spare; the instruction itself does not. */
BL_INLINE __m512i dpbusd(__m512i sum, __m512i u8x64, __m512i i8x64)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8x64), "v"(i8x64));
    return sum;
#else
    return _mm512_dpbusd_epi32(sum, u8x64, i8x64);
#endif
}

typedef __m512i quad_sums;

/* The bytes of quads are taken plus 128, as unsigned ones; what that adds is taken off at the start. */
BL_INLINE quad_sums start_quads(int32_t sum) { return _mm512_set1_epi32(-128 * sum); }
BL_INLINE quad_sums add_i32(quad_sums a, quad_sums b) { return _mm512_add_epi32(a, b); }
BL_INLINE quad_sums add_quads(quad_sums sum, const int8_t *quads, const int8_t *values)
{
    const __m512i u8x64 = _mm512_xor_si512(load_i8x64(quads), _mm512_set1_epi8(-128));
    return dpbusd(sum, u8x64, broadcast_quad((const uint8_t *)values));
}
BL_INLINE f32x16 to_floats(quad_sums v) { return _mm512_cvtepi32_ps(v); }

BL_INLINE uint32_t largest_bits(const float *x, int64_t n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i max_i32x16 = _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + 16 <= n; k += 16)
        max_i32x16 = _mm512_max_epu32(max_i32x16, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
    const uint32_t max = _mm512_reduce_max_epu32(max_i32x16), rest = bl_largest_bits(x + k, n - k);
    return rest > max ? rest : max;
}

BL_INLINE void round_i8(int8_t *q, const float *x, int64_t n, float scale)
{
    const __m512 scale_f32x16 = _mm512_set1_ps(scale);
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m512i i32x16 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), scale_f32x16));
        _mm_storeu_si128((__m128i *)(void *)(q + k), _mm512_cvtsepi32_epi8(i32x16));
    }
    bl_round_i8(q + k, x + k, n - k, scale);
}
