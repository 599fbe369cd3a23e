/* ARM with dot products (optional from Armv8.2: Cortex-A55, A76, Neoverse N1, Apple A13 up): sdot. Contracts are in
 * scalar.h. */
#ifndef BL_NEONDOT_H
#define BL_NEONDOT_H

#define BL_TIER neondot
#define BL_TIER_NEEDS (BL_CPU_NEON | BL_CPU_DOTPROD)
BL_TARGET(BL_TARGET_DOTPROD)

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t BL_FN(dot_fours)(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#include "shared/blocks_neon.h"
#include "kernels/i2_s_neondot.h"
#include "shared/panel_neondot.h"
#include "shared/lut_neon.h"
#include "kernels/tl1_neon.h"
#include "kernels/tl2_neon.h"
#include "kernels/tl5_neon.h"
#define BL_TIER_CELLS                                                                                                  \
    [BL_I2_S] = &BL_FN(i2_s), [BL_TL1] = &BL_FN(tl1), [BL_TL2] = &BL_FN(tl2), [BL_TL5] = &BL_FN(tl5)
#include "shared/ops.h"

BL_TARGET_END
#undef bl_f32x16
#undef BL_TIER
#endif
