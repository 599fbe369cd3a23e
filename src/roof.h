/* The roofs of this machine: how fast memory can be read, and how fast bytes can be multiplied and added. Nothing that
 * is measured in earnest may exceed them. Each tier does it with its widest loads and the instruction of its dots. */
#ifndef BL_ROOF_H
#define BL_ROOF_H

#include <stdint.h>
#include <string.h>

#include "bitnet_lut/pool.h"
#include "target.h"

enum { BL_ROOF_UNIT = 4096 }; /* bytes: workers share a buffer in these */

typedef struct {
    const char *name; /* of the tier */
    /* XOR of the 64-bit words of data; bytes is a multiple of BL_ROOF_UNIT */
    uint64_t (*read)(const uint8_t *data, int64_t bytes);
    /* rounds of `macs` multiply-adds each; returns something that depends on all */
    uint64_t (*multiply)(int64_t rounds);
    int64_t macs;
} bl_roof;

BL_INLINE uint64_t bl_roof_word(const void *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Loads in order of their addresses, a line or two at a time: what the hardware fetches ahead for best. */
static uint64_t bl_roof_read_scalar(const uint8_t *data, int64_t bytes)
{
    uint64_t x[8] = {0};
    for (int64_t i = 0; i < bytes; i += 64)
        for (int j = 0; j < 8; j++) x[j] ^= bl_roof_word(data + i + 8 * j);
    return x[0] ^ x[1] ^ x[2] ^ x[3] ^ x[4] ^ x[5] ^ x[6] ^ x[7];
}

/* A dot of int16 within the first cache, which compilers make the best of their baseline of. */
enum { BL_ROOF_SCALAR_MACS = 1024 };

static uint64_t bl_roof_multiply_scalar(int64_t rounds)
{
    int16_t a[BL_ROOF_SCALAR_MACS], b[BL_ROOF_SCALAR_MACS];
    uint32_t total = 0;
    for (int i = 0; i < BL_ROOF_SCALAR_MACS; i++) {
        a[i] = (int16_t)(i % 127);
        b[i] = 1;
    }
    for (int64_t r = 0; r < rounds; r++) {
        int32_t sum = 0;
        for (int i = 0; i < BL_ROOF_SCALAR_MACS; i++) sum += a[i] * b[i];
        total += (uint32_t)sum;
        b[r % BL_ROOF_SCALAR_MACS] = (int16_t)(total & 1);
    }
    return total;
}

static const bl_roof bl_roof_scalar = {"scalar", bl_roof_read_scalar, bl_roof_multiply_scalar, BL_ROOF_SCALAR_MACS};

/* Sums that do not wait for each other, as variables: compilers keep an array of them in memory. */
#define BL_ROOF_CHAINS(F) F(a) F(b) F(c) F(d) F(e) F(f) F(g) F(h) F(i) F(j) F(k) F(l)
enum { BL_ROOF_CHAIN_COUNT = 12 };

#if BL_X86

#define BL_TIER avx2
BL_TARGET("avx2")

BL_INLINE __m256i BL_FN(roof_load)(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

static uint64_t BL_FN(roof_read)(const uint8_t *data, int64_t bytes)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int64_t i = 0; i < bytes; i += 128) {
        const uint8_t *from = data + i;
        a = _mm256_xor_si256(a, BL_FN(roof_load)(from));
        b = _mm256_xor_si256(b, BL_FN(roof_load)(from + 32));
        c = _mm256_xor_si256(c, BL_FN(roof_load)(from + 64));
        d = _mm256_xor_si256(d, BL_FN(roof_load)(from + 96));
    }
    uint64_t words[4];
    const __m256i all = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    _mm256_storeu_si256((__m256i *)(void *)words, all);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}

