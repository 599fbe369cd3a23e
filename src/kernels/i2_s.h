/* Kernel i2_s: the 2-bit codes of ternary.h, as files have them, integer dot along the columns.
 *
 * Packed: the canonical rows themselves. Prepared, one token:
 *
 *   bl_prepared (64 bytes) | int8 values, bl_i2_s_values(cols) of them, zero beyond cols
 *
 * The order of the values within each 256 columns is the tier's own: natural here and for avx2; for avx512, whose
 * registers take two blocks at once, 64-byte vector t holds columns 32 t .. of the first block, then of the second.
 */
#ifndef BL_I2_S_H
#define BL_I2_S_H

#include <string.h>

#include "bitnet_lut/ternary.h"
#include "target.h"

/* The most that a product of a code with an activation is: codes are weight + 1, and i2_s may find the code 3 of a
 * damaged file. */
enum { BL_CODE_MOST = 2 * 128, BL_CODE_3_MOST = 3 * 128 };

/* Head of one prepared token. */
typedef struct {
    int32_t sum; /* of the int8 values: codes are weight + 1, so dot = dot(codes) - sum */
    uint8_t pad[60];
} bl_prepared;

BL_INLINE int64_t bl_i2_s_values(int64_t cols) { return bl_round_up(cols, 2 * BL_BLOCK); }
BL_INLINE int64_t bl_i2_s_prepared_bytes(int64_t cols) { return (int64_t)sizeof(bl_prepared) + bl_i2_s_values(cols); }

BL_INLINE int64_t bl_i2_s_token_bytes(int64_t cols, int64_t n)
{
    (void)n;
    return bl_i2_s_prepared_bytes(cols);
}

/* Prepare int8 activations q (cols) in natural order. */
BL_INLINE void bl_i2_s_arrange(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    bl_prepared head = {0};
    for (int64_t k = 0; k < cols; k++) head.sum += q[k];
    memcpy(prepared, &head, sizeof head);
    memcpy(prepared + sizeof head, q, (size_t)cols);
    memset(prepared + sizeof head + cols, 0, (size_t)(bl_i2_s_values(cols) - cols));
}

#endif
