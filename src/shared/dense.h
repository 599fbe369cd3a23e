/* Weights of ggml's types, written once over the primitives of a tier: embeddings, output heads, and the linear layers
 * of models that are not ternary. Included by ops.h.
 *
 * F32, F16 and BF16 are multiplied with the activations as floats, in 16 lanes; the block types in fixed point (see
 * blocks.h). */

enum { FLOAT_ROWS = 4, FLOAT_TOKENS = 32 };

BL_INLINE int is_float(bl_type type) { return type == BL_F32 || type == BL_F16 || type == BL_BF16; }

/* ---- prepared activations: floats, zero up to a multiple of 16, then a bl_fixed for every 16 in order of units --- */

BL_INLINE int64_t float_bytes(int64_t cols) { return bl_round_up(4 * cols, 64); }

/* An odd number of kB, so that the same columns of several tokens lie in different sets of a cache. */
static int64_t dense_bytes(int64_t cols)
{
    const int64_t groups = bl_round_up(cols, BL_LANES) / BL_LANES;
    return bl_round_up(float_bytes(cols) + groups * (int64_t)sizeof(bl_fixed), 1024) | 1024;
}

static void dense_prepare(uint8_t *prepared, const float *x, int64_t cols)
{
    float *floats = (float *)(void *)prepared;
    bl_fixed *fixed = (bl_fixed *)(void *)(prepared + float_bytes(cols));
    const int64_t groups = bl_round_up(cols, BL_LANES) / BL_LANES;
    memcpy(floats, x, (size_t)cols * sizeof(float));
    memset(floats + cols, 0, (size_t)float_bytes(cols) - (size_t)cols * sizeof(float));
    for (int64_t g = 0; g < groups; g++) bl_make_fixed(&fixed[bl_unit_of(groups, g)], floats + BL_LANES * g);
}

/* ---- block types ------------------------------------------------------------------------------------------------- */

/* The half scales of a strip of Q6_K as floats, for tiers to which converting them for each lane is a cost; NULL for
 * others, and for longer rows than there is room for. */
enum { SCALED_BLOCKS = 64 };
BL_INLINE const float *strip_scales(float *to, const bl_type type, const uint8_t *strip, int64_t blocks)
{
    if (!SCALES_AT_ONCE || type != BL_Q6_K || blocks > SCALED_BLOCKS) return NULL;
    for (int64_t i = 0; i < blocks * BL_STRIP; i += BL_LANES) store(to + i, load_f16(strip + 2 * i));
    return to;
}

/* out (n, 32) = a strip . n tokens, at most the tier's STRIP_TOKENS. */
BL_INLINE void multiply_strip(float *out, const bl_type type, const uint8_t *strip, const uint8_t *prepared,
                              int64_t cols, const int64_t n)
{
    float sums[BL_LANES][STRIP_TOKENS * BL_STRIP], scales[SCALED_BLOCKS * BL_STRIP];
    const int64_t groups = cols / BL_LANES, block_groups = bl_block_cols(type) / BL_LANES;
    bl_lane lane = {.units = strip + cols / bl_block_cols(type) * BL_HALVES_BYTES,
                    .halves_step = BL_LANES / block_groups * BL_HALVES_BYTES,
                    .scales = strip_scales(scales, type, strip, cols / bl_block_cols(type)),
                    .x = (const bl_fixed *)(const void *)(prepared + float_bytes(cols)),
                    .token_bytes = dense_bytes(cols)};
    for (int j = 0; j < BL_LANES; j++) {
        lane.count = (groups - j + BL_LANES - 1) / BL_LANES;
        lane.halves = strip + j / block_groups * BL_HALVES_BYTES;
        lane_sums(sums[j], type, &lane, n);
        lane.units += lane.count * bl_unit_bytes(type);
        lane.x += lane.count;
    }
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++)
            for (int64_t i = 0; i < n * BL_STRIP; i++) sums[j][i] += sums[j + width][i];
    memcpy(out, sums[0], (size_t)(n * BL_STRIP) * sizeof *out);
}

BL_INLINE void block_range(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                           const uint8_t *prepared, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const int64_t token_bytes = dense_bytes(cols), strip_bytes = bl_strip_bytes(type, cols);
    for (int64_t row = lo; row < hi; row += BL_STRIP) {
        const uint8_t *strip = weights + row / BL_STRIP * strip_bytes;
        const int64_t rows = hi - row < BL_STRIP ? hi - row : BL_STRIP;
        for (int64_t t = 0, tokens; t < n; t += tokens) {
            tokens = bl_even_share(n - t, STRIP_TOKENS);
            const uint8_t *token = prepared + t * token_bytes;
            float part[STRIP_TOKENS * BL_STRIP];
            if (tokens == 1) multiply_strip(part, type, strip, token, cols, 1);
            else multiply_strip(part, type, strip, token, cols, tokens);
            for (int64_t i = 0; i < tokens; i++)
                memcpy(out + (t + i) * out_stride + row, part + BL_STRIP * i, (size_t)rows * sizeof *part);
        }
    }
}

