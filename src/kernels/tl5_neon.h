/* Kernel tl5 by tbl. Included by the tiers neon and up, inside their target region.
 *
 * A sum T of five activations, -640 .. 635, is kept as two bytes, T = 32 high + low with low -16 .. 15. Complementing
 * both gives -T - 33, so each negative group adds 33: that is why the number of negatives is packed. Six groups add up
 * in a byte (6 * 21 is at most 126), which is then widened. A table is low (128 bytes) | high (128 bytes). */

enum { TL5_STEP = 6, TL5_NEGATIVE = 33 };

/* The narrow sums, as bl_sums has them: of a plane in a byte, then of both in 16 bits, where the complement of T is one
 * more. */
#define TL5_DIGITS {8, 21, TL5_STEP}
#define TL5_WORDS {16, 641, BL_TL5_BLOCK}

/* A byte of each lane from a table of 128, by two look-ups of 64: an index out of their range gives zero. */
BL_INLINE uint8x16_t look_up128(uint8x16x4_t low, uint8x16x4_t high, uint8x16_t index)
{
    return vorrq_u8(vqtbl4q_u8(low, index), vqtbl4q_u8(high, vsubq_u8(index, vdupq_n_u8(64))));
}

/* The magnitude of a value, and every bit set where it is negative. */
BL_INLINE uint8x16_t tl5_magnitude(uint8x16_t weights) { return vandq_u8(weights, vdupq_n_u8(0x7f)); }
BL_INLINE uint8x16_t tl5_negative(uint8x16_t weights)
{
    return vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(weights), 7));
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* Digits 0, 1 and 2 of v = -13 .. 18; those beyond 13 are not used. */
typedef struct { int16x8_t digit[3][4]; } tl5_weights;

BL_INLINE tl5_weights tl5_make_weights(void)
{
    tl5_weights w;
    int16_t digits[3][32];
    for (int i = 0; i < 32; i++) {
        digits[0][i] = (int16_t)(i % 3 - 1);
        digits[1][i] = (int16_t)(i / 3 % 3 - 1);
        digits[2][i] = (int16_t)(i / 9 % 3 - 1);
    }
    memcpy(&w, digits, sizeof w);
    return w;
}

/* Table of one group of five activations. A value is 27 times the upper two digits, 0 .. 4, plus the lower three; sums
 * are times 8, so that high and low are bytes, plus 128, so that low is not negative. */
BL_INLINE void tl5_table(uint8_t *table, const tl5_weights *w, const int8_t *q)
{
    const int upper[5] = {0, q[3], q[4] - q[3], q[4], q[4] + q[3]};
    int16_t sums[18 * 8]; /* of v = -13 and up; those beyond 121 are not used */
    vst1q_s16(sums + 17 * 8, vdupq_n_s16(0));
    int16x8_t lower[4];
    for (int i = 0; i < 4; i++) {
        lower[i] = vmlaq_n_s16(vdupq_n_s16(128), w->digit[0][i], (int16_t)(8 * q[0]));
        lower[i] = vmlaq_n_s16(lower[i], w->digit[1][i], (int16_t)(8 * q[1]));
        lower[i] = vmlaq_n_s16(lower[i], w->digit[2][i], (int16_t)(8 * q[2]));
    }
    for (int u = 0; u < 5; u++)
        for (int i = 0; i < 4; i++)
            vst1q_s16(sums + 27 * u + 8 * i, vaddq_s16(lower[i], vdupq_n_s16((int16_t)(8 * upper[u]))));
    for (int v = 0; v < BL_TL5_TABLE; v += 16) {
        const int8x16_t a = vreinterpretq_s8_s16(vld1q_s16(sums + 13 + v));
        const int8x16_t b = vreinterpretq_s8_s16(vld1q_s16(sums + 21 + v));
        const uint8x16_t low_u5x16 = vshrq_n_u8(vreinterpretq_u8_s8(vuzp1q_s8(a, b)), 3);
        vst1q_u8(table + v, vsubq_u8(low_u5x16, vdupq_n_u8(16)));
        vst1q_u8(table + BL_TL5_TABLE + v, vreinterpretq_u8_s8(vuzp2q_s8(a, b)));
    }
}

static void tl5_prepare_tables(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    const tl5_weights w = tl5_make_weights();
    for (; cols >= BL_TL5_GROUP; cols -= BL_TL5_GROUP, q += BL_TL5_GROUP, prepared += 2 * BL_TL5_TABLE)
        tl5_table(prepared, &w, q);
    if (cols) {
        int8_t last[BL_TL5_GROUP] = {0};
        memcpy(last, q, (size_t)cols);
        tl5_table(prepared, &w, last);
    }
}

