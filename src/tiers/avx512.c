/* AVX-512 of Ice Lake and Zen 4 up: integer dot products by vpdpbusd (VNNI). scalar.c states what each function
 * does. */
#include "tiers/tier.h"

#if BL_X86
BL_TARGET("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni")

#include "shared/lanes_avx512.h"

#include "shared/blocks_avx512.h"

enum { STRIP_TOKENS = 8 };

BL_INLINE void lane_sums(float *sums, const bl_type type, const bl_lane *lane, const int64_t n)
{
    lane_in_registers(sums, type, lane, n);
}

#include "shared/lut_avx512.h"
#include "shared/ops.h"
#include "shared/panel_avx512.h"
#include "shared/roof_avx512.h"
#include "shared/tables_avx2.h"

/* The most tokens of tl5 for which decoding again for every tile is faster than storing codes. */
enum { TL5_IN_TILES = 40 };

#include "kernels/i2_s_avx512.h"
#include "kernels/tl1_avx512.h"
#include "kernels/tl2_avx512.h"
#include "kernels/tl5_avx512.h"

static uint64_t roof_multiply(int64_t rounds)
{
    const __m512i codes = _mm512_set1_epi8(2), values = _mm512_set1_epi8(-3);
#if defined(__GNUC__) && !defined(__clang__) /* gcc spills the sums of the intrinsic to memory */
#define BL_STEP(x) __asm__("vpdpbusd %2, %1, %0" : "+v"(x) : "v"(codes), "v"(values));
#else
#define BL_STEP(x) x = _mm512_dpbusd_epi32(x, codes, values);
#endif
#define BL_START(x) __m512i x = _mm512_set1_epi8(#x[0]);
#define BL_END(x) all = _mm512_add_epi32(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) {
        BL_ROOF_CHAINS(BL_STEP)
    }
    __m512i all = _mm512_setzero_si512();
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(all));
}

const bl_tier bl_tier_avx512 = {
    .name = "avx512",
    .needs = BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVX512F | BL_CPU_AVX512BW | BL_CPU_AVX512DQ | BL_CPU_AVX512VL |
             BL_CPU_AVX512VNNI | BL_CPU_AVX512VBMI | BL_CPU_GFNI,
    .dot = "vpdpbusd",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 64,
};

BL_TARGET_END
#endif
