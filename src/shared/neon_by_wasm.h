/* The instructions of NEON that the tiers' headers use, by those of WebAssembly: both have 128-bit registers, and most
 * of the instructions are the same ones. Included by the tiers wasm128 and wasmrelaxed inside their target regions.
 *
 * All registers are one type here. One of 64 bits is the lower half of another; its upper half is of no account. */

#include <wasm_simd128.h>

typedef v128_t uint8x16_t, int8x16_t, uint16x8_t, int16x8_t, uint32x4_t, int32x4_t, uint64x2_t, float32x4_t;
typedef v128_t uint8x8_t, int8x8_t, uint16x4_t, int16x4_t, float16x4_t, float16x8_t, float32x2_t;
typedef struct { v128_t val[2]; } int8x16x2_t;

#define BL_NEON(type, name, parameters, result)                                                                        \
    BL_INLINE type name parameters { return result; }
#define BL_SAME(name) BL_NEON(v128_t, name, (v128_t a), a)

/* ---- moves ------------------------------------------------------------------------------------------------------- */

BL_SAME(vreinterpretq_s8_u8)
BL_SAME(vreinterpretq_u8_s8)
BL_SAME(vreinterpretq_s8_s16)
BL_SAME(vreinterpretq_s16_s8)
BL_SAME(vreinterpretq_s8_s32)
BL_SAME(vreinterpretq_s32_s8)
BL_SAME(vreinterpretq_u16_u8)
BL_SAME(vreinterpretq_u8_u16)
BL_SAME(vreinterpretq_u64_u8)
BL_SAME(vreinterpretq_u64_s16)
BL_SAME(vreinterpretq_u64_s32)
BL_SAME(vreinterpretq_u32_f32)
BL_SAME(vreinterpretq_f32_u32)
BL_SAME(vreinterpretq_f16_u8)
BL_SAME(vreinterpretq_u16_f16)
BL_SAME(vreinterpret_f16_u16)
BL_SAME(vget_low_s8)
BL_SAME(vget_low_s16)
BL_SAME(vget_low_u16)
BL_SAME(vget_low_f16)
BL_SAME(vget_low_f32)

BL_NEON(v128_t, vld1q_u8, (const uint8_t *p), wasm_v128_load(p))
BL_NEON(v128_t, vld1q_s8, (const int8_t *p), wasm_v128_load(p))
BL_NEON(v128_t, vld1q_s32, (const int32_t *p), wasm_v128_load(p))
BL_NEON(v128_t, vld1q_f32, (const float *p), wasm_v128_load(p))
BL_NEON(void, vst1q_u8, (uint8_t *p, v128_t a), wasm_v128_store(p, a))
BL_NEON(void, vst1q_s8, (int8_t *p, v128_t a), wasm_v128_store(p, a))
BL_NEON(void, vst1q_u16, (uint16_t *p, v128_t a), wasm_v128_store(p, a))
BL_NEON(void, vst1q_s32, (int32_t *p, v128_t a), wasm_v128_store(p, a))
BL_NEON(void, vst1q_f32, (float *p, v128_t a), wasm_v128_store(p, a))

/* Bytes at even places, and at odd ones. */
BL_INLINE int8x16x2_t vld2q_s8(const int8_t *p)
{
    const v128_t a = wasm_v128_load(p), b = wasm_v128_load(p + 16);
    const int8x16x2_t two = {{wasm_i8x16_shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
                              wasm_i8x16_shuffle(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)}};
    return two;
}

