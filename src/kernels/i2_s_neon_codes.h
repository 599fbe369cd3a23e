/* What the cells of i2_s on NEON share. Included inside the target regions of the tiers neon and up. */

/* The codes of field f, columns 32 f and on, in 16 bytes of a canonical block. */
BL_INLINE uint8x16_t i2_s_codes(uint8x16_t bytes, const int f)
{
    switch (f) {
    case 0: return vshrq_n_u8(bytes, 6);
    case 1: return vandq_u8(vshrq_n_u8(bytes, 4), vdupq_n_u8(3));
    case 2: return vandq_u8(vshrq_n_u8(bytes, 2), vdupq_n_u8(3));
    default: return vandq_u8(bytes, vdupq_n_u8(3));
    }
}

/* The 16 activations that belong to field f of the 16 bytes at b of a row. */
BL_INLINE int8x16_t i2_s_values(const uint8_t *values, int64_t b, int f)
{
    return vreinterpretq_s8_u8(vld1q_u8(values + 4 * (b & -BL_BLOCK_BYTES) + (b & 16) + 32 * f));
}

BL_INLINE int32_t token_sum(const uint8_t *values)
{
    bl_prepared head;
    memcpy(&head, values - sizeof head, sizeof head);
    return head.sum;
}

static void i2_s_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    (void)n;
    bl_i2_s_arrange(prepared, q, cols);
}
