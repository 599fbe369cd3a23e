from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from ckernels cimport bl_cell, bl_kernel, bl_kv_kind, bl_tier, bl_type


cdef extern from "bitnet_lut/engine.h" nogil:
    enum: BL_OWN_TOKENS

    ctypedef struct bl_matrix:
        bl_type type
        int64_t rows
        int64_t cols
        int in_strips
        const uint8_t *data
        const bl_kernel *kernel
        const bl_cell *cell
        const float *scale
        int64_t scales
        const float *bias

    ctypedef struct bl_layer:
        const float *attn_norm
        const float *attn_sub_norm
        const float *ffn_norm
        const float *ffn_sub_norm
        bl_matrix q
        bl_matrix k
        bl_matrix v
        bl_matrix o
        bl_matrix gate
        bl_matrix up
        bl_matrix down

    ctypedef enum bl_activation:
        BL_SILU, BL_RELU2

    ctypedef struct bl_model:
        const bl_tier *tier
        int64_t layers
        int64_t embedding
        int64_t ffn
        int64_t heads
        int64_t kv_heads
        int64_t head_dim
        int64_t rope_dim
        int64_t vocab
        float eps
        bl_activation activation
        int rope_interleaved
        const float *inverse_frequency
        bl_matrix token_embedding
        bl_matrix head
        const float *output_norm
        const bl_layer *layer

    ctypedef enum bl_op:
        pass
    const char *bl_op_names[]
    ctypedef void (*bl_probe)(void *, int64_t, bl_op, const float *, int64_t, int64_t) noexcept nogil

    ctypedef struct bl_cache:
        int64_t context
        bl_kv_kind kind
        void *keys
        void *values

    ctypedef struct bl_place:
        const bl_cache *cache
        int64_t position

    ctypedef struct bl_state:
        int64_t context
        int64_t batch
        float *x
        float *input
        uint8_t *prepared
        uint8_t *own_prepared
        int64_t own_bytes
        int8_t *quantized
        float *act_max
        float *own_act_max
        float *q
        float *k
        float *v
        float *mixed
        float *gate
        float *up
        float *out
        float *scores
        float *totals
        float *cosine
        float *sine
        float *worker_scratch

    ctypedef struct bl_step:
        const bl_model *model
        bl_state *state
        bl_pool *pool
        const int32_t *tokens
        const bl_place *places
        int64_t n
        float *logits
        int64_t logit_tokens
        float *hidden
        int64_t hidden_stride
        bl_probe probe
        void *probe_context

    int64_t bl_head_stride(const bl_model *)
    int64_t bl_widest_input(const bl_model *)
    int64_t bl_prepared_bytes(const bl_model *, int64_t)
    int64_t bl_scratch_floats(const bl_model *, int64_t)
    int bl_forward(bl_step *)

    ctypedef struct bl_pool:
        int workers
    void bl_pool_init(bl_pool *, int)
    void bl_pool_free(bl_pool *)
    void bl_pool_run(bl_pool *, void (*)(void *, int, int) noexcept nogil, void *)
