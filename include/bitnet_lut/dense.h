/* Weights of ggml's types, written once over the primitives of a tier: embeddings, output heads, and the linear layers
 * of models that are not ternary. No include guard: see ops.h.
 *
 * F32, F16 and BF16 meet the activations as floats, in 16 lanes. The block types meet them in fixed point: each group
 * of 16 columns has 16 whole numbers of 21 bits and a step, which is a power of two (bl_fixed_group). The dot product
 * of a group is then exact in int32, so a tier may add it up in any way. It is rounded once to float, multiplied by the
 * scale of the weights times the step, and added to the lane of its place among the 16 groups of 256 columns. */

enum { BL_FN(CHUNK) = 256, BL_FN(ROWS) = 4, BL_FN(TOKENS) = 32 };

BL_INLINE int BL_FN(is_float)(bl_type type) { return type == BL_F32 || type == BL_F16 || type == BL_BF16; }

/* ---- prepared activations: floats, zero up to a multiple of 16, then a BL_FN(fixed) for every 256 columns -------- */

BL_INLINE int64_t BL_FN(float_bytes)(int64_t cols) { return bl_round_up(4 * cols, 64); }

/* An odd number of kB, so that the same chunk of several tokens lies in different sets of a cache. */
static int64_t BL_FN(dense_bytes)(int64_t cols)
{
    const int64_t chunks = bl_round_up(cols, BL_FN(CHUNK)) / BL_FN(CHUNK);
    return bl_round_up(BL_FN(float_bytes)(cols) + chunks * (int64_t)sizeof(BL_FN(fixed)), 1024) | 1024;
}

BL_INLINE const BL_FN(fixed) *BL_FN(fixed_of)(const uint8_t *prepared, int64_t cols)
{
    return (const BL_FN(fixed) *)(const void *)(prepared + BL_FN(float_bytes)(cols));
}

static void BL_FN(dense_prepare)(uint8_t *prepared, const float *x, int64_t cols)
{
    float *floats = (float *)(void *)prepared;
    BL_FN(fixed) *fixed = (BL_FN(fixed) *)(void *)(prepared + BL_FN(float_bytes)(cols));
    memset(prepared, 0, (size_t)BL_FN(dense_bytes)(cols));
    memcpy(floats, x, (size_t)cols * sizeof(float));
    for (int64_t k = 0; k < cols; k += BL_LANES) {
        const int group = (int)(k % BL_FN(CHUNK) / BL_LANES);
        int32_t whole[BL_LANES];
        const float step = bl_fixed_group(whole, floats + k);
        BL_FN(place_group)(&fixed[k / BL_FN(CHUNK)], group, whole, step);
    }
}

/* ---- block types ------------------------------------------------------------------------------------------------- */

/* Decode the columns (at most 256) of a row that start at a block; beyond them weights and scales are zero. */
BL_INLINE void BL_FN(open)(BL_FN(codes) *to, const bl_type type, const uint8_t *source, int64_t columns)
{
    enum { MOST = 8 * 34 };
    uint8_t padded[MOST];
    const int64_t bytes = bl_row_bytes(type, BL_FN(CHUNK));
    for (int64_t line = 0; line < bytes; line += 64) BL_FN(prefetch)(source + line + BL_AHEAD);
    if (type == BL_Q6_K) {
        BL_FN(open_q6_k)(to, source);
        return;
    }
    if (columns < BL_FN(CHUNK)) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, source, (size_t)bl_row_bytes(type, columns));
        source = padded;
    }
    if (type == BL_Q8_0) BL_FN(open_q8_0)(to, source);
    else BL_FN(open_q4_0)(to, source);
}

/* What is added to every code of a type to make it unsigned, as a power of two. */
BL_INLINE int BL_FN(offset)(const bl_type type) { return type == BL_Q8_0 ? 7 : type == BL_Q6_K ? 5 : 3; }

