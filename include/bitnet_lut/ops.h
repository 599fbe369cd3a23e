/* The float operations of a tier, written once over its sixteen lanes. No include guard: each tier header includes
 * this file inside its target region, with BL_TIER and bl_f32x16 defined. */

/* Lanes beyond count are zero. */
BL_INLINE bl_f32x16 BL_FN(load_part)(const float *p, int64_t count)
{
    float part[BL_LANES] = {0};
    memcpy(part, p, (size_t)count * sizeof(float));
    return BL_FN(load)(part);
}

/* ---- dense weights: decoded a chunk of 256 columns at a time ------------------------------------------------- */

enum { BL_FN(CHUNK) = 256, BL_FN(ROWS) = 4 };

/* A chunk of one row: where 16 weights come from, by type. */
typedef struct {
    const uint8_t *source;               /* f32, f16, bf16 */
    int8_t q[BL_FN(CHUNK)];              /* block types: weight = q * scale of its group of 16 */
    float scale[BL_FN(CHUNK) / BL_LANES];
    uint8_t padded[4 * BL_FN(CHUNK)];    /* f32, f16, bf16 whose last group is not full */
} BL_FN(chunk);

BL_INLINE void BL_FN(unpack_q8_0)(BL_FN(chunk) *c, const uint8_t *block, int64_t columns)
{
    for (int64_t k = 0; k < columns; k += 32, block += 34) {
        c->scale[k / 16] = c->scale[k / 16 + 1] = BL_FN(f16)(block);
        memcpy(c->q + k, block + 2, 32);
    }
}

BL_INLINE void BL_FN(unpack_q4_0)(BL_FN(chunk) *c, const uint8_t *block, int64_t columns)
{
    for (int64_t k = 0; k < columns; k += 32, block += 18) {
        c->scale[k / 16] = c->scale[k / 16 + 1] = BL_FN(f16)(block);
        BL_FN(unpack_i4x32)(c->q + k, block + 2);
    }
}

/* Q6_K: low 4 bits (128 bytes), high 2 bits (64), int8 scale of every 16 (16), half scale of all 256. */
BL_INLINE void BL_FN(unpack_q6_k)(BL_FN(chunk) *c, const uint8_t *block)
{
    const bl_f32x16 d = BL_FN(set1)(BL_FN(f16)(block + 208));
    BL_FN(store)(c->scale, BL_FN(mul)(BL_FN(load_i8)((const int8_t *)block + 192), d));
    BL_FN(unpack_i6x128)(c->q, block, block + 128);
    BL_FN(unpack_i6x128)(c->q + 128, block + 64, block + 160);
}

/* Make the chunk that starts at column k of a row, columns long, ready for BL_FN(weights). */
BL_INLINE void BL_FN(open_chunk)(BL_FN(chunk) *c, bl_type type, const uint8_t *row, int64_t k, int64_t columns)
{
    const uint8_t *source = row + bl_row_bytes(type, k);
    for (int64_t line = 0; line < bl_row_bytes(type, columns); line += 64) BL_FN(prefetch)(source + line + BL_AHEAD);
    if (type == BL_Q8_0) BL_FN(unpack_q8_0)(c, source, columns);
    else if (type == BL_Q4_0) BL_FN(unpack_q4_0)(c, source, columns);
    else if (type == BL_Q6_K) BL_FN(unpack_q6_k)(c, source);
    else if (columns % BL_LANES) {
        memset(c->padded, 0, sizeof c->padded);
        memcpy(c->padded, source, (size_t)bl_row_bytes(type, columns));
        c->source = c->padded;
    } else c->source = source;
}

/* Weights of group g (16 columns) of an open chunk. */
BL_INLINE bl_f32x16 BL_FN(weights)(const BL_FN(chunk) *c, bl_type type, int g)
{
    switch (type) {
    case BL_F32: return BL_FN(load)((const float *)(const void *)(c->source + 64 * g));
    case BL_F16: return BL_FN(load_f16)(c->source + 32 * g);
    case BL_BF16: return BL_FN(load_bf16)(c->source + 32 * g);
    default: return BL_FN(mul)(BL_FN(load_i8)(c->q + 16 * g), BL_FN(set1)(c->scale[g]));
    }
}

