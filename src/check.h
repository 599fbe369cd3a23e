/* Proof by execution that a tier gives the scalar tier's results, on shapes that reach every path of its tiles. */
#ifndef BL_CHECK_H
#define BL_CHECK_H

#include "apart.h"
#include "bitnet_lut/bitnet_lut.h"

enum {
    BL_CHECK_COLS = 672,
    BL_CHECK_ROWS = 6,
    BL_CHECK_TOKENS = 17, /* two tiles of amx that overlap */
    BL_CHECK_DOTS = 1 + 2 + 3 + 9 + 41,
    BL_CHECK_BYTES = BL_CHECK_COLS * 4,
    BL_CHECK_TERNARY_ROWS = 198, /* a pair of panels, one alone, and one that is not full */
    BL_CHECK_ROW_BYTES = (BL_CHECK_COLS + 127) / 128 * 32,
    BL_CHECK_PACKED = 272 * BL_CHECK_COLS, /* a byte a weight, and padding to 256 rows */
    BL_CHECK_PREPARED = 1 << 21            /* 41 tokens with tables of 50 kB */
};

typedef struct {
    float x[BL_CHECK_TOKENS][BL_CHECK_COLS];
    uint8_t weights[BL_CHECK_ROWS * BL_CHECK_BYTES], ternary[BL_CHECK_TERNARY_ROWS * BL_CHECK_ROW_BYTES];
    uint8_t packed[BL_CHECK_PACKED], prepared[BL_CHECK_PREPARED];
    int32_t part[BL_OWN_TOKENS * 256];    /* of the ternary rows, padded */
    _Alignas(64) uint8_t strips[1 << 15]; /* of attention: pages of keys and of values */
} bl_check_input;

typedef struct {
    float act_max[BL_CHECK_TOKENS];
    int8_t q[BL_CHECK_TOKENS][BL_CHECK_COLS];
    int32_t dot[BL_KERNEL_COUNT][BL_CHECK_DOTS][BL_CHECK_TERNARY_ROWS];
    int32_t share[BL_KERNEL_COUNT][BL_OWN_TOKENS][BL_CHECK_TERNARY_ROWS];
    float dense[BL_TYPE_COUNT][BL_CHECK_TOKENS][BL_CHECK_ROWS], dense1[BL_TYPE_COUNT][BL_CHECK_ROWS];
    float row[BL_TYPE_COUNT][BL_CHECK_COLS];
    float norm[BL_CHECK_COLS], silu[BL_CHECK_COLS], relu2[BL_CHECK_COLS], rope[BL_CHECK_COLS];
    float attention[BL_KV_KINDS][2 * 48], tokens[BL_KV_KINDS][7 * 2 * 48];
    float maxima[BL_CHECK_COLS / BL_PART + 1], weights[BL_CHECK_COLS];
    double weight;
    uint16_t half[BL_CHECK_COLS];
} bl_check_output;

/* Whether the tier gives the scalar tier's bits. Needs about 3 MB for input and outputs, most of them untouched. */
int bl_tier_agrees(const bl_tier *tier, bl_check_input *in, bl_check_output out[2]);

/* Whether the tier agrees when it runs in a process of its own: 1, 0, or BL_UNFINISHED, by *fault (see apart.h). */
int bl_tier_proves(const bl_tier *tier, bl_check_input *in, bl_check_output out[2], int *fault);

#endif
