/* Products of bytes by those of 16 bits, and dense block types by them. Included by the tiers wasm128 and wasmrelaxed
 * before blocks_neon.h. */

/* sum + four products each. */
BL_INLINE int32x4_t dot_words(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    const int32x4_t low = wasm_i32x4_dot_i16x8(vmovl_s8(a), vmovl_s8(b));
    return vaddq_s32(sum, vpaddq_s32(low, wasm_i32x4_dot_i16x8(vmovl_high_s8(a), vmovl_high_s8(b))));
}

/* group_dot by products of 16 bits, where the upper two digits fit together. */
BL_INLINE int32x4_t group_in_words(const int8x16_t q[4], const bl_fixed *x, int32_t added)
{
    int32x4_t upper[2], lower[2]; /* of two rows each, by pairs of columns */
    for (int i = 0; i < 4; i++) {
        const int16x8_t a = wasm_v128_load32_splat(x->digit[0] + 4 * i),
                        b = wasm_v128_load32_splat(x->digit[1] + 4 * i);
        const int16x8_t c = vmovl_s8(wasm_v128_load32_splat(x->digit[2] + 4 * i));
        const int16x8_t ab = vaddw_s8(wasm_i16x8_shl(vmovl_s8(a), 7), b);
        const int16x8_t rows[2] = {vmovl_s8(q[i]), vmovl_high_s8(q[i])};
        for (int half = 0; half < 2; half++) {
            const int32x4_t high = wasm_i32x4_dot_i16x8(rows[half], ab), low = wasm_i32x4_dot_i16x8(rows[half], c);
            upper[half] = i ? vaddq_s32(upper[half], high) : high;
            lower[half] = i ? vaddq_s32(lower[half], low) : low;
        }
    }
    for (int half = 0; half < 2; half++) upper[half] = vaddq_s32(vshlq_n_s32(upper[half], 7), lower[half]);
    return vaddq_s32(vpaddq_s32(upper[0], upper[1]), vdupq_n_s32(-added));
}
