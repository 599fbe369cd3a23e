/* Kernel tl5: five weights a byte, 1.6 bits a weight.
 *
 * A group of five columns has the value v = sum of t_j 3^j, -121 .. 121. Its byte is |v|, and bit 7 if v is negative, so
 * that one table of 122 sums serves all rows and a sign. Packed, rows padded to panels of 64 (see panel.h), columns to
 * groups, by zero weights:
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

static int64_t bl_tl5_packed_bytes(int64_t rows, int64_t cols)
{
    return bl_panels(rows) * BL_PANEL * (bl_tl5_groups(cols) + (int64_t)sizeof(int32_t));
}

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

/* ---- packing -------------------------------------------------------------------------------------------------- */

enum { BL_TL5_PIECE = 5 * BL_BLOCK }; /* columns unpacked at once: whole groups and whole canonical blocks */

/* codes (BL_TL5_PIECE) of a canonical row from column k on; zero weights beyond its end. */
static void bl_tl5_codes(uint8_t *codes, const uint8_t *row, int64_t row_bytes, int64_t k)
{
    memset(codes, 1, BL_TL5_PIECE);
    for (int64_t b = k / 4; b < row_bytes && b < (k + BL_TL5_PIECE) / 4; b += BL_BLOCK_BYTES, codes += BL_BLOCK)
        for (int p = 0; p < BL_BLOCK_BYTES; p++) {
            const uint8_t byte = row[b + p];
            codes[p] = byte >> 6;
            codes[p + 32] = byte >> 4 & 3;
            codes[p + 64] = byte >> 2 & 3;
            codes[p + 96] = byte & 3;
        }
}

/* Where each of the 243 values of five codes, as digits of base 3, has its byte. */
static void bl_tl5_bytes(uint8_t bytes[256])
{
    for (int digits = 0; digits < 256; digits++) {
        const int v = digits - BL_TL5_MOST;
        bytes[digits] = (uint8_t)(v < 0 ? -v | 0x80 : v);
    }
}

/* The value of five codes as digits of base 3: the middle of a product, whose parts do not carry into each other. */
BL_INLINE int bl_tl5_digits(const uint8_t *codes)
{
    uint64_t eight;
    memcpy(&eight, codes, sizeof eight);
    return (int)(eight * (81 + (27 << 8) + (9 << 16) + (3u << 24) + (1ull << 32)) >> 32 & 0xff);
}

static void bl_tl5_pack_panel(uint8_t *packed, const uint8_t *canonical, int64_t rows, int64_t cols, int64_t panel,
                              const uint8_t bytes[256])
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), groups = bl_tl5_groups(cols);
    uint8_t codes[BL_PANEL][BL_TL5_PIECE + 8];
    int32_t negatives[BL_PANEL] = {0};
    memset(codes, 1, sizeof codes);
    for (int64_t first = 0; first < groups; first += BL_TL5_PIECE / BL_TL5_GROUP) {
        for (int64_t r = 0; r < BL_PANEL && panel * BL_PANEL + r < rows; r++)
            bl_tl5_codes(codes[r], canonical + (panel * BL_PANEL + r) * row_bytes, row_bytes, first * BL_TL5_GROUP);
        for (int64_t g = first; g < groups && g < first + BL_TL5_PIECE / BL_TL5_GROUP; g++) {
            const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
            uint8_t *to = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
            for (int r = 0; r < BL_PANEL; r++) {
                const uint8_t byte = bytes[bl_tl5_digits(codes[r] + (g - first) * BL_TL5_GROUP)];
                to[bl_panel_place(r)] = byte;
                negatives[r] += byte >> 7;
            }
        }
    }
    memcpy(packed + panel * (int64_t)sizeof negatives, negatives, sizeof negatives);
}

static void bl_tl5_pack(uint8_t *packed, const uint8_t *canonical, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    uint8_t bytes[256];
    bl_tl5_bytes(bytes);
    for (int64_t row = lo; row < hi; row += BL_PANEL)
        bl_tl5_pack_panel(packed, canonical, rows, cols, row / BL_PANEL, bytes);
}

/* The byte of a row and a group. */
BL_INLINE uint8_t bl_tl5_byte(const uint8_t *packed, int64_t rows, int64_t cols, int64_t row, int64_t group)
{
    const int64_t block = group / BL_TL5_BLOCK * BL_TL5_BLOCK;
    const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, row / BL_PANEL, block);
    return vectors[(group - block) * BL_PANEL + bl_panel_place((int)(row % BL_PANEL))];
}

/* codes (5) of a byte: 0, 1 or 2 whatever the byte is. */
BL_INLINE void bl_tl5_unpack_byte(uint8_t *codes, uint8_t byte)
{
    unsigned digits = (unsigned)(BL_TL5_MOST + (byte & 0x80 ? -(byte & 0x7f) : byte));
    for (int j = 0; j < BL_TL5_GROUP; j++, digits /= 3) codes[j] = (uint8_t)(digits % 3);
}

