/* The public header: the table of kernels, the table of tiers and what a tier offers, models, caches, workspaces and
 * steps. Structs are plain, and their comments give shapes. Nothing here allocates or checks: the caller owns the
 * memory and has checked every shape and id. Functions of kernels and tiers work on ranges and start no threads. */
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
    BL_CPU_AMX = 1 << 13, /* tiles and their int8 products, with the permission to use them */
    BL_CPU_WASM128 = 1 << 14,
    BL_CPU_WASMRELAXED = 1 << 15,
    BL_CPU_COUNT = 16
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

/* How a cache keeps keys and values. A row holds those of one head at one position. */
typedef enum { BL_KV_F32, BL_KV_F16, BL_KV_Q8, BL_KV_KINDS } bl_kv_kind;
typedef struct {
    const char *name;
    int64_t element_bytes;
    int64_t scale_bytes; /* of a row, besides its elements */
    int64_t group;       /* rows that are interleaved */
} bl_kv_format;
static const bl_kv_format bl_kv_formats[BL_KV_KINDS] = {
    [BL_KV_F32] = {"f32", 4, 0, 1},
    [BL_KV_F16] = {"f16", 2, 0, 1},
    [BL_KV_Q8] = {"q8", 1, 4, 16},
};

/* Bytes of elements, without scales. */
BL_INLINE int64_t bl_kv_bytes(bl_kv_kind kind, int64_t elements)
{
    return elements * bl_kv_formats[kind].element_bytes;
}

/* Bytes of whole groups of rows that hold so many positions of a head. */
BL_INLINE int64_t bl_kv_strip_bytes(bl_kv_kind kind, int64_t head_dim, int64_t positions)
{
    const bl_kv_format *format = &bl_kv_formats[kind];
    return bl_round_up(positions, format->group) * (head_dim * format->element_bytes + format->scale_bytes);
}

/* Most elements of a row of BL_KV_Q8. */
enum { BL_Q8_MOST = 1024 };

/* Positions of a page, whole groups of rows. The C self-test, whose texts are short, has smaller pages. */
#ifndef BL_PAGE
#define BL_PAGE 64
#endif

/* The keys or the values of some heads, in pages: a strip of BL_PAGE rows of head_dim elements, a multiple of 16, for
 * each head, one after the other from pages[position / BL_PAGE] + offset on.
 *
 * BL_KV_Q8: a row is int8 in -127 .. 127 times its largest |x| / 127. Rows are interleaved so that one product of bytes
 * adds four of them to each of 16 sums: keys are (BL_PAGE / 16, head_dim / 4, 16 rows, 4 elements), values
 * (BL_PAGE / 4, head_dim, 4 rows). Behind them come the largest |x| of the rows, float32 (BL_PAGE). */
typedef struct {
    uint8_t *const *pages;
    int64_t offset;
    bl_kv_kind kind;
    int64_t head_dim, heads;
} bl_kv_rows;

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

enum { BL_I2_S, BL_TL1, BL_TL2, BL_TL5, BL_KERNEL_COUNT };
extern const bl_kernel *const bl_kernels[BL_KERNEL_COUNT];

/* Whether any of n bytes of canonical rows holds code 3, which is not a ternary weight. */
int bl_has_code_3(const uint8_t *codes, int64_t n);

/* ---- tiers ------------------------------------------------------------------------------------------------------- */

/* Attention: most heads of one token that are done together and share the keys and values that are read; and most
 * queries in all, of several tokens or over the keys of several heads. */
enum { BL_MAX_HEADS = 4, BL_MAX_QUERIES = 32 };

/* Logits whose maximum stands for them while the likeliest are looked for. */
enum { BL_PART = 64 };

/* Bytes that the roof of reading takes at once. */
enum { BL_ROOF_UNIT = 4096 };

