/* WebAssembly with relaxed SIMD: a dot product of bytes, which browsers make one instruction where the processor has
 * it. Its second operand has 7 bits: codes of weights are fewer, values of Q8_0 are not. scalar.c states what each
 * function does. */
#include "tiers/tier.h"

#if BL_WASM_RELAXED

#include "shared/neon_by_wasm.h"

/* Of indices below 16. */
BL_NEON(int8x16_t, vqtbl1q_s8, (int8x16_t table, uint8x16_t index), wasm_i8x16_relaxed_swizzle(table, index))

#include "shared/lanes_neon.h"

/* sum + four products each; codes are 0 .. 127. */
BL_INLINE int32x4_t vdotq_s32(int32x4_t sum, int8x16_t codes, int8x16_t values)
{
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(values, codes, sum);
}
#define vdotq_laneq_s32(sum, codes, values, lane)                                                                      \
    vdotq_s32(sum, codes, wasm_i32x4_shuffle(values, values, lane, lane, lane, lane))
BL_INLINE int32x4_t dot_fours(int32x4_t sum, int8x16_t codes, int8x16_t values)
{
    return vdotq_s32(sum, codes, values);
}

#include "shared/blocks_wasm.h"
#define DOT_SIGNED(sum, a, b) dot_words(sum, a, b)
#define GROUP_DOT(q, x, added, type) ((type) == BL_Q8_0 ? group_in_words(q, x, added) : group_dot(q, x, added))

#define DOT_NARROW(steps) {0} /* its sums are int32 */

#include "shared/blocks_neon.h"
#include "shared/lut_neon.h"
#include "shared/quads_neon.h"

#include "shared/ops.h"
#include "shared/panel_neondot.h"
#include "shared/roof_neon.h"

/* Registers are the compiler's of the browser: measured on x86, where it has sixteen. */
enum { I2_S_TOKENS = 6 };

#include "kernels/i2_s_neon_codes.h"
#include "kernels/i2_s_sdot.h"
#include "kernels/i2_s_neondot.h"
#include "kernels/tl1_neon.h"

static uint64_t roof_multiply(int64_t rounds)
{
    const int8x16_t codes = vdupq_n_s8(2);
#define BL_START(x) int32x4_t x = vdupq_n_s8(#x[0]);
#define BL_STEP(x) x = vdotq_s32(x, codes, x);
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
    return vgetq_lane_u64(all, 0);
}

const bl_tier bl_tier_wasmrelaxed = {
    .name = "wasmrelaxed",
    .needs = BL_CPU_WASM128 | BL_CPU_WASMRELAXED,
    .dot = "i32x4.relaxed_dot_i8x16_i7x16_add",
    .batch = 128,
    .cells = {[BL_I2_S] = &i2_s_cell, [BL_TL1] = &tl1_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = BL_ROOF_CHAIN_COUNT * 16,
};

#endif