/* One token, `rows` rows at once so that their chains of additions overlap. */
BL_INLINE void BL_FN(dense_gemv_rows)(float *out, bl_type type, const uint8_t *weights, const float *x, int64_t cols,
                                      const int rows)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    bl_f32x16 sum[BL_FN(ROWS)];
    BL_FN(chunk) chunk[BL_FN(ROWS)];
    for (int r = 0; r < rows; r++) sum[r] = BL_FN(zero)();
    for (int64_t k = 0; k < cols; k += BL_FN(CHUNK)) {
        const int64_t columns = cols - k < BL_FN(CHUNK) ? cols - k : BL_FN(CHUNK);
        for (int r = 0; r < rows; r++) BL_FN(open_chunk)(&chunk[r], type, weights + r * row_bytes, k, columns);
        const int full = (int)(columns / BL_LANES), rest = (int)(columns % BL_LANES);
        for (int g = 0; g < full; g++) {
            const bl_f32x16 input = BL_FN(load)(x + k + 16 * g);
            for (int r = 0; r < rows; r++)
                sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(BL_FN(weights)(&chunk[r], type, g), input));
        }
        if (!rest) continue;
        const bl_f32x16 input = BL_FN(load_part)(x + k + 16 * full, rest);
        for (int r = 0; r < rows; r++)
            sum[r] = BL_FN(add)(sum[r], BL_FN(mul)(BL_FN(weights)(&chunk[r], type, full), input));
    }
    for (int r = 0; r < rows; r++) out[r] = BL_FN(reduce)(sum[r]);
}

/* out (cols) = one row of weights as floats, just as ggml dequantises it. */
BL_INLINE void BL_FN(decode_row)(float *out, bl_type type, const uint8_t *row, int64_t cols)
{
    BL_FN(chunk) chunk;
    for (int64_t k = 0; k < cols; k += BL_FN(CHUNK)) {
        const int64_t columns = cols - k < BL_FN(CHUNK) ? cols - k : BL_FN(CHUNK);
        BL_FN(open_chunk)(&chunk, type, row, k, columns);
        for (int64_t g = 0; g < columns; g += BL_LANES) {
            const bl_f32x16 w = BL_FN(weights)(&chunk, type, (int)(g / BL_LANES));
            if (columns - g >= BL_LANES) BL_FN(store)(out + k + g, w);
            else {
                float part[BL_LANES];
                BL_FN(store)(part, w);
                memcpy(out + k + g, part, (size_t)(columns - g) * sizeof(float));
            }
        }
    }
}

enum { BL_FN(TOKENS) = 32 };

/* Up to 32 tokens, 4 rows: each chunk of weights is decoded once and meets every token from the cache. */
BL_INLINE void BL_FN(dense_gemm_rows)(float *out, int64_t out_stride, bl_type type, const uint8_t *weights,
                                      const float *x, int64_t x_stride, int64_t cols, int rows, int64_t n)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    float decoded[BL_FN(ROWS)][BL_FN(CHUNK)];
    bl_f32x16 sum[BL_FN(TOKENS)][BL_FN(ROWS)];
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < BL_FN(ROWS); r++) sum[t][r] = BL_FN(zero)();
    memset(decoded, 0, sizeof decoded);
    for (int64_t k = 0; k < cols; k += BL_FN(CHUNK)) {
        const int64_t columns = cols - k < BL_FN(CHUNK) ? cols - k : BL_FN(CHUNK);
        const int full = (int)(columns / BL_LANES), rest = (int)(columns % BL_LANES);
        for (int r = 0; r < rows; r++) {
            memset(decoded[r] + 16 * full, 0, rest ? 64 : 0);
            BL_FN(chunk) chunk;
            BL_FN(open_chunk)(&chunk, type, weights + r * row_bytes, k, columns);
            for (int g = 0; g < full + !!rest; g++) BL_FN(store)(decoded[r] + 16 * g, BL_FN(weights)(&chunk, type, g));
        }
        for (int64_t t = 0; t < n; t++) {
            bl_f32x16 s0 = sum[t][0], s1 = sum[t][1], s2 = sum[t][2], s3 = sum[t][3];
            for (int g = 0; g < full + !!rest; g++) {
                const float *from = x + t * x_stride + k + 16 * g;
                const bl_f32x16 input = g < full ? BL_FN(load)(from) : BL_FN(load_part)(from, rest);
                s0 = BL_FN(add)(s0, BL_FN(mul)(BL_FN(load)(decoded[0] + 16 * g), input));
                s1 = BL_FN(add)(s1, BL_FN(mul)(BL_FN(load)(decoded[1] + 16 * g), input));
                s2 = BL_FN(add)(s2, BL_FN(mul)(BL_FN(load)(decoded[2] + 16 * g), input));
                s3 = BL_FN(add)(s3, BL_FN(mul)(BL_FN(load)(decoded[3] + 16 * g), input));
            }
            sum[t][0] = s0, sum[t][1] = s1, sum[t][2] = s2, sum[t][3] = s3;
        }
    }
    for (int64_t t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) out[t * out_stride + r] = BL_FN(reduce)(sum[t][r]);
}

