/* Armv8.0, which every 64-bit ARM is: integer dot products by smlal. scalar.c states what each function does. */
#include "tiers/tier.h"

#if BL_ARM64

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t dot_fours(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
}

/* The sums of decoded panels in 16 bits, widened after so many steps, as bl_sums has them. */
#define DOT_NARROW(steps) {16, BL_CODE_MOST, steps}

#include "shared/blocks_neon.h"
#include "shared/lut_neon.h"
#include "shared/quads_neon.h"

#include "shared/ops.h"
#include "shared/panel_neon.h"
#include "shared/roof_neon.h"

#include "kernels/i2_s_neon_codes.h"
#include "kernels/i2_s_neon.h"
#include "kernels/tl1_neon.h"
#include "kernels/tl2_neon.h"
#include "kernels/tl5_neon.h"

/* As on avx2, each product depends on the sum before it. */
static uint64_t roof_multiply(int64_t rounds)
{
    const int8x8_t values = vdup_n_s8(-3);
#define BL_START(x) int16x8_t x = vreinterpretq_s16_s8(vdupq_n_s8(#x[0]));
#define BL_STEP(x) x = vmlal_s8(x, vget_low_s8(vreinterpretq_s8_s16(x)), values);
#define BL_END(x) all = veorq_s16(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) {
        BL_ROOF_CHAINS(BL_STEP)
    }
    int16x8_t all = vdupq_n_s16(0);
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return vgetq_lane_u64(vreinterpretq_u64_s16(all), 0);
}

const bl_tier bl_tier_neon = {
    .name = "neon",
    .needs = BL_CPU_NEON,
    .dot = "smlal",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 8,
};

#endif
