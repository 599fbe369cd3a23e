/* Tiles of queries by keys, or by columns, whose sums stay in registers; and attention of more queries than one token's
 * heads, for all of which keys and values become floats once. Each sum is in the same order as elsewhere. Included
 * inside a target region. */

/* A tier with many registers has larger tiles. */
#ifndef TILE_QUERIES
#define TILE_QUERIES 2
#define TILE_KEYS 2

BL_INLINE void reduce_tile(float *scores, int64_t stride, f32x16 sum[TILE_QUERIES][TILE_KEYS], float scale)
{
    for (int i = 0; i < TILE_QUERIES; i++)
        for (int j = 0; j < TILE_KEYS; j++) scores[i * stride + j] = reduce(sum[i][j]) * scale;
}
#endif

/* scores (queries, stride) = q (queries, head_dim) . keys (count, head_dim) * scale, for at most BL_MAX_HEADS queries
 * and TILE_KEYS keys. */
BL_INLINE void score_tile(float *scores, int64_t stride, const float *q, const void *keys, const bl_kv_kind kind,
                          int64_t head_dim, float scale, const int queries, const int count)
{
    f32x16 sum[BL_MAX_HEADS][TILE_KEYS];
    for (int i = 0; i < queries; i++)
        for (int j = 0; j < count; j++) sum[i][j] = zero();
    for (int64_t k = 0; k < head_dim; k += BL_LANES) {
        f32x16 key[TILE_KEYS];
        for (int j = 0; j < count; j++) key[j] = load_kv(keys, j * head_dim + k, kind);
        for (int i = 0; i < queries; i++) {
            const f32x16 query = load(q + i * head_dim + k);
            for (int j = 0; j < count; j++) sum[i][j] = add(sum[i][j], mul(query, key[j]));
        }
    }
    if (queries == TILE_QUERIES && count == TILE_KEYS) {
        reduce_tile(scores, stride, sum, scale);
        return;
    }
    for (int i = 0; i < queries; i++)
        for (int j = 0; j < count; j++) scores[i * stride + j] = reduce(sum[i][j]) * scale;
}

enum { BLOCK_FLOATS = 4096 }; /* of keys or values at once, which stay in the nearest cache */

/* Whether so many queries are done in tiles of floats: with less than one tile of rows in a block nothing is shared. */
BL_INLINE int in_tiles(int64_t head_dim, int queries)
{
    return queries > BL_MAX_HEADS && TILE_KEYS * head_dim <= BLOCK_FLOATS;
}

/* Rows p .. p + n of a strip as floats: in block, or where they are. */
BL_INLINE const float *rows_as_floats(float *block, kv_strip strip, const bl_kv_kind kind, int64_t head_dim, int64_t p,
                                      int64_t n)
{
    const uint8_t *rows = strip.rows + bl_kv_bytes(kind, p * head_dim);
    if (kind == BL_KV_F32) return (const float *)(const void *)rows;
    for (int64_t i = 0; i < n * head_dim; i += BL_LANES) store(block + i, load_kv(rows, i, kind));
    return block;
}

/* What is fetched meanwhile, from some address on: so many bytes, and then again so many a step further. */
typedef struct {
    const uint8_t *from;
    int64_t bytes, step;
} kv_ahead;

BL_INLINE void fetch_ahead(kv_ahead *ahead)
{
    prefetch_kv(ahead->from, ahead->bytes);
    ahead->from += ahead->step;
}

/* What comes behind rows p .. p + n of a strip, as much in so many pieces. */
BL_INLINE kv_ahead rows_ahead(kv_strip strip, const bl_kv_kind kind, int64_t head_dim, int64_t p, int64_t n,
                              int64_t pieces)
{
    const int64_t piece = bl_round_up(bl_kv_bytes(kind, n * head_dim) / pieces, 64);
    return (kv_ahead){strip_byte(strip, kind, head_dim, bl_kv_bytes(kind, (p + n) * head_dim)), piece, piece};
}

/* How many rows from p on, before hi, fit in a block. */
BL_INLINE int64_t block_rows(int64_t head_dim, int64_t p, int64_t hi)
{
    const int64_t fit = BLOCK_FLOATS / head_dim;
    return hi - p < fit ? hi - p : fit;
}

