from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t


cdef extern from "shared/numerics.h" nogil:
    enum: BL_LANES
    float bl_rescale(float weight_scale, float act_max)


cdef extern from "bitnet_lut/bitnet_lut.h" nogil:
    enum: BL_CPU_COUNT
    const int bl_tier_count
    enum: BL_MAX_HEADS
    enum: BL_MAX_COLS
    enum: BL_STRIP
    enum: BL_KERNEL_COUNT
    const char *bl_cpu_names[]
    uint32_t bl_cpu()

    ctypedef enum bl_type:
        BL_TERNARY, BL_F32, BL_F16, BL_BF16, BL_Q8_0, BL_Q4_0, BL_Q6_K

    ctypedef enum bl_kv_kind:
        BL_KV_F32, BL_KV_F16, BL_KV_Q8, BL_KV_KINDS
    ctypedef struct bl_kv_format:
        const char *name
    const bl_kv_format bl_kv_formats[]
    enum: BL_Q8_MOST
    enum: BL_PAGE
    ctypedef struct bl_kv_rows:
        uint8_t **pages
        int64_t offset
        bl_kv_kind kind
        int64_t head_dim
        int64_t heads

    int64_t bl_row_bytes(bl_type type, int64_t cols)
    int bl_is_block_type(bl_type type)
    int64_t bl_dense_packed_bytes(bl_type type, int64_t rows, int64_t cols)
    void bl_pack_blocks(uint8_t *, const uint8_t *, bl_type, int64_t, int64_t, int64_t, int64_t) noexcept nogil
    void bl_unpack_blocks(uint8_t *, const uint8_t *, bl_type, int64_t, int64_t, int64_t) noexcept nogil
    int64_t bl_i2_s_row_bytes(int64_t cols)
    int bl_has_code_3(const uint8_t *codes, int64_t n)
    int64_t bl_round_up(int64_t n, int64_t step)
    int64_t bl_score_stride(int64_t length)
    int64_t bl_kv_strip_bytes(bl_kv_kind, int64_t, int64_t)

    ctypedef int64_t (*bl_packed_bytes)(int64_t, int64_t) noexcept nogil
    ctypedef void (*bl_pack)(uint8_t *, const uint8_t *, int64_t, int64_t, int64_t, int64_t) noexcept nogil
    ctypedef int64_t (*bl_token_bytes)(int64_t, int64_t) noexcept nogil
    ctypedef void (*bl_prepare)(uint8_t *, const int8_t *, int64_t, int64_t) noexcept nogil
    ctypedef void (*bl_gemm)(int32_t *, int64_t, const uint8_t *, const uint8_t *, int64_t, int64_t, int64_t, int64_t,
                             int64_t) noexcept nogil

    ctypedef void (*bl_prepare_share)(uint8_t *, const int8_t *, int64_t, int64_t, int, int) noexcept nogil
    ctypedef void (*bl_gemm_share)(int32_t *, int64_t, const uint8_t *, const uint8_t *, int64_t, int64_t, int64_t, int,
                                   int) noexcept nogil
    enum: BL_OWN_TOKENS

    ctypedef struct bl_narrow_sum:
        int32_t bits
        int32_t step
        int32_t steps

    ctypedef struct bl_sums:
        int32_t column
        int32_t weights_per_lookup
        bl_narrow_sum narrow[3]

    ctypedef struct bl_cell:
        bl_token_bytes token_bytes
        bl_prepare prepare
        bl_gemm gemm
        bl_sums sums
        bl_prepare_share prepare_share
        bl_gemm_share gemm_share

    ctypedef struct bl_kernel:
        const char *name
        int64_t panel
        bl_packed_bytes packed_bytes
        bl_pack pack
        bl_pack unpack
        bl_cell plain

    const bl_kernel *bl_kernels[]
    const bl_cell *bl_cell_of(const bl_tier *tier, int kernel)

    ctypedef struct bl_tier:
        const char *name
        uint32_t needs
        const char *dot
        int64_t batch
        const bl_cell *cells[]
        int64_t (*dense_bytes)(int64_t) noexcept nogil
        void (*dense_prepare)(uint8_t *, const float *, int64_t) noexcept nogil
        void (*dense_gemm)(float *, int64_t, bl_type, const uint8_t *, const uint8_t *, int64_t, int64_t, int64_t,
                           int64_t) noexcept nogil
        void (*dense_row)(float *, bl_type, const uint8_t *, int64_t) noexcept nogil
        float (*quantize)(int8_t *, const float *, int64_t) noexcept nogil
        int (*finite)(const float *, int64_t) noexcept nogil
        void (*rms_norm)(float *, const float *, const float *, int64_t, float) noexcept nogil
        void (*silu_mul)(float *, const float *, int64_t) noexcept nogil
        void (*relu2_mul)(float *, const float *, int64_t) noexcept nogil
        void (*rope)(float *, const float *, const float *, int64_t, int) noexcept nogil
        void (*store_f16)(uint16_t *, const float *, int64_t) noexcept nogil
        int64_t roof_macs

    void bl_attention(const bl_tier *, float *, const float *, const bl_kv_rows *, const bl_kv_rows *, int64_t, float,
                      float *, int, int) noexcept nogil
    const bl_tier *bl_tiers[]