/* Values in quad order, four groups at a time, and their sum; see bl_tl5_prepare_quads. */
static void tl5_prepare_quads(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    enum { STEP = 4 * BL_TL5_GROUP };
    uint8_t order[32]; /* in columns 0 .. 15 | 4 .. 19 */
    memset(order, 0xff, sizeof order);
    for (int i = 0; i < STEP; i++) {
        const int column = i % 4 * BL_TL5_GROUP + i / 4;
        order[i] = (uint8_t)(column < 16 ? column : column + 12);
    }
    const uint8x16_t order0 = vld1q_u8(order), order1 = vld1q_u8(order + 16);
    int32x4_t sum = vdupq_n_s32(0);
    int8_t last[STEP] = {0};
    uint8_t *to = prepared + sizeof(bl_prepared);
    for (; cols > 0; cols -= STEP, q += STEP, to += STEP) {
        if (cols < STEP) q = memcpy(last, q, (size_t)cols);
        const int8x16x2_t columns = {{vld1q_s8(q), vld1q_s8(q + 4)}};
        const int8x16_t quads = vqtbl2q_s8(columns, order0), fifth = vqtbl2q_s8(columns, order1);
        sum = vpadalq_s16(sum, vaddq_s16(vpaddlq_s8(quads), vpaddlq_s8(fifth)));
        vst1q_u8(to, vreinterpretq_u8_s8(quads));
        vst1q_lane_s32((int32_t *)(void *)(to + 16), vreinterpretq_s32_s8(fifth), 0);
    }
    const bl_prepared head = {.sum = vaddvq_s32(sum)};
    memcpy(prepared, &head, sizeof head);
}

static void tl5_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n == 1) tl5_prepare_tables(prepared, q, cols);
    else tl5_prepare_quads(prepared, q, cols);
}

/* ---- one token ------------------------------------------------------------------------------------------------- */

/* sum[v] += the sums of a plane of one group, for 16 rows each. */
BL_INLINE void tl5_look_up(int8x16_t sum[4], const uint8_t *plane, const uint8x16_t magnitude[4],
                           const uint8x16_t negative[4])
{
    const uint8x16x4_t first = vld1q_u8_x4(plane), second = vld1q_u8_x4(plane + 64);
    for (int v = 0; v < 4; v++) {
        const uint8x16_t found = veorq_u8(look_up128(first, second, magnitude[v]), negative[v]);
        sum[v] = vaddq_s8(sum[v], vreinterpretq_s8_u8(found));
    }
}

/* Up to six groups of a panel: sum[v] += those of its vector v. */
BL_INLINE void tl5_step(int16x8_t sum[4][2], const uint8_t *vectors, const uint8_t *tables, int64_t groups)
{
    int8x16_t low[4], high[4];
    for (int v = 0; v < 4; v++) low[v] = high[v] = vdupq_n_s8(0);
    for (int64_t g = 0; g < groups; g++, vectors += BL_PANEL, tables += 2 * BL_TL5_TABLE) {
        uint8x16_t magnitude[4], negative[4];
        prefetch_near(vectors + BL_AHEAD);
        for (int v = 0; v < 4; v++) {
            const uint8x16_t weights = vld1q_u8(vectors + 16 * v);
            magnitude[v] = tl5_magnitude(weights);
            negative[v] = tl5_negative(weights);
        }
        tl5_look_up(low, tables, magnitude, negative);
        tl5_look_up(high, tables + BL_TL5_TABLE, magnitude, negative);
    }
    for (int v = 0; v < 4; v++) {
        sum[v][0] = vaddw_s8(vaddq_s16(sum[v][0], vshll_n_s8(vget_low_s8(high[v]), 5)), vget_low_s8(low[v]));
        sum[v][1] = vaddw_high_s8(vaddq_s16(sum[v][1], vshll_high_n_s8(high[v], 5)), low[v]);
    }
}

/* dot (64) += one block of groups, whose sums are at most 48 * 641. */
BL_INLINE void tl5_block(int32_t *dot, const uint8_t *vectors, const uint8_t *tables, int64_t groups)
{
    enum { STEP = TL5_STEP };
    int16x8_t sum[4][2];
    for (int v = 0; v < 4; v++) sum[v][0] = sum[v][1] = vdupq_n_s16(0);
    for (int64_t g = 0; g < groups; g += STEP)
        tl5_step(sum, vectors + BL_PANEL * g, tables + 2 * BL_TL5_TABLE * g, groups - g < STEP ? groups - g : STEP);
    lut_add(dot, sum);
}

/* One token, panels [lo, hi). */
static void tl5_gemv(int32_t *dot, const uint8_t *packed, const uint8_t *tables, int64_t rows, int64_t cols, int64_t lo,
                     int64_t hi)
{
    for (int64_t p = lo; p < hi; p++) {
        int32_t negatives[BL_PANEL];
        memcpy(negatives, packed + p * (int64_t)sizeof negatives, sizeof negatives);
        for (int r = 0; r < BL_PANEL; r++) dot[BL_PANEL * (p - lo) + r] = TL5_NEGATIVE * negatives[r];
    }
    for (int64_t g = 0; g < bl_tl5_groups(cols); g += BL_TL5_BLOCK) {
        const int64_t groups = bl_tl5_block_groups(g, cols);
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, lo, g), *table = tables + 2 * BL_TL5_TABLE * g;
        for (int64_t p = lo; p < hi; p++, vectors += BL_PANEL * groups)
            tl5_block(dot + BL_PANEL * (p - lo), vectors, table, groups);
    }
}