BL_NEON(v128_t, vdupq_n_u8, (uint8_t x), wasm_u8x16_splat(x))
BL_NEON(v128_t, vdupq_n_s8, (int8_t x), wasm_i8x16_splat(x))
BL_NEON(v128_t, vdup_n_s8, (int8_t x), wasm_i8x16_splat(x))
BL_NEON(v128_t, vdup_n_u16, (uint16_t x), wasm_u16x8_splat(x))
BL_NEON(v128_t, vdupq_n_s16, (int16_t x), wasm_i16x8_splat(x))
BL_NEON(v128_t, vdupq_n_s32, (int32_t x), wasm_i32x4_splat(x))
BL_NEON(v128_t, vdupq_n_u32, (uint32_t x), wasm_u32x4_splat(x))
BL_NEON(v128_t, vdupq_n_f32, (float x), wasm_f32x4_splat(x))
#define vgetq_lane_u64(a, lane) ((uint64_t)wasm_i64x2_extract_lane(a, lane))
#define vgetq_lane_f32(a, lane) wasm_f32x4_extract_lane(a, lane)
#define vget_lane_f32(a, lane) wasm_f32x4_extract_lane(a, lane)
BL_NEON(v128_t, vget_high_f32, (v128_t a), wasm_i64x2_shuffle(a, a, 1, 1))
BL_NEON(v128_t, vcombine_s8, (v128_t low, v128_t high), wasm_i64x2_shuffle(low, high, 0, 2))
BL_NEON(v128_t, vcombine_s16, (v128_t low, v128_t high), wasm_i64x2_shuffle(low, high, 0, 2))
BL_NEON(v128_t, vzip1q_u8, (v128_t a, v128_t b),
        wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23))
BL_NEON(v128_t, vzip2q_u8, (v128_t a, v128_t b),
        wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31))
BL_NEON(v128_t, vzip1q_u16, (v128_t a, v128_t b), wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11))
BL_NEON(v128_t, vzip2q_u16, (v128_t a, v128_t b), wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15))

/* ---- bits -------------------------------------------------------------------------------------------------------- */

BL_NEON(v128_t, vandq_u8, (v128_t a, v128_t b), wasm_v128_and(a, b))
BL_NEON(v128_t, vandq_u32, (v128_t a, v128_t b), wasm_v128_and(a, b))
BL_NEON(v128_t, vorrq_u8, (v128_t a, v128_t b), wasm_v128_or(a, b))
BL_NEON(v128_t, veorq_u8, (v128_t a, v128_t b), wasm_v128_xor(a, b))
BL_NEON(v128_t, veorq_s16, (v128_t a, v128_t b), wasm_v128_xor(a, b))
BL_NEON(v128_t, vshrq_n_u8, (v128_t a, int n), wasm_u8x16_shr(a, (uint32_t)n))
BL_NEON(v128_t, vshlq_n_u8, (v128_t a, int n), wasm_i8x16_shl(a, (uint32_t)n))
BL_NEON(v128_t, vshrq_n_s32, (v128_t a, int n), wasm_i32x4_shr(a, (uint32_t)n))
BL_NEON(v128_t, vshlq_n_s32, (v128_t a, int n), wasm_i32x4_shl(a, (uint32_t)n))
BL_NEON(v128_t, vshll_n_u16, (v128_t a, int n), wasm_i32x4_shl(wasm_u32x4_extend_low_u16x8(a), (uint32_t)n))
BL_NEON(v128_t, vshll_high_n_u16, (v128_t a, int n), wasm_i32x4_shl(wasm_u32x4_extend_high_u16x8(a), (uint32_t)n))
BL_NEON(v128_t, vsliq_n_u8, (v128_t a, v128_t b, int n),
        wasm_v128_or(wasm_v128_and(a, wasm_u8x16_splat((uint8_t)((1 << n) - 1))), wasm_i8x16_shl(b, (uint32_t)n)))

/* ---- integers ---------------------------------------------------------------------------------------------------- */

