/* Kernel tl1: two weights a nibble, looked up in a table of their sums.
 *
 * Packed: tiles as in lut.h, a step of a panel is 4 columns in 64 bytes. Row r has the byte bl_panel_place(r),
 *
 *   bits 1:0 | 3:2 | 5:4 | 7:6
 *   column 4 step | + 1 | + 2 | + 3          code = weight + 1
 *
 * whose low nibble is the pair of columns + 0 and + 1 and whose high nibble that of + 2 and + 3. Rows and columns
 * beyond the matrix have weight zero.
 *
 * Tables, 64 bytes a step, 32 for each pair (a, b) of activations: the 16 sums w0 a + w1 b by nibble, of which those
 * with a code 3 are never read. |sum| <= 256. Here they are int16; the other tiers split them into two digits, low +
 * 23 high, each in -11 .. 11, and keep the 16 low ones, then the 16 high ones.
 */
#ifndef BL_TL1_H
#define BL_TL1_H

#include "shared/lut.h"

enum {
    BL_TL1_TABLE_BYTES = 64,
    BL_TL1_BASE = 23, /* of the digits */
    BL_TL1_BLOCK = 5, /* steps whose digits add up in a byte: ten of at most 11 */
    BL_TL1_SPAN = 60  /* steps that add up in an int16: 120 sums of at most 256 */
};

/* Those sums, as bl_sums has them. */
#define BL_TL1_DIGITS {8, 11, 2 * BL_TL1_BLOCK}
#define BL_TL1_WORDS {16, 256, 2 * BL_TL1_SPAN}

/* The weights of a pair by nibble, those with a code 3 zero. */
static const int8_t bl_tl1_weights[16][2] = {{-1, -1}, {0, -1}, {1, -1}, {0, 0}, {-1, 0}, {0, 0}, {1, 0}, {0, 0},
                                             {-1, 1},  {0, 1},  {1, 1},  {0, 0}, {0, 0},  {0, 0}, {0, 0}, {0, 0}};

BL_INLINE bl_lut_layout bl_tl1_layout(int64_t cols)
{
    const bl_lut_layout layout = {bl_round_up(cols, 4) / 4, BL_PANEL};
    return layout;
}

BL_INLINE int64_t bl_tl1_token_bytes(int64_t cols, int64_t n)
{
    const int64_t steps = bl_tl1_layout(cols).steps;
    return bl_lut_token_bytes(steps * BL_TL1_TABLE_BYTES, steps, n);
}

#endif