/* Instantiate the gemv for a type known to the compiler. */
BL_INLINE void BL_FN(dense_gemv)(float *out, const bl_type type, const uint8_t *weights, const float *x, int64_t cols,
                                 int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_row_bytes(type, cols);
    int64_t row = lo;
    for (; row + BL_FN(ROWS) <= hi; row += BL_FN(ROWS))
        BL_FN(dense_gemv_rows)(out + row, type, weights + row * row_bytes, x, cols, BL_FN(ROWS));
    for (; row < hi; row++) BL_FN(dense_gemv_rows)(out + row, type, weights + row * row_bytes, x, cols, 1);
}

/* out[t * out_stride + row] = sum over columns of weight times x[t * x_stride + column], in 16 lanes, for rows
 * lo <= row < hi of weights (rows, bl_row_bytes(type, cols)) and tokens 0 <= t < n. */
static void BL_FN(dense_gemm)(float *out, int64_t out_stride, bl_type type, const uint8_t *weights, const float *x,
                              int64_t x_stride, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n == 1) switch (type) {
        case BL_F32: BL_FN(dense_gemv)(out, BL_F32, weights, x, cols, lo, hi); return;
        case BL_F16: BL_FN(dense_gemv)(out, BL_F16, weights, x, cols, lo, hi); return;
        case BL_BF16: BL_FN(dense_gemv)(out, BL_BF16, weights, x, cols, lo, hi); return;
        case BL_Q8_0: BL_FN(dense_gemv)(out, BL_Q8_0, weights, x, cols, lo, hi); return;
        case BL_Q4_0: BL_FN(dense_gemv)(out, BL_Q4_0, weights, x, cols, lo, hi); return;
        default: BL_FN(dense_gemv)(out, BL_Q6_K, weights, x, cols, lo, hi); return;
        }
    const int64_t row_bytes = bl_row_bytes(type, cols);
    for (int64_t row = lo; row < hi; row += BL_FN(ROWS)) {
        const int rows = (int)(hi - row < BL_FN(ROWS) ? hi - row : BL_FN(ROWS));
        for (int64_t t = 0; t < n; t += BL_FN(TOKENS)) {
            const int64_t tokens = n - t < BL_FN(TOKENS) ? n - t : BL_FN(TOKENS);
            BL_FN(dense_gemm_rows)(out + t * out_stride + row, out_stride, type, weights + row * row_bytes,
                                   x + t * x_stride, x_stride, cols, rows, tokens);
        }
    }
}

static void BL_FN(dense_row)(float *out, bl_type type, const uint8_t *row, int64_t cols)
{
    BL_FN(decode_row)(out, type, row, cols);
}

/* ---- activations --------------------------------------------------------------------------------------------- */

/* q (n) = clip(rint(x * 127 / m), -128, 127) with m = max(1e-5, max |x|), which is returned; if any x is NaN or
 * infinite then so is m, and q is zero. */
static float BL_FN(quantise)(int8_t *q, const float *x, int64_t n)
{
    const uint32_t max_bits = BL_FN(max_bits)(x, n);
    if (max_bits >= 0x7f800000u) {
        memset(q, 0, (size_t)n);
        return bl_float(max_bits);
    }
    const float max = bl_float(max_bits);
    const float m = max < BL_ACT_MIN ? BL_ACT_MIN : max;
    BL_FN(round_i8)(q, x, n, 127.0f / m);
    return m;
}

/* Whether no x (n) is NaN or infinite. */
static int BL_FN(finite)(const float *x, int64_t n) { return BL_FN(max_bits)(x, n) < 0x7f800000u; }