/* n tokens (at most TOKENS), rows of one type: each chunk of weights is decoded once and meets every token. */
BL_INLINE void BL_FN(block_rows)(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                                 const uint8_t *prepared, int64_t cols, const int rows, const int64_t n)
{
    enum { MEET = BL_FN(MEET) };
    const int64_t row_bytes = bl_row_bytes(type, cols), token_bytes = BL_FN(dense_bytes)(cols);
    const int together = rows < MEET ? rows : MEET;
    bl_f32x16 sum[BL_FN(TOKENS)][BL_FN(ROWS)];
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) sum[t][r] = BL_FN(zero)();
    for (int64_t k = 0; k < cols; k += BL_FN(CHUNK)) {
        const BL_FN(fixed) *fixed = BL_FN(fixed_of)(prepared, cols) + k / BL_FN(CHUNK);
        for (int r = 0; r < rows; r += together) {
            BL_FN(codes) codes[MEET];
            for (int i = 0; i < together; i++)
                BL_FN(open)(&codes[i], type, weights + (r + i) * row_bytes + bl_row_bytes(type, k), cols - k);
            for (int64_t t = 0; t < n; t++) {
                const BL_FN(fixed) *x = (const void *)((const uint8_t *)fixed + t * token_bytes);
                BL_FN(meet)(&sum[t][r], codes, together, x, BL_FN(offset)(type));
            }
        }
    }
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) out[t * out_stride + r] = BL_FN(reduce)(BL_FN(in_order)(sum[t][r]));
}

/* ---- float types ------------------------------------------------------------------------------------------------- */

/* Weights of 16 columns. */
BL_INLINE bl_f32x16 BL_FN(weights)(const bl_type type, const uint8_t *source)
{
    if (type == BL_F16) return BL_FN(load_f16)(source);
    if (type == BL_BF16) return BL_FN(load_bf16)(source);
    return BL_FN(load)((const float *)(const void *)source);
}

/* The last columns of a row, fewer than 16, and zeros. */
BL_INLINE bl_f32x16 BL_FN(last_weights)(const bl_type type, const uint8_t *source, int64_t columns)
{
    uint8_t padded[4 * BL_LANES] = {0};
    memcpy(padded, source, (size_t)bl_row_bytes(type, columns));
    return BL_FN(weights)(type, padded);
}

/* One token, `rows` rows at once so that their chains of additions overlap. */
BL_INLINE void BL_FN(float_gemv)(float *out, const bl_type type, const uint8_t *weights, const float *x, int64_t cols,
                                 const int rows)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    const int64_t full = cols / BL_LANES * BL_LANES;
    bl_f32x16 sum[BL_FN(ROWS)];
    for (int r = 0; r < rows; r++) sum[r] = BL_FN(zero)();
    for (int64_t k = 0; k < full; k += BL_LANES) {
        const bl_f32x16 input = BL_FN(load)(x + k);
        for (int r = 0; r < rows; r++) {
            const uint8_t *source = weights + r * row_bytes + bl_row_bytes(type, k);
            if (k % (64 / bl_row_bytes(type, 1)) == 0) BL_FN(prefetch)(source + BL_AHEAD);
            sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(BL_FN(weights)(type, source), input));
        }
    }
    if (full < cols) {
        const bl_f32x16 input = BL_FN(load)(x + full);
        for (int r = 0; r < rows; r++) {
            const uint8_t *source = weights + r * row_bytes + bl_row_bytes(type, full);
            sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(BL_FN(last_weights)(type, source, cols - full), input));
        }
    }
    for (int r = 0; r < rows; r++) out[r] = BL_FN(reduce)(sum[r]);
}

