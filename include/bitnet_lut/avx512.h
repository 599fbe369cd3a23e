/* AVX-512 of Ice Lake and Zen 4 up: integer dot by vpdpbusd (VNNI). Contracts are in scalar.h. */
#ifndef BL_AVX512_H
#define BL_AVX512_H

#define BL_TIER avx512
#define BL_TIER_NEEDS                                                                                                  \
    (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVX512F | BL_CPU_AVX512BW | BL_CPU_AVX512DQ | BL_CPU_AVX512VL |                \
     BL_CPU_AVX512VNNI | BL_CPU_AVX512VBMI | BL_CPU_GFNI)
BL_TARGET("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni")

typedef __m512 bl_f32x16_avx512;
#define bl_f32x16 bl_f32x16_avx512

BL_INLINE bl_f32x16 BL_FN(zero)(void) { return _mm512_setzero_ps(); }
BL_INLINE bl_f32x16 BL_FN(set1)(float x) { return _mm512_set1_ps(x); }
BL_INLINE bl_f32x16 BL_FN(load)(const float *p) { return _mm512_loadu_ps(p); }
BL_INLINE void BL_FN(store)(float *p, bl_f32x16 v) { _mm512_storeu_ps(p, v); }
BL_INLINE bl_f32x16 BL_FN(load_f16)(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
BL_INLINE bl_f32x16 BL_FN(load_bf16)(const uint8_t *p)
{
    const __m512i u32x16 = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u32x16, 16));
}
BL_INLINE bl_f32x16 BL_FN(load_i8)(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
BL_INLINE bl_f32x16 BL_FN(add)(bl_f32x16 a, bl_f32x16 b) { return _mm512_add_ps(a, b); }
BL_INLINE bl_f32x16 BL_FN(mul)(bl_f32x16 a, bl_f32x16 b) { return _mm512_mul_ps(a, b); }
BL_INLINE float BL_FN(reduce)(bl_f32x16 v)
{
    const __m256 f32x8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 f32x4 = _mm_add_ps(_mm256_castps256_ps128(f32x8), _mm256_extractf128_ps(f32x8, 1));
    const __m128 f32x2 = _mm_add_ps(f32x4, _mm_movehl_ps(f32x4, f32x4));
    return _mm_cvtss_f32(_mm_add_ss(f32x2, _mm_movehdup_ps(f32x2)));
}
BL_INLINE void BL_FN(store_f16x16)(uint16_t *p, bl_f32x16 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

BL_INLINE float BL_FN(f16)(const uint8_t *p) { return bl_f16_avx2(p); }
BL_INLINE void BL_FN(prefetch)(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
BL_INLINE void BL_FN(unpack_i4x32)(int8_t *q, const uint8_t *p) { bl_unpack_i4x32_avx2(q, p); }

BL_INLINE void BL_FN(unpack_i6x128)(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30), bias = _mm512_set1_epi8(32);
    const __m512i fours = _mm512_loadu_si512(low);
    const __m512i twos = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)high));
    const __m512i up = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4), down = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    const __m512i first = _mm512_or_si512(_mm512_and_si512(fours, nibble),
                                          _mm512_and_si512(_mm512_sllv_epi64(twos, up), pair));
    const __m512i second = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(fours, 4), nibble),
                                           _mm512_and_si512(_mm512_srlv_epi64(twos, down), pair));
    _mm512_storeu_si512(q, _mm512_sub_epi8(first, bias));
    _mm512_storeu_si512(q + 64, _mm512_sub_epi8(second, bias));
}

BL_INLINE __m512i BL_FN(load_i8x64)(const void *p) { return _mm512_loadu_si512(p); }

static void BL_FN(i2_s_prepare)(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    const int64_t values = bl_i2_s_values(cols);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum_i32x16 = _mm512_setzero_si512();
    uint8_t *to = prepared + sizeof(bl_prepared);
    for (int64_t k = 0; k < values; k += 2 * BL_BLOCK, to += 2 * BL_BLOCK) {
        int8_t part[2 * BL_BLOCK];
        const int8_t *from = q + k;
        if (cols - k < 2 * BL_BLOCK) {
            memset(part, 0, sizeof part);
            memcpy(part, from, (size_t)(cols - k));
            from = part;
        }
        for (int t = 0; t < 4; t++) {
            const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32 * t));
            const __m256i second = _mm256_loadu_si256((const __m256i *)(const void *)(from + BL_BLOCK + 32 * t));
            const __m512i q_i8x64 = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
            _mm512_storeu_si512(to + 64 * t, q_i8x64);
            sum_i32x16 = _mm512_dpbusd_epi32(sum_i32x16, ones, q_i8x64);
        }
    }
    const bl_prepared head = {.sum = _mm512_reduce_add_epi32(sum_i32x16)};
    memcpy(prepared, &head, sizeof head);
}

/* gcc spills the accumulators of the intrinsic even with registers to spare; the instruction itself does not. */
BL_INLINE __m512i BL_FN(dpbusd)(__m512i sum, __m512i u8x64, __m512i i8x64)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8x64), "v"(i8x64));
    return sum;
#else
    return _mm512_dpbusd_epi32(sum, u8x64, i8x64);
#endif
}

