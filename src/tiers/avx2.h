/* AVX2 with F16C: 256-bit integer dot by vpmaddubsw. Contracts are in scalar.h. */
#ifndef BL_AVX2_H
#define BL_AVX2_H

#define BL_TIER avx2
#define BL_TIER_NEEDS (BL_CPU_AVX2 | BL_CPU_F16C)
#define bl_f32x16 BL_FN(f32x16)
BL_TARGET("avx2,f16c")

#include "shared/lanes_avx2.h"

/* sum += u8 . i8, in int16 by pairs. gcc copies and spills the sums of the intrinsic; the instruction leaves them
 * alone. */
BL_INLINE __m256i BL_FN(add_products)(__m256i sum_i16x16, __m256i u8x32, __m256i i8x32)
{
    const __m256i pairs = _mm256_maddubs_epi16(u8x32, i8x32);
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpaddw %1, %0, %0" : "+x"(sum_i16x16) : "x"(pairs));
    return sum_i16x16;
#else
    return _mm256_add_epi16(sum_i16x16, pairs);
#endif
}

/* Eight sums in int32 of those in int16. */
BL_INLINE __m256i BL_FN(widen)(__m256i sum_i16x16) { return _mm256_madd_epi16(sum_i16x16, _mm256_set1_epi16(1)); }

/* Of sums whose codes were four times too large. */
BL_INLINE __m256i BL_FN(widen_quarter)(__m256i sum_i16x16) { return BL_FN(widen)(_mm256_srai_epi16(sum_i16x16, 2)); }

/* Rows of i2_s that meet a few tokens at once. */
enum { BL_FN(I2_S_TILE_ROWS) = 1 };

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
#undef bl_f32x16
#undef BL_TIER
#endif
