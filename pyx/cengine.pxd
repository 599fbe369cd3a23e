from libc.stdint cimport int32_t, int64_t, uint8_t

from ckernels cimport bl_cell, bl_kernel, bl_kv_kind, bl_kv_rows, bl_tier, bl_type


cdef extern from "pool.h" nogil:
    enum: BL_MAX_WORKERS
    ctypedef struct bl_pool:
        int workers
    void bl_pool_init(bl_pool *, int)
    void bl_pool_free(bl_pool *)
    void bl_pool_run(bl_pool *, void (*)(void *, int, int) noexcept nogil, void *)


cdef extern from "cache.h" nogil:
    ctypedef enum bl_kv:
        BL_KEYS, BL_VALUES
    void bl_store_row(const bl_tier *, const bl_kv_rows *, bl_kv, int64_t, const float *)


cdef extern from "bitnet_lut/bitnet_lut.h" nogil:
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
        const float *norm
        const float *bias

    ctypedef struct bl_layer:
        const float *attn_norm
        const float *q_norm
        const float *k_norm
        const float *attn_sub_norm
        const float *attn_post_norm
        const float *ffn_norm
        const float *ffn_sub_norm
        const float *ffn_post_norm
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
        float embedding_scale
        float score_scale
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
        bl_kv_kind kind
        int64_t context
        int64_t position
        uint8_t **pages
    int64_t bl_page_bytes(const bl_model *, bl_kv_kind)
    void bl_page_copy(uint8_t *, const uint8_t *, const bl_model *, bl_kv_kind, int64_t)
    int64_t bl_rows_bytes(const bl_model *, bl_kv_kind, int64_t)
    void bl_cache_read(const bl_cache *, const bl_model *, uint8_t *)
    void bl_cache_fill(bl_cache *, const bl_model *, const uint8_t *, int64_t)

    ctypedef struct bl_workspace:
        int64_t context
        int64_t batch
    int64_t bl_workspace_bytes(const bl_model *, int64_t, int64_t, int)
    void bl_workspace_place(bl_workspace *, const bl_model *, int64_t, int64_t, int, void *)

    ctypedef struct bl_chunk:
        const bl_cache *cache
        const int32_t *tokens
        int64_t n
        int finite

    ctypedef struct bl_step:
        const bl_model *model
        bl_workspace *workspace
        bl_pool *pool
        bl_chunk *chunks
        int64_t chunk_count
        const int64_t *rows
        int64_t row_count
        float *logits
        float *hidden
        bl_probe probe
        void *probe_context
    void bl_forward(const bl_step *)
