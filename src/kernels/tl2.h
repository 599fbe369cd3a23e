/* Kernel tl2: three weights as a nibble and a sign, looked up in a table of their sums.
 *
 * Packed: tiles as in lut.h, a step of a panel is 24 columns in 320 bytes, a line of signs and four of nibbles. Row r
 * has the byte bl_panel_place(r) of each,
 *
 *   signs      bit 7 - i: triple 2 i        bit 3 - i: triple 2 i + 1          of the step, 0 <= i < 4
 *   nibbles i  bits 3:0 triple 2 i          bits 7:4   triple 2 i + 1
 *
 * A triple of weights w0, w1, w2 has the value v = w0 + 3 w1 + 9 w2: its nibble is |v|, 0 .. 13, its sign bit is set
 * if v < 0. Of each 12 columns, triple j < 3 is columns 4 j, 4 j + 1, 4 j + 2, and triple 3 is columns 3, 7, 11: with
 * two bits of it each of the other three becomes a quad. Rows and columns beyond the matrix have weight zero.
 *
 * Tables, 256 bytes a step, 32 for each triple (a, b, c) of activations: the sums w0 a + w1 b + w2 c by nibble, 14 and
 * 15 never read. |sum| <= 384. Here they are int16; the other tiers split them into two digits, low + 27 high, low in
 * -13 .. 13 and high in -14 .. 14, and keep the 16 low ones, then the 16 high ones.
 */
#ifndef BL_TL2_H
#define BL_TL2_H

#include "shared/lut.h"

enum {
    BL_TL2_COLS = 24, /* of a step */
    BL_TL2_QUADS = BL_TL2_COLS / 4,
    BL_TL2_TRIPLES = 8,
    BL_TL2_STEP_BYTES = 5 * BL_PANEL,
    BL_TL2_TABLE_BYTES = 32 * BL_TL2_TRIPLES,
    BL_TL2_BASE = 27, /* of the digits: the eight of a step add up in a byte */
    BL_TL2_SPAN = 10  /* steps that add up in an int16: 80 sums of at most 384 */
};

/* Those sums, as bl_sums has them. */
#define BL_TL2_DIGITS {8, 14, BL_TL2_TRIPLES}
#define BL_TL2_WORDS {16, 384, BL_TL2_TRIPLES * BL_TL2_SPAN}

/* The weights of a triple by nibble: w0 and w1, w2 and nothing. */
static const int8_t bl_tl2_weights01[16][2] = {{0, 0},  {1, 0}, {-1, 1}, {0, 1},  {1, 1}, {-1, -1}, {0, -1}, {1, -1},
                                               {-1, 0}, {0, 0}, {1, 0},  {-1, 1}, {0, 1}, {1, 1},   {0, 0},  {0, 0}};
static const int8_t bl_tl2_weights2[16][2] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {1, 0}, {1, 0}, {1, 0},
                                              {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {0, 0}, {0, 0}};

BL_INLINE bl_lut_layout bl_tl2_layout(int64_t cols)
{
    const bl_lut_layout layout = {bl_round_up(cols, BL_TL2_COLS) / BL_TL2_COLS, BL_TL2_STEP_BYTES};
    return layout;
}

BL_INLINE int64_t bl_tl2_quads(int64_t cols) { return BL_TL2_QUADS * bl_tl2_layout(cols).steps; }

BL_INLINE int64_t bl_tl2_token_bytes(int64_t cols, int64_t n)
{
    return bl_lut_token_bytes(bl_tl2_layout(cols).steps * BL_TL2_TABLE_BYTES, bl_tl2_quads(cols), n);
}

#endif