/* ---- float types ------------------------------------------------------------------------------------------------- */

/* Weights of 16 columns. */
BL_INLINE f32x16 load_weights(const bl_type type, const uint8_t *source)
{
    if (type == BL_F16) return load_f16(source);
    if (type == BL_BF16) return load_bf16(source);
    return load((const float *)(const void *)source);
}

/* The last columns of a row, fewer than 16, and zeros. */
BL_INLINE f32x16 last_weights(const bl_type type, const uint8_t *source, int64_t columns)
{
    uint8_t padded[4 * BL_LANES] = {0};
    memcpy(padded, source, (size_t)bl_row_bytes(type, columns));
    return load_weights(type, padded);
}

/* One token, `rows` rows at once so that their chains of additions overlap. The next rows are prefetched in the order
 * of their addresses. */
BL_INLINE void float_gemv(float *out, const bl_type type, const uint8_t *weights, const float *x, int64_t cols,
                          const int rows)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    const int64_t full = cols / BL_LANES * BL_LANES;
    f32x16 sum[FLOAT_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = zero();
    for (int64_t k = 0; k < full; k += BL_LANES) {
        const f32x16 input = load(x + k);
        const uint8_t *ahead = weights + rows * (row_bytes + bl_row_bytes(type, k));
        for (int64_t line = 0; line < rows * bl_row_bytes(type, BL_LANES); line += 64) prefetch(ahead + line);
        for (int r = 0; r < rows; r++) {
            const uint8_t *source = weights + r * row_bytes + bl_row_bytes(type, k);
            sum[r] = add(sum[r], mul(load_weights(type, source), input));
        }
    }
    if (full < cols) {
        const f32x16 input = load(x + full);
        for (int r = 0; r < rows; r++) {
            const uint8_t *source = weights + r * row_bytes + bl_row_bytes(type, full);
            sum[r] = add(sum[r], mul(last_weights(type, source, cols - full), input));
        }
    }
    for (int r = 0; r < rows; r++) out[r] = reduce(sum[r]);
}

/* decoded = weights of the columns (at most 256) from source on, zero up to a multiple of 16. */
BL_INLINE void decode_floats(float *decoded, const bl_type type, const uint8_t *source, int64_t columns)
{
    const int64_t full = columns / BL_LANES * BL_LANES;
    for (int64_t line = 0; line < bl_row_bytes(type, columns); line += 64) prefetch(source + line + BL_AHEAD);
    for (int64_t k = 0; k < full; k += BL_LANES) store(decoded + k, load_weights(type, source + bl_row_bytes(type, k)));
    if (full < columns) store(decoded + full, last_weights(type, source + bl_row_bytes(type, full), columns - full));
}

/* Up to FLOAT_TOKENS tokens, FLOAT_ROWS rows: each chunk of weights is decoded once, into the cache, and multiplied
 * with every token. */
BL_INLINE void float_rows(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                          const uint8_t *prepared, int64_t cols, int rows, int64_t n)
{
    const int64_t row_bytes = bl_row_bytes(type, cols), token_bytes = dense_bytes(cols);
    float decoded[FLOAT_ROWS][BL_CHUNK] = {{0}};
    f32x16 sum[FLOAT_TOKENS][FLOAT_ROWS];
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < FLOAT_ROWS; r++) sum[t][r] = zero();
    for (int64_t k = 0; k < cols; k += BL_CHUNK) {
        const int64_t columns = cols - k < BL_CHUNK ? cols - k : BL_CHUNK;
        for (int r = 0; r < rows; r++)
            decode_floats(decoded[r], type, weights + r * row_bytes + bl_row_bytes(type, k), columns);
        for (int64_t t = 0; t < n; t++) {
            const float *x = (const float *)(const void *)(prepared + t * token_bytes) + k;
            f32x16 s0 = sum[t][0], s1 = sum[t][1], s2 = sum[t][2], s3 = sum[t][3];
            for (int64_t j = 0; j < columns; j += BL_LANES) {
                const f32x16 input = load(x + j);
                s0 = add(s0, mul(load(decoded[0] + j), input));
                s1 = add(s1, mul(load(decoded[1] + j), input));
                s2 = add(s2, mul(load(decoded[2] + j), input));
                s3 = add(s3, mul(load(decoded[3] + j), input));
            }
            sum[t][0] = s0, sum[t][1] = s1, sum[t][2] = s2, sum[t][3] = s3;
        }
    }
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) out[t * out_stride + r] = reduce(sum[t][r]);
}

