/* Sixteen float lanes in two registers of 256 bits. Included by the tiers avx2 and avxvnni inside their target regions;
 * scalar.c states what each function does. */

#include "shared/x86.h"

typedef struct { __m256 low, high; } f32x16;

BL_INLINE f32x16 make_f32x16(__m256 low, __m256 high)
{
    f32x16 v = {low, high};
    return v;
}
BL_INLINE f32x16 zero(void) { return make_f32x16(_mm256_setzero_ps(), _mm256_setzero_ps()); }
BL_INLINE f32x16 set1(float x) { return make_f32x16(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
BL_INLINE f32x16 load(const float *p) { return make_f32x16(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
BL_INLINE void store(float *p, f32x16 v)
{
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}
BL_INLINE f32x16 load_f16(const uint8_t *p)
{
    return make_f32x16(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                       _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 16))));
}
BL_INLINE __m256 bf16x8(const uint8_t *p)
{
    const __m256i u32x8 = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u32x8, 16));
}
BL_INLINE f32x16 load_bf16(const uint8_t *p) { return make_f32x16(bf16x8(p), bf16x8(p + 16)); }
BL_INLINE __m256 i8x8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
BL_INLINE f32x16 load_i8(const int8_t *p) { return make_f32x16(i8x8(p), i8x8(p + 8)); }
BL_INLINE f32x16 add(f32x16 a, f32x16 b)
{
    return make_f32x16(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}
BL_INLINE f32x16 mul(f32x16 a, f32x16 b)
{
    return make_f32x16(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}
BL_INLINE float reduce(f32x16 v)
{
    const __m256 f32x8 = _mm256_add_ps(v.low, v.high);
    const __m128 f32x4 = _mm_add_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_add_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_add_ss(f32x2, _mm_movehdup_ps(f32x2)));
}
BL_INLINE f32x16 larger(f32x16 a, f32x16 b)
{
    return make_f32x16(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high));
}
BL_INLINE float largest(f32x16 v)
{
    const __m256 f32x8 = _mm256_max_ps(v.low, v.high);
    const __m128 f32x4 = _mm_max_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_max_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_max_ss(f32x2, _mm_movehdup_ps(f32x2)));
}
BL_INLINE void store_f16x16(uint16_t *p, f32x16 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
}

BL_INLINE uint32_t largest_bits(const float *x, int64_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i max_i32x8 = _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + k));
        max_i32x8 = _mm256_max_epi32(max_i32x8, _mm256_and_si256(bits, magnitude));
    }
    uint32_t lanes[8], max = bl_largest_bits(x + k, n - k);
    _mm256_storeu_si256((__m256i *)(void *)lanes, max_i32x8);
    for (int j = 0; j < 8; j++) max = lanes[j] > max ? lanes[j] : max;
    return max;
}

BL_INLINE void round_i8(int8_t *q, const float *x, int64_t n, float scale)
{
    const __m256 scale_f32x8 = _mm256_set1_ps(scale);
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), scale_f32x8));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k + 8), scale_f32x8));
        const __m256i i16x16 = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        const __m128i i8x16 = _mm_packs_epi16(_mm256_castsi256_si128(i16x16), _mm256_extracti128_si256(i16x16, 1));
        _mm_storeu_si128((__m128i *)(void *)(q + k), i8x16);
    }
    bl_round_i8(q + k, x + k, n - k, scale);
}
