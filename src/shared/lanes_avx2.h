/* Sixteen float lanes in two registers of 256 bits, and what else needs no more than AVX2 and F16C. Contracts are in
 * scalar.h. No include guard: avx2.h and avxvnni.h include this file inside their target regions. */

typedef struct { __m256 low, high; } BL_FN(f32x16);

BL_INLINE bl_f32x16 BL_FN(pair)(__m256 low, __m256 high) { bl_f32x16 v = {low, high}; return v; }
BL_INLINE bl_f32x16 BL_FN(zero)(void) { return BL_FN(pair)(_mm256_setzero_ps(), _mm256_setzero_ps()); }
BL_INLINE bl_f32x16 BL_FN(set1)(float x) { return BL_FN(pair)(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
BL_INLINE bl_f32x16 BL_FN(load)(const float *p) { return BL_FN(pair)(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
BL_INLINE void BL_FN(store)(float *p, bl_f32x16 v)
{
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}
BL_INLINE bl_f32x16 BL_FN(load_f16)(const uint8_t *p)
{
    return BL_FN(pair)(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                       _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 16))));
}
BL_INLINE __m256 BL_FN(bf16x8)(const uint8_t *p)
{
    const __m256i u32x8 = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u32x8, 16));
}
BL_INLINE bl_f32x16 BL_FN(load_bf16)(const uint8_t *p) { return BL_FN(pair)(BL_FN(bf16x8)(p), BL_FN(bf16x8)(p + 16)); }
BL_INLINE __m256 BL_FN(i8x8)(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
BL_INLINE bl_f32x16 BL_FN(load_i8)(const int8_t *p) { return BL_FN(pair)(BL_FN(i8x8)(p), BL_FN(i8x8)(p + 8)); }
BL_INLINE bl_f32x16 BL_FN(add)(bl_f32x16 a, bl_f32x16 b)
{
    return BL_FN(pair)(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}
BL_INLINE bl_f32x16 BL_FN(mul)(bl_f32x16 a, bl_f32x16 b)
{
    return BL_FN(pair)(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}
BL_INLINE float BL_FN(reduce)(bl_f32x16 v)
{
    const __m256 f32x8 = _mm256_add_ps(v.low, v.high);
    const __m128 f32x4 = _mm_add_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_add_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_add_ss(f32x2, _mm_movehdup_ps(f32x2)));
}
BL_INLINE void BL_FN(store_f16x16)(uint16_t *p, bl_f32x16 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
}

BL_INLINE float BL_FN(f16)(const uint8_t *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bl_load_u16(p)))); }
BL_INLINE void BL_FN(prefetch)(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
BL_INLINE void BL_FN(prefetch_near)(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

BL_INLINE __m256i BL_FN(load_u8x32)(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The low nibbles of p (16), then the high ones. */
BL_INLINE __m256i BL_FN(u4x32)(const uint8_t *p)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m256i spread = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(spread, _mm256_set1_epi8(15));
}

/* u8x32 (4) = 4 bits of low (64) and 2 bits of high (32) each. */
BL_INLINE void BL_FN(u6x128)(__m256i u8x32[4], const uint8_t *low, const uint8_t *high)
{
    const __m256i nibble = _mm256_set1_epi8(15), pair = _mm256_set1_epi8(0x30);
    const __m256i low0 = BL_FN(load_u8x32)(low), low1 = BL_FN(load_u8x32)(low + 32), bits = BL_FN(load_u8x32)(high);
    const __m256i fours[4] = {low0, low1, _mm256_srli_epi16(low0, 4), _mm256_srli_epi16(low1, 4)};
    const __m256i twos[4] = {_mm256_slli_epi16(bits, 4), _mm256_slli_epi16(bits, 2), bits, _mm256_srli_epi16(bits, 2)};
    for (int i = 0; i < 4; i++)
        u8x32[i] = _mm256_or_si256(_mm256_and_si256(fours[i], nibble), _mm256_and_si256(twos[i], pair));
}

BL_INLINE void BL_FN(unpack_i4x32)(int8_t *q, const uint8_t *p)
{
    _mm256_storeu_si256((__m256i *)(void *)q, _mm256_sub_epi8(BL_FN(u4x32)(p), _mm256_set1_epi8(8)));
}

BL_INLINE void BL_FN(unpack_i6x128)(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    __m256i u8x32[4];
    BL_FN(u6x128)(u8x32, low, high);
    for (int i = 0; i < 4; i++)
        _mm256_storeu_si256((__m256i *)(void *)(q + 32 * i), _mm256_sub_epi8(u8x32[i], _mm256_set1_epi8(32)));
}

BL_INLINE int32_t BL_FN(sum_i32x8)(__m256i v)
{
    const __m128i i32x4 = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i i32x2 = _mm_add_epi32(i32x4, _mm_unpackhi_epi64(i32x4, i32x4));
    return _mm_cvtsi128_si32(_mm_add_epi32(i32x2, _mm_shuffle_epi32(i32x2, 1)));
}

BL_INLINE uint32_t BL_FN(max_bits)(const float *x, int64_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i max_i32x8 = _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + k));
        max_i32x8 = _mm256_max_epi32(max_i32x8, _mm256_and_si256(bits, magnitude));
    }
    uint32_t lanes[8], max = bl_max_bits_scalar(x + k, n - k);
    _mm256_storeu_si256((__m256i *)(void *)lanes, max_i32x8);
    for (int j = 0; j < 8; j++) max = lanes[j] > max ? lanes[j] : max;
    return max;
}

BL_INLINE void BL_FN(round_i8)(int8_t *q, const float *x, int64_t n, float scale)
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
    bl_round_i8_scalar(q + k, x + k, n - k, scale);
}
