/* The table of kernels, what a tier offers, and the table of tiers. Each tier header defines the same functions in the
 * same order; scalar.h states their contracts, ternary.h those of the kernels. All are pure range functions: no
 * allocation, no threads, no errors. */
#ifndef BL_KERNELS_H
#define BL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "shared/blocks.h"
#include "cpu.h"
#include "kernels/i2_s.h"
#include "shared/numerics.h"
#include "kernels/tl1.h"
#include "kernels/tl2.h"
#include "kernels/tl5.h"

/* The ternary kernels. */
enum { BL_I2_S, BL_TL1, BL_TL2, BL_TL5, BL_KERNEL_COUNT };
static const bl_kernel *const bl_kernels[BL_KERNEL_COUNT] = {&bl_i2_s, &bl_tl1, &bl_tl2, &bl_tl5};

typedef struct {
    const char *name;
    uint32_t needs; /* bits of cpu.h */

    const bl_cell *cells[BL_KERNEL_COUNT]; /* NULL where the scalar tier's is used: see bl_cell_of */

    /* dense weights of any ggml type of layout.h, block types in strips (blocks.h); activations are prepared once for
     * all types: see dense.h */
    int64_t (*dense_bytes)(int64_t cols); /* of a prepared token, a multiple of 64 */
    void (*dense_prepare)(uint8_t *prepared, const float *x, int64_t cols);
    void (*dense_gemm)(float *out, int64_t out_stride, bl_type type, const uint8_t *weights, const uint8_t *prepared,
                       int64_t cols, int64_t lo, int64_t hi, int64_t n);
    void (*dense_row)(float *out, bl_type type, const uint8_t *row, int64_t cols);

    /* the rest of a transformer */
    float (*quantize)(int8_t *q, const float *x, int64_t n);
    int (*finite)(const float *x, int64_t n);
    void (*rms_norm)(float *out, const float *x, const float *weight, int64_t n, float eps);
    void (*silu_mul)(float *gate, const float *up, int64_t n);
    void (*relu2_mul)(float *gate, const float *up, int64_t n);
    void (*rope)(float *x, const float *cosine, const float *sine, int64_t rope_dim, int interleaved);
    void (*store_f16)(uint16_t *out, const float *x, int64_t n);

    /* attention of 1 to BL_MAX_HEADS heads that share keys and values, in three steps: see bl_attention. Keys and
     * values are (., head_dim), as kind says; head_dim is a multiple of 16 */
    void (*score_keys)(float *scores, int64_t stride, const float *q, const void *keys, bl_kv_kind kind,
                       int64_t head_dim, int64_t lo, int64_t hi, float scale, int heads);
    float (*exp_scores)(float *scores, int64_t length);
    void (*mix_values)(float *out, const float *weights, int64_t stride, const float *total, const void *values,
                       bl_kv_kind kind, int64_t head_dim, int64_t length, int64_t lo, int64_t hi, int heads);
} bl_tier;

/* How many bytes ahead of their use weights are fetched: further than the hardware looks, which stops at the end of a
 * page. Panels or rows that are read together are fetched in the order of their addresses, which is faster by a tenth
 * than each of them ahead of itself. */
enum { BL_AHEAD = 8192 };

/* Most heads of one call of attention: they share the keys and values that are read. */
enum { BL_MAX_HEADS = 4 };

#include "tiers/scalar.h"
#if BL_X86
#include "tiers/avx2.h"
#if BL_AVXVNNI
#include "tiers/avxvnni.h"
#endif
#include "tiers/avx512.h"
#elif BL_ARM64
#include "tiers/neon.h"
#if BL_ARM64_REGIONS
#include "tiers/neondot.h"
#include "tiers/neoni8mm.h"
#endif
#endif

/* Best first; the last one runs everywhere. */
static const bl_tier *const bl_tiers[] = {
#if BL_X86
    &bl_tier_avx512,
#if BL_AVXVNNI
    &bl_tier_avxvnni,
#endif
    &bl_tier_avx2,
#elif BL_ARM64
#if BL_ARM64_REGIONS
    &bl_tier_neoni8mm,
    &bl_tier_neondot,
#endif
    &bl_tier_neon,
#endif
    &bl_tier_scalar,
};
enum { BL_TIER_COUNT = sizeof(bl_tiers) / sizeof(bl_tiers[0]) };

/* The functions of a kernel (its index in bl_kernels) on a tier. */
BL_INLINE const bl_cell *bl_cell_of(const bl_tier *tier, int kernel)
{
    return tier->cells[kernel] ? tier->cells[kernel] : bl_tier_scalar.cells[kernel];
}

/* out (heads, head_dim) = softmax(q (heads, head_dim) . keys * scale) . values for one token; scores is room for
 * heads * length floats. */
static void bl_attention(const bl_tier *tier, float *out, const float *q, const void *keys, const void *values,
                         bl_kv_kind kind, int64_t head_dim, int64_t length, float scale, float *scores, int heads)
{
    float total[BL_MAX_HEADS];
    tier->score_keys(scores, length, q, keys, kind, head_dim, 0, length, scale, heads);
    for (int h = 0; h < heads; h++) total[h] = tier->exp_scores(scores + h * length, length);
    tier->mix_values(out, scores, length, total, values, kind, head_dim, length, 0, head_dim, heads);
}

#endif
