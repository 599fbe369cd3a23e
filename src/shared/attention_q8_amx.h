/* Attention of several tokens over caches of BL_KV_Q8 by the tiles of AMX. Included inside the target region of the
 * tier amx, behind attention_q8.h. A strip is B tiles as it lies: four elements of 16 keys, or four positions of 16
 * columns, are a row. Quantized queries, or weights of a page, are A tiles:
 *
 *   queries 0 .. 15: products tmm0, int8 tmm2   queries 16 .. 31: products tmm1, int8 tmm3   keys or values: tmm4 */

#include "shared/amx.h"

_Static_assert(BL_MAX_QUERIES <= 2 * BL_TILE_ROWS && BL_PAGE <= BL_TILE_BYTES, "queries and positions fit two tiles");

/* Set the sizes of the tiles for so many queries, of which an A tile holds so many bytes each. */
BL_INLINE void size_q8_tiles(int queries, int64_t bytes)
{
    const uint8_t first = (uint8_t)(queries < BL_TILE_ROWS ? queries : BL_TILE_ROWS), second = (uint8_t)queries - first;
    const uint8_t rows[] = {first, second, first, second, (uint8_t)(bytes / 4)};
    const uint16_t a = (uint16_t)bytes, row_bytes[] = {BL_TILE_BYTES, BL_TILE_BYTES, a, a, BL_TILE_BYTES};
    bl_tile_sizes sizes = {.palette = 1};
    for (int t = 0; t < 5; t++) sizes.rows[t] = rows[t], sizes.row_bytes[t] = rows[t] ? row_bytes[t] : 0;
    TILE_SIZES(&sizes);
}

/* dot (queries, 16) = the sum of count products of A tiles, `bytes` apart, with B tiles, which follow each other. */
BL_INLINE void multiply_q8(int32_t dot[][BL_LANES], const q8_vector *a, const uint8_t *b, int64_t b_stride,
                           int64_t bytes, int64_t count, int queries)
{
    const int both = queries > BL_TILE_ROWS;
    TILE_ZERO(0);
    if (both) TILE_ZERO(1);
    for (int64_t i = 0; i < count; i++) {
        TILE_LOAD(4, b + i * bytes / 4 * b_stride, b_stride);
        TILE_LOAD(2, a[0].values + i * bytes, sizeof *a);
        TILE_MULTIPLY_SIGNED(0, 2, 4);
        if (!both) continue;
        TILE_LOAD(3, a[BL_TILE_ROWS].values + i * bytes, sizeof *a);
        TILE_MULTIPLY_SIGNED(1, 3, 4);
    }
    TILE_STORE(0, dot[0], BL_TILE_BYTES);
    if (both) TILE_STORE(1, dot[BL_TILE_ROWS], BL_TILE_BYTES);
}

/* How many A tiles of the same size hold head_dim elements, a multiple of 16. */
BL_INLINE int64_t q8_tiles_of(int64_t head_dim)
{
    int64_t count = (head_dim + BL_TILE_BYTES - 1) / BL_TILE_BYTES;
    while (head_dim % (4 * count)) count++;
    return count;
}

/* As score_strip_q8. */
BL_INLINE void score_q8_by_tiles(float *scores, int64_t stride, const q8_vector *q, kv_strip strip, int64_t head_dim,
                                 int64_t lo, int64_t hi, int queries)
{
    const float *scales = scales_q8(strip.rows, head_dim);
    const int64_t count = q8_tiles_of(head_dim), bytes = head_dim / count;
    int32_t dot[BL_MAX_QUERIES][BL_LANES];
    size_q8_tiles(queries, bytes);
    for (int64_t p = lo / Q8_KEYS * Q8_KEYS; p < hi; p += Q8_KEYS) {
        const int64_t first = p < lo ? lo - p : 0, last = hi - p < Q8_KEYS ? hi - p : Q8_KEYS;
        prefetch_kv(strip.next + p * head_dim, Q8_KEYS * head_dim);
        multiply_q8(dot, q, strip.rows + p * head_dim, BL_TILE_BYTES, bytes, count, queries);
        for (int i = 0; i < queries; i++) {
            const f32x16 dots = to_floats(_mm512_loadu_si512(dot[i]));
            const f32x16 found = mul(dots, mul(set1(q[i].factor), load(scales + p)));
            store_lanes(scores + i * stride + p, found, first, last);
        }
    }
    TILE_RELEASE();
}

/* As mix_strip_q8. */
BL_INLINE void mix_q8_by_tiles(float *out, const float *weights, int64_t stride, kv_strip strip, int64_t head_dim,
                               int64_t n, int64_t lo, int64_t hi, int queries)
{
    q8_vector quantized[BL_MAX_QUERIES];
    int32_t dot[BL_MAX_QUERIES][BL_LANES];
    for (int i = 0; i < queries; i++)
        quantize_weights(&quantized[i], weights + i * stride, scales_q8(strip.rows, head_dim), n);
    size_q8_tiles(queries, BL_PAGE);
    for (int64_t k = lo; k < hi; k += BL_LANES) {
        multiply_q8(dot, quantized, strip.rows + 4 * k, 4 * head_dim, BL_PAGE, 1, queries);
        for (int i = 0; i < queries; i++) {
            float *to = out + i * head_dim + k;
            const f32x16 dots = to_floats(_mm512_loadu_si512(dot[i]));
            store(to, add(load(to), mul(dots, set1(quantized[i].factor))));
        }
    }
    TILE_RELEASE();
}
