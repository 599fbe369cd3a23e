/* Kernel tl5: five weights a byte, 1.6 bits a weight.
 *
 * A group of five columns has the value v = sum of t_j 3^j, -121 .. 121. Its byte is |v|, and bit 7 if v is negative,
 * so that one table of 122 sums serves all rows and a sign. Packed, rows padded to panels of 64 (see panel.h), columns
 * to groups, by zero weights:
 *
 *   negatives   int32 (panels, 64): how many groups of a row are negative
 *   blocks      of 48 groups, the last one shorter:
 *     panels      of this block, one after the other
 *       groups      of this panel, 64 bytes each: one group of 64 rows, placed as bl_panel_place says
 *
 * A table of sums covers a group; those of one block stay in the first cache while every row passes.
 *
 * Quads, for more than one token: four groups make five, quad k of them holding weight k of each group.
 */
#ifndef BL_TL5_H
#define BL_TL5_H

#include "shared/panel.h"

enum { BL_TL5_GROUP = 5, BL_TL5_MOST = 121, BL_TL5_BLOCK = 48, BL_TL5_TABLE = 128 };

BL_INLINE int64_t bl_tl5_groups(int64_t cols) { return (cols + BL_TL5_GROUP - 1) / BL_TL5_GROUP; }
BL_INLINE int64_t bl_tl5_quads(int64_t cols) { return (bl_tl5_groups(cols) + 3) / 4 * 5; }

/* Groups of the block that starts with this group. */
BL_INLINE int64_t bl_tl5_block_groups(int64_t group, int64_t cols)
{
    const int64_t rest = bl_tl5_groups(cols) - group;
    return rest < BL_TL5_BLOCK ? rest : BL_TL5_BLOCK;
}

/* Offset of the vectors of a panel in the block that starts with this group. */
BL_INLINE int64_t bl_tl5_offset(int64_t rows, int64_t cols, int64_t panel, int64_t group)
{
    const int64_t negatives = bl_panels(rows) * BL_PANEL * (int64_t)sizeof(int32_t);
    return negatives + (bl_panels(rows) * group + panel * bl_tl5_block_groups(group, cols)) * BL_PANEL;
}

/* codes (5) of a byte: 0, 1 or 2 whatever the byte is. */
BL_INLINE void bl_tl5_unpack_byte(uint8_t *codes, uint8_t byte)
{
    unsigned digits = (unsigned)(BL_TL5_MOST + (byte & 0x80 ? -(byte & 0x7f) : byte));
    for (int j = 0; j < BL_TL5_GROUP; j++, digits /= 3) codes[j] = (uint8_t)(digits % 3);
}

/* One token: a table of int16 sums, or the same number of bytes in the tier's own order. More: quads. */
BL_INLINE int64_t bl_tl5_token_bytes(int64_t cols, int64_t n)
{
    if (n == 1) return bl_tl5_groups(cols) * BL_TL5_TABLE * (int64_t)sizeof(int16_t);
    return (int64_t)sizeof(bl_prepared) + bl_round_up(4 * bl_tl5_quads(cols), 64);
}

/* Prepare a token as quads: values (4 quads) of q (cols), and their sum. */
void bl_tl5_prepare_quads(uint8_t *prepared, const int8_t *q, int64_t cols);

#endif
