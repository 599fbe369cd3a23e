/* Armv8.0, which every 64-bit ARM is: integer dot by smlal. Contracts are in scalar.h. */
#ifndef BL_NEON_H
#define BL_NEON_H

#define BL_TIER neon
#define BL_TIER_NEEDS BL_CPU_NEON

#include "neon_lanes.h"
#include "i2_s_neon.h"
#define BL_TIER_CELLS [BL_I2_S] = &BL_FN(i2_s)
#include "ops.h"

#undef bl_f32x16
#undef BL_TIER
#endif
