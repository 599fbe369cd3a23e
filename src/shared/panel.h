/* Panels: what the look-up kernels have in common. Rows are packed 64 at a time, one byte of each side by side, so that
 * the lanes of a register are rows and one table serves them all.
 *
 * For more than one token the weights are decoded, once for all tokens, to quads: the codes (weight + 1) of 64 rows and
 * 4 columns,
 *
 *   byte 4 r + i of a quad = code of row r, column i
 *
 * which are multiplied with four activations of each token. Which columns make a quad is the kernel's own choice;
 * prepared activations follow it:
 *
 *   bl_prepared (64 bytes) | int8 values, 4 for each quad, zero where the quad has no column
 */
#ifndef BL_PANEL_H
#define BL_PANEL_H

#include "kernels/i2_s.h"

enum {
    BL_PANEL = 64,
    BL_QUAD_BYTES = 4 * BL_PANEL,
    BL_QUADS = 240 /* decoded at once: a multiple of what every kernel decodes in one step */
};

/* Tokens whose sums are kept at once. A tier that multiplies faster than it decodes takes more. */
#ifndef BL_PANEL_TOKENS
#define BL_PANEL_TOKENS 128
#endif

/* Where the byte of row r lies among the 64 of a packed vector. Swapped like this, rows are in order after a transpose
 * by unpack instructions, which work within 16 bytes. It is its own inverse. */
BL_INLINE int bl_panel_place(int r) { return (r & 3) | (r >> 4 & 3) << 2 | (r >> 2 & 3) << 4; }

/* How many of n tokens to take next, at most these: as few steps as can be, of even size. */
BL_INLINE int64_t bl_even_share(int64_t n, int64_t most)
{
    const int64_t steps = (n + most - 1) / most;
    return (n + steps - 1) / steps;
}

BL_INLINE int64_t bl_panels(int64_t rows) { return bl_round_up(rows, BL_PANEL) / BL_PANEL; }

/* Decode quads [quad, quad + quads) of a panel, quad a multiple of BL_QUADS. Rows beyond the matrix may hold
 * anything. */
typedef void (*bl_decode)(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads);

/* sum[64 t + r] += codes (quads, 64, 4) . values (n tokens, token_bytes apart; 4 quads of them). */
typedef void (*bl_panel_dot)(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes,
                             int64_t quads, int64_t n);

BL_INLINE void bl_panel_dot_plain(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes,
                                  int64_t quads, int64_t n)
{
    for (int64_t t = 0; t < n; t++)
        for (int64_t quad = 0; quad < quads; quad++) {
            const int8_t *q = (const int8_t *)values + t * token_bytes + 4 * quad;
            const uint8_t *c = codes + BL_QUAD_BYTES * quad;
            for (int r = 0; r < BL_PANEL; r++, c += 4)
                sum[BL_PANEL * t + r] += c[0] * q[0] + c[1] * q[1] + c[2] * q[2] + c[3] * q[3];
        }
}

/* The gemm of a kernel, given its number of quads for these columns, its decoder and how many quads it decodes at once
 * (at most BL_QUADS), and the dot of a tier: functions known to the compiler, so that they are inlined. */
BL_INLINE void bl_panel_gemm_by(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                                int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n, int64_t all_quads,
                                int64_t token_bytes, bl_decode decode, const int64_t at_once, bl_panel_dot panel_dot)
{
    uint8_t codes[BL_QUADS * BL_QUAD_BYTES];
    int32_t sum[BL_PANEL_TOKENS * BL_PANEL];
    for (int64_t first = 0; first < n; first += BL_PANEL_TOKENS) {
        const int64_t tokens = n - first < BL_PANEL_TOKENS ? n - first : BL_PANEL_TOKENS;
        const uint8_t *token = prepared + first * token_bytes;
        for (int64_t row = lo; row < hi; row += BL_PANEL) {
            memset(sum, 0, (size_t)tokens * BL_PANEL * sizeof *sum);
            for (int64_t quad = 0; quad < all_quads; quad += at_once) {
                const int64_t quads = all_quads - quad < at_once ? all_quads - quad : at_once;
                decode(codes, packed, rows, cols, row / BL_PANEL, quad, quads);
                panel_dot(sum, codes, token + sizeof(bl_prepared) + 4 * quad, token_bytes, quads, tokens);
            }
            const int64_t count = hi - row < BL_PANEL ? hi - row : BL_PANEL;
            for (int64_t t = 0; t < tokens; t++) {
                bl_prepared head;
                memcpy(&head, token + t * token_bytes, sizeof head);
                for (int64_t r = 0; r < count; r++)
                    dot[(first + t) * dot_stride + row + r] = sum[BL_PANEL * t + r] - head.sum;
            }
        }
    }
}

BL_INLINE void bl_panel_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                             int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n, int64_t all_quads,
                             int64_t token_bytes, bl_decode decode, bl_panel_dot panel_dot)
{
    bl_panel_gemm_by(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, all_quads, token_bytes, decode, BL_QUADS,
                     panel_dot);
}

#endif
