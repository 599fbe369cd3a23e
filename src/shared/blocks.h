/* Weights of ggml's block types (Q8_0, Q4_0, Q6_K) as they meet activations: strips of 32 rows, the same on every tier.
 *
 *   strip
 *     halves   by block of a row: the half scales of the 32 rows
 *     units    of 16 columns each: first those at place 0 of every 256 columns, then those at place 1, and so on
 *       scales   Q6_K only: int8 (32)
 *       codes    of rows 0 .. 15, then of rows 16 .. 31: registers of 64 bytes
 *
 *   Dword r of register q holds columns 4 q .. 4 q + 3 of row r as unsigned codes:
 *     Q8_0   registers 0 .. 3                                    value + 128
 *     Q4_0   register q, and q + 2 in the high nibbles           value + 8
 *     Q6_K   registers 0 .. 2; 3 by two bits, lowest first,
 *            in bits 7:6 of those                                value + 32
 *
 * Activations meet them in fixed point: each group of 16 columns has 16 whole numbers of 21 bits and a step, which is a
 * power of two (bl_fixed_group). The dot product of a group is then exact in int32, so a tier may add it up in any way.
 * It is rounded once to float, multiplied by the scale of the weights times the step, and added to the lane of its
 * place: a tier does one lane of a strip after the other. */
#ifndef BL_BLOCKS_H
#define BL_BLOCKS_H

#include "layout.h"
#include "shared/numerics.h"

enum {
    BL_STRIP = 32,
    BL_STRIP_TOKENS = 8, /* that meet the codes of a unit as soon as they are decoded */
    BL_CHUNK = 256,      /* columns: one unit of every lane */
    BL_CHUNK_BYTES = 272, /* most that a row of a chunk takes in ggml's blocks: 8 of Q8_0 */
    BL_HALVES_BYTES = 2 * BL_STRIP
};

BL_INLINE int bl_is_block_type(bl_type type) { return type == BL_Q8_0 || type == BL_Q4_0 || type == BL_Q6_K; }
BL_INLINE int64_t bl_block_cols(bl_type type) { return type == BL_Q6_K ? 256 : 32; }
BL_INLINE int64_t bl_unit_scales(bl_type type) { return type == BL_Q6_K ? BL_STRIP : 0; }

/* Bytes of the codes of 16 rows in a unit. */
BL_INLINE int64_t bl_codes_bytes(bl_type type) { return type == BL_Q8_0 ? 256 : type == BL_Q4_0 ? 128 : 192; }
BL_INLINE int64_t bl_unit_bytes(bl_type type) { return bl_unit_scales(type) + 2 * bl_codes_bytes(type); }

BL_INLINE int64_t bl_strip_bytes(bl_type type, int64_t cols)
{
    return cols / bl_block_cols(type) * BL_HALVES_BYTES + cols / BL_LANES * bl_unit_bytes(type);
}

/* Bytes of a matrix as it meets activations: strips, or plain rows of floats. */
BL_INLINE int64_t bl_dense_packed_bytes(bl_type type, int64_t rows, int64_t cols)
{
    if (!bl_is_block_type(type)) return rows * bl_row_bytes(type, cols);
    return bl_round_up(rows, BL_STRIP) / BL_STRIP * bl_strip_bytes(type, cols);
}

/* Which unit of its strip a group of 16 columns is, of so many groups. */
BL_INLINE int64_t bl_unit_of(int64_t groups, int64_t group)
{
    const int64_t lane = group % BL_LANES, more = groups % BL_LANES;
    return lane * (groups / BL_LANES) + (lane < more ? lane : more) + group / BL_LANES;
}

/* What is added to every value to make its code unsigned, as a power of two. */
BL_INLINE int bl_code_offset(bl_type type) { return type == BL_Q8_0 ? 7 : type == BL_Q6_K ? 5 : 3; }