BL_INLINE void float_range(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                           const uint8_t *prepared, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const int64_t row_bytes = bl_row_bytes(type, cols), token_bytes = dense_bytes(cols);
    for (int64_t row = lo; row < hi;) {
        const int rows = hi - row < FLOAT_ROWS ? 1 : FLOAT_ROWS;
        const uint8_t *from = weights + row * row_bytes;
        for (int64_t t = 0; t < n; t += FLOAT_TOKENS) {
            const int64_t tokens = n - t < FLOAT_TOKENS ? n - t : FLOAT_TOKENS;
            const uint8_t *token = prepared + t * token_bytes;
            const float *x = (const float *)(const void *)token;
            float *to = out + t * out_stride + row;
            if (tokens > 1) float_rows(to, out_stride, type, from, token, cols, rows, tokens);
            else if (rows == 1) float_gemv(to, type, from, x, cols, 1);
            else float_gemv(to, type, from, x, cols, FLOAT_ROWS);
        }
        row += rows;
    }
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

/* out[t * out_stride + row] = weights . activations for rows lo <= row < hi and tokens 0 <= t < n of prepared (n,
 * dense_bytes(cols)). weights: rows (rows, bl_row_bytes(type, cols)) of floats, or strips, of which lo and hi are
 * multiples, or hi is the number of rows. */
static void dense_gemm(float *out, int64_t out_stride, bl_type type, const uint8_t *weights, const uint8_t *prepared,
                       int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
#define BL_RANGE(kind, type) kind(out, out_stride, type, weights, prepared, cols, lo, hi, n)
    switch (type) { /* the loops are instantiated for a type known to the compiler */
    case BL_F32: BL_RANGE(float_range, BL_F32); return;
    case BL_F16: BL_RANGE(float_range, BL_F16); return;
    case BL_BF16: BL_RANGE(float_range, BL_BF16); return;
    case BL_Q8_0: BL_RANGE(block_range, BL_Q8_0); return;
    case BL_Q4_0: BL_RANGE(block_range, BL_Q4_0); return;
    default: BL_RANGE(block_range, BL_Q6_K); return;
    }
#undef BL_RANGE
}

/* Weights of 16 columns with one scale. */
BL_INLINE f32x16 scale_codes(const int8_t *q, float scale) { return mul(load_i8(q), set1(scale)); }

/* out (256) = one block of Q6_K: low 4 bits (128 bytes), high 2 bits (64), int8 scale of every 16 (16), half scale. */
BL_INLINE void decode_q6_k(float *out, const uint8_t *block)
{
    const float d = f16(block + 208);
    int8_t q[256];
    unpack_i6x128(q, block, block + 128);
    unpack_i6x128(q + 128, block + 64, block + 160);
    for (int g = 0; g < 16; g++) store(out + 16 * g, scale_codes(q + 16 * g, d * (float)(int8_t)block[192 + g]));
}

/* out (32) = one block of Q8_0 or Q4_0: half scale, then the codes. */
BL_INLINE void decode_32(float *out, bl_type type, const uint8_t *block)
{
    const float d = f16(block);
    int8_t q[32];
    if (type == BL_Q8_0) memcpy(q, block + 2, 32);
    else unpack_i4x32(q, block + 2);
    store(out, scale_codes(q, d));
    store(out + 16, scale_codes(q + 16, d));
}

/* out (cols) = one row of weights as floats, just as ggml dequantizes it. */
static void dense_row(float *out, bl_type type, const uint8_t *row, int64_t cols)
{
    const int64_t step = type == BL_Q6_K ? 256 : is_float(type) ? BL_LANES : 32;
    for (int64_t k = 0; k < cols; k += step) {
        const uint8_t *source = row + bl_row_bytes(type, k);
        if (type == BL_Q6_K) decode_q6_k(out + k, source);
        else if (!is_float(type)) decode_32(out + k, type, source);
        else if (cols - k >= BL_LANES) store(out + k, load_weights(type, source));
        else {
            float part[BL_LANES];
            store(part, last_weights(type, source, cols - k));
            memcpy(out + k, part, (size_t)(cols - k) * sizeof(float));
        }
    }
}
