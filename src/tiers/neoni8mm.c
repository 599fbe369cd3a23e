/* ARM with int8 matrix products (optional from Armv8.2: Cortex-A510, A710, Neoverse V1, N2, Apple M2 up): usmmla.
 * scalar.c states what each function does. */
#include "tiers/tier.h"

#if BL_ARM64_REGIONS
BL_TARGET(BL_TARGET_I8MM)

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t dot_fours(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#define DOT_NARROW(steps) {0} /* its sums are int32 */

#include "shared/blocks_neon.h"
#include "shared/lut_neon.h"
#include "shared/quads_neon.h"

#include "shared/ops.h"
#include "shared/panel_neoni8mm.h"
#include "shared/roof_neon.h"

#include "kernels/i2_s_neon_codes.h"
#include "kernels/i2_s_sdot.h"
#include "kernels/i2_s_neoni8mm.h"
#include "kernels/tl1_neon.h"
#include "kernels/tl2_neon.h"
#include "kernels/tl5_neon.h"

static uint64_t roof_multiply(int64_t rounds)
{
    const uint8x16_t codes = vdupq_n_u8(2);
    const int8x16_t values = vdupq_n_s8(-3);
#define BL_START(x) int32x4_t x = vreinterpretq_s32_s8(vdupq_n_s8(#x[0]));
#define BL_STEP(x) x = vusmmlaq_s32(x, codes, values);
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

const bl_tier bl_tier_neoni8mm = {
    .name = "neoni8mm",
    .needs = BL_CPU_NEON | BL_CPU_DOTPROD | BL_CPU_I8MM,
    .dot = "usmmla",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 32,
};

BL_TARGET_END
#endif
