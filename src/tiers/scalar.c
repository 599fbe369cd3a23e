/* Plain C for any CPU: the contract of every function of a tier, and its result bit for bit. Kernels run by their own
 * plain functions (see bl_kernel). */
#include "tiers/tier.h"

/* Sixteen float lanes: the unit in which every sum of floats runs. */
typedef struct { float lane[BL_LANES]; } f32x16;
#define EACH_LANE for (int j = 0; j < BL_LANES; j++)

BL_INLINE f32x16 zero(void)
{
    f32x16 v;
    EACH_LANE v.lane[j] = 0.0f;
    return v;
}
BL_INLINE f32x16 set1(float x)
{
    f32x16 v;
    EACH_LANE v.lane[j] = x;
    return v;
}
BL_INLINE f32x16 load(const float *p)
{
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
BL_INLINE void store(float *p, f32x16 v) { memcpy(p, &v, sizeof v); }
BL_INLINE f32x16 load_f16(const uint8_t *p)
{
    f32x16 v;
    EACH_LANE v.lane[j] = bl_from_f16(bl_load_u16(p + 2 * j));
    return v;
}
BL_INLINE f32x16 load_bf16(const uint8_t *p)
{
    f32x16 v;
    EACH_LANE v.lane[j] = bl_from_bf16(bl_load_u16(p + 2 * j));
    return v;
}
BL_INLINE f32x16 load_i8(const int8_t *p)
{
    f32x16 v;
    EACH_LANE v.lane[j] = (float)p[j];
    return v;
}
BL_INLINE f32x16 add(f32x16 a, f32x16 b)
{
    EACH_LANE a.lane[j] += b.lane[j];
    return a;
}
BL_INLINE f32x16 mul(f32x16 a, f32x16 b)
{
    EACH_LANE a.lane[j] *= b.lane[j];
    return a;
}
BL_INLINE float reduce(f32x16 v)
{
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) v.lane[j] += v.lane[j + width];
    return v.lane[0];
}

/* The larger of each two lanes, and the largest of sixteen: of numbers that are not NaN. Where they are 0 and -0, a
 * tier may give either. */
BL_INLINE f32x16 larger(f32x16 a, f32x16 b)
{
    EACH_LANE a.lane[j] = b.lane[j] > a.lane[j] ? b.lane[j] : a.lane[j];
    return a;
}
BL_INLINE float largest(f32x16 v)
{
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) v.lane[j] = v.lane[j + width] > v.lane[j] ? v.lane[j + width] : v.lane[j];
    return v.lane[0];
}
BL_INLINE void store_f16x16(uint16_t *p, f32x16 v) { EACH_LANE p[j] = bl_to_f16(v.lane[j]); }

BL_INLINE float f16(const uint8_t *p) { return bl_from_f16(bl_load_u16(p)); }
BL_INLINE void prefetch(const uint8_t *p) { (void)p; }
BL_INLINE void prefetch_near(const uint8_t *p) { (void)p; }

/* q (32) = the low nibbles of p (16), then the high ones, minus 8. */
BL_INLINE void unpack_i4x32(int8_t *q, const uint8_t *p)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) - 8);
        q[i + 16] = (int8_t)((p[i] >> 4) - 8);
    }
}

/* q (128) = 4 bits of low (64) and 2 bits of high (32) each, minus 32. */
BL_INLINE void unpack_i6x128(int8_t *q, const uint8_t *low, const uint8_t *high)
{
    for (int p = 0; p < 32; p++) {
        q[p] = (int8_t)(((low[p] & 15) | (high[p] & 3) << 4) - 32);
        q[p + 32] = (int8_t)(((low[p + 32] & 15) | (high[p] >> 2 & 3) << 4) - 32);
        q[p + 64] = (int8_t)((low[p] >> 4 | (high[p] >> 4 & 3) << 4) - 32);
        q[p + 96] = (int8_t)((low[p + 32] >> 4 | high[p] >> 6 << 4) - 32);
    }
}

/* The values of 16 rows, as the registers of codes. */
BL_INLINE void unit_values(int16_t values[4][64], const bl_type type, const uint8_t *codes)
{
    uint8_t q[4][64];
    bl_unit_registers(q, type, codes);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 64; i++) values[r][i] = (int16_t)(q[r][i] - (1 << bl_code_offset(type)));
}

enum { SCALES_AT_ONCE = 1, STRIP_TOKENS = 8 };

/* The scales of 16 rows of unit u, the first of which is `row`. */
BL_INLINE f32x16 unit_scales(const bl_type type, const bl_lane *lane, int64_t u, int row)
{
    const f32x16 scale = lane->scales ? load(lane->scales + BL_STRIP * u + row)
                                      : load_f16(lane->halves + u * lane->halves_step + 2 * row);
    return type == BL_Q6_K ? mul(load_i8((const int8_t *)lane->units + u * bl_unit_bytes(type) + row), scale) : scale;
}