BL_NEON(v128_t, vaddq_s8, (v128_t a, v128_t b), wasm_i8x16_add(a, b))
BL_NEON(v128_t, vsubq_s8, (v128_t a, v128_t b), wasm_i8x16_sub(a, b))
BL_NEON(v128_t, vaddq_s32, (v128_t a, v128_t b), wasm_i32x4_add(a, b))
BL_NEON(v128_t, vmovl_s8, (v128_t a), wasm_i16x8_extend_low_i8x16(a))
BL_NEON(v128_t, vmovl_high_s8, (v128_t a), wasm_i16x8_extend_high_i8x16(a))
BL_NEON(v128_t, vmovl_s16, (v128_t a), wasm_i32x4_extend_low_i16x8(a))
BL_NEON(v128_t, vmovl_high_s16, (v128_t a), wasm_i32x4_extend_high_i16x8(a))
BL_NEON(v128_t, vmovn_s16, (v128_t a), wasm_i8x16_shuffle(a, a, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14))
BL_NEON(v128_t, vqmovn_s16, (v128_t a), wasm_i8x16_narrow_i16x8(a, a))
BL_NEON(v128_t, vqmovn_s32, (v128_t a), wasm_i16x8_narrow_i32x4(a, a))
BL_NEON(v128_t, vaddw_s8, (v128_t a, v128_t b), wasm_i16x8_add(a, wasm_i16x8_extend_low_i8x16(b)))
BL_NEON(v128_t, vaddw_high_s8, (v128_t a, v128_t b), wasm_i16x8_add(a, wasm_i16x8_extend_high_i8x16(b)))
BL_NEON(v128_t, vaddw_s16, (v128_t a, v128_t b), wasm_i32x4_add(a, wasm_i32x4_extend_low_i16x8(b)))
BL_NEON(v128_t, vaddw_high_s16, (v128_t a, v128_t b), wasm_i32x4_add(a, wasm_i32x4_extend_high_i16x8(b)))
BL_NEON(v128_t, vmulq_n_s16, (v128_t a, int16_t n), wasm_i16x8_mul(a, wasm_i16x8_splat(n)))
BL_NEON(v128_t, vmlaq_n_s16, (v128_t a, v128_t b, int16_t n), wasm_i16x8_add(a, wasm_i16x8_mul(b, wasm_i16x8_splat(n))))
BL_NEON(v128_t, vmlsq_n_s16, (v128_t a, v128_t b, int16_t n), wasm_i16x8_sub(a, wasm_i16x8_mul(b, wasm_i16x8_splat(n))))
BL_NEON(v128_t, vqrdmulhq_n_s16, (v128_t a, int16_t n), wasm_i16x8_q15mulr_sat(a, wasm_i16x8_splat(n)))
BL_NEON(v128_t, vmlal_s8, (v128_t a, v128_t b, v128_t c), wasm_i16x8_add(a, wasm_i16x8_extmul_low_i8x16(b, c)))
BL_NEON(v128_t, vmlal_high_s8, (v128_t a, v128_t b, v128_t c), wasm_i16x8_add(a, wasm_i16x8_extmul_high_i8x16(b, c)))
BL_NEON(v128_t, vpaddlq_s16, (v128_t a), wasm_i32x4_extadd_pairwise_i16x8(a))
BL_NEON(v128_t, vpadalq_s16, (v128_t a, v128_t b), wasm_i32x4_add(a, wasm_i32x4_extadd_pairwise_i16x8(b)))
BL_NEON(v128_t, vpaddq_s32, (v128_t a, v128_t b),
        wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7)))
BL_NEON(v128_t, vmaxq_u32, (v128_t a, v128_t b), wasm_u32x4_max(a, b))

BL_INLINE int32_t vaddvq_s32(v128_t a)
{
    const v128_t two = wasm_i32x4_add(a, wasm_i64x2_shuffle(a, a, 1, 0));
    return wasm_i32x4_extract_lane(two, 0) + wasm_i32x4_extract_lane(two, 1);
}

BL_INLINE uint32_t vmaxvq_u32(v128_t a)
{
    const v128_t two = wasm_u32x4_max(a, wasm_i64x2_shuffle(a, a, 1, 0));
    return (uint32_t)wasm_i32x4_extract_lane(wasm_u32x4_max(two, wasm_i32x4_shuffle(two, two, 1, 0, 3, 2)), 0);
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

BL_NEON(v128_t, vaddq_f32, (v128_t a, v128_t b), wasm_f32x4_add(a, b))
BL_NEON(v128_t, vadd_f32, (v128_t a, v128_t b), wasm_f32x4_add(a, b))
BL_NEON(v128_t, vmaxq_f32, (v128_t a, v128_t b), wasm_f32x4_pmax(a, b))
BL_NEON(v128_t, vmulq_f32, (v128_t a, v128_t b), wasm_f32x4_mul(a, b))
BL_NEON(v128_t, vmulq_n_f32, (v128_t a, float x), wasm_f32x4_mul(a, wasm_f32x4_splat(x)))
BL_NEON(v128_t, vpadd_f32, (v128_t a, v128_t b),
        wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 0, 4), wasm_i32x4_shuffle(a, b, 1, 5, 1, 5)))