/* The four registers of the codes of 16 rows. */
BL_INLINE void bl_unit_registers(uint8_t q[4][64], const bl_type type, const uint8_t *codes)
{
    if (type == BL_Q8_0) {
        memcpy(q, codes, 4 * sizeof *q);
        return;
    }
    for (int i = 0; i < 64; i++) {
        const int a = codes[i], b = codes[64 + i];
        if (type == BL_Q4_0) {
            q[0][i] = a & 15, q[1][i] = b & 15;
            q[2][i] = (uint8_t)(a >> 4), q[3][i] = (uint8_t)(b >> 4);
        } else {
            const int c = codes[128 + i];
            q[0][i] = a & 63, q[1][i] = b & 63, q[2][i] = c & 63;
            q[3][i] = (uint8_t)(a >> 6 | b >> 6 << 2 | c >> 6 << 4);
        }
    }
}

/* ---- packing -------------------------------------------------------------------------------------------------- */

/* Unsigned codes of the columns (at most 256) of a row that start at a block. */
static void bl_block_codes(uint8_t codes[BL_CHUNK], bl_type type, const uint8_t *block, int64_t columns)
{
    if (type == BL_Q6_K) {
        for (int half = 0; half < 2; half++, codes += 128) {
            const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
            for (int p = 0; p < 32; p++) {
                codes[p] = (uint8_t)((low[p] & 15) | (high[p] & 3) << 4);
                codes[p + 32] = (uint8_t)((low[p + 32] & 15) | (high[p] >> 2 & 3) << 4);
                codes[p + 64] = (uint8_t)(low[p] >> 4 | (high[p] >> 4 & 3) << 4);
                codes[p + 96] = (uint8_t)(low[p + 32] >> 4 | high[p] >> 6 << 4);
            }
        }
        return;
    }
    for (int64_t k = 0; k < columns; k += 32, codes += 32, block += bl_row_bytes(type, 32))
        for (int i = 0; i < 16; i++) {
            codes[i] = type == BL_Q8_0 ? block[2 + i] ^ 0x80 : block[2 + i] & 15;
            codes[16 + i] = type == BL_Q8_0 ? block[18 + i] ^ 0x80 : block[2 + i] >> 4;
        }
}

/* Put the codes of 16 columns of a row among those of its 16 rows. */
BL_INLINE void bl_place_codes(uint8_t *to, bl_type type, const uint8_t codes[BL_LANES])
{
    uint32_t dword[4];
    int registers = 4;
    memcpy(dword, codes, sizeof dword);
    if (type == BL_Q4_0) {
        registers = 2;
        for (int q = 0; q < 2; q++) dword[q] |= dword[q + 2] << 4;
    } else if (type == BL_Q6_K) {
        registers = 3;
        for (int q = 0; q < 3; q++) dword[q] |= (dword[3] >> 2 * q & 0x03030303u) << 6;
    }
    for (int q = 0; q < registers; q++) memcpy(to + 64 * q, &dword[q], sizeof *dword);
}

/* One chunk of a row, which is row r of its strip. */
static void bl_pack_chunk(uint8_t *strip, int r, bl_type type, const uint8_t *row, int64_t cols, int64_t k)
{
    const int64_t block_cols = bl_block_cols(type), columns = cols - k < BL_CHUNK ? cols - k : BL_CHUNK;
    const uint8_t *blocks = row + bl_row_bytes(type, k);
    uint8_t codes[BL_CHUNK];
    bl_block_codes(codes, type, blocks, columns);
    for (int64_t b = 0; b < columns / block_cols; b++) {
        const uint8_t *block = blocks + bl_row_bytes(type, b * block_cols);
        memcpy(strip + (k / block_cols + b) * BL_HALVES_BYTES + 2 * r, block + (type == BL_Q6_K ? 208 : 0), 2);
    }
    uint8_t *units = strip + cols / block_cols * BL_HALVES_BYTES;
    for (int64_t g = 0; g < columns / BL_LANES; g++) {
        uint8_t *unit = units + bl_unit_of(cols / BL_LANES, k / BL_LANES + g) * bl_unit_bytes(type);
        if (type == BL_Q6_K) unit[r] = blocks[192 + g];
        unit += bl_unit_scales(type) + r / BL_LANES * bl_codes_bytes(type);
        bl_place_codes(unit + 4 * (r % BL_LANES), type, codes + BL_LANES * g);
    }
}