/* The dot products of 16 rows with a group, exact. The loops let compilers vectorize without shuffles. */
BL_INLINE f32x16 unit_dot(int16_t values[4][64], const bl_fixed *x)
{
    int32_t high[64] = {0}, low[64] = {0};
    for (int r = 0; r < 4; r++) {
        int16_t x_high[8], x_low[8]; /* four columns, twice */
        for (int j = 0; j < 8; j++) {
            const int at = 4 * r + j % 4;
            x_high[j] = (int16_t)(x->digit[0][at] * 128 + x->digit[1][at]);
            x_low[j] = x->digit[2][at];
        }
        for (int i = 0; i < 64; i += 8)
            for (int j = 0; j < 8; j++) {
                high[i + j] += values[r][i + j] * x_high[j];
                low[i + j] += values[r][i + j] * x_low[j];
            }
    }
    for (int i = 0; i < 64; i++) low[i] += high[i] * 128;
    f32x16 dot;
    EACH_LANE dot.lane[j] = (float)(low[4 * j] + low[4 * j + 1] + low[4 * j + 2] + low[4 * j + 3]);
    return dot;
}

/* sums (n, 32) = what one lane of a strip adds up to, unit after unit, for n tokens, at most STRIP_TOKENS: the dot
 * product of each unit, exact, times its scale and the step of the activations. */
BL_INLINE void lane_sums(float *sums, const bl_type type, const bl_lane *lane, int64_t n)
{
    memset(sums, 0, (size_t)(n * BL_STRIP) * sizeof *sums);
    for (int64_t u = 0; u < lane->count; u++) {
        const uint8_t *codes = lane->units + u * bl_unit_bytes(type) + bl_unit_scales(type);
        for (int row = 0; row < BL_STRIP; row += BL_LANES, codes += bl_codes_bytes(type)) {
            int16_t values[4][64];
            unit_values(values, type, codes);
            const f32x16 scale = unit_scales(type, lane, u, row);
            for (int64_t t = 0; t < n; t++) {
                const bl_fixed *x = bl_lane_x(lane, u, t);
                float *sum = sums + BL_STRIP * t + row;
                const f32x16 scaled = mul(scale, set1(x->step));
                store(sum, add(load(sum), mul(unit_dot(values, x), scaled)));
            }
        }
    }
}

/* Largest |x| as float bits, NaN and infinity above every number. */
BL_INLINE uint32_t largest_bits(const float *x, int64_t n) { return bl_largest_bits(x, n); }

/* q = rint(x * scale) in [-128, 127]. */
BL_INLINE void round_i8(int8_t *q, const float *x, int64_t n, float scale) { bl_round_i8(q, x, n, scale); }

/* Sixteen sums of products of int8 in -127 .. 127. */
typedef struct { int32_t lane[BL_LANES]; } quad_sums;

/* Sums to which quads will be added that are multiplied with values of this sum. */
BL_INLINE quad_sums start_quads(int32_t sum)
{
    quad_sums v = {{0}};
    (void)sum;
    return v;
}
BL_INLINE quad_sums add_i32(quad_sums a, quad_sums b)
{
    EACH_LANE a.lane[j] += b.lane[j];
    return a;
}
/* Add the products of four of quads (16, 4) with values (4) to each sum. */
BL_INLINE quad_sums add_quads(quad_sums sum, const int8_t *quads, const int8_t *values)
{
    EACH_LANE
    for (int i = 0; i < 4; i++) sum.lane[j] += quads[4 * j + i] * values[i];
    return sum;
}
BL_INLINE f32x16 to_floats(quad_sums v)
{
    f32x16 x;
    EACH_LANE x.lane[j] = (float)v.lane[j];
    return x;
}

#include "shared/ops.h"

BL_INLINE uint64_t roof_word(const void *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Loads in the order of their addresses, a line or two at a time, which suits the hardware prefetcher best. */
static uint64_t roof_read(const uint8_t *data, int64_t bytes)
{
    uint64_t x[8] = {0};
    for (int64_t i = 0; i < bytes; i += 64)
        for (int j = 0; j < 8; j++) x[j] ^= roof_word(data + i + 8 * j);
    return x[0] ^ x[1] ^ x[2] ^ x[3] ^ x[4] ^ x[5] ^ x[6] ^ x[7];
}

/* A dot product of int16 within the first cache, which compilers vectorize well for the baseline. */
enum { ROOF_MACS = 1024 };

static uint64_t roof_multiply(int64_t rounds)
{
    int16_t a[ROOF_MACS], b[ROOF_MACS];
    uint32_t total = 0;
    for (int i = 0; i < ROOF_MACS; i++) {
        a[i] = (int16_t)(i % 127);
        b[i] = 1;
    }
    for (int64_t r = 0; r < rounds; r++) {
        int32_t sum = 0;
        for (int i = 0; i < ROOF_MACS; i++) sum += a[i] * b[i];
        total += (uint32_t)sum;
        b[r % ROOF_MACS] = (int16_t)(total & 1);
    }
    return total;
}

const bl_tier bl_tier_scalar = {
    .name = "scalar",
    .needs = 0,
    .dot = "",
    .batch = 128,
    TIER_OPS,
    .roof_read = roof_read,
    .roof_multiply = roof_multiply,
    .roof_macs = ROOF_MACS,
};
