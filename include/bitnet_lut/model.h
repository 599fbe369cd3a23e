/* A model, the state of a sequence, and one step of it: plain structs whose comments give shapes. */
#ifndef BL_MODEL_H
#define BL_MODEL_H

#include "kernels.h"
#include "pool.h"

typedef struct {
    bl_type type;
    int64_t rows, cols;
    int in_strips;           /* whether data is, of a block type; if not, its rows can only be looked up */
    const uint8_t *data;     /* dense: as dense_gemm or dense_row reads it; ternary: as kernel packs it */
    const bl_kernel *kernel; /* ternary: matrices that read the same input share these two */
    const bl_cell *cell;
    const float *scale;  /* ternary: (scales) */
    int64_t scales;      /* 1, or rows */
    const float *bias;   /* (rows), or NULL */
} bl_matrix;

typedef struct {
    const float *attn_norm;     /* (embedding) */
    const float *attn_sub_norm; /* (heads * head_dim), or NULL */
    const float *ffn_norm;      /* (embedding) */
    const float *ffn_sub_norm;  /* (ffn), or NULL */
    bl_matrix q;                /* (heads * head_dim, embedding) */
    bl_matrix k, v;             /* (kv_heads * head_dim, embedding) */
    bl_matrix o;                /* (embedding, heads * head_dim) */
    bl_matrix gate, up;         /* (ffn, embedding) */
    bl_matrix down;             /* (embedding, ffn) */
} bl_layer;

typedef enum { BL_SILU, BL_RELU2 } bl_activation;

typedef struct {
    const bl_tier *tier;
    int64_t layers, embedding, ffn, heads, kv_heads, head_dim, rope_dim, vocab;
    float eps;
    bl_activation activation;
    int rope_interleaved;
    const float *inverse_frequency; /* (rope_dim / 2) */
    bl_matrix token_embedding;      /* (vocab, embedding), dense */
    bl_matrix head;                 /* (vocab, embedding) */
    const float *output_norm;       /* (embedding) */
    const bl_layer *layer;          /* (layers) */
} bl_model;

/* The results a probe sees, in the order in which they appear. */
typedef enum {
    BL_OP_EMBEDDING, BL_OP_ATTN_NORM, BL_OP_Q, BL_OP_K, BL_OP_V, BL_OP_ATTENTION, BL_OP_ATTN_SUB_NORM,
    BL_OP_ATTN_OUTPUT, BL_OP_FFN_NORM, BL_OP_FFN_GATE, BL_OP_FFN_UP, BL_OP_FFN_ACTIVATION, BL_OP_FFN_SUB_NORM,
    BL_OP_FFN_DOWN, BL_OP_RESIDUAL, BL_OP_OUTPUT_NORM, BL_OP_LOGITS, BL_OP_COUNT
} bl_op;

static const char *const bl_op_names[BL_OP_COUNT] = {
    "embedding", "attn_norm", "attn_q", "attn_k", "attn_v", "attention", "attn_sub_norm", "attn_output", "ffn_norm",
    "ffn_gate", "ffn_up", "ffn_activation", "ffn_sub_norm", "ffn_down", "residual", "output_norm", "logits"};

/* Tokens of a step whose inputs a worker makes for itself, at most. */
enum { BL_OWN_TOKENS = 2 };

/* Called by one worker while the others wait, with the result of an op as (n, width). layer is -1 outside layers. */
typedef void (*bl_probe)(void *context, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width);

/* Keys and values of one sequence. head_stride = head_dim rounded up to 16 lanes, the padding zero. */
typedef struct {
    int64_t context; /* positions it can hold */
    bl_kv_kind kind;
    void *keys, *values; /* (layers, kv_heads, context, head_stride) half or float, zero at first */
} bl_cache;

/* Where a token stands. */
typedef struct {
    const bl_cache *cache;
    int64_t position;
} bl_place;

