/* AVX2 with F16C: 256-bit integer dot products by vpmaddubsw. scalar.c states what each function does. */
#include "tiers/tier.h"

#if BL_X86
BL_TARGET("avx2,f16c")

#include "shared/lanes_avx2.h"

/* sum += u8 . i8, in int16 by pairs. gcc copies and spills the sums of the intrinsic; the instruction leaves them
 * alone. */
BL_INLINE __m256i add_products(__m256i sum_i16x16, __m256i u8x32, __m256i i8x32)
{
    const __m256i pairs = _mm256_maddubs_epi16(u8x32, i8x32);
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("vpaddw %1, %0, %0" : "+x"(sum_i16x16) : "x"(pairs));
    return sum_i16x16;
#else
    return _mm256_add_epi16(sum_i16x16, pairs);
#endif
}

/* Eight sums in int32 from sixteen in int16. */
BL_INLINE __m256i widen(__m256i sum_i16x16) { return _mm256_madd_epi16(sum_i16x16, _mm256_set1_epi16(1)); }

/* Like widen, for codes scaled by 4. */
BL_INLINE __m256i widen_quarter(__m256i sum_i16x16) { return widen(_mm256_srai_epi16(sum_i16x16, 2)); }

/* Rows of i2_s that a few tokens are multiplied with at once. */
enum { I2_S_TILE_ROWS = 1 };

/* Its sums in 16 bits, widened after so many steps, as bl_sums has them. */
#define DOT_NARROW(steps) {16, 2 * BL_CODE_3_MOST, steps}

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

/* Each product depends on the sum before it, so that none can be hoisted; the chains are enough to hide that. */
static uint64_t roof_multiply(int64_t rounds)
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
    for (int64_t r = 0; r < rounds; r++) {
        BL_ROOF_CHAINS(BL_STEP)
    }
    __m256i all = product;
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(all));
}

const bl_tier bl_tier_avx2 = {
    .name = "avx2",
    .needs = BL_CPU_AVX2 | BL_CPU_F16C,
    .dot = "vpmaddubsw",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 32,
};

BL_TARGET_END
#endif