/* Strips of rows lo <= row < hi from rows (rows, bl_row_bytes(type, cols)) of a block type; lo is a multiple of
 * BL_STRIP, hi too or it is rows. Rows beyond the matrix are zero. */
BL_UNUSED static void bl_pack_blocks(uint8_t *to, const uint8_t *from, bl_type type, int64_t rows, int64_t cols,
                                     int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_row_bytes(type, cols), strip_bytes = bl_strip_bytes(type, cols);
    for (int64_t first = lo; first < hi; first += BL_STRIP) {
        uint8_t *strip = to + first / BL_STRIP * strip_bytes;
        const int here = rows - first < BL_STRIP ? (int)(rows - first) : BL_STRIP;
        if (here < BL_STRIP) memset(strip, 0, (size_t)strip_bytes);
        for (int64_t k = 0; k < cols; k += BL_CHUNK)
            for (int r = 0; r < here; r++) bl_pack_chunk(strip, r, type, from + (first + r) * row_bytes, cols, k);
    }
}

/* ---- and back --------------------------------------------------------------------------------------------------- */

/* The codes of 16 columns of a row from among those of its 16 rows. */
BL_INLINE void bl_find_codes(uint8_t codes[BL_LANES], bl_type type, const uint8_t *from)
{
    uint32_t dword[4] = {0};
    for (int q = 0; q < (int)bl_codes_bytes(type) / 64; q++) memcpy(&dword[q], from + 64 * q, sizeof *dword);
    if (type == BL_Q4_0)
        for (int q = 0; q < 2; q++) {
            dword[q + 2] = dword[q] >> 4 & 0x0f0f0f0fu;
            dword[q] &= 0x0f0f0f0fu;
        }
    else if (type == BL_Q6_K)
        for (int q = 0; q < 3; q++) {
            dword[3] |= (dword[q] >> 6 & 0x03030303u) << 2 * q;
            dword[q] &= 0x3f3f3f3fu;
        }
    memcpy(codes, dword, sizeof dword);
}

/* What bl_block_codes read. */
static void bl_write_codes(uint8_t *block, bl_type type, const uint8_t codes[BL_CHUNK], int64_t columns)
{
    if (type == BL_Q6_K) {
        for (int half = 0; half < 2; half++, codes += 128) {
            uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
            for (int p = 0; p < 32; p++) {
                low[p] = (uint8_t)((codes[p] & 15) | (codes[p + 64] & 15) << 4);
                low[p + 32] = (uint8_t)((codes[p + 32] & 15) | (codes[p + 96] & 15) << 4);
                high[p] = (uint8_t)(codes[p] >> 4 | codes[p + 32] >> 4 << 2 | codes[p + 64] >> 4 << 4 |
                                    codes[p + 96] >> 4 << 6);
            }
        }
        return;
    }
    for (int64_t k = 0; k < columns; k += 32, codes += 32, block += bl_row_bytes(type, 32))
        for (int i = 0; i < 16; i++) {
            block[2 + i] = (uint8_t)(type == BL_Q8_0 ? codes[i] ^ 0x80 : codes[i] | codes[16 + i] << 4);
            if (type == BL_Q8_0) block[18 + i] = codes[16 + i] ^ 0x80;
        }
}

