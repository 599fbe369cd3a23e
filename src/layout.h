/* The layouts that weights come in; those a kernel packs them into are in its header.
 *
 * Ternary weights, canonical (the I2_S of GGUF files, every row padded to whole blocks):
 *
 *   row = ceil(cols / 128) blocks of 32 bytes
 *   byte p of block b, bits 7:6 | 5:4 | 3:2 | 1:0
 *     column 128 b + p | + 32 | + 64 | + 96          code = weight + 1, padding has code 1
 */
#ifndef BL_LAYOUT_H
#define BL_LAYOUT_H

#include <stdint.h>

#include "target.h"

enum { BL_BLOCK = 128, BL_BLOCK_BYTES = 32, BL_LANES = 16 };

BL_INLINE int64_t bl_round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
BL_INLINE int64_t bl_i2_s_row_bytes(int64_t cols) { return bl_round_up(cols, BL_BLOCK) / BL_BLOCK * BL_BLOCK_BYTES; }

/* The code of a canonical row at a column. */
BL_INLINE int bl_i2_s_code(const uint8_t *row, int64_t k)
{
    return row[k / BL_BLOCK * BL_BLOCK_BYTES + k % 32] >> (6 - k % BL_BLOCK / 32 * 2) & 3;
}

/* Whether any of n bytes of canonical rows holds code 3, which is no ternary weight. */
BL_INLINE int bl_has_code_3(const uint8_t *codes, int64_t n)
{
    uint8_t found = 0;
    for (int64_t i = 0; i < n; i++) found |= (uint8_t)(codes[i] & codes[i] >> 1 & 0x55);
    return found != 0;
}

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

/* How a cache keeps keys and values. A row holds those of one head at one position, in whole blocks of elements. */
typedef enum { BL_KV_F32, BL_KV_F16, BL_KV_KINDS } bl_kv_kind;
typedef struct {
    const char *name;
    int64_t block, block_bytes;
} bl_kv_format;
BL_UNUSED static const bl_kv_format bl_kv_formats[BL_KV_KINDS] = {
    [BL_KV_F32] = {"f32", 1, 4},
    [BL_KV_F16] = {"f16", 1, 2},
};

BL_INLINE int64_t bl_kv_bytes(bl_kv_kind kind, int64_t elements)
{
    return elements / bl_kv_formats[kind].block * bl_kv_formats[kind].block_bytes;
}

#endif
