/* The float operations: every tier gives the scalar tier's bits at every length, and half precision is exact. */
#ifndef BL_SELFTEST_OPS_H
#define BL_SELFTEST_OPS_H

#include "selftest.h"

/* Numbers of every kind that are finite: zeros of both signs, denormals, ties, large ones. */
static float pick_float(void)
{
    const float sign = random_below(2) ? 1.0f : -1.0f;
    switch (random_below(8)) {
    case 0: return sign * 0.0f;
    case 1: return sign * bl_float((uint32_t)random_below(1 << 20));
    case 2: return sign * ((float)random_below(127) + 0.5f);
    case 3: return sign * (float)random_below(1000) * 1e6f;
    default: return sign * (float)random_below(1 << 22) * 0x1p-20f;
    }
}

static float *pick_floats(int64_t n)
{
    float *x = room(n * 4);
    for (int64_t i = 0; i < n; i++) x[i] = pick_float();
    return x;
}

static void *copy(const void *from, int64_t bytes) { return memcpy(room(bytes), from, (size_t)bytes); }

/* Both blocks hold the same bits; frees them. */
static void same(const char *tier, const char *what, int64_t n, void *found, void *expected, int64_t bytes)
{
    if (memcmp(found, expected, (size_t)bytes)) FAIL("%s %s of %lld: not the scalar bits", tier, what, (long long)n);
    free(found);
    free(expected);
}

static void check_quantize(const bl_tier *tier, int64_t n)
{
    static const float not_finite[] = {0.0f, INFINITY, -INFINITY, NAN};
    for (int kind = 0; kind < 4; kind++) {
        float *x = pick_floats(n);
        if (kind) x[random_below((int)n)] = not_finite[kind];
        int8_t *found = room(n), *expected = room(n);
        const float max = tier->quantize(found, x, n), scalar_max = bl_tier_scalar.quantize(expected, x, n);
        if (bl_bits(max) != bl_bits(scalar_max))
            FAIL("%s quantize of %lld: max %g", tier->name, (long long)n, (double)max);
        if (tier->finite(x, n) != !kind) FAIL("%s finite of %lld is wrong", tier->name, (long long)n);
        same(tier->name, "quantize", n, found, expected, n);
        free(x);
    }
}

static void check_gate(const bl_tier *tier, int64_t n)
{
    float *gate = pick_floats(n), *up = pick_floats(n);
    float *silu = copy(gate, n * 4), *scalar_silu = copy(gate, n * 4);
    float *relu2 = copy(gate, n * 4), *scalar_relu2 = copy(gate, n * 4);
    tier->silu_mul(silu, up, n);
    bl_tier_scalar.silu_mul(scalar_silu, up, n);
    tier->relu2_mul(relu2, up, n);
    bl_tier_scalar.relu2_mul(scalar_relu2, up, n);
    same(tier->name, "silu_mul", n, silu, scalar_silu, n * 4);
    same(tier->name, "relu2_mul", n, relu2, scalar_relu2, n * 4);
    free(gate);
    free(up);
}

static void check_norm(const bl_tier *tier, int64_t n)
{
    float *x = pick_floats(n), *weight = pick_floats(n), *found = room(n * 4), *expected = room(n * 4);
    tier->rms_norm(found, x, weight, n, 1e-5f);
    bl_tier_scalar.rms_norm(expected, x, weight, n, 1e-5f);
    same(tier->name, "rms_norm", n, found, expected, n * 4);
    free(x);
    free(weight);
}

static void check_rope(const bl_tier *tier, int64_t n)
{
    const int64_t half = n / 2;
    float *x = pick_floats(n), *cosine = pick_floats(half), *sine = pick_floats(half);
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        float *found = copy(x, n * 4), *expected = copy(x, n * 4);
        tier->rope(found, cosine, sine, 2 * half, interleaved);
        bl_tier_scalar.rope(expected, cosine, sine, 2 * half, interleaved);
        same(tier->name, "rope", n, found, expected, n * 4);
    }
    free(x);
    free(cosine);
    free(sine);
}

/* Attention of the last tokens over rows (kv_heads, length, head_dim) whose pages are pieces of memory of their own, of
 * just the bytes they use. */
static void attend(const bl_tier *tier, float *out, const float *q, const float *keys, const float *values,
                   bl_kv_kind kind, int64_t head_dim, int64_t length, int tokens, int heads, int kv_heads)
{
    const int64_t count = (length + BL_PAGE - 1) / BL_PAGE, bytes = count * (int64_t)sizeof(uint8_t *);
    const int64_t strip = bl_kv_strip_bytes(kind, head_dim, BL_PAGE);
    uint8_t **key_pages = room(bytes), **value_pages = room(bytes);
    for (int64_t i = 0; i < count; i++) {
        const int64_t left = length - i * BL_PAGE, used = left < BL_PAGE && kind != BL_KV_Q8 ? left : BL_PAGE;
        key_pages[i] = room((kv_heads - 1) * strip + bl_kv_strip_bytes(kind, head_dim, used));
        value_pages[i] = room((kv_heads - 1) * strip + bl_kv_strip_bytes(kind, head_dim, used));
    }
    for (int64_t i = 0; i < kv_heads * length; i++) {
        const bl_kv_rows key_rows = {key_pages, i / length * strip, kind, head_dim, 1};
        const bl_kv_rows value_rows = {value_pages, i / length * strip, kind, head_dim, 1};
        bl_store_row(tier, &key_rows, BL_KEYS, i % length, keys + i * head_dim);
        bl_store_row(tier, &value_rows, BL_VALUES, i % length, values + i * head_dim);
    }
    const bl_kv_rows key_rows = {key_pages, 0, kind, head_dim, kv_heads};
    const bl_kv_rows value_rows = {value_pages, 0, kind, head_dim, kv_heads};
    float *scores = room(kv_heads * tokens * heads * bl_score_stride(length) * 4);
    bl_attention(tier, out, q, &key_rows, &value_rows, length - tokens + 1, 0.125f, scores, tokens, heads);
    free(scores);
    for (int64_t i = 0; i < count; i++) {
        free(key_pages[i]);
        free(value_pages[i]);
    }
    free(key_pages);
    free(value_pages);
}