/* decoded = weights of the columns (at most 256) from source on, zero up to a multiple of 16. */
BL_INLINE void BL_FN(decode_floats)(float *decoded, const bl_type type, const uint8_t *source, int64_t columns)
{
    const int64_t full = columns / BL_LANES * BL_LANES;
    for (int64_t line = 0; line < bl_row_bytes(type, columns); line += 64) BL_FN(prefetch)(source + line + BL_AHEAD);
    for (int64_t k = 0; k < full; k += BL_LANES)
        BL_FN(store)(decoded + k, BL_FN(weights)(type, source + bl_row_bytes(type, k)));
    if (full < columns)
        BL_FN(store)(decoded + full, BL_FN(last_weights)(type, source + bl_row_bytes(type, full), columns - full));
}

/* Up to TOKENS tokens, ROWS rows: each chunk of weights is decoded once and meets every token from the cache. */
BL_INLINE void BL_FN(float_rows)(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                                 const uint8_t *prepared, int64_t cols, int rows, int64_t n)
{
    const int64_t row_bytes = bl_row_bytes(type, cols), token_bytes = BL_FN(dense_bytes)(cols);
    float decoded[BL_FN(ROWS)][BL_FN(CHUNK)] = {{0}};
    bl_f32x16 sum[BL_FN(TOKENS)][BL_FN(ROWS)];
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < BL_FN(ROWS); r++) sum[t][r] = BL_FN(zero)();
    for (int64_t k = 0; k < cols; k += BL_FN(CHUNK)) {
        const int64_t columns = cols - k < BL_FN(CHUNK) ? cols - k : BL_FN(CHUNK);
        for (int r = 0; r < rows; r++)
            BL_FN(decode_floats)(decoded[r], type, weights + r * row_bytes + bl_row_bytes(type, k), columns);
        for (int64_t t = 0; t < n; t++) {
            const float *x = (const float *)(const void *)(prepared + t * token_bytes) + k;
            bl_f32x16 s0 = sum[t][0], s1 = sum[t][1], s2 = sum[t][2], s3 = sum[t][3];
            for (int64_t j = 0; j < columns; j += BL_LANES) {
                const bl_f32x16 input = BL_FN(load)(x + j);
                s0 = BL_FN(add)(s0, BL_FN(mul)(BL_FN(load)(decoded[0] + j), input));
                s1 = BL_FN(add)(s1, BL_FN(mul)(BL_FN(load)(decoded[1] + j), input));
                s2 = BL_FN(add)(s2, BL_FN(mul)(BL_FN(load)(decoded[2] + j), input));
                s3 = BL_FN(add)(s3, BL_FN(mul)(BL_FN(load)(decoded[3] + j), input));
            }
            sum[t][0] = s0, sum[t][1] = s1, sum[t][2] = s2, sum[t][3] = s3;
        }
    }
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) out[t * out_stride + r] = BL_FN(reduce)(sum[t][r]);
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

/* Instantiate the loops for a type known to the compiler. */
BL_INLINE void BL_FN(dense_tile)(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                                 const uint8_t *prepared, int64_t cols, const int rows, const int64_t n)
{
    const float *x = (const float *)(const void *)prepared;
    if (!BL_FN(is_float)(type)) BL_FN(block_rows)(out, out_stride, type, weights, prepared, cols, rows, n);
    else if (n == 1) BL_FN(float_gemv)(out, type, weights, x, cols, rows);
    else BL_FN(float_rows)(out, out_stride, type, weights, prepared, cols, rows, n);
}

BL_INLINE void BL_FN(dense_range)(float *out, int64_t out_stride, const bl_type type, const uint8_t *weights,
                                  const uint8_t *prepared, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    enum { ROWS = BL_FN(ROWS), TOKENS = BL_FN(TOKENS) };
    const int64_t row_bytes = bl_row_bytes(type, cols), token_bytes = BL_FN(dense_bytes)(cols);
    for (int64_t row = lo; row < hi;) {
        const int rows = hi - row < ROWS ? 1 : ROWS;
        const uint8_t *from = weights + row * row_bytes;
        for (int64_t t = 0; t < n; t += TOKENS) {
            const int64_t tokens = n - t < TOKENS ? n - t : TOKENS;
            const uint8_t *token = prepared + t * token_bytes;
            float *to = out + t * out_stride + row;
            if (rows == 1) BL_FN(dense_tile)(to, out_stride, type, from, token, cols, 1, tokens);
            else if (tokens == 1) BL_FN(dense_tile)(to, out_stride, type, from, token, cols, ROWS, 1);
            else BL_FN(dense_tile)(to, out_stride, type, from, token, cols, ROWS, tokens);
        }
        row += rows;
    }
}