BL_INLINE float vmaxvq_f32(v128_t a)
{
    const v128_t two = vmaxq_f32(a, wasm_i64x2_shuffle(a, a, 1, 0));
    return wasm_f32x4_extract_lane(vmaxq_f32(two, wasm_i32x4_shuffle(two, two, 1, 0, 3, 2)), 0);
}
BL_NEON(v128_t, vcvtq_f32_s32, (v128_t a), wasm_f32x4_convert_i32x4(a))
BL_NEON(v128_t, vcvtnq_s32_f32, (v128_t a), wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(a)))

/* Half to float as bl_from_f16 has it, except that subnormal halves come from integers: subnormal floats, which the
 * other way meets, can take a hundred cycles. */
BL_INLINE v128_t bl_halves_to_floats(v128_t u32x4)
{
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(u32x4, wasm_u32x4_splat(0x8000)), 16);
    const v128_t magnitude = wasm_v128_and(u32x4, wasm_u32x4_splat(0x7fff));
    const v128_t shifted = wasm_i32x4_shl(magnitude, 13);
    const v128_t normal = wasm_i32x4_add(shifted, wasm_u32x4_splat(0x38000000));
    const v128_t infinite = wasm_v128_or(shifted, wasm_u32x4_splat(0x7f800000));
    const v128_t small = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(magnitude), wasm_f32x4_splat(0x1p-24f));
    const v128_t is_small = wasm_i32x4_lt(magnitude, wasm_u32x4_splat(0x400));
    const v128_t is_infinite = wasm_i32x4_gt(magnitude, wasm_u32x4_splat(0x7bff));
    const v128_t finite = wasm_v128_bitselect(small, normal, is_small);
    return wasm_v128_or(sign, wasm_v128_bitselect(infinite, finite, is_infinite));
}

/* Float to half as bl_to_f16 has it; in the lower half of each lane. */
BL_INLINE v128_t bl_floats_to_halves(v128_t f32x4)
{
    const v128_t sign = wasm_v128_and(wasm_u32x4_shr(f32x4, 16), wasm_u32x4_splat(0x8000));
    const v128_t magnitude = wasm_v128_and(f32x4, wasm_u32x4_splat(0x7fffffff));
    const v128_t odd = wasm_v128_and(wasm_u32x4_shr(magnitude, 13), wasm_u32x4_splat(1));
    const v128_t rounded = wasm_i32x4_add(wasm_i32x4_sub(magnitude, wasm_u32x4_splat(0x38000000 - 0xfff)), odd);
    const v128_t half = wasm_f32x4_add(magnitude, wasm_f32x4_splat(0.5f));
    const v128_t small = wasm_i32x4_sub(half, wasm_u32x4_splat(0x3f000000));
    v128_t found = wasm_u32x4_shr(rounded, 13);
    found = wasm_v128_bitselect(small, found, wasm_i32x4_lt(magnitude, wasm_u32x4_splat(0x38800000)));
    found =
        wasm_v128_bitselect(wasm_u32x4_splat(0x7c00), found, wasm_i32x4_gt(magnitude, wasm_u32x4_splat(0x477fefff)));
    found =
        wasm_v128_bitselect(wasm_u32x4_splat(0x7e00), found, wasm_i32x4_gt(magnitude, wasm_u32x4_splat(0x7f800000)));
    return wasm_v128_or(sign, found);
}

BL_NEON(v128_t, vcvt_f32_f16, (v128_t a), bl_halves_to_floats(wasm_u32x4_extend_low_u16x8(a)))
BL_NEON(v128_t, vcvt_high_f32_f16, (v128_t a), bl_halves_to_floats(wasm_u32x4_extend_high_u16x8(a)))
BL_INLINE v128_t vcvt_f16_f32(v128_t a)
{
    const v128_t u32x4 = bl_floats_to_halves(a);
    return wasm_u16x8_narrow_i32x4(u32x4, u32x4);
}
BL_NEON(v128_t, vcvt_high_f16_f32, (v128_t low, v128_t a), wasm_i64x2_shuffle(low, vcvt_f16_f32(a), 0, 2))

#undef BL_SAME
