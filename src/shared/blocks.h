/* Weights of ggml's block types (Q8_0, Q4_0, Q6_K) as they are multiplied with activations: strips of 32 rows, the same
 * on every tier.
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
 * Activations are in fixed point: each group of 16 columns has 16 whole numbers of 21 bits and a step, which is a
 * power of two (bl_fixed_group). The dot product of a group is then exact in int32, so a tier may add it up in any way.
 * It is rounded once to float, multiplied by the scale of the weights times the step, and added to the lane of its
 * place: a tier does one lane of a strip after the other. */
#ifndef BL_BLOCKS_H
#define BL_BLOCKS_H

#include "bitnet_lut/bitnet_lut.h"
#include "shared/numerics.h"

enum {
    BL_CHUNK = 256,       /* columns: one unit of every lane */
    BL_CHUNK_BYTES = 272, /* the most that a row of a chunk takes in ggml's blocks: 8 of Q8_0 */
    BL_HALVES_BYTES = 2 * BL_STRIP
};

BL_INLINE int64_t bl_block_cols(bl_type type) { return type == BL_Q6_K ? 256 : 32; }
BL_INLINE int64_t bl_unit_scales(bl_type type) { return type == BL_Q6_K ? BL_STRIP : 0; }

/* Bytes of the codes of 16 rows in a unit. */
BL_INLINE int64_t bl_codes_bytes(bl_type type) { return type == BL_Q8_0 ? 256 : type == BL_Q4_0 ? 128 : 192; }
BL_INLINE int64_t bl_unit_bytes(bl_type type) { return bl_unit_scales(type) + 2 * bl_codes_bytes(type); }

BL_INLINE int64_t bl_strip_bytes(bl_type type, int64_t cols)
{
    return cols / bl_block_cols(type) * BL_HALVES_BYTES + cols / BL_LANES * bl_unit_bytes(type);
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

/* blocks (at least BL_CHUNK_BYTES) = one chunk, in ggml's blocks, from column k on of row r of a strip; returns its
 * columns. */
int64_t bl_unpack_chunk(uint8_t *blocks, const uint8_t *strip, int r, bl_type type, int64_t cols, int64_t k);

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
    const float *scales; /* (count, 32) those halves, if they are at hand as floats, or NULL */
    const bl_fixed *x;   /* (count) of the first token */
    int64_t token_bytes; /* from one token to the next */
    int64_t count;
} bl_lane;

BL_INLINE const bl_fixed *bl_lane_x(const bl_lane *lane, int64_t unit, int64_t token)
{
    return (const bl_fixed *)(const void *)((const uint8_t *)(lane->x + unit) + token * lane->token_bytes);
}

#endif