/* out[t * out_stride + row] = weights . activations for rows lo <= row < hi of weights (rows, bl_row_bytes(type, cols))
 * and tokens 0 <= t < n of prepared (n, dense_bytes(cols)). */
static void BL_FN(dense_gemm)(float *out, int64_t out_stride, bl_type type, const uint8_t *weights,
                              const uint8_t *prepared, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
#define BL_RANGE(type) BL_FN(dense_range)(out, out_stride, type, weights, prepared, cols, lo, hi, n)
    switch (type) {
    case BL_F32: BL_RANGE(BL_F32); return;
    case BL_F16: BL_RANGE(BL_F16); return;
    case BL_BF16: BL_RANGE(BL_BF16); return;
    case BL_Q8_0: BL_RANGE(BL_Q8_0); return;
    case BL_Q4_0: BL_RANGE(BL_Q4_0); return;
    default: BL_RANGE(BL_Q6_K); return;
    }
#undef BL_RANGE
}

/* Weights of 16 columns with one scale. */
BL_INLINE bl_f32x16 BL_FN(scaled)(const int8_t *q, float scale)
{
    return BL_FN(mul)(BL_FN(load_i8)(q), BL_FN(set1)(scale));
}

/* out (256) = one block of Q6_K: low 4 bits (128 bytes), high 2 bits (64), int8 scale of every 16 (16), half scale. */
BL_INLINE void BL_FN(decode_q6_k)(float *out, const uint8_t *block)
{
    const float d = BL_FN(f16)(block + 208);
    int8_t q[256];
    BL_FN(unpack_i6x128)(q, block, block + 128);
    BL_FN(unpack_i6x128)(q + 128, block + 64, block + 160);
    for (int g = 0; g < 16; g++)
        BL_FN(store)(out + 16 * g, BL_FN(scaled)(q + 16 * g, d * (float)(int8_t)block[192 + g]));
}

/* out (32) = one block of Q8_0 or Q4_0: half scale, then the codes. */
BL_INLINE void BL_FN(decode_32)(float *out, bl_type type, const uint8_t *block)
{
    const float d = BL_FN(f16)(block);
    int8_t q[32];
    if (type == BL_Q8_0) memcpy(q, block + 2, 32);
    else BL_FN(unpack_i4x32)(q, block + 2);
    BL_FN(store)(out, BL_FN(scaled)(q, d));
    BL_FN(store)(out + 16, BL_FN(scaled)(q + 16, d));
}

/* out (cols) = one row of weights as floats, just as ggml dequantises it. */
static void BL_FN(dense_row)(float *out, bl_type type, const uint8_t *row, int64_t cols)
{
    const int64_t step = type == BL_Q6_K ? 256 : BL_FN(is_float)(type) ? BL_LANES : 32;
    for (int64_t k = 0; k < cols; k += step) {
        const uint8_t *source = row + bl_row_bytes(type, k);
        if (type == BL_Q6_K) BL_FN(decode_q6_k)(out + k, source);
        else if (!BL_FN(is_float)(type)) BL_FN(decode_32)(out + k, type, source);
        else if (cols - k >= BL_LANES) BL_FN(store)(out + k, BL_FN(weights)(type, source));
        else {
            float part[BL_LANES];
            BL_FN(store)(part, BL_FN(last_weights)(type, source, cols - k));
            memcpy(out + k, part, (size_t)(cols - k) * sizeof(float));
        }
    }
}