static void bl_tl5_unpack(uint8_t *canonical, const uint8_t *packed, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), groups = bl_tl5_groups(cols);
    memset(canonical + lo * row_bytes, 0x55, (size_t)((hi - lo) * row_bytes)); /* zero weights, code 1 */
    for (int64_t row = lo; row < hi; row++)
        for (int64_t g = 0; g < groups; g++) {
            uint8_t codes[BL_TL5_GROUP];
            bl_tl5_unpack_byte(codes, bl_tl5_byte(packed, rows, cols, row, g));
            for (int64_t k = BL_TL5_GROUP * g, j = 0; j < BL_TL5_GROUP && k < cols; j++, k++)
                canonical[row * row_bytes + k / BL_BLOCK * BL_BLOCK_BYTES + k % 32] ^=
                    (uint8_t)((codes[j] ^ 1) << (6 - k % BL_BLOCK / 32 * 2));
        }
}

static const bl_kernel bl_tl5 = {"tl5", BL_PANEL, bl_tl5_packed_bytes, bl_tl5_pack, bl_tl5_unpack};

/* ---- plain C --------------------------------------------------------------------------------------------------- */

/* One token: a table of int16 sums, or the same number of bytes in the tier's own order. More: quads. */
static int64_t bl_tl5_token_bytes(int64_t cols, int64_t n)
{
    if (n == 1) return bl_tl5_groups(cols) * BL_TL5_TABLE * (int64_t)sizeof(int16_t);
    return (int64_t)sizeof(bl_prepared) + bl_round_up(4 * bl_tl5_quads(cols), 64);
}

/* table[v] = sum of the digits of v = 0 .. 121 times q (5). A v whose highest digit is k is 3^k plus a rest of either
 * sign whose sum is known by then. */
static void bl_tl5_sums(int16_t table[BL_TL5_TABLE], const int8_t *q)
{
    int power = 1, known = 0; /* 3^k, and the largest v without digit k */
    memset(table, 0, BL_TL5_TABLE * sizeof *table);
    for (int k = 0; k < BL_TL5_GROUP; k++, power *= 3) {
        for (int v = known + 1; v <= known + power; v++) {
            const int rest = v - power;
            table[v] = (int16_t)(q[k] + (rest < 0 ? -table[-rest] : table[rest]));
        }
        known += power;
    }
}

/* values (4 quads) of q (cols), and their sum. */
static void bl_tl5_prepare_quads(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    bl_prepared head = {0};
    int8_t *values = (int8_t *)prepared + sizeof head;
    memset(values, 0, (size_t)(4 * bl_tl5_quads(cols)));
    for (int64_t k = 0; k < cols; k++) {
        const int64_t group = k / BL_TL5_GROUP;
        values[4 * (group / 4 * 5 + k % BL_TL5_GROUP) + group % 4] = q[k];
        head.sum += q[k];
    }
    memcpy(prepared, &head, sizeof head);
}

static void bl_tl5_prepare_scalar(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > 1) {
        bl_tl5_prepare_quads(prepared, q, cols);
        return;
    }
    for (int64_t g = 0; g < bl_tl5_groups(cols); g++) {
        int8_t five[BL_TL5_GROUP] = {0};
        int16_t table[BL_TL5_TABLE];
        const int64_t rest = cols - BL_TL5_GROUP * g;
        memcpy(five, q + BL_TL5_GROUP * g, (size_t)(rest < BL_TL5_GROUP ? rest : BL_TL5_GROUP));
        bl_tl5_sums(table, five);
        memcpy(prepared + g * (int64_t)sizeof table, table, sizeof table);
    }
}

static void bl_tl5_decode_scalar(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                                 int64_t quad, int64_t quads)
{
    const int64_t groups = bl_tl5_groups(cols), first = quad / 5 * 4;
    for (int64_t g = first; g < first + quads / 5 * 4; g++)
        for (int r = 0; r < BL_PANEL; r++) {
            uint8_t five[BL_TL5_GROUP] = {0};
            if (g < groups) bl_tl5_unpack_byte(five, bl_tl5_byte(packed, rows, cols, panel * BL_PANEL + r, g));
            for (int j = 0; j < BL_TL5_GROUP; j++)
                codes[BL_QUAD_BYTES * ((g - first) / 4 * 5 + j) + 4 * r + (g - first) % 4] = five[j];
        }
}

static void bl_tl5_gemm_scalar(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                               int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n > 1) {
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols),
                      bl_tl5_token_bytes(cols, n), bl_tl5_decode_scalar, bl_panel_dot_scalar);
        return;
    }
    for (int64_t row = lo; row < hi; row++) {
        int32_t sum = 0;
        for (int64_t g = 0; g < bl_tl5_groups(cols); g++) {
            const uint8_t byte = bl_tl5_byte(packed, rows, cols, row, g);
            int16_t found;
            memcpy(&found, prepared + (g * BL_TL5_TABLE + (byte & 0x7f)) * (int64_t)sizeof found, sizeof found);
            sum += byte & 0x80 ? -found : found;
        }
        dot[row] = sum;
    }
}

static const bl_cell bl_tl5_scalar = {bl_tl5_token_bytes, bl_tl5_prepare_scalar, bl_tl5_gemm_scalar};

#endif
