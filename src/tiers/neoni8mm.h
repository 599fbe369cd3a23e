/* ARM with int8 matrix products (optional from Armv8.2: Cortex-A510, A710, Neoverse V1, N2, Apple M2 up): usmmla.
 * Contracts are in scalar.h. */
#ifndef BL_NEONI8MM_H
#define BL_NEONI8MM_H

#define BL_TIER neoni8mm
#define BL_TIER_NEEDS (BL_CPU_NEON | BL_CPU_DOTPROD | BL_CPU_I8MM)
BL_TARGET(BL_TARGET_I8MM)

#include "shared/lanes_neon.h"

/* sum + four products each. */
BL_INLINE int32x4_t BL_FN(dot_fours)(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#include "shared/blocks_neon.h"
#include "kernels/i2_s_neoni8mm.h"
#include "shared/panel_neoni8mm.h"
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