/* Scratch of one bl_forward. */
typedef struct {
    int64_t context; /* most positions of a sequence */
    int64_t batch;   /* most tokens */
    float *x;              /* (batch, embedding) residual stream */
    float *input;          /* (batch, widest input) of the next matrices */
    uint8_t *prepared;     /* bl_prepared_bytes(model, batch) bytes: input as the next matrices read it */
    uint8_t *own_prepared; /* (workers, own_bytes): the same of BL_OWN_TOKENS, of a worker for itself */
    int64_t own_bytes;     /* bl_prepared_bytes(model, BL_OWN_TOKENS) */
    int8_t *quantized;     /* (workers, widest input) */
    float *act_max;        /* (batch) */
    float *own_act_max;    /* (workers, BL_LANES), the first BL_OWN_TOKENS of each */
    float *q, *k, *v;      /* (batch, heads * head_dim), (batch, kv_heads * head_dim) twice */
    float *mixed;          /* (batch, heads * head_dim) output of the attention */
    float *gate, *up;      /* (batch, ffn) */
    float *out;            /* (batch, embedding) of the two matrices that add to the residual */
    float *cosine, *sine;  /* (batch, rope_dim / 2) */
    float *scores;         /* (heads, context) of one token whose positions the workers share out */
    float *totals;         /* (heads) of those scores */
    float *worker_scratch; /* (workers, bl_scratch_floats) */
} bl_state;

/* One call of bl_forward. */
typedef struct {
    const bl_model *model;
    bl_state *state;
    bl_pool *pool;
    const int32_t *tokens; /* (n) */
    const bl_place *places; /* (n): those of one sequence in order, each after what it reads */
    int64_t n;
    float *logits;         /* (logit_tokens, vocab): of the last logit_tokens tokens */
    int64_t logit_tokens;
    float *hidden;         /* (layers + 1, hidden_stride / embedding, embedding) from the first token on, or NULL */
    int64_t hidden_stride; /* floats between layers */
    bl_probe probe;        /* or NULL */
    void *probe_context;
} bl_step;

BL_INLINE int64_t bl_head_stride(const bl_model *m) { return bl_round_up(m->head_dim, BL_LANES); }

BL_INLINE int64_t bl_widest_input(const bl_model *m)
{
    const int64_t attention = m->heads * m->head_dim;
    const int64_t widest = m->embedding > attention ? m->embedding : attention;
    return m->ffn > widest ? m->ffn : widest;
}

/* Scores, queries and results of the heads that one worker does together; or the inputs it makes for itself. */
BL_INLINE int64_t bl_scratch_floats(const bl_model *m, int64_t context)
{
    const int64_t heads = BL_MAX_HEADS * (context + 2 * bl_head_stride(m)), widest = BL_OWN_TOKENS * bl_widest_input(m);
    return bl_round_up(heads > widest ? heads : widest, BL_LANES);
}

/* Bytes of each of n prepared tokens that w reads. */
BL_INLINE int64_t bl_token_bytes_of(const bl_model *m, const bl_matrix *w, int64_t n)
{
    return w->type == BL_TERNARY ? w->cell->token_bytes(w->cols, n) : m->tier->dense_bytes(w->cols);
}

/* Room for the prepared activations of 1 to batch tokens that w reads. */
static int64_t bl_prepared_for(const bl_model *m, const bl_matrix *w, int64_t batch)
{
    int64_t most = 0;
    for (int64_t n = 1; n <= batch; n++) {
        const int64_t bytes = n * bl_token_bytes_of(m, w, n);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The same, whatever matrix reads them. */
static int64_t bl_prepared_bytes(const bl_model *m, int64_t batch)
{
    int64_t most = bl_prepared_for(m, &m->head, batch);
    for (int64_t l = 0; l < m->layers; l++) {
        const bl_layer *layer = &m->layer[l];
        const bl_matrix *const readers[] = {&layer->q, &layer->o, &layer->gate, &layer->down};
        for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
            const int64_t bytes = bl_prepared_for(m, readers[i], batch);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

/* The contiguous part of [0, total), in units of step, that this worker does. */
BL_INLINE void bl_share(int64_t total, int64_t step, int worker, int workers, int64_t *lo, int64_t *hi)
{
    const int64_t units = (total + step - 1) / step;
    *lo = units * worker / workers * step;
    *hi = units * (worker + 1) / workers * step;
    if (*hi > total) *hi = total;
}

/* Two barriers around the probe: the result is complete before, and not yet overwritten. */
BL_INLINE void bl_show(const bl_step *s, int worker, int64_t layer, bl_op op, const float *data, int64_t n,
                       int64_t width)
{
    if (!s->probe) return;
    bl_pool_barrier(s->pool);
    if (worker == 0) s->probe(s->probe_context, layer, op, data, n, width);
    bl_pool_barrier(s->pool);
}

BL_INLINE float *bl_scratch(const bl_step *s, int worker)
{
    return s->state->worker_scratch + worker * bl_scratch_floats(s->model, s->state->context);
}

#endif