/* 64 bytes of a row, zero (which meets zero activations) where the row has only 32 left. */
BL_INLINE __m512i BL_FN(load_codes)(const uint8_t *row, int64_t b, int64_t row_bytes)
{
    BL_FN(prefetch)(row + b + BL_AHEAD);
    return row_bytes - b >= 64 ? _mm512_loadu_si512(row + b) : _mm512_maskz_loadu_epi8(0xffffffffu, row + b);
}

BL_INLINE int32_t BL_FN(token_sum)(const uint8_t *values)
{
    bl_prepared head;
    memcpy(&head, values - sizeof head, sizeof head);
    return head.sum;
}

/* One token. The codes stay where they are in their byte: masked, they are 64, 16, 4 and 1 times the code, summed
 * apart and shifted down at the end, exactly. */
BL_INLINE void BL_FN(i2_s_rows)(int32_t *dot, const uint8_t *packed, const uint8_t *values, int64_t row_bytes,
                                const int rows)
{
    const __m512i mask[4] = {_mm512_set1_epi8((char)0xc0), _mm512_set1_epi8(0x30), _mm512_set1_epi8(0x0c),
                             _mm512_set1_epi8(0x03)};
    __m512i sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int f = 0; f < 4; f++) sum[r][f] = _mm512_setzero_si512();
    for (int64_t b = 0; b < row_bytes; b += 64) {
        __m512i codes[4];
        for (int r = 0; r < rows; r++) codes[r] = BL_FN(load_codes)(packed + r * row_bytes, b, row_bytes);
        for (int f = 0; f < 4; f++) {
            const __m512i q = BL_FN(load_i8x64)(values + 4 * b + 64 * f);
            for (int r = 0; r < rows; r++)
                sum[r][f] = BL_FN(dpbusd)(sum[r][f], _mm512_and_si512(codes[r], mask[f]), q);
        }
    }
    for (int r = 0; r < rows; r++) {
        const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[r][0], 6), _mm512_srai_epi32(sum[r][1], 4));
        const __m512i low = _mm512_add_epi32(_mm512_srai_epi32(sum[r][2], 2), sum[r][3]);
        dot[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(high, low)) - BL_FN(token_sum)(values);
    }
}

/* A tile of rows x tokens: codes are decoded once and meet every token. */
BL_INLINE void BL_FN(i2_s_tile)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values,
                                int64_t row_bytes, int64_t token_bytes, const int rows, const int tokens)
{
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = _mm512_setzero_si512();
    for (int64_t b = 0; b < row_bytes; b += 64) {
        __m512i bytes[4], codes[4];
        for (int r = 0; r < rows; r++) bytes[r] = BL_FN(load_codes)(packed + r * row_bytes, b, row_bytes);
        for (int f = 0; f < 4; f++) {
            for (int r = 0; r < rows; r++)
                codes[r] = _mm512_and_si512(_mm512_srli_epi16(bytes[r], (unsigned)(6 - 2 * f)), mask);
            for (int t = 0; t < tokens; t++) {
                const __m512i q = BL_FN(load_i8x64)(values + t * token_bytes + 4 * b + 64 * f);
                for (int r = 0; r < rows; r++) sum[r][t] = BL_FN(dpbusd)(sum[r][t], codes[r], q);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            dot[t * dot_stride + r] =
                _mm512_reduce_add_epi32(sum[r][t]) - BL_FN(token_sum)(values + t * token_bytes);
}

static void BL_FN(i2_s_gemm)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                             int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), token_bytes = bl_i2_s_prepared_bytes(cols);
    const uint8_t *values = prepared + sizeof(bl_prepared);
    int64_t row = lo;
#define BL_TILE(rows, tokens)                                                                                          \
    BL_FN(i2_s_tile)(dot + t * dot_stride + row, dot_stride, packed + row * row_bytes, values + t * token_bytes,       \
                     row_bytes, token_bytes, rows, tokens)
#define BL_ROWS(rows)                                                                                                  \
    BL_FN(i2_s_rows)(dot + t * dot_stride + row, packed + row * row_bytes, values + t * token_bytes, row_bytes, rows)
    for (; row + 4 <= hi; row += 4) {
        int64_t t = 0;
        for (; t + 4 <= n; t += 4) BL_TILE(4, 4);
        if (n - t == 3) BL_TILE(4, 3);
        if (n - t == 2) BL_TILE(4, 2);
        if (n - t == 1) BL_ROWS(4);
    }
    for (; row < hi; row++)
        for (int64_t t = 0; t < n; t++) BL_ROWS(1);
#undef BL_TILE
#undef BL_ROWS
}

BL_INLINE uint32_t BL_FN(max_bits)(const float *x, int64_t n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i max_i32x16 = _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + 16 <= n; k += 16)
        max_i32x16 = _mm512_max_epu32(max_i32x16, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
    const uint32_t max = _mm512_reduce_max_epu32(max_i32x16), rest = bl_max_bits_scalar(x + k, n - k);
    return rest > max ? rest : max;
}

BL_INLINE void BL_FN(round_i8)(int8_t *q, const float *x, int64_t n, float scale)
{
    const __m512 scale_f32x16 = _mm512_set1_ps(scale);
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m512i i32x16 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), scale_f32x16));
        _mm_storeu_si128((__m128i *)(void *)(q + k), _mm512_cvtsepi32_epi8(i32x16));
    }
    bl_round_i8_scalar(q + k, x + k, n - k, scale);
}

#include "ops.h"

BL_TARGET_END
#undef bl_f32x16
#undef BL_TIER
#endif