/* blocks = one chunk, in ggml's blocks, of row r of a strip; returns its columns. */
static int64_t bl_unpack_chunk(uint8_t blocks[BL_CHUNK_BYTES], const uint8_t *strip, int r, bl_type type, int64_t cols,
                               int64_t k)
{
    const int64_t block_cols = bl_block_cols(type), columns = cols - k < BL_CHUNK ? cols - k : BL_CHUNK;
    const uint8_t *units = strip + cols / block_cols * BL_HALVES_BYTES;
    uint8_t codes[BL_CHUNK];
    for (int64_t g = 0; g < columns / BL_LANES; g++) {
        const uint8_t *unit = units + bl_unit_of(cols / BL_LANES, k / BL_LANES + g) * bl_unit_bytes(type);
        if (type == BL_Q6_K) blocks[192 + g] = unit[r];
        unit += bl_unit_scales(type) + r / BL_LANES * bl_codes_bytes(type);
        bl_find_codes(codes + BL_LANES * g, type, unit + 4 * (r % BL_LANES));
    }
    bl_write_codes(blocks, type, codes, columns);
    for (int64_t b = 0; b < columns / block_cols; b++) {
        uint8_t *block = blocks + bl_row_bytes(type, b * block_cols);
        memcpy(block + (type == BL_Q6_K ? 208 : 0), strip + (k / block_cols + b) * BL_HALVES_BYTES + 2 * r, 2);
    }
    return columns;
}

/* Rows lo <= row < hi, (hi - lo, bl_row_bytes(type, cols)) in ggml's blocks, from strips. */
BL_UNUSED static void bl_unpack_blocks(uint8_t *to, const uint8_t *strips, bl_type type, int64_t cols, int64_t lo,
                                       int64_t hi)
{
    uint8_t blocks[BL_CHUNK_BYTES];
    for (int64_t row = lo; row < hi; row++)
        for (int64_t k = 0; k < cols; k += BL_CHUNK) {
            const uint8_t *strip = strips + row / BL_STRIP * bl_strip_bytes(type, cols);
            const int64_t columns = bl_unpack_chunk(blocks, strip, (int)(row % BL_STRIP), type, cols, k);
            memcpy(to, blocks, (size_t)bl_row_bytes(type, columns));
            to += bl_row_bytes(type, columns);
        }
}

/* ---- activations ---------------------------------------------------------------------------------------------- */

/* A group of 16 activations: whole numbers as three balanced digits, 16384 a + 128 b + c with -64 <= digit <= 64, so
 * that two products of a digit and an unsigned byte fit 16 bits. */
typedef struct {
    int8_t digit[3][BL_LANES];
    int32_t sum; /* of the whole numbers */
    float step;
    int32_t unused[2];
} bl_fixed;

BL_INLINE void bl_make_fixed(bl_fixed *to, const float x[BL_LANES])
{
    int32_t whole[BL_LANES], sum = 0;
    to->step = bl_fixed_group(whole, x);
    for (int j = 0; j < BL_LANES; j++) {
        const int32_t ab = (whole[j] + 64) >> 7, a = (ab + 64) >> 7;
        to->digit[0][j] = (int8_t)a;
        to->digit[1][j] = (int8_t)(ab - 128 * a);
        to->digit[2][j] = (int8_t)(whole[j] - 128 * ab);
        sum += whole[j];
    }
    to->sum = sum;
}

/* One lane of a strip and of its activations: what a tier multiplies and adds. */
typedef struct {
    const uint8_t *units;  /* (count) */
    const uint8_t *halves; /* of the first unit; those of the next are halves_step bytes further */
    int64_t halves_step;
    const bl_fixed *x;     /* (count) of the first token */
    int64_t token_bytes;   /* from one token to the next */
    int64_t count;
} bl_lane;

BL_INLINE const bl_fixed *bl_lane_x(const bl_lane *lane, int64_t unit, int64_t token)
{
    return (const bl_fixed *)(const void *)((const uint8_t *)(lane->x + unit) + token * lane->token_bytes);
}

#endif