/* Scores within reach of exp, and some far below. Heads, and tokens that follow each other, are each what they are
 * alone. */
static void check_attention(const bl_tier *tier, int64_t head_dim, int64_t length, bl_kv_kind kind, int tokens,
                            int heads, int kv_heads)
{
    const int64_t rows = kv_heads * tokens * heads, elements = kv_heads * head_dim * length;
    float *q = room(rows * head_dim * 4), *keys = room(elements * 4), *values = room(elements * 4);
    for (int64_t k = 0; k < rows * head_dim; k++) q[k] = (float)(random_below(2001) - 1000) * 0x1p-8f;
    for (int64_t i = 0; i < elements; i++) {
        keys[i] = (float)(random_below(2001) - 1000) * 0x1p-8f;
        values[i] = (float)(random_below(2001) - 1000) * 0x1p-8f;
    }
    float *found = room(rows * head_dim * 4), *expected = room(rows * head_dim * 4);
    attend(tier, found, q, keys, values, kind, head_dim, length, tokens, heads, kv_heads);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t of_head = i / (tokens * heads) * length * head_dim, token = i / heads % tokens;
        attend(&bl_tier_scalar, expected + i * head_dim, q + i * head_dim, keys + of_head, values + of_head, kind,
               head_dim, length - tokens + 1 + token, 1, 1, 1);
    }
    same(tier->name, "attention", length, found, expected, rows * head_dim * 4);
    free(q);
    free(keys);
    free(values);
}

/* Every half but the NaNs there and back; between two of them, to the nearest, ties to even. */
static void check_half(const bl_tier *tier)
{
    enum { HALVES = 0x10000, INFINITE_HALF = 0x7c00 };
    uint16_t *halves = room(HALVES * 2), *back = room(HALVES * 2);
    float *floats = room(HALVES * 4), *between = room(HALVES * 4);
    for (int h = 0; h < HALVES; h++) halves[h] = (uint16_t)((h & 0x7fff) > INFINITE_HALF ? 0 : h);
    tier->dense_row(floats, BL_F16, (const uint8_t *)halves, HALVES);
    tier->store_f16(back, floats, HALVES);
    if (memcmp(halves, back, HALVES * 2)) FAIL("%s: a half is not itself after a round trip", tier->name);
    for (int side = -1; side <= 1; side++) {
        for (int h = 0; h < HALVES; h++) {
            const int low = h & 0x7fff, inside = low < INFINITE_HALF;
            const float next = low + 1 == INFINITE_HALF ? 65536.0f : inside ? floats[low + 1] : 0.0f;
            const float middle = inside ? (floats[low] + next) * 0.5f : 0.0f;
            const float nudged = side ? bl_float(bl_bits(middle) + (uint32_t)(inside ? side : 0)) : middle;
            between[h] = h & 0x8000 ? -nudged : nudged;
        }
        tier->store_f16(back, between, HALVES);
        for (int h = 0; h < HALVES; h++) {
            const int up = side > 0 || (side == 0 && h & 1);
            const int expected = (h & 0x7fff) < INFINITE_HALF ? h + up : h & 0x8000;
            if (back[h] != expected)
                FAIL("%s: %a to half is %#x, not %#x", tier->name, (double)between[h], back[h], expected);
        }
    }
    free(halves);
    free(back);
    free(floats);
    free(between);
}

/* One token, and as many as fill tiles of queries and leave some over; then over the keys of several heads. */
static void check_attention_of_length(const bl_tier *tier, int64_t head_dim, int64_t length, bl_kv_kind kind)
{
    static const struct { int tokens, heads; } of[] = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 4}, {3, 1}, {5, 3}, {8, 4}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (of[i].tokens <= length) check_attention(tier, head_dim, length, kind, of[i].tokens, of[i].heads, 1);
    check_attention(tier, head_dim, length, kind, 1, 2, 3);
    if (length > 1) check_attention(tier, head_dim, length, kind, 2, 4, BL_MAX_QUERIES / 8);
}

static void check_ops(void)
{
    static const int head_dims[] = {16, 32, 48, 64, 80, 128, 144}, lengths[] = {1, 2, 3, 4, 5, 15, 16, 17, 33};
    for (int i = 0; i < bl_tier_count; i++) {
        const bl_tier *tier = bl_tiers[i];
        if (!runs_here(tier)) continue;
        check_half(tier);
        for (int n = 1; n <= 70; n++) {
            check_quantize(tier, n);
            check_gate(tier, n);
            check_norm(tier, n);
            check_rope(tier, n);
        }
        for (size_t d = 0; d < sizeof head_dims / sizeof *head_dims; d++)
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
                for (bl_kv_kind kind = 0; kind < BL_KV_KINDS; kind++)
                    check_attention_of_length(tier, head_dims[d], lengths[l], kind);
    }
}

#endif