typedef struct {
    const char *name;
    uint32_t needs;  /* bits of bl_cpu() */
    const char *dot; /* the instruction that multiplies and adds bytes; "" for plain C */
    int64_t batch;   /* most tokens of one pass that pay: so many decode weights, and wait for threads, rarely */

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

    /* Attention in three steps, see bl_attention, of `queries` over each head of keys and values, together at most
     * BL_MAX_QUERIES. Queries and weights are quantized for BL_KV_Q8: see shared/attention_q8.h.
     *
     * score_keys: scores (heads * queries, stride), at positions lo <= p < hi, = q (heads * queries, head_dim) . keys *
     * scale. exp_scores: scores = exp(scores - max); returns their sum. mix_values: columns lo <= k < hi, multiples of
     * 16, of those of all heads side by side, of out (heads * queries, head_dim) = weights (heads * queries, stride) .
     * values (length, head_dim) / total (heads * queries). */
    void (*score_keys)(float *scores, int64_t stride, const float *q, const bl_kv_rows *keys, int64_t lo, int64_t hi,
                       float scale, int queries);
    float (*exp_scores)(float *scores, int64_t length);
    void (*mix_values)(float *out, const float *weights, int64_t stride, const float *total, const bl_kv_rows *values,
                       int64_t length, int64_t lo, int64_t hi, int queries);

    /* The draw of a token, see sampling.h. maxima (n / BL_PART, rounded up) = the largest of each BL_PART of x (n),
     * where none is NaN; of 0 and -0 it may be either. weights (n) = exp((x (n) - peak) * scale) by bl_weight; their
     * sum, in float64 and 16 lanes, is returned. */
    void (*part_maxima)(float *maxima, const float *x, int64_t n);
    double (*weigh)(float *weights, const float *x, int64_t n, float peak, float scale);

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

/* Floats from the scores of one query to those of the next: a power of two would crowd them in a few sets of the first
 * cache. */
BL_INLINE int64_t bl_score_stride(int64_t length) { return bl_round_up(length, 64) + 16; }

/* The columns lo <= k < hi of a head, of those of all heads side by side; none if hi is not above lo. */
typedef struct { int64_t lo, hi; } bl_columns;
BL_INLINE bl_columns bl_columns_of(int64_t head, int64_t head_dim, int64_t lo, int64_t hi)
{
    lo -= head * head_dim;
    hi -= head * head_dim;
    return (bl_columns){lo < 0 ? 0 : lo, hi < head_dim ? hi : head_dim};
}

/* out = softmax(q . keys * scale) . values; both are (keys->heads, tokens, heads, head_dim), for tokens that follow
 * each other and so many heads that share keys, in all at most BL_MAX_QUERIES; heads is at most BL_MAX_HEADS. The first
 * token sees `length` positions, each other one more than the one before. scores is room for as many rows as q has, of
 * bl_score_stride(length + tokens - 1) floats. */
void bl_attention(const bl_tier *tier, float *out, const float *q, const bl_kv_rows *keys, const bl_kv_rows *values,
                  int64_t length, float scale, float *scores, int tokens, int heads);

/* ---- a model ---------------------------------------------------------------------------------------------------- */

typedef struct bl_pool bl_pool; /* pool.h */

typedef struct {
    bl_type type;
    int64_t rows, cols;
    int in_strips;           /* whether data of a block type is; if not, its rows can only be looked up */
    const uint8_t *data;     /* dense: as dense_gemm or dense_row reads it; ternary: as kernel packs it */
    const bl_kernel *kernel; /* ternary; NULL if dense */
    const bl_cell *cell;     /* the same on the model's tier */
    const float *scale;      /* ternary: (scales) */
    int64_t scales;          /* 1, or rows */
    const float *norm;       /* (cols): RMS norm in front of this matrix alone, or NULL */
    const float *bias;       /* (rows), or NULL */
} bl_matrix;

/* Every norm but attn_norm and ffn_norm may be NULL. */
typedef struct {
    const float *attn_norm;       /* (embedding) */
    const float *q_norm, *k_norm; /* (head_dim), of each head before its rotation */
    const float *attn_sub_norm;   /* (heads * head_dim), of the input of o */
    const float *attn_post_norm;  /* (embedding), of the output of o */
    const float *ffn_norm;        /* (embedding) */
    const float *ffn_sub_norm;    /* (ffn), of the input of down */
    const float *ffn_post_norm;   /* (embedding), of the output of down */
    bl_matrix q;                  /* (heads * head_dim, embedding) */
    bl_matrix k, v;               /* (kv_heads * head_dim, embedding) */
    bl_matrix o;                  /* (embedding, heads * head_dim) */
    bl_matrix gate, up;           /* (ffn, embedding) */
    bl_matrix down;               /* (embedding, ffn) */
} bl_layer;

typedef enum { BL_SILU, BL_RELU2 } bl_activation;

typedef struct {
    const bl_tier *tier;
    int64_t layers, embedding, ffn, heads, kv_heads, head_dim, rope_dim, vocab;
    float eps;
    float embedding_scale; /* what embeddings are multiplied by; 1 if by nothing */
    float score_scale;     /* what q . k is multiplied by: 1 / sqrt(head_dim) in most models */
    bl_activation activation;
    int rope_interleaved;
    const float *inverse_frequency; /* (rope_dim / 2) */
    bl_matrix token_embedding;      /* (vocab, embedding), dense */
    bl_matrix head;                 /* (vocab, embedding) */
    const float *output_norm;       /* (embedding) */
    const bl_layer *layer;          /* (layers) */
} bl_model;

/* The results that a probe sees, in the order in which they appear. */
typedef enum {
    BL_OP_EMBEDDING,
    BL_OP_ATTN_NORM,
    BL_OP_Q,
    BL_OP_K,
    BL_OP_V,
    BL_OP_ATTENTION,
    BL_OP_ATTN_SUB_NORM,
    BL_OP_ATTN_OUTPUT,
    BL_OP_ATTN_POST_NORM,
    BL_OP_FFN_NORM,
    BL_OP_FFN_GATE,
    BL_OP_FFN_UP,
    BL_OP_FFN_ACTIVATION,
    BL_OP_FFN_SUB_NORM,
    BL_OP_FFN_DOWN,
    BL_OP_FFN_POST_NORM,
    BL_OP_RESIDUAL,
    BL_OP_OUTPUT_NORM,
    BL_OP_LOGITS,
    BL_OP_COUNT
} bl_op;

extern const char *const bl_op_names[BL_OP_COUNT];

/* Called by one worker while the others wait, with the result of an op as (n, width). layer is -1 outside layers. */
typedef void (*bl_probe)(void *context, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width);

/* ---- the cache of one sequence ---------------------------------------------------------------------------------- */

/* Keys and values in pages of BL_PAGE positions, which several caches may share: (layers, kv_heads, keys and values,
 * BL_PAGE) rows of head_dim elements, padded with zeros to whole lanes. A step reads the pages of all positions that
 * the cache holds, and writes to those of the tokens it runs, which no other cache may then share. */
typedef struct {
    bl_kv_kind kind;
    int64_t context;  /* positions it can hold */
    int64_t position; /* positions it holds: where the next token goes */
    uint8_t **pages; /* as many as the positions it holds, and the next tokens, need; each starts at a multiple of 64 */
} bl_cache;

int64_t bl_page_bytes(const bl_model *m, bl_kv_kind kind);

/* Copy the first positions of a page. */
void bl_page_copy(uint8_t *to, const uint8_t *from, const bl_model *m, bl_kv_kind kind, int64_t positions);

/* Bytes of a cache with pages for its whole context in one piece of memory. */
int64_t bl_cache_bytes(const bl_model *m, bl_kv_kind kind, int64_t context);

/* Such a cache, empty, in memory which starts at a multiple of 64 and may hold anything. */
void bl_cache_place(bl_cache *cache, const bl_model *m, bl_kv_kind kind, int64_t context, void *memory);

/* Copy the positions that `from` holds into a cache of the same kind, which has pages for them. */
void bl_cache_copy(bl_cache *to, const bl_cache *from, const bl_model *m);

/* The rows of a cache without its pages, as files have them: keys (layers, kv_heads, positions), then values, each
 * padded to a multiple of 64 bytes. */
int64_t bl_rows_bytes(const bl_model *m, bl_kv_kind kind, int64_t positions);
void bl_cache_read(const bl_cache *cache, const bl_model *m, uint8_t *rows);
void bl_cache_fill(bl_cache *cache, const bl_model *m, const uint8_t *rows, int64_t positions);

/* ---- the scratch of a step -------------------------------------------------------------------------------------- */

typedef struct bl_place bl_place;

/* It holds nothing from one step to the next, so any number of sequences can use it in turn. */
typedef struct {
    int64_t context;   /* longest cache that it can step */
    int64_t batch;     /* most tokens of one pass */
    bl_place *places;  /* (batch) */
    int64_t *wanted;   /* (batch): tokens of the pass whose logits are wanted */
    float *x;          /* (batch, embedding) residual stream */
    float *input;      /* (batch, widest input) of the next matrices */
    uint8_t *prepared; /* (forms, form_bytes): input in each form in which the next matrices read it */
    int64_t form_bytes;
    uint8_t *own_prepared; /* (workers, forms, own_bytes): the same of BL_OWN_TOKENS, of a worker for itself */
    int64_t own_bytes;
    int64_t forms;            /* most forms of one input */
    int8_t *quantized;        /* (workers, quantized_stride) */
    int64_t quantized_stride; /* widest input */
    float *act_max;           /* (forms, batch) */
    float *own_act_max;       /* (workers, BL_LANES), of which (forms, BL_OWN_TOKENS) are used */
    int32_t *parts;           /* (workers, part_ints): of the dots of one input's readers, by columns */
    int64_t part_ints;
    float *q, *k, *v;      /* (batch, heads * head_dim), (batch, kv_heads * head_dim) twice */
    float *mixed;          /* (batch, heads * head_dim) output of the attention */
    float *gate, *up;      /* (batch, ffn) */
    float *out;            /* (batch, embedding) of the two matrices that add to the residual */
    float *cosine, *sine;  /* (batch, rope_dim / 2) */
    float *scores;         /* (heads, context) of one token whose positions the workers share out */
    float *totals;         /* (heads) of those scores */
    float *worker_scratch; /* (workers, scratch_floats) */
    int64_t scratch_floats;
} bl_workspace;

int64_t bl_workspace_bytes(const bl_model *m, int64_t context, int64_t batch, int workers);

/* Lay out scratch in memory (bl_workspace_bytes), which starts at a multiple of 64 and may hold anything. */
void bl_workspace_place(bl_workspace *w, const bl_model *m, int64_t context, int64_t batch, int workers, void *memory);

/* ---- a step ----------------------------------------------------------------------------------------------------- */

/* Tokens of one sequence, which continue it. */
typedef struct {
    const bl_cache *cache;
    const int32_t *tokens; /* (n) */
    int64_t n;
    int finite; /* result: whether the last residual stream and the wanted logits of all its tokens are */
} bl_chunk;

/* Tokens of any sequences, numbered from 0 over all chunks in order. */
typedef struct {
    const bl_model *model;
    bl_workspace *workspace;
    bl_pool *pool;
    bl_chunk *chunks; /* (chunk_count), each of another cache */
    int64_t chunk_count;
    const int64_t *rows; /* (row_count) tokens whose logits are wanted, ascending */
    int64_t row_count;
    float *logits;  /* (row_count, vocab) */
    float *hidden;  /* (layers + 1, tokens, embedding): input of layer 0, then the output of each, or NULL */
    bl_probe probe; /* or NULL */
    void *probe_context;
} bl_step;

/* Run a step, whose tokens must fit their caches. Every result is the one its sequence gets alone, bit for bit. The
 * positions of the caches stay: the caller moves on those whose results it accepts. */
void bl_forward(const bl_step *step);

#endif
