/* The dot of decoded panels by the tiles of AMX. Included by the tier amx inside its target region.
 *
 * A quad (64 rows, 4 columns) is four rows of B tiles, one for each 16 rows of the panel; 16 quads make such a tile.
 * The prepared values of 16 tokens are an A tile. Two of each give four products, which is what it takes to keep the
 * multiplier busy:
 *
 *                     rows 0 .. 15   rows 16 .. 31        then rows 32 .. 63
 *   tokens 0 .. 15        tmm0            tmm1
 *   tokens 16 .. 31       tmm2            tmm3            A: tmm4, tmm5   B: tmm6, tmm7 */

#include "shared/amx.h"

enum { AMX_QUADS = BL_TILE_ROWS, AMX_TOKENS = 2 * BL_TILE_ROWS };

/* Set the sizes of all tiles for m tokens, at most AMX_TOKENS. Rows of tokens that do not exist are not read. */
BL_INLINE void size_tiles(int64_t m)
{
    const uint8_t first = (uint8_t)(m < BL_TILE_ROWS ? m : BL_TILE_ROWS), second = (uint8_t)(m - first);
    bl_tile_sizes sizes = {.palette = 1};
    const uint8_t rows[BL_TILES] = {first, first, second, second, first, second, AMX_QUADS, AMX_QUADS};
    for (int t = 0; t < BL_TILES; t++) sizes.rows[t] = rows[t], sizes.row_bytes[t] = rows[t] ? BL_TILE_BYTES : 0;
    TILE_SIZES(&sizes);
}

/* Up to AMX_TOKENS tokens times 32 rows of a panel and whole tiles of quads. */
BL_INLINE void amx_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                        const int both)
{
    const int64_t sum_stride = BL_PANEL * (int64_t)sizeof *sum;
    int32_t *second = sum + BL_TILE_ROWS * BL_PANEL;
    TILE_LOAD(0, sum, sum_stride);
    TILE_LOAD(1, sum + 16, sum_stride);
    if (both) {
        TILE_LOAD(2, second, sum_stride);
        TILE_LOAD(3, second + 16, sum_stride);
    }
    for (int64_t quad = 0; quad < quads; quad += AMX_QUADS) {
        const uint8_t *b = codes + BL_QUAD_BYTES * quad, *a = values + 4 * quad;
        TILE_LOAD(6, b, BL_QUAD_BYTES);
        TILE_LOAD(4, a, token_bytes);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(7, b + 64, BL_QUAD_BYTES);
        TILE_MULTIPLY(1, 4, 7);
        if (both) {
            TILE_LOAD(5, a + BL_TILE_ROWS * token_bytes, token_bytes);
            TILE_MULTIPLY(2, 5, 6);
            TILE_MULTIPLY(3, 5, 7);
        }
    }
    TILE_STORE(0, sum, sum_stride);
    TILE_STORE(1, sum + 16, sum_stride);
    if (both) {
        TILE_STORE(2, second, sum_stride);
        TILE_STORE(3, second + 16, sum_stride);
    }
}

/* All tokens times whole tiles of quads. */
BL_INLINE void amx_tiles(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
    for (int64_t t = 0, sized = 0; t < n; t += AMX_TOKENS) {
        const int64_t m = n - t < AMX_TOKENS ? n - t : AMX_TOKENS;
        int32_t *to = sum + BL_PANEL * t;
        const uint8_t *from = values + t * token_bytes;
        if (m != sized) size_tiles(sized = m);
        for (int half = 0; half < 2; half++) {
            if (m > BL_TILE_ROWS) amx_tile(to + 32 * half, codes + 128 * half, from, token_bytes, quads, 1);
            else amx_tile(to + 32 * half, codes + 128 * half, from, token_bytes, quads, 0);
        }
    }
}

/* The last quads, too few for a tile, are multiplied with zeros behind them: values there are zero or of no account.
 * The tiles are given back at the end, so that other programs do not pay for saving them. */
BL_INLINE void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
    const int64_t whole = quads / AMX_QUADS * AMX_QUADS, left = quads - whole;
    if (whole) amx_tiles(sum, codes, values, token_bytes, whole, n);
    if (left) {
        uint8_t last[AMX_QUADS * BL_QUAD_BYTES];
        memcpy(last, codes + BL_QUAD_BYTES * whole, (size_t)(BL_QUAD_BYTES * left));
        memset(last + BL_QUAD_BYTES * left, 0, (size_t)(BL_QUAD_BYTES * (AMX_QUADS - left)));
        amx_tiles(sum, last, values + 4 * whole, token_bytes, AMX_QUADS, n);
    }
    TILE_RELEASE();
}