/* out (n) = x / sqrt(mean of x^2 + eps) * weight. */
static void BL_FN(rms_norm)(float *out, const float *x, const float *weight, int64_t n, float eps)
{
    bl_f32x16 sum = BL_FN(zero)();
    int64_t k = 0;
    for (; k + BL_LANES <= n; k += BL_LANES) {
        const bl_f32x16 v = BL_FN(load)(x + k);
        sum = BL_FN(add)(sum, BL_FN(mul)(v, v));
    }
    if (k < n) {
        const bl_f32x16 v = BL_FN(load_part)(x + k, n - k);
        sum = BL_FN(add)(sum, BL_FN(mul)(v, v));
    }
    const float scale = 1.0f / bl_sqrt(BL_FN(reduce)(sum) / (float)n + eps);
    for (k = 0; k < n; k++) out[k] = (x[k] * scale) * weight[k];
}

/* gate (n) = silu(gate) * up. */
static void BL_FN(silu_mul)(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_silu(gate[k]) * up[k];
}

/* gate (n) = max(gate, 0)^2 * up. */
static void BL_FN(relu2_mul)(float *gate, const float *up, int64_t n)
{
    for (int64_t k = 0; k < n; k++) gate[k] = bl_relu2(gate[k]) * up[k];
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

/* Rotate the first rope_dim of x by the angles whose cosine and sine (rope_dim / 2) are given: pairs (i, i + d/2),
 * or (2i, 2i + 1) when interleaved. */
static void BL_FN(rope)(float *x, const float *cosine, const float *sine, int64_t rope_dim, int interleaved)
{
    const int64_t half = rope_dim / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i * step], b = x[i * step + other];
        x[i * step] = a * cosine[i] - b * sine[i];
        x[i * step + other] = a * sine[i] + b * cosine[i];
    }
}

/* out (n) = x in half precision; n a multiple of 16. */
static void BL_FN(store_f16)(uint16_t *out, const float *x, int64_t n)
{
    for (int64_t k = 0; k < n; k += BL_LANES) BL_FN(store_f16x16)(out + k, BL_FN(load)(x + k));
}

BL_INLINE bl_f32x16 BL_FN(load_kv)(const void *cache, int64_t index, const int kv_f16)
{
    return kv_f16 ? BL_FN(load_f16)((const uint8_t *)cache + 2 * index) : BL_FN(load)((const float *)cache + index);
}

/* scores (heads, stride) = q (heads, head_dim) . keys * scale; each key is read once for all heads, two keys at once so
 * that more chains of additions overlap. */
BL_INLINE void BL_FN(score_keys)(float *scores, int64_t stride, const float *q, const void *keys, const int kv_f16,
                                 int64_t head_dim, int64_t length, float scale, const int heads)
{
    for (int64_t p = 0; p < length; p += 2) {
        const int64_t second = p + 1 < length ? head_dim : 0; /* of an odd last one, the same key again */
        bl_f32x16 sum[BL_MAX_HEADS][2];
        for (int h = 0; h < heads; h++) sum[h][0] = sum[h][1] = BL_FN(zero)();
        for (int64_t k = 0; k < head_dim; k += BL_LANES) {
            const bl_f32x16 key0 = BL_FN(load_kv)(keys, p * head_dim + k, kv_f16);
            const bl_f32x16 key1 = BL_FN(load_kv)(keys, p * head_dim + second + k, kv_f16);
            for (int h = 0; h < heads; h++) {
                const bl_f32x16 query = BL_FN(load)(q + h * head_dim + k);
                sum[h][0] = BL_FN(add)(sum[h][0], BL_FN(mul)(query, key0));
                sum[h][1] = BL_FN(add)(sum[h][1], BL_FN(mul)(query, key1));
            }
        }
        for (int h = 0; h < heads; h++) {
            scores[h * stride + p] = BL_FN(reduce)(sum[h][0]) * scale;
            if (second) scores[h * stride + p + 1] = BL_FN(reduce)(sum[h][1]) * scale;
        }
    }
}

