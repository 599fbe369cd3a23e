/* Dense block types by the tiles of AMX for more tokens than registers are enough for. Included by the tier amx inside
 * its target region, behind blocks_avx512.h.
 *
 * The codes of 16 rows and the 16 columns of a group are four rows of a B tile as they lie; one digit of the group, of
 * 16 tokens, is an A tile of 16 bytes a row. Sums of a group must leave the tiles before they are scaled, so the
 * products of one unit go through memory, while those of the unit before, which had the time to get there, are scaled
 * and added:
 *
 *   digits: tmm0, tmm1, tmm2 (tokens, 16 columns)   codes: tmm3 (16 columns, 16 rows)   products: tmm4, tmm5, tmm6 */

#include "shared/amx.h"

/* The most tokens that do without tiles: reckoned, see docs/kernels.md. */
enum { STRIP_TOKENS = 2 * BL_TILE_ROWS, STRIP_IN_REGISTERS = 8 };

/* The products of a unit: halves of a strip, digits, tokens, rows. */
typedef struct { int32_t dot[2][3][STRIP_TOKENS][BL_LANES]; } unit_products;

/* Set the sizes of the tiles for m tokens, at most BL_TILE_ROWS. */
BL_INLINE void size_unit_tiles(int64_t m)
{
    const uint8_t tokens = (uint8_t)m;
    const bl_tile_sizes sizes = {
        .palette = 1,
        .row_bytes = {BL_LANES, BL_LANES, BL_LANES, BL_TILE_BYTES, BL_TILE_BYTES, BL_TILE_BYTES, BL_TILE_BYTES},
        .rows = {tokens, tokens, tokens, BL_LANES / 4, tokens, tokens, tokens}};
    TILE_SIZES(&sizes);
}

/* The values of a unit, by halves and registers. */
BL_INLINE void decode_unit(int8_t values[2][4][64], const bl_type type, const uint8_t *unit)
{
    const __m512i offset = _mm512_set1_epi8((char)(1 << bl_code_offset(type)));
    for (int64_t line = 0; line < bl_unit_bytes(type); line += 64) prefetch(unit + line + BL_AHEAD);
    for (int h = 0; h < 2; h++) {
        __m512i codes[4];
        unit_codes(codes, type, unit + bl_unit_scales(type) + h * bl_codes_bytes(type));
        for (int q = 0; q < 4; q++) _mm512_storeu_si512(values[h][q], _mm512_sub_epi8(codes[q], offset));
    }
}

/* The products of a tile of tokens, the first of which is t. */
BL_INLINE void multiply_unit(unit_products *to, int8_t values[2][4][64], const bl_lane *lane, int64_t u, int64_t t)
{
    const bl_fixed *x = bl_lane_x(lane, u, t);
    TILE_LOAD(0, x->digit[0], lane->token_bytes);
    TILE_LOAD(1, x->digit[1], lane->token_bytes);
    TILE_LOAD(2, x->digit[2], lane->token_bytes);
    for (int h = 0; h < 2; h++) {
        TILE_LOAD(3, values[h], 64);
        TILE_ZERO(4);
        TILE_ZERO(5);
        TILE_ZERO(6);
        TILE_MULTIPLY_SIGNED(4, 0, 3);
        TILE_MULTIPLY_SIGNED(5, 1, 3);
        TILE_MULTIPLY_SIGNED(6, 2, 3);
        TILE_STORE(4, to->dot[h][0][t], 64);
        TILE_STORE(5, to->dot[h][1][t], 64);
        TILE_STORE(6, to->dot[h][2][t], 64);
    }
}

/* Add the products of tokens [lo, hi), scaled, to their sums. */
BL_INLINE void add_unit(float *sums, const unit_products *products, const bl_type type, const bl_lane *lane, int64_t u,
                        int64_t lo, int64_t hi)
{
    const uint8_t *unit = lane->units + u * bl_unit_bytes(type), *halves = lane->halves + u * lane->halves_step;
    for (int h = 0; h < 2; h++) {
        const __m512 scale = unit_scales(type, unit, halves, BL_LANES * h);
        for (int64_t t = lo; t < hi; t++) {
            float *sum = sums + BL_STRIP * t + BL_LANES * h;
            __m512i dot[3];
            for (int d = 0; d < 3; d++) dot[d] = _mm512_loadu_si512(products->dot[h][d][t]);
            const __m512 step = _mm512_set1_ps(bl_lane_x(lane, u, t)->step);
            _mm512_storeu_ps(sum, add_dots(_mm512_loadu_ps(sum), dot, scale, step));
        }
    }
}

/* All tiles have the same number of tokens: the last one takes some of the tile before once more. */
BL_INLINE void lane_in_tiles(float *sums, const bl_type type, const bl_lane *lane, int64_t n)
{
    const int64_t m = bl_even_share(n, BL_TILE_ROWS);
    unit_products products[2];
    int8_t values[2][4][64];
    size_unit_tiles(m);
    memset(sums, 0, (size_t)(n * BL_STRIP) * sizeof *sums);
    for (int64_t u = 0; u <= lane->count; u++) {
        if (u < lane->count) decode_unit(values, type, lane->units + u * bl_unit_bytes(type));
        for (int64_t t = 0; t < n; t += m) {
            const int64_t end = t + m < n ? t + m : n;
            if (u < lane->count) multiply_unit(&products[u % 2], values, lane, u, end - m);
            if (u > 0) add_unit(sums, &products[(u - 1) % 2], type, lane, u - 1, t, end);
        }
    }
    TILE_RELEASE();
}

BL_INLINE void lane_sums(float *sums, const bl_type type, const bl_lane *lane, const int64_t n)
{
    if (n <= STRIP_IN_REGISTERS) lane_in_registers(sums, type, lane, n);
    else lane_in_tiles(sums, type, lane, n);
}
