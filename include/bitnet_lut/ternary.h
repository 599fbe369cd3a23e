/* What a ternary kernel is. A kernel is an algorithm with its packed layout, which is the same on every tier; a cell is
 * a kernel on one tier, which prepares activations in a form of its own.
 *
 * Ternary weights come in canonical rows (the I2_S of GGUF files, every row padded to whole blocks):
 *
 *   row = ceil(cols / 128) blocks of 32 bytes
 *   byte p of block b, bits 7:6 | 5:4 | 3:2 | 1:0
 *     column 128 b + p | + 32 | + 64 | + 96          code = weight + 1, padding has code 1
 */
#ifndef BL_TERNARY_H
#define BL_TERNARY_H

#include <stddef.h>
#include <stdint.h>

/* For small functions in headers: inlined always, so that they get the instruction set of the caller. */
#if defined(_MSC_VER) && !defined(__clang__)
#define BL_INLINE static __forceinline
#else
#define BL_INLINE static inline __attribute__((always_inline))
#endif

enum { BL_BLOCK = 128, BL_BLOCK_BYTES = 32 };

/* The longest row: the int32 sum of that many codes, up to 3, times int8 cannot overflow. */
enum { BL_MAX_COLS = 1 << 22 };

BL_INLINE int64_t bl_round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

BL_INLINE int64_t bl_i2_s_row_bytes(int64_t cols) { return bl_round_up(cols, BL_BLOCK) / BL_BLOCK * BL_BLOCK_BYTES; }

/* The code at a column of a canonical row. */
BL_INLINE int bl_i2_s_code(const uint8_t *row, int64_t k)
{
    return row[k / BL_BLOCK * BL_BLOCK_BYTES + k % 32] >> (6 - k % BL_BLOCK / 32 * 2) & 3;
}

typedef int64_t (*bl_packed_bytes)(int64_t rows, int64_t cols);

/* Pack rows lo <= row < hi from canonical rows (rows, bl_i2_s_row_bytes(cols)) without code 3, or unpack them, with
 * weight zero in the padding. lo is a multiple of the kernel's panel; so is hi, unless it equals rows. */
typedef void (*bl_pack)(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi);

/* Bytes of one prepared token out of n that are computed together; a multiple of 64. */
typedef int64_t (*bl_token_bytes)(int64_t cols, int64_t n);

/* Prepare one of n tokens from its int8 activations q (cols). */
typedef void (*bl_prepare)(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n);

/* dot[t * dot_stride + row] = sum over columns of weight times activation, exact in int32, for rows lo <= row < hi of
 * packed (rows, cols) and all tokens 0 <= t < n of prepared (n, token_bytes(cols, n)). lo is a multiple of the kernel's
 * panel; so is hi, unless it equals rows. cols is at most BL_MAX_COLS. */
typedef void (*bl_gemm)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                        int64_t cols, int64_t lo, int64_t hi, int64_t n);

/* The most tokens that each worker prepares for itself, all of them or what its share of the columns needs. */
enum { BL_OWN_TOKENS = 2 };

/* Prepare what gemm_share of this worker reads of one of n tokens, at most BL_OWN_TOKENS. */
typedef void (*bl_prepare_share)(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n, int worker, int workers);

/* dot (n, dot_stride) = this worker's part of what gemm gives for all rows: the sums over its share of the columns, so
 * that those of all workers add up to the dots. dot_stride is at least rows, rounded up to whole panels, which may be
 * written. */
typedef void (*bl_gemm_share)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                              int64_t rows, int64_t cols, int64_t n, int worker, int workers);

/* Sums of few bits, which are widened after some steps: the bits of such a sum, the most that one step adds or takes
 * away, and the number of steps. */
typedef struct { int32_t bits, step, steps; } bl_narrow_sum;

/* How a cell adds up, for any weights and activations: the longest row without overflow follows from it. */
typedef struct {
    int32_t column;             /* the most that one column adds to an int32 sum, or takes away */
    int32_t weights_per_lookup; /* 0 if the cell multiplies */
    bl_narrow_sum narrow[3];    /* narrower sums on the way there; unused entries have 0 bits */
} bl_sums;

typedef struct {
    bl_token_bytes token_bytes;
    bl_prepare prepare;
    bl_gemm gemm;
    bl_sums sums;
    /* NULL, unless the rows of a worker lie in many pieces while its share of the columns is one piece of memory. */
    bl_prepare_share prepare_share;
    bl_gemm_share gemm_share;
} bl_cell;

typedef struct {
    const char *name;
    int64_t panel; /* rows that are packed together: threads share out whole panels */
    bl_packed_bytes packed_bytes;
    bl_pack pack, unpack;
    bl_cell plain; /* in plain C, for tiers without a cell of their own */
} bl_kernel;

#endif
