/* Packed layouts: where each weight and each activation lies.
 *
 * Ternary weights, kernel i2_s (the canonical I2_S of GGUF files, every row padded to whole blocks):
 *
 *   row = ceil(cols / 128) blocks of 32 bytes
 *   byte p of block b, bits 7:6 | 5:4 | 3:2 | 1:0
 *     column 128 b + p | + 32 | + 64 | + 96          code = weight + 1, padding has code 1
 *
 * Activations prepared for i2_s, one row per token:
 *
 *   bl_prepared (64 bytes) | int8 values, bl_i2_s_values(cols) of them, zero beyond cols
 *
 * The order of the values within each 256 columns is the tier's own: natural for scalar and avx2; for avx512, whose
 * registers take two blocks at once, 64-byte vector t holds columns 32 t .. of the first block, then of the second.
 */
#ifndef BL_LAYOUT_H
#define BL_LAYOUT_H

#include <stdint.h>

enum { BL_BLOCK = 128, BL_BLOCK_BYTES = 32, BL_LANES = 16 };

/* Head of one prepared token. */
typedef struct {
    int32_t sum; /* of the int8 values: codes are weight + 1, so dot = dot(codes) - sum */
    uint8_t pad[60];
} bl_prepared;

BL_INLINE int64_t bl_round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
BL_INLINE int64_t bl_i2_s_row_bytes(int64_t cols) { return bl_round_up(cols, BL_BLOCK) / BL_BLOCK * BL_BLOCK_BYTES; }
BL_INLINE int64_t bl_i2_s_values(int64_t cols) { return bl_round_up(cols, 2 * BL_BLOCK); }
BL_INLINE int64_t bl_i2_s_prepared_bytes(int64_t cols) { return (int64_t)sizeof(bl_prepared) + bl_i2_s_values(cols); }

/* Types of a matrix. The dense ones are ggml's blocks: elements per block, bytes per block. */
typedef enum { BL_TERNARY, BL_F32, BL_F16, BL_BF16, BL_Q8_0, BL_Q4_0, BL_Q6_K, BL_TYPE_COUNT } bl_type;

BL_INLINE int64_t bl_row_bytes(bl_type type, int64_t cols)
{
    switch (type) {
    case BL_TERNARY: return bl_i2_s_row_bytes(cols);
    case BL_F32: return 4 * cols;
    case BL_F16:
    case BL_BF16: return 2 * cols;
    case BL_Q8_0: return cols / 32 * 34;
    case BL_Q4_0: return cols / 32 * 18;
    case BL_Q6_K: return cols / 256 * 210;
    default: return 0;
    }
}

#endif
