/* Sixteen float lanes in four registers of 128 bits. Included by the tiers neon and up inside their target regions;
 * scalar.c states what each function does. */

typedef struct { float32x4_t v[4]; } f32x16;

BL_INLINE f32x16 make_f32x16(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
    f32x16 v = {{a, b, c, d}};
    return v;
}
BL_INLINE f32x16 set1(float x)
{
    const float32x4_t f32x4 = vdupq_n_f32(x);
    return make_f32x16(f32x4, f32x4, f32x4, f32x4);
}
BL_INLINE f32x16 zero(void) { return set1(0.0f); }
BL_INLINE f32x16 load(const float *p)
{
    return make_f32x16(vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12));
}
BL_INLINE void store(float *p, f32x16 v)
{
    vst1q_f32(p, v.v[0]);
    vst1q_f32(p + 4, v.v[1]);
    vst1q_f32(p + 8, v.v[2]);
    vst1q_f32(p + 12, v.v[3]);
}
BL_INLINE f32x16 load_f16(const uint8_t *p)
{
    const float16x8_t a = vreinterpretq_f16_u8(vld1q_u8(p)), b = vreinterpretq_f16_u8(vld1q_u8(p + 16));
    return make_f32x16(vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)),
                       vcvt_high_f32_f16(b));
}
BL_INLINE f32x16 load_bf16(const uint8_t *p)
{
    const uint16x8_t a = vreinterpretq_u16_u8(vld1q_u8(p)), b = vreinterpretq_u16_u8(vld1q_u8(p + 16));
    return make_f32x16(
        vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(a), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(a, 16)),
        vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(b, 16)));
}
BL_INLINE f32x16 load_i8(const int8_t *p)
{
    const int8x16_t i8x16 = vld1q_s8(p);
    const int16x8_t a = vmovl_s8(vget_low_s8(i8x16)), b = vmovl_high_s8(i8x16);
    return make_f32x16(vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), vcvtq_f32_s32(vmovl_high_s16(a)),
                       vcvtq_f32_s32(vmovl_s16(vget_low_s16(b))), vcvtq_f32_s32(vmovl_high_s16(b)));
}
BL_INLINE f32x16 add(f32x16 a, f32x16 b)
{
    return make_f32x16(vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1]), vaddq_f32(a.v[2], b.v[2]),
                       vaddq_f32(a.v[3], b.v[3]));
}
BL_INLINE f32x16 mul(f32x16 a, f32x16 b)
{
    return make_f32x16(vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1]), vmulq_f32(a.v[2], b.v[2]),
                       vmulq_f32(a.v[3], b.v[3]));
}
BL_INLINE float reduce(f32x16 v)
{
    const float32x4_t f32x4 = vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
    const float32x2_t f32x2 = vadd_f32(vget_low_f32(f32x4), vget_high_f32(f32x4));
    return vget_lane_f32(vpadd_f32(f32x2, f32x2), 0);
}
BL_INLINE f32x16 larger(f32x16 a, f32x16 b)
{
    return make_f32x16(vmaxq_f32(a.v[0], b.v[0]), vmaxq_f32(a.v[1], b.v[1]), vmaxq_f32(a.v[2], b.v[2]),
                       vmaxq_f32(a.v[3], b.v[3]));
}
BL_INLINE float largest(f32x16 v)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v.v[0], v.v[2]), vmaxq_f32(v.v[1], v.v[3])));
}
BL_INLINE void store_f16x16(uint16_t *p, f32x16 v)
{
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.v[0]), v.v[1])));
    vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.v[2]), v.v[3])));
}

BL_INLINE float f16(const uint8_t *p)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bl_load_u16(p)))), 0);
}

BL_INLINE void prefetch(const uint8_t *p)
{
#if defined(_MSC_VER) && !defined(__clang__)
    __prefetch(p);
#else
    __builtin_prefetch(p, 0, 2);
#endif
}

BL_INLINE void prefetch_near(const uint8_t *p)
{
#if defined(_MSC_VER) && !defined(__clang__)
    __prefetch(p);
#else
    __builtin_prefetch(p, 0, 3);
#endif
}

BL_INLINE void unpack_i4x32(int8_t *q, const uint8_t *p)
{
    const uint8x16_t bytes = vld1q_u8(p);
    const int8x16_t bias = vdupq_n_s8(8);
    vst1q_s8(q, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), bias));
    vst1q_s8(q + 16, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), bias));
}

/* Columns p, p + 32, p + 64, p + 96 of p = 0 .. 15. */
BL_INLINE void unpack_i6x64(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    const uint8x16_t nibble = vdupq_n_u8(15), pair = vdupq_n_u8(0x30);
    const uint8x16_t low0 = vld1q_u8(low), low1 = vld1q_u8(low + 32), bits = vld1q_u8(high);
    const uint8x16_t fours[4] = {vandq_u8(low0, nibble), vandq_u8(low1, nibble), vshrq_n_u8(low0, 4),
                                 vshrq_n_u8(low1, 4)};
    const uint8x16_t twos[4] = {vshlq_n_u8(bits, 4), vshlq_n_u8(bits, 2), bits, vshrq_n_u8(bits, 2)};
    for (int i = 0; i < 4; i++) {
        const uint8x16_t u6x16 = vorrq_u8(fours[i], vandq_u8(twos[i], pair));
        vst1q_s8(q + 32 * i, vsubq_s8(vreinterpretq_s8_u8(u6x16), vdupq_n_s8(32)));
    }
}

BL_INLINE void unpack_i6x128(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    unpack_i6x64(q, low, high);
    unpack_i6x64(q + 16, low + 16, high + 16);
}

BL_INLINE uint32_t largest_bits(const float *x, int64_t n)
{
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
    uint32x4_t max_u32x4 = vdupq_n_u32(0);
    int64_t k = 0;
    for (; k + 4 <= n; k += 4)
        max_u32x4 = vmaxq_u32(max_u32x4, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + k)), magnitude));
    const uint32_t max = vmaxvq_u32(max_u32x4), rest = bl_largest_bits(x + k, n - k);
    return rest > max ? rest : max;
}

BL_INLINE int16x8_t round_i16x8(const float *x, float32x4_t scale)
{
    const int32x4_t a = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x), scale));
    const int32x4_t b = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 4), scale));
    return vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
}

BL_INLINE void round_i8(int8_t *q, const float *x, int64_t n, float scale)
{
    const float32x4_t scale_f32x4 = vdupq_n_f32(scale);
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const int16x8_t a = round_i16x8(x + k, scale_f32x4), b = round_i16x8(x + k + 8, scale_f32x4);
        vst1q_s8(q + k, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
    }
    bl_round_i8(q + k, x + k, n - k, scale);
}
