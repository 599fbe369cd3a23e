/* The tiles of AMX: eight of up to 16 rows of 64 bytes, whose sizes each thread sets before it uses them. The macros
 * take the number of a tile as a plain number. With BL_AMX_STANDIN arrays do what the tiles do, so that the code is
 * tested on machines without them; what the processor would refuse ends the program. */
#ifndef BL_AMX_H
#define BL_AMX_H

#include <stdint.h>
#include <string.h>

enum { BL_TILE_ROWS = 16, BL_TILE_BYTES = 64, BL_TILES = 8 };

/* What ldtilecfg reads: 64 bytes. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* of each tile */
    uint8_t rows[16];
} bl_tile_sizes;

#ifdef BL_AMX_STANDIN
#include <stdlib.h>

static _Thread_local struct {
    int in_use;
    bl_tile_sizes sizes;
    uint8_t tile[BL_TILES][BL_TILE_ROWS][BL_TILE_BYTES];
} amx;

BL_INLINE void amx_need(int condition)
{
    if (!condition) abort();
}

BL_INLINE void tile_sizes(const bl_tile_sizes *sizes)
{
    amx_need(sizes->palette == 1 && sizes->start_row == 0);
    for (int t = 0; t < 16; t++) {
        const int rows = sizes->rows[t], bytes = sizes->row_bytes[t];
        amx_need(t < BL_TILES ? rows <= BL_TILE_ROWS && bytes <= BL_TILE_BYTES && !rows == !bytes : !rows && !bytes);
    }
    memset(&amx, 0, sizeof amx);
    amx.in_use = 1, amx.sizes = *sizes;
}

BL_INLINE void tile_release(void)
{
    amx_need(amx.in_use);
    amx.in_use = 0;
}

BL_INLINE void amx_load(int t, const void *from, int64_t stride)
{
    amx_need(amx.in_use && amx.sizes.rows[t]);
    memset(amx.tile[t], 0, sizeof amx.tile[t]);
    for (int r = 0; r < amx.sizes.rows[t]; r++)
        memcpy(amx.tile[t][r], (const uint8_t *)from + r * stride, amx.sizes.row_bytes[t]);
}

BL_INLINE void amx_store(int t, void *to, int64_t stride)
{
    amx_need(amx.in_use && amx.sizes.rows[t]);
    for (int r = 0; r < amx.sizes.rows[t]; r++)
        memcpy((uint8_t *)to + r * stride, amx.tile[t][r], amx.sizes.row_bytes[t]);
}

BL_INLINE void amx_zero(int t)
{
    amx_need(amx.in_use && amx.sizes.rows[t]);
    memset(amx.tile[t], 0, sizeof amx.tile[t]);
}

/* c (m, n) += a (m, 4 k) of int8 . b (k, 4 n) of int8 or uint8. */
BL_INLINE void amx_multiply(int c, int a, int b, int b_is_signed)
{
    const bl_tile_sizes *s = &amx.sizes;
    amx_need(amx.in_use && s->rows[c] == s->rows[a] && s->row_bytes[c] == s->row_bytes[b]);
    amx_need(s->row_bytes[a] == 4 * s->rows[b] && c != a && c != b && a != b);
    for (int m = 0; m < s->rows[c]; m++)
        for (int n = 0; n < s->row_bytes[c] / 4; n++) {
            int32_t sum;
            memcpy(&sum, &amx.tile[c][m][4 * n], sizeof sum);
            for (int k = 0; k < s->row_bytes[a]; k++) {
                const uint8_t other = amx.tile[b][k / 4][4 * n + k % 4];
                sum += (int8_t)amx.tile[a][m][k] * (b_is_signed ? (int8_t)other : other);
            }
            memcpy(&amx.tile[c][m][4 * n], &sum, sizeof sum);
        }
}

#define TILE_SIZES(sizes) tile_sizes(sizes)
#define TILE_RELEASE() tile_release()
#define TILE_LOAD(tile, from, stride) amx_load(tile, from, stride)
#define TILE_STORE(tile, to, stride) amx_store(tile, to, stride)
#define TILE_ZERO(tile) amx_zero(tile)
#define TILE_MULTIPLY(c, a, b) amx_multiply(c, a, b, 0)
#define TILE_MULTIPLY_SIGNED(c, a, b) amx_multiply(c, a, b, 1)

#else
/* In assembly: gcc's own macros do not say that they touch memory. */
#define TILE_SIZES(sizes) __asm__ volatile("ldtilecfg %0" ::"m"(*(sizes)))
#define TILE_RELEASE() __asm__ volatile("tilerelease" ::: "memory")
#define TILE_LOAD(tile, from, stride)                                                                                  \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile::"r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride)                                                                                   \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %tmm" #tile)
#define TILE_MULTIPLY(c, a, b) __asm__ volatile("tdpbsud %tmm" #b ", %tmm" #a ", %tmm" #c)
#define TILE_MULTIPLY_SIGNED(c, a, b) __asm__ volatile("tdpbssd %tmm" #b ", %tmm" #a ", %tmm" #c)
#endif

#endif