/* Each product depends on the sum before it, so that none can be hoisted; the chains are enough to hide that. */
static uint64_t BL_FN(roof_multiply)(int64_t rounds)
{
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i product = ones;
#if defined(__GNUC__) && !defined(__clang__) /* gcc spills sums to memory even with registers to spare */
#define BL_STEP(x) __asm__("vpmaddubsw %2, %0, %1\n\tvpaddw %1, %0, %0" : "+x"(x), "=&x"(product) : "x"(ones));
#else
#define BL_STEP(x) product = _mm256_maddubs_epi16(x, ones), x = _mm256_add_epi16(x, product);
#endif
#define BL_START(x) __m256i x = _mm256_set1_epi8(#x[0]); /* equal chains would be made one */
#define BL_END(x) all = _mm256_xor_si256(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    __m256i all = product;
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(all));
}

BL_TARGET_END
#undef BL_TIER
static const bl_roof bl_roof_avx2 = {"avx2", bl_roof_read_avx2, bl_roof_multiply_avx2, BL_ROOF_CHAIN_COUNT * 32};

#if BL_AVXVNNI
#define BL_TIER avxvnni
BL_TARGET("avx2,avxvnni")

static uint64_t BL_FN(roof_multiply)(int64_t rounds)
{
    const __m256i codes = _mm256_set1_epi8(2), values = _mm256_set1_epi8(-3);
#if defined(__GNUC__) && !defined(__clang__) /* as above */
#define BL_STEP(x) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(x) : "x"(codes), "x"(values));
#else
#define BL_STEP(x) x = _mm256_dpbusd_avx_epi32(x, codes, values);
#endif
#define BL_START(x) __m256i x = _mm256_set1_epi8(#x[0]);
#define BL_END(x) all = _mm256_add_epi32(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    __m256i all = _mm256_setzero_si256();
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(all));
}

BL_TARGET_END
#undef BL_TIER
static const bl_roof bl_roof_avxvnni = {"avxvnni", bl_roof_read_avx2, bl_roof_multiply_avxvnni,
                                        BL_ROOF_CHAIN_COUNT * 32};
#endif

#define BL_TIER avx512
BL_TARGET("avx512f,avx512bw,avx512vnni")

static uint64_t BL_FN(roof_read)(const uint8_t *data, int64_t bytes)
{
    __m512i a = _mm512_setzero_si512(), b = a;
    for (int64_t i = 0; i < bytes; i += 128) {
        const uint8_t *from = data + i;
        a = _mm512_xor_si512(a, _mm512_loadu_si512(from));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(from + 64));
    }
    uint64_t words[8];
    _mm512_storeu_si512(words, _mm512_xor_si512(a, b));
    return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

static uint64_t BL_FN(roof_multiply)(int64_t rounds)
{
    const __m512i codes = _mm512_set1_epi8(2), values = _mm512_set1_epi8(-3);
#if defined(__GNUC__) && !defined(__clang__) /* as above */
#define BL_STEP(x) __asm__("vpdpbusd %2, %1, %0" : "+v"(x) : "v"(codes), "v"(values));
#else
#define BL_STEP(x) x = _mm512_dpbusd_epi32(x, codes, values);
#endif
#define BL_START(x) __m512i x = _mm512_set1_epi8(#x[0]);
#define BL_END(x) all = _mm512_add_epi32(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    __m512i all = _mm512_setzero_si512();
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(all));
}

BL_TARGET_END
#undef BL_TIER
static const bl_roof bl_roof_avx512 = {"avx512", bl_roof_read_avx512, bl_roof_multiply_avx512,
                                       BL_ROOF_CHAIN_COUNT * 64};

#elif BL_ARM64

static uint64_t bl_roof_read_neon(const uint8_t *data, int64_t bytes)
{
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    for (int64_t i = 0; i < bytes; i += 64) {
        const uint8_t *from = data + i;
        a = veorq_u8(a, vld1q_u8(from));
        b = veorq_u8(b, vld1q_u8(from + 16));
        c = veorq_u8(c, vld1q_u8(from + 32));
        d = veorq_u8(d, vld1q_u8(from + 48));
    }
    const uint64x2_t all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(a, b), veorq_u8(c, d)));
    return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
}