/* ---- more tokens ------------------------------------------------------------------------------------------------ */

/* The codes of digits 0 .. 3 of each magnitude, digit k in bits 2 k and 2 k + 1. */
static void tl5_make_digits(uint8_t digits[BL_TL5_TABLE])
{
    for (int v = 0; v < BL_TL5_TABLE; v++) {
        uint8_t five[BL_TL5_GROUP];
        bl_tl5_unpack_byte(five, (uint8_t)(v > BL_TL5_MOST ? 0 : v));
        digits[v] = (uint8_t)(five[0] | five[1] << 2 | five[2] << 4 | five[3] << 6);
    }
}

/* 16 bytes of a row's group each to the same bytes of five quads. A negative value has 2 - code; digit 4 of a magnitude
 * is 1 from 41 on. */
BL_INLINE void tl5_decode_bytes(uint8_t *codes, uint8x16_t weights, const uint8x16x4_t digits[2])
{
    const uint8x16_t three = vdupq_n_u8(3), one = vdupq_n_u8(1);
    const uint8x16_t magnitude = tl5_magnitude(weights), negative = tl5_negative(weights);
    const uint8x16_t found = look_up128(digits[0], digits[1], magnitude);
    const uint8x16_t four = vbslq_u8(negative, vsubq_u8(vdupq_n_u8(0xaa), found), found);
    const uint8x16_t sign = vorrq_u8(negative, one);
    const uint8x16_t fifth = vaddq_u8(vandq_u8(vcgtq_u8(magnitude, vdupq_n_u8(40)), sign), one);
    vst1q_u8(codes, vandq_u8(four, three));
    vst1q_u8(codes + BL_QUAD_BYTES, vandq_u8(vshrq_n_u8(four, 2), three));
    vst1q_u8(codes + 2 * BL_QUAD_BYTES, vandq_u8(vshrq_n_u8(four, 4), three));
    vst1q_u8(codes + 3 * BL_QUAD_BYTES, vshrq_n_u8(four, 6));
    vst1q_u8(codes + 4 * BL_QUAD_BYTES, fifth);
}

/* One vector of four groups, transposed to 4 groups x 16 rows, to five quads. */
BL_INLINE void tl5_decode_vector(uint8_t *codes, const uint8x16_t group[4], const uint8x16x4_t digits[2])
{
    const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(group[0], group[1]));
    const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(group[2], group[3]));
    const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(group[0], group[1]));
    const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(group[2], group[3]));
    tl5_decode_bytes(codes, vreinterpretq_u8_u16(vzip1q_u16(low01, low23)), digits);
    tl5_decode_bytes(codes + 64, vreinterpretq_u8_u16(vzip2q_u16(low01, low23)), digits);
    tl5_decode_bytes(codes + 128, vreinterpretq_u8_u16(vzip1q_u16(high01, high23)), digits);
    tl5_decode_bytes(codes + 192, vreinterpretq_u8_u16(vzip2q_u16(high01, high23)), digits);
}

BL_INLINE void tl5_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    uint8_t bytes[BL_TL5_TABLE];
    tl5_make_digits(bytes);
    const uint8x16x4_t digits[2] = {vld1q_u8_x4(bytes), vld1q_u8_x4(bytes + 64)};
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t g = quad / 5 * 4; quads > 0; g += 4, quads -= 5, codes += 5 * BL_QUAD_BYTES) {
        const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
        for (int i = 0; i < 4; i++) prefetch(vectors + BL_PANEL * i + BL_AHEAD);
        for (int v = 0; v < 4; v++) {
            uint8x16_t group[4];
            for (int i = 0; i < 4; i++)
                group[i] = g + i < groups ? vld1q_u8(vectors + BL_PANEL * i + 16 * v) : vdupq_n_u8(0);
            tl5_decode_vector(codes + 16 * v, group, digits);
        }
    }
}

static void tl5_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n > 1) {
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols),
                      bl_tl5_token_bytes(cols, n), tl5_decode, panel_dot);
        return;
    }
    const int64_t whole = hi / BL_PANEL * BL_PANEL; /* rows of a last panel that is not full go through a buffer */
    if (lo < whole) tl5_gemv(dot + lo, packed, prepared, rows, cols, lo / BL_PANEL, whole / BL_PANEL);
    if (whole < hi) {
        int32_t last[BL_PANEL];
        tl5_gemv(last, packed, prepared, rows, cols, whole / BL_PANEL, whole / BL_PANEL + 1);
        memcpy(dot + whole, last, (size_t)(hi - whole) * sizeof *last);
    }
}

static const bl_cell tl5_cell = {.token_bytes = bl_tl5_token_bytes,
                                 .prepare = tl5_prepare,
                                 .gemm = tl5_gemm,
                                 .sums = {BL_CODE_MOST, 5, {TL5_DIGITS, TL5_WORDS, DOT_NARROW(PANEL_STEPS)}}};