/* scores = exp(scores - max), returning their sum in 16 lanes. */
BL_INLINE float BL_FN(exp_scores)(float *scores, int64_t length)
{
    float max = scores[0];
    for (int64_t p = 1; p < length; p++) max = scores[p] > max ? scores[p] : max;
    for (int64_t p = 0; p < length; p++) scores[p] = bl_exp(scores[p] - max);
    bl_f32x16 sum = BL_FN(zero)();
    int64_t p = 0;
    for (; p + BL_LANES <= length; p += BL_LANES) sum = BL_FN(add)(sum, BL_FN(load)(scores + p));
    if (p < length) sum = BL_FN(add)(sum, BL_FN(load_part)(scores + p, length - p));
    return BL_FN(reduce)(sum);
}

/* Columns k .. k + 16 vectors of out (heads, head_dim) = sum over positions, in order, of weight times value, divided
 * by the head's total. */
BL_INLINE void BL_FN(mix_values)(float *out, const float *weights, int64_t stride, const void *values,
                                 const int kv_f16, int64_t head_dim, int64_t length, const float *total, int64_t k,
                                 const int vectors, const int heads)
{
    bl_f32x16 sum[BL_MAX_HEADS][2];
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) sum[h][v] = BL_FN(zero)();
    for (int64_t p = 0; p < length; p++)
        for (int v = 0; v < vectors; v++) {
            const bl_f32x16 value = BL_FN(load_kv)(values, p * head_dim + k + 16 * v, kv_f16);
            for (int h = 0; h < heads; h++)
                sum[h][v] = BL_FN(add)(sum[h][v], BL_FN(mul)(BL_FN(set1)(weights[h * stride + p]), value));
        }
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < vectors; v++) {
            float *to = out + h * head_dim + k + 16 * v;
            BL_FN(store)(to, sum[h][v]);
            for (int j = 0; j < BL_LANES; j++) to[j] /= total[h];
        }
}

BL_INLINE void BL_FN(attend)(float *out, const float *q, const void *keys, const void *values, const int kv_f16,
                             int64_t head_dim, int64_t length, float scale, float *scores, const int heads)
{
    float total[BL_MAX_HEADS];
    BL_FN(score_keys)(scores, length, q, keys, kv_f16, head_dim, length, scale, heads);
    for (int h = 0; h < heads; h++) total[h] = BL_FN(exp_scores)(scores + h * length, length);
    int64_t k = 0;
    for (; k + 32 <= head_dim; k += 32)
        BL_FN(mix_values)(out, scores, length, values, kv_f16, head_dim, length, total, k, 2, heads);
    for (; k < head_dim; k += 16)
        BL_FN(mix_values)(out, scores, length, values, kv_f16, head_dim, length, total, k, 1, heads);
}

/* out (heads, head_dim) = softmax(q . keys * scale) . values for one token and 1 to BL_MAX_HEADS heads that share keys
 * and values. q (heads, head_dim); keys and values (length, head_dim), half precision if kv_f16, else float; head_dim
 * a multiple of 16; scores is room for heads * length floats. */
static void BL_FN(attention)(float *out, const float *q, const void *keys, const void *values, int kv_f16,
                             int64_t head_dim, int64_t length, float scale, float *scores, int heads)
{
#define BL_ATTEND(kv_f16, heads) BL_FN(attend)(out, q, keys, values, kv_f16, head_dim, length, scale, scores, heads)
    if (kv_f16) switch (heads) {
        case 1: BL_ATTEND(1, 1); return;
        case 2: BL_ATTEND(1, 2); return;
        case 3: BL_ATTEND(1, 3); return;
        default: BL_ATTEND(1, 4); return;
        }
    for (int h = 0; h < heads; h++, q += head_dim, out += head_dim) BL_ATTEND(0, 1);
#undef BL_ATTEND
}

#define BL_TIER_STRING2(tier) #tier
#define BL_TIER_STRING(tier) BL_TIER_STRING2(tier)
#ifndef BL_TIER_NEEDS
#define BL_TIER_NEEDS 0
#endif
static const bl_tier BL_FN(tier) = {
    BL_TIER_STRING(BL_TIER), BL_TIER_NEEDS, {BL_TIER_CELLS}, BL_FN(dense_gemm), BL_FN(dense_row), BL_FN(quantise),
    BL_FN(finite), BL_FN(rms_norm), BL_FN(silu_mul), BL_FN(relu2_mul), BL_FN(rope), BL_FN(store_f16), BL_FN(attention)};
#undef BL_TIER_STRING
#undef BL_TIER_STRING2
#undef BL_TIER_NEEDS
#undef BL_TIER_CELLS
