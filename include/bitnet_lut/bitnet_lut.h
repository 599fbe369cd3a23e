/* The public header: the table of kernels, the table of tiers, and what a tier offers. All functions of kernels and
 * tiers work on ranges: they allocate nothing, start no threads and check nothing. */
#ifndef BL_BITNET_LUT_H
#define BL_BITNET_LUT_H

#include "bitnet_lut/ternary.h"

/* ---- the processor ----------------------------------------------------------------------------------------------- */

enum {
    BL_CPU_AVX2 = 1 << 0,
    BL_CPU_F16C = 1 << 1,
    BL_CPU_AVX512F = 1 << 2,
    BL_CPU_AVX512BW = 1 << 3,
    BL_CPU_AVX512DQ = 1 << 4,
    BL_CPU_AVX512VL = 1 << 5,
    BL_CPU_AVX512VNNI = 1 << 6,
    BL_CPU_AVX512VBMI = 1 << 7,
    BL_CPU_GFNI = 1 << 8,
    BL_CPU_NEON = 1 << 9,
    BL_CPU_DOTPROD = 1 << 10,
    BL_CPU_I8MM = 1 << 11,
    BL_CPU_AVXVNNI = 1 << 12,
    BL_CPU_COUNT = 13
};

/* Names of these bits, in order. */
extern const char *const bl_cpu_names[BL_CPU_COUNT];

/* The bits of what this CPU and its operating system can run. */
uint32_t bl_cpu(void);

/* ---- types of a matrix ------------------------------------------------------------------------------------------- */

/* Dense types are ggml's blocks. */
typedef enum { BL_TERNARY, BL_F32, BL_F16, BL_BF16, BL_Q8_0, BL_Q4_0, BL_Q6_K, BL_TYPE_COUNT } bl_type;

/* Bytes of a row as files have it; cols is a whole number of blocks. */
BL_INLINE int64_t bl_row_bytes(bl_type type, int64_t cols)
{
    switch (type) {
    case BL_TERNARY: return bl_i2_s_row_bytes(cols);
    case BL_F32: return 4 * cols;
    case BL_F16:
    case BL_BF16: return 2 * cols;
    case BL_Q8_0: return cols / 32 * 34;
    case BL_Q4_0: return cols / 32 * 18;
    case BL_Q6_K: return cols / 256 * 210;
    default: return 0;
    }
}

/* Q8_0, Q4_0 and Q6_K are repacked into strips of 32 rows before they are multiplied. */
enum { BL_STRIP = 32 };
BL_INLINE int bl_is_block_type(bl_type type) { return type == BL_Q8_0 || type == BL_Q4_0 || type == BL_Q6_K; }

/* Bytes of a dense matrix as a tier multiplies it: strips, or plain rows of floats. */
int64_t bl_dense_packed_bytes(bl_type type, int64_t rows, int64_t cols);

/* Strips of rows lo <= row < hi from rows (rows, bl_row_bytes(type, cols)) of a block type. lo is a multiple of
 * BL_STRIP; so is hi, unless it equals rows. Rows beyond the matrix are zero. */
void bl_pack_blocks(uint8_t *to, const uint8_t *from, bl_type type, int64_t rows, int64_t cols, int64_t lo, int64_t hi);

/* Rows lo <= row < hi, (hi - lo, bl_row_bytes(type, cols)) in ggml's blocks, from strips. */
void bl_unpack_blocks(uint8_t *to, const uint8_t *strips, bl_type type, int64_t cols, int64_t lo, int64_t hi);

/* ---- caches ------------------------------------------------------------------------------------------------------ */

/* How a cache keeps keys and values. A row holds those of one head at one position, in whole blocks of elements. */
typedef enum { BL_KV_F32, BL_KV_F16, BL_KV_KINDS } bl_kv_kind;
typedef struct {
    const char *name;
    int64_t block, block_bytes;
} bl_kv_format;
static const bl_kv_format bl_kv_formats[BL_KV_KINDS] = {
    [BL_KV_F32] = {"f32", 1, 4},
    [BL_KV_F16] = {"f16", 1, 2},
};

BL_INLINE int64_t bl_kv_bytes(bl_kv_kind kind, int64_t elements)
{
    return elements / bl_kv_formats[kind].block * bl_kv_formats[kind].block_bytes;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

enum { BL_I2_S, BL_TL1, BL_TL2, BL_TL5, BL_KERNEL_COUNT };
extern const bl_kernel *const bl_kernels[BL_KERNEL_COUNT];

/* Whether any of n bytes of canonical rows holds code 3, which is not a ternary weight. */
int bl_has_code_3(const uint8_t *codes, int64_t n);

/* ---- tiers ------------------------------------------------------------------------------------------------------- */

/* Most heads of one call of attention: they share the keys and values that are read. */
enum { BL_MAX_HEADS = 4 };

/* Bytes that the roof of reading takes at once. */
enum { BL_ROOF_UNIT = 4096 };

typedef struct {
    const char *name;
    uint32_t needs;  /* bits of bl_cpu() */
    const char *dot; /* the instruction that multiplies and adds bytes; "" for plain C */

    const bl_cell *cells[BL_KERNEL_COUNT]; /* NULL where the kernel runs in plain C: see bl_cell_of */

    /* Dense weights of any type, block types in strips. Activations are prepared once for all types; the bytes of a
     * prepared token are a multiple of 64. */
    int64_t (*dense_bytes)(int64_t cols);
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

    /* Attention of 1 to BL_MAX_HEADS heads that share keys and values, in three steps: see bl_attention. Keys and
     * values are (., head_dim), as kind says; head_dim is a multiple of 16. */
    void (*score_keys)(float *scores, int64_t stride, const float *q, const void *keys, bl_kv_kind kind,
                       int64_t head_dim, int64_t lo, int64_t hi, float scale, int heads);
    float (*exp_scores)(float *scores, int64_t length);
    void (*mix_values)(float *out, const float *weights, int64_t stride, const float *total, const void *values,
                       bl_kv_kind kind, int64_t head_dim, int64_t length, int64_t lo, int64_t hi, int heads);

    /* The roofs of the machine, which no measurement may exceed. roof_read gives the XOR of the 64-bit words of data,
     * by the widest loads; bytes is a multiple of BL_ROOF_UNIT. roof_multiply does roof_macs multiply-adds a round by
     * the instruction `dot`, and returns something that depends on all of them. */
    uint64_t (*roof_read)(const uint8_t *data, int64_t bytes);
    uint64_t (*roof_multiply)(int64_t rounds);
    int64_t roof_macs;
} bl_tier;

/* Best first; the last one is bl_tier_scalar, in plain C, which runs everywhere and defines every result. */
extern const bl_tier *const bl_tiers[];
extern const int bl_tier_count;
extern const bl_tier bl_tier_scalar;

/* The functions of a kernel (its index in bl_kernels) on a tier. */
const bl_cell *bl_cell_of(const bl_tier *tier, int kernel);

/* out (heads, head_dim) = softmax(q (heads, head_dim) . keys * scale) . values for one token; scores is room for
 * heads * length floats. */
void bl_attention(const bl_tier *tier, float *out, const float *q, const void *keys, const void *values,
                  bl_kv_kind kind, int64_t head_dim, int64_t length, float scale, float *scores, int heads);

#endif