/* As on avx2, each product depends on the sum before it. */
static uint64_t bl_roof_multiply_neon(int64_t rounds)
{
    const int8x8_t values = vdup_n_s8(-3);
#define BL_START(x) int16x8_t x = vreinterpretq_s16_s8(vdupq_n_s8(#x[0]));
#define BL_STEP(x) x = vmlal_s8(x, vget_low_s8(vreinterpretq_s8_s16(x)), values);
#define BL_END(x) all = veorq_s16(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    int16x8_t all = vdupq_n_s16(0);
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return vgetq_lane_u64(vreinterpretq_u64_s16(all), 0);
}

static const bl_roof bl_roof_neon = {"neon", bl_roof_read_neon, bl_roof_multiply_neon, BL_ROOF_CHAIN_COUNT * 8};

#if BL_ARM64_REGIONS
#define BL_START(x) int32x4_t x = vreinterpretq_s32_s8(vdupq_n_s8(#x[0]));
#define BL_END(x) all = vaddq_s32(all, x);

BL_TARGET(BL_TARGET_DOTPROD)

static uint64_t bl_roof_multiply_neondot(int64_t rounds)
{
    const int8x16_t codes = vdupq_n_s8(2), values = vdupq_n_s8(-3);
#define BL_STEP(x) x = vdotq_s32(x, codes, values);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    int32x4_t all = vdupq_n_s32(0);
    BL_ROOF_CHAINS(BL_END)
#undef BL_STEP
    return vgetq_lane_u64(vreinterpretq_u64_s32(all), 0);
}

BL_TARGET_END
BL_TARGET(BL_TARGET_I8MM)

static uint64_t bl_roof_multiply_neoni8mm(int64_t rounds)
{
    const uint8x16_t codes = vdupq_n_u8(2);
    const int8x16_t values = vdupq_n_s8(-3);
#define BL_STEP(x) x = vusmmlaq_s32(x, codes, values);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) { BL_ROOF_CHAINS(BL_STEP) }
    int32x4_t all = vdupq_n_s32(0);
    BL_ROOF_CHAINS(BL_END)
#undef BL_STEP
    return vgetq_lane_u64(vreinterpretq_u64_s32(all), 0);
}

BL_TARGET_END
#undef BL_START
#undef BL_END

static const bl_roof bl_roof_neondot = {"neondot", bl_roof_read_neon, bl_roof_multiply_neondot,
                                        BL_ROOF_CHAIN_COUNT * 16};
static const bl_roof bl_roof_neoni8mm = {"neoni8mm", bl_roof_read_neon, bl_roof_multiply_neoni8mm,
                                         BL_ROOF_CHAIN_COUNT * 32};
#endif

#endif

static const bl_roof *const bl_roofs[] = {
#if BL_X86
    &bl_roof_avx512,
#if BL_AVXVNNI
    &bl_roof_avxvnni,
#endif
    &bl_roof_avx2,
#elif BL_ARM64
#if BL_ARM64_REGIONS
    &bl_roof_neoni8mm,
    &bl_roof_neondot,
#endif
    &bl_roof_neon,
#endif
    &bl_roof_scalar,
};
enum { BL_ROOF_COUNT = sizeof(bl_roofs) / sizeof(bl_roofs[0]) };

/* One measurement, shared by the workers of a pool. Without data it multiplies. */
typedef struct {
    const bl_roof *roof;
    const uint8_t *data;
    int64_t bytes, passes; /* passes over the data, or rounds of products, of every worker */
    uint64_t digest[BL_MAX_WORKERS];
} bl_roof_job;

static void bl_roof_task(void *context, int worker, int workers)
{
    bl_roof_job *job = context;
    if (!job->data) {
        job->digest[worker] = job->roof->multiply(job->passes);
        return;
    }
    const int64_t units = job->bytes / BL_ROOF_UNIT;
    const int64_t lo = units * worker / workers * BL_ROOF_UNIT, hi = units * (worker + 1) / workers * BL_ROOF_UNIT;
    uint64_t digest = 0;
    for (int64_t pass = 0; pass < job->passes; pass++) digest ^= job->roof->read(job->data + lo, hi - lo);
    job->digest[worker] = digest;
}

#endif
