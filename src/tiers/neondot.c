/* ARM with dot products (optional from Armv8.2: Cortex-A55, A76, Neoverse N1, Apple A13 up): sdot. scalar.c states what
 * each function does. */
#include "tiers/tier.h"

#if BL_ARM64_REGIONS
BL_TARGET(BL_TARGET_DOTPROD)

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t dot_fours(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#define DOT_NARROW(steps) {0} /* its sums are int32 */

#include "shared/blocks_neon.h"
#include "shared/lut_neon.h"
#include "shared/quads_neon.h"

#include "shared/ops.h"
#include "shared/panel_neondot.h"
#include "shared/roof_neon.h"

enum { I2_S_TOKENS = 4 };

#include "kernels/i2_s_neon_codes.h"
#include "kernels/i2_s_sdot.h"
#include "kernels/i2_s_neondot.h"
#include "kernels/tl1_neon.h"
#include "kernels/tl2_neon.h"
#include "kernels/tl5_neon.h"

static uint64_t roof_multiply(int64_t rounds)
{
    const int8x16_t codes = vdupq_n_s8(2), values = vdupq_n_s8(-3);
#define BL_START(x) int32x4_t x = vreinterpretq_s32_s8(vdupq_n_s8(#x[0]));
#define BL_STEP(x) x = vdotq_s32(x, codes, values);
#define BL_END(x) all = vaddq_s32(all, x);
    BL_ROOF_CHAINS(BL_START)
    for (int64_t r = 0; r < rounds; r++) {
        BL_ROOF_CHAINS(BL_STEP)
    }
    int32x4_t all = vdupq_n_s32(0);
    BL_ROOF_CHAINS(BL_END)
#undef BL_START
#undef BL_STEP
#undef BL_END
    return vgetq_lane_u64(vreinterpretq_u64_s32(all), 0);
}

const bl_tier bl_tier_neondot = {
    .name = "neondot",
    .needs = BL_CPU_NEON | BL_CPU_DOTPROD,
    .dot = "sdot",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 16,
};

BL_TARGET_END
#endif
