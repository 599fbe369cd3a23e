/* Armv8.0, which every 64-bit ARM is: integer dot by smlal. Contracts are in scalar.h. */
#ifndef BL_NEON_H
#define BL_NEON_H

#define BL_TIER neon
#define BL_TIER_NEEDS BL_CPU_NEON

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t BL_FN(dot_fours)(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
}

#include "shared/blocks_neon.h"
#include "kernels/i2_s_neon.h"
#include "shared/panel_neon.h"
#include "shared/lut_neon.h"
#include "kernels/tl1_neon.h"
#include "kernels/tl2_neon.h"
#include "kernels/tl5_neon.h"
#define BL_TIER_CELLS                                                                                                  \
    [BL_I2_S] = &BL_FN(i2_s), [BL_TL1] = &BL_FN(tl1), [BL_TL2] = &BL_FN(tl2), [BL_TL5] = &BL_FN(tl5)
#include "shared/ops.h"

#undef bl_f32x16
#undef BL_TIER
#endif
