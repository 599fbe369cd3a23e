/* AVX-VNNI, the 256-bit vpdpbusd of processors without AVX-512. Contracts are in scalar.h. With BL_AVXVNNI_AS_EVEX the
 * same code runs by the AVX-512 form of the instruction, to be tested where the other is missing. */
#ifndef BL_AVXVNNI_H
#define BL_AVXVNNI_H

#define BL_TIER avxvnni
#define bl_f32x16 BL_FN(f32x16)
#ifdef BL_AVXVNNI_AS_EVEX
#define BL_TIER_NEEDS (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVX512F | BL_CPU_AVX512VL | BL_CPU_AVX512VNNI)
#define BL_DPBUSD "vpdpbusd"
#define BL_DPBUSD_INTRINSIC _mm256_dpbusd_epi32
BL_TARGET("avx2,f16c,avx512f,avx512vl,avx512vnni")
#else
#define BL_TIER_NEEDS (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVXVNNI)
#define BL_DPBUSD "%{vex%} vpdpbusd"
#define BL_DPBUSD_INTRINSIC _mm256_dpbusd_avx_epi32
BL_TARGET("avx2,f16c,avxvnni")
#endif

#include "shared/lanes_avx2.h"

/* sum += u8 . i8, in int32 by fours. gcc spills the sums of the intrinsic; the instruction leaves them alone. */
BL_INLINE __m256i BL_FN(add_products)(__m256i sum_i32x8, __m256i u8x32, __m256i i8x32)
{
#if defined(__GNUC__) && !defined(__clang__)
    __asm__(BL_DPBUSD " %2, %1, %0" : "+x"(sum_i32x8) : "x"(u8x32), "xm"(i8x32));
    return sum_i32x8;
#else
    return BL_DPBUSD_INTRINSIC(sum_i32x8, u8x32, i8x32);
#endif
}

BL_INLINE __m256i BL_FN(widen)(__m256i sum_i32x8) { return sum_i32x8; }
BL_INLINE __m256i BL_FN(widen_quarter)(__m256i sum_i32x8) { return _mm256_srai_epi32(sum_i32x8, 2); }

/* Rows of i2_s that meet a few tokens at once: two make enough sums to hide the latency of the instruction. */
enum { BL_FN(I2_S_TILE_ROWS) = 2 };

#include "shared/blocks_avx2.h"
#include "shared/panel_avx2.h"
#include "kernels/i2_s_avx2.h"
#include "shared/lut_avx2.h"
#include "kernels/tl1_avx2.h"
#include "kernels/tl2_avx2.h"
#include "kernels/tl5_avx2.h"
#define BL_TIER_CELLS                                                                                                  \
    [BL_I2_S] = &BL_FN(i2_s), [BL_TL1] = &BL_FN(tl1), [BL_TL2] = &BL_FN(tl2), [BL_TL5] = &BL_FN(tl5)
#include "shared/ops.h"

BL_TARGET_END
#undef BL_DPBUSD
#undef BL_DPBUSD_INTRINSIC
#undef bl_f32x16
#undef BL_TIER
#endif
