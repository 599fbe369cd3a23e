/* AVX-VNNI, the 256-bit vpdpbusd of processors without AVX-512. scalar.c states what each function does. With
 * BL_AVXVNNI_AS_EVEX the same code runs by the AVX-512 form of the instruction, to be tested where the other is
 * missing. */
#include "tiers/tier.h"

#if BL_AVXVNNI
#ifdef BL_AVXVNNI_AS_EVEX
#define NEEDS (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVX512F | BL_CPU_AVX512VL | BL_CPU_AVX512VNNI)
#define DPBUSD "vpdpbusd"
#define DPBUSD_INTRINSIC _mm256_dpbusd_epi32
BL_TARGET("avx2,f16c,avx512f,avx512vl,avx512vnni")
#else
#define NEEDS (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVXVNNI)
#define DPBUSD "%{vex%} vpdpbusd"
#define DPBUSD_INTRINSIC _mm256_dpbusd_avx_epi32
BL_TARGET("avx2,f16c,avxvnni")
#endif

#include "shared/lanes_avx2.h"

/* sum += u8 . i8, in int32 by fours. gcc spills the sums of the intrinsic; the instruction leaves them alone. */
BL_INLINE __m256i add_products(__m256i sum_i32x8, __m256i u8x32, __m256i i8x32)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__(DPBUSD " %2, %1, %0" : "+x"(sum_i32x8) : "x"(u8x32), "xm"(i8x32));
    return sum_i32x8;
#else
    return DPBUSD_INTRINSIC(sum_i32x8, u8x32, i8x32);
#endif
}

BL_INLINE __m256i widen(__m256i sum_i32x8) { return sum_i32x8; }
BL_INLINE __m256i widen_quarter(__m256i sum_i32x8) { return _mm256_srai_epi32(sum_i32x8, 2); }

/* Rows of i2_s that a few tokens are multiplied with at once: two make enough sums to hide the latency of the
 * instruction. */
enum { I2_S_TILE_ROWS = 2 };

#define DOT_NARROW(steps) {0} /* its sums are int32 */

#include "shared/blocks_avx2.h"
#include "shared/lut_avx2.h"
#include "shared/quads_avx2.h"

#include "shared/ops.h"
#include "shared/panel_avx2.h"
#include "shared/roof_avx2.h"
#include "shared/tables_avx2.h"

#include "kernels/i2_s_avx2.h"
#include "kernels/tl1_avx2.h"
#include "kernels/tl2_avx2.h"
#include "kernels/tl5_avx2.h"

static uint64_t roof_multiply(int64_t rounds)
{
    const __m256i codes = _mm256_set1_epi8(2), values = _mm256_set1_epi8(-3);
#if defined(__GNUC__) && !defined(__clang__) /* gcc spills the sums of the intrinsic to memory */
#define BL_STEP(x) __asm__(DPBUSD " %2, %1, %0" : "+x"(x) : "x"(codes), "x"(values));
#else
#define BL_STEP(x) x = DPBUSD_INTRINSIC(x, codes, values);
#endif
#define BL_START(x) __m256i x = _mm256_set1_epi8(#x[0]);
#define BL_END(x) all = _mm256_add_epi32(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) {
        BL_ROOF_CHAINS(BL_STEP)
    }
    __m256i all = _mm256_setzero_si256();
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(all));
}

const bl_tier bl_tier_avxvnni = {
    .name = "avxvnni",
    .needs = NEEDS,
    .dot = "vpdpbusd",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 32,
};

BL_TARGET_END
#endif
