/* What a ternary kernel is. A kernel is an algorithm with its packed layout, which is the same on every tier; a cell is
 * a kernel on one tier, whose prepared activations are its own affair. */
#ifndef BL_TERNARY_H
#define BL_TERNARY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "layout.h"

typedef int64_t (*bl_packed_bytes)(int64_t rows, int64_t cols);

/* Rows lo <= row < hi from canonical i2_s rows (rows, bl_i2_s_row_bytes(cols)) without code 3, or back to them with all
 * padding zero. lo is a multiple of the kernel's panel, hi too or it is rows. */
typedef void (*bl_pack)(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi);

/* Bytes of one prepared token, of n that are computed together; a multiple of 64. */
typedef int64_t (*bl_token_bytes)(int64_t cols, int64_t n);

/* Lay out one of n tokens from its int8 activations q (cols). */
typedef void (*bl_prepare)(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n);

/* dot[t * dot_stride + row] = sum over columns of weight times activation, exact in int32, for rows lo <= row < hi of
 * packed (rows, cols) and all tokens 0 <= t < n of prepared (n, token_bytes(cols, n)). lo is a multiple of the kernel's
 * panel, hi too or it is rows. cols at most BL_MAX_COLS. */
typedef void (*bl_gemm)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                        int64_t cols, int64_t lo, int64_t hi, int64_t n);

typedef struct {
    const char *name;
    int64_t panel; /* rows that are packed together: threads share out whole panels */
    bl_packed_bytes packed_bytes;
    bl_pack pack, unpack;
} bl_kernel;

typedef struct {
    bl_token_bytes token_bytes;
    bl_prepare prepare;
    bl_gemm gemm;
} bl_cell;

/* Longest row: codes up to 3 times int8 stay within int32. */
enum { BL_MAX_COLS = 1 << 22 };

#endif
