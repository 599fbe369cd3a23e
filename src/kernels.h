/* What the engine and the self-test use of kernels and tiers: the public header and the arithmetic that all share. */
#ifndef BL_KERNELS_H
#define BL_KERNELS_H

#include "bitnet_lut/bitnet_lut.h"
#include "shared/blocks.h"
#include "shared/numerics.h"
#include "target.h"

#endif
