/* AMX of Sapphire Rapids and later: the avx512 tier, with the int8 tiles for more than a few tokens. scalar.c states
 * what each function does. With BL_AMX_STANDIN arrays stand in for the tiles, to test the tier where the processor has
 * none. */

/* Tiles multiply so fast that decoding the weights for every 128 tokens would take much of a prompt. */
#define BL_PANEL_TOKENS 512
#include "tiers/tier.h"

#if BL_AMX
#define NEEDS                                                                                                          \
    (BL_CPU_AVX2 | BL_CPU_F16C | BL_CPU_AVX512F | BL_CPU_AVX512BW | BL_CPU_AVX512DQ | BL_CPU_AVX512VL |                \
     BL_CPU_AVX512VNNI | BL_CPU_AVX512VBMI | BL_CPU_GFNI)
#ifdef BL_AMX_STANDIN
#define NEEDS_TILES 0
BL_TARGET("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni")
#else
#define NEEDS_TILES BL_CPU_AMX
BL_TARGET("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,amx-tile,amx-int8")
#endif

#include "shared/lanes_avx512.h"

#include "shared/blocks_avx512.h"

#include "shared/blocks_amx.h"
#include "shared/lut_avx512.h"

#define Q8_BY_TILES
#include "shared/ops.h"

#include "shared/panel_amx.h"
#include "shared/roof_avx512.h"
#include "shared/tables_avx2.h"

/* The most tokens of tl5 that do without tiles: reckoned from the figures of avx512, where storing the codes pays from
 * 40 tokens on, and from a fifth of its time for the products. */
enum { TL5_IN_TILES = 8 };

#include "kernels/i2_s_avx512.h"
#include "kernels/tl1_avx512.h"
#include "kernels/tl2_avx512.h"
#include "kernels/tl5_avx512.h"

#include "kernels/i2_s_amx.h"

enum { ROOF_PRODUCTS = 4 };

/* Products of four pairs of tiles, which wait for nothing but the multiplier. */
static uint64_t roof_multiply(int64_t rounds)
{
    int32_t sums[BL_TILE_ROWS * 16] = {0};
    const uint8_t values[BL_TILE_ROWS * BL_TILE_BYTES] = {1, 2, 3};
    size_tiles(AMX_TOKENS);
    TILE_LOAD(0, sums, BL_TILE_BYTES);
    TILE_LOAD(1, sums, BL_TILE_BYTES);
    TILE_LOAD(2, sums, BL_TILE_BYTES);
    TILE_LOAD(3, sums, BL_TILE_BYTES);
    TILE_LOAD(4, values, BL_TILE_BYTES);
    TILE_LOAD(5, values, BL_TILE_BYTES);
    TILE_LOAD(6, values, BL_TILE_BYTES);
    TILE_LOAD(7, values, BL_TILE_BYTES);
    for (int64_t r = 0; r < rounds; r++) {
        TILE_MULTIPLY(0, 4, 6);
        TILE_MULTIPLY(1, 4, 7);
        TILE_MULTIPLY(2, 5, 6);
        TILE_MULTIPLY(3, 5, 7);
    }
    TILE_STORE(0, sums, BL_TILE_BYTES);
    TILE_RELEASE();
    return (uint64_t)sums[0];
}

const bl_tier bl_tier_amx = {
    .name = "amx",
    .needs = NEEDS | NEEDS_TILES,
    .dot = "tdpbsud",
    .batch = BL_PANEL_TOKENS,
    .cells = {[BL_I2_S] = &i2_s_amx_cell, [BL_TL1] = &tl1_cell, [BL_TL2] = &tl2_cell, [BL_TL5] = &tl5_cell},
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = ROOF_PRODUCTS * BL_TILE_ROWS * 16 * BL_TILE_BYTES,
};

BL_TARGET_END
#endif