/* scores (queries, stride) = q (queries, head_dim) . keys (n, head_dim) * scale. */
BL_INLINE void score_block(float *scores, int64_t stride, const float *q, const float *keys, int64_t head_dim,
                           int64_t n, float scale, int queries, kv_ahead ahead)
{
#define BL_SCORE(rows, count)                                                                                          \
    {                                                                                                                  \
        fetch_ahead(&ahead);                                                                                           \
        score_tile(scores + i * stride + j, stride, q + i * head_dim, keys + j * head_dim, BL_KV_F32, head_dim, scale, \
                   rows, count);                                                                                       \
    }
    for (int i = 0; i < queries;) {
        const int whole = queries - i >= TILE_QUERIES;
        int64_t j = 0;
        for (; whole && j + TILE_KEYS <= n; j += TILE_KEYS) BL_SCORE(TILE_QUERIES, TILE_KEYS)
        for (; whole && j < n; j++) BL_SCORE(TILE_QUERIES, 1)
        for (; j + TILE_KEYS <= n; j += TILE_KEYS) BL_SCORE(1, TILE_KEYS)
        for (; j < n; j++) BL_SCORE(1, 1)
        i += whole ? TILE_QUERIES : 1;
    }
#undef BL_SCORE
}

BL_INLINE void score_tiles(float *scores, int64_t stride, const float *q, kv_strip strip, const bl_kv_kind kind,
                           int64_t head_dim, int64_t lo, int64_t hi, float scale, int queries)
{
    _Alignas(64) float block[BLOCK_FLOATS];
    for (int64_t p = lo, n; p < hi; p += n) {
        n = block_rows(head_dim, p, hi);
        const float *keys = rows_as_floats(block, strip, kind, head_dim, p, n);
        const int64_t tiles = (queries + TILE_QUERIES - 1) / TILE_QUERIES * ((n + TILE_KEYS - 1) / TILE_KEYS);
        score_block(scores + p, stride, q, keys, head_dim, n, scale, queries,
                    rows_ahead(strip, kind, head_dim, p, n, tiles));
    }
}

/* Columns of out (queries, head_dim) += weights (queries, stride) . values (n, head_dim), row after row, with each of
 * which something is fetched. */
BL_INLINE void mix_tile(float *out, const float *weights, int64_t stride, const void *values, const bl_kv_kind kind,
                        int64_t head_dim, int64_t n, kv_ahead ahead, const int queries, const int vectors)
{
    f32x16 sum[BL_MAX_HEADS][4];
    for (int i = 0; i < queries; i++)
        for (int v = 0; v < vectors; v++) sum[i][v] = load(out + i * head_dim + 16 * v);
    for (int64_t p = 0; p < n; p++) {
        f32x16 value[4];
        fetch_ahead(&ahead);
        for (int v = 0; v < vectors; v++) value[v] = load_kv(values, p * head_dim + 16 * v, kind);
        for (int i = 0; i < queries; i++) {
            const f32x16 weight = set1(weights[i * stride + p]);
            for (int v = 0; v < vectors; v++) sum[i][v] = add(sum[i][v], mul(weight, value[v]));
        }
    }
    for (int i = 0; i < queries; i++)
        for (int v = 0; v < vectors; v++) store(out + i * head_dim + 16 * v, sum[i][v]);
}

/* Columns lo <= k < hi of the same. */
BL_INLINE void mix_rows(float *out, const float *weights, int64_t stride, const float *values, int64_t head_dim,
                        int64_t n, int64_t lo, int64_t hi, int queries, kv_ahead ahead)
{
#define BL_MIX(rows, vectors)                                                                                          \
    {                                                                                                                  \
        fetch_ahead(&ahead);                                                                                           \
        mix_tile(out + i * head_dim + k, weights + i * stride, stride, values + k, BL_KV_F32, head_dim, n,             \
                 (kv_ahead){0}, rows, vectors);                                                                        \
    }
    for (int i = 0; i < queries;) {
        const int whole = queries - i >= TILE_QUERIES;
        int64_t k = lo;
        for (; whole && k + 16 * TILE_KEYS <= hi; k += 16 * TILE_KEYS) BL_MIX(TILE_QUERIES, TILE_KEYS)
        for (; whole && k < hi; k += 16) BL_MIX(TILE_QUERIES, 1)
        for (; k + 16 * TILE_KEYS <= hi; k += 16 * TILE_KEYS) BL_MIX(1, TILE_KEYS)
        for (; k < hi; k += 16) BL_MIX(1, 1)
        i += whole ? TILE_QUERIES : 1;
    }
#undef BL_MIX
}

BL_INLINE void mix_tiles(float *out, const float *weights, int64_t stride, kv_strip strip, const bl_kv_kind kind,
                         int64_t head_dim, int64_t rows, int64_t lo, int64_t hi, int queries)
{
    _Alignas(64) float block[BLOCK_FLOATS];
    for (int64_t p = 0, n; p < rows; p += n) {
        n = block_rows(head_dim, p, rows);
        const float *values = rows_as_floats(block, strip, kind, head_dim, p, n);
        const int64_t width = 16 * TILE_KEYS;
        const int64_t tiles = (queries + TILE_QUERIES - 1) / TILE_QUERIES * ((hi - lo + width - 1) / width);
        mix_rows(out, weights + p, stride, values, head_dim, n, lo, hi, queries,
                 rows_ahead(strip, kind, head_dim, p, n, tiles));
    }
}
