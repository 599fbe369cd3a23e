/* A model, the cache of a sequence, the scratch of a step, and one step: plain structs whose comments give shapes. The
 * engine allocates nothing and checks nothing: its caller owns the memory and has checked every shape and id. */
#ifndef BL_ENGINE_H
#define BL_ENGINE_H

#include "bitnet_lut/bitnet_lut.h"

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

/* Keys and values: (layers, kv_heads, context) rows of head_dim elements, padded with zeros to whole lanes. */
typedef struct {
    bl_kv_kind kind;
    int64_t context;  /* positions it can hold */
    int64_t position; /* positions it holds: where the next token goes */
    uint8_t *keys, *values;
} bl_cache;

int64_t bl_cache_bytes(const bl_model *m, bl_kv_kind kind, int64_t context);

/* An empty cache in memory (bl_cache_bytes), which starts at a multiple of 64 and may hold anything. */
void bl_cache_place(bl_cache *cache, const bl_model *m, bl_kv_kind kind, int64_t context, void *memory);

/* Copy the positions that `from` holds into a cache of the same kind, which has room for them. */
void bl_cache_copy(bl_cache *to, const bl_cache *from, const bl_model *m);

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
    float *q, *k, *v;         /* (batch, heads * head_dim), (batch, kv_heads * head_dim) twice */
    float *mixed;             /* (batch, heads * head_dim) output of the attention */
    float *gate, *up;         /* (batch, ffn) */
    float *out;               /* (batch, embedding) of the two matrices that add to the residual */
    float *cosine, *sine;     /* (batch, rope_dim / 2) */
    float *scores;            /* (heads, context) of one token whose positions the workers share out */
    float *totals;            /* (heads) of those scores */
    float *worker_scratch;    /* (workers, scratch_floats) */
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
