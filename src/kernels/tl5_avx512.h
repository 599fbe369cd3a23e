/* Kernel tl5 by vpermi2b, which looks up 64 rows in a table of 128 bytes and ignores the sign bit of its index.
 * Included by the tiers avx512 and amx inside their target regions.
 *
 * A sum T of five activations, -640 .. 635, is kept as two bytes, T = 32 high + low with low -16 .. 15. Complementing
 * both gives -T - 33, so each negative group adds 33: that is why the number of negatives is packed. Six groups add up
 * in a byte that starts at 128 (6 * 21 is at most 126), which is then widened. A table is low (128 bytes) | high (128
 * bytes). */

enum {
    TL5_STEP = 6,
    TL5_START = 128,
    TL5_NEGATIVE = 33,
    TL5_TILE = 8 /* tokens of a tile */
};

/* The narrow sums, as bl_sums has them: of a plane in a byte, then of both in 16 bits, where the complement of T is one
 * more. */
#define TL5_DIGITS {8, 21, TL5_STEP}
#define TL5_WORDS {16, 641, BL_TL5_BLOCK}

/* The weights of five activations in the sums of 128 values, plus 1, as vpmaddubsw takes them: by pairs of activations
 * (the last pair has one), by vector of 32 sums. Sums of one vector are out of order, so that vpacksswb restores it. */
typedef struct { __m512i pair[3][4]; } tl5_weights;

BL_INLINE tl5_weights tl5_make_weights(void)
{
    tl5_weights w;
    uint8_t bytes[3][4][64];
    for (int vector = 0; vector < 4; vector++)
        for (int j = 0; j < 32; j++) {
            const int v = vector / 2 * 64 + j / 8 * 16 + vector % 2 * 8 + j % 8;
            uint8_t codes[BL_TL5_GROUP + 1] = {0};
            bl_tl5_unpack_byte(codes, (uint8_t)(v > BL_TL5_MOST ? 0 : v));
            for (int k = 0; k < 6; k++) bytes[k / 2][vector][2 * j + k % 2] = codes[k];
        }
    memcpy(&w, bytes, sizeof w);
    return w;
}

/* Tables of one group of five activations; the byte behind them is read too. */
BL_INLINE void tl5_table(uint8_t *table, const tl5_weights *w, const int8_t *q)
{
    const int sum = q[0] + q[1] + q[2] + q[3] + q[4];
    int16_t pairs[3];
    memcpy(pairs, q, sizeof pairs);
    const __m512i q01 = _mm512_set1_epi16(pairs[0]), q23 = _mm512_set1_epi16(pairs[1]);
    const __m512i q4 = _mm512_set1_epi16(pairs[2]), offset = _mm512_set1_epi16((short)(16 - sum));
    const __m512i five_bits = _mm512_set1_epi16(31), sixteen = _mm512_set1_epi16(16);
    __m512i low[4], high[4];
    for (int i = 0; i < 4; i++) {
        const __m512i first = _mm512_add_epi16(_mm512_maddubs_epi16(w->pair[0][i], q01), offset);
        const __m512i rest =
            _mm512_add_epi16(_mm512_maddubs_epi16(w->pair[1][i], q23), _mm512_maddubs_epi16(w->pair[2][i], q4));
        const __m512i t16 = _mm512_add_epi16(first, rest); /* T + 16 */
        high[i] = _mm512_srai_epi16(t16, 5);
        low[i] = _mm512_sub_epi16(_mm512_and_si512(t16, five_bits), sixteen);
    }
    _mm512_storeu_si512(table, _mm512_packs_epi16(low[0], low[1]));
    _mm512_storeu_si512(table + 64, _mm512_packs_epi16(low[2], low[3]));
    _mm512_storeu_si512(table + 128, _mm512_packs_epi16(high[0], high[1]));
    _mm512_storeu_si512(table + 192, _mm512_packs_epi16(high[2], high[3]));
}

/* Tables of the groups [lo, hi) of one token. */
static void tl5_prepare_tables(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t lo, int64_t hi)
{
    const tl5_weights w = tl5_make_weights();
    const int64_t last = bl_tl5_groups(cols) - 1;
    for (int64_t g = lo; g < hi; g++) {
        int8_t six[6] = {0};
        const int8_t *from = q + BL_TL5_GROUP * g;
        if (g == last) from = memcpy(six, from, (size_t)(cols - g * BL_TL5_GROUP));
        tl5_table(prepared + 2 * BL_TL5_TABLE * g, &w, from);
    }
}

/* Values in quad order, 12 groups (60 columns, 15 quads) in a register; see bl_tl5_prepare_quads. */
static void tl5_prepare_quads(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    uint8_t order[64] = {0};
    for (int i = 0; i < 60; i++) order[i] = (uint8_t)(i / 20 * 20 + i % 4 * BL_TL5_GROUP + i % 20 / 4);
    const __m512i order_u8x64 = _mm512_loadu_si512(order), ones = _mm512_set1_epi8(1);
    const int64_t values = 4 * bl_tl5_quads(cols);
    __m512i sum_i32x16 = _mm512_setzero_si512();
    uint8_t *to = prepared + sizeof(bl_prepared);
    for (int64_t k = 0; k < values; k += 60) {
        const int64_t here = cols - k < 60 ? cols - k : 60, room = values - k < 60 ? values - k : 60;
        const __m512i i8x64 = _mm512_maskz_loadu_epi8(here > 0 ? ~0ull >> (64 - here) : 0, q + k);
        sum_i32x16 = _mm512_dpbusd_epi32(sum_i32x16, ones, i8x64);
        _mm512_mask_storeu_epi8(to + k, ~0ull >> (64 - room), _mm512_permutexvar_epi8(order_u8x64, i8x64));
    }
    const bl_prepared head = {.sum = _mm512_reduce_add_epi32(sum_i32x16)};
    memcpy(prepared, &head, sizeof head);
}

static int64_t tl5_token_bytes(int64_t cols, int64_t n) { return bl_tl5_token_bytes(cols, n <= BL_OWN_TOKENS ? 1 : n); }

static void tl5_prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n <= BL_OWN_TOKENS) tl5_prepare_tables(prepared, q, cols, 0, bl_tl5_groups(cols));
    else tl5_prepare_quads(prepared, q, cols);
}

/* ---- look-ups --------------------------------------------------------------------------------------------------- */

/* Sums of up to a block of groups for 64 rows: unsigned bytes, and 16 bits of the even rows, with 256 times those of
 * the odd ones mixed in, and of the odd ones. All of them wrap; the final result fits. */
typedef struct { __m512i low, high, even_low, even_high, odd_low, odd_high; } tl5_sum;

/* Add one group of 64 rows to the bytes. negative: all bits of the rows whose weights are. */
BL_INLINE void tl5_look_up(tl5_sum *s, __m512i weights, __m512i negative, const __m512i table[4])
{
    const __m512i low = _mm512_permutex2var_epi8(table[0], weights, table[1]);
    const __m512i high = _mm512_permutex2var_epi8(table[2], weights, table[3]);
    s->low = _mm512_add_epi8(s->low, _mm512_xor_si512(low, negative));
    s->high = _mm512_add_epi8(s->high, _mm512_xor_si512(high, negative));
}

BL_INLINE void tl5_widen(tl5_sum *s)
{
    s->even_low = _mm512_add_epi16(s->even_low, s->low);
    s->even_high = _mm512_add_epi16(s->even_high, s->high);
    s->odd_low = _mm512_add_epi16(s->odd_low, _mm512_srli_epi16(s->low, 8));
    s->odd_high = _mm512_add_epi16(s->odd_high, _mm512_srli_epi16(s->high, 8));
    s->low = s->high = _mm512_set1_epi8((char)TL5_START);
}

/* dot (64) += the sums of a block, at most 48 * 641, widened in that many steps, in natural order of rows. */
BL_INLINE void tl5_finish(int32_t *dot, const tl5_sum *s, int64_t steps)
{
    const __m512i start = _mm512_set1_epi16((short)(uint16_t)(TL5_START * 33 * steps));
    const __m512i mixed = _mm512_add_epi16(s->even_low, _mm512_slli_epi16(s->even_high, 5));
    const __m512i high = _mm512_add_epi16(s->odd_low, _mm512_slli_epi16(s->odd_high, 5));
    const __m512i even = _mm512_sub_epi16(_mm512_sub_epi16(mixed, _mm512_slli_epi16(high, 8)), start);
    const __m512i odd = _mm512_sub_epi16(high, start);
    const __m512i first = _mm512_unpacklo_epi16(even, odd), second = _mm512_unpackhi_epi16(even, odd);
    const __m512i wide[4] = {_mm512_unpacklo_epi16(first, first), _mm512_unpackhi_epi16(first, first),
                             _mm512_unpacklo_epi16(second, second), _mm512_unpackhi_epi16(second, second)};
    for (int v = 0; v < 4; v++) {
        const __m512i before = _mm512_loadu_si512(dot + 16 * v);
        _mm512_storeu_si512(dot + 16 * v, _mm512_add_epi32(before, _mm512_srai_epi32(wide[v], 16)));
    }
}

/* Up to six groups of neighboring panels, whose vectors are stride bytes apart; weights are prefetched from ahead on,
 * in the order of their addresses. */
BL_INLINE void tl5_step(tl5_sum sum[2][2], const uint8_t *vectors, int64_t stride, const uint8_t *tables,
                        int64_t token_bytes, const uint8_t *ahead, int64_t groups, const int tokens, const int panels)
{
    const __m512i spread = _mm512_set1_epi64((long long)0x8080808080808080ull); /* bit 7 to every bit */
    for (int64_t g = 0; g < groups; g++) {
        __m512i weights[2], negative[2], table[4];
        for (int p = 0; p < panels; p++) {
            prefetch_near(ahead + BL_PANEL * (panels * g + p));
            weights[p] = lut_kept(_mm512_loadu_si512(vectors + p * stride + BL_PANEL * g));
            negative[p] = _mm512_gf2p8affine_epi64_epi8(weights[p], spread, 0);
        }
        for (int t = 0; t < tokens; t++) {
            for (int i = 0; i < 4; i++)
                table[i] = lut_kept(_mm512_loadu_si512(tables + t * token_bytes + 2 * BL_TL5_TABLE * g + 64 * i));
            for (int p = 0; p < panels; p++) tl5_look_up(&sum[t][p], weights[p], negative[p], table);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) tl5_widen(&sum[t][p]);
}

/* dot (tokens, panels, 64) += one block of groups of neighboring panels. ahead: weights to prefetch. */
BL_INLINE void tl5_block(int32_t *dot, int64_t dot_stride, const uint8_t *vectors, const uint8_t *tables,
                         int64_t token_bytes, int64_t groups, const uint8_t *ahead, const int tokens, const int panels)
{
    enum { STEP = TL5_STEP, TABLE = 2 * BL_TL5_TABLE };
    const __m512i zero = _mm512_setzero_si512(), start = _mm512_set1_epi8((char)TL5_START);
    const int64_t stride = BL_PANEL * groups;
    tl5_sum sum[2][2];
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) sum[t][p] = (tl5_sum){start, start, zero, zero, zero, zero};
    for (int64_t g = 0; g < groups; g += STEP)
        tl5_step(sum, vectors + BL_PANEL * g, stride, tables + TABLE * g, token_bytes, ahead + BL_PANEL * panels * g,
                 groups - g < STEP ? groups - g : STEP, tokens, panels);
    const int64_t steps = (groups + STEP - 1) / STEP;
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) tl5_finish(dot + t * dot_stride + BL_PANEL * p, &sum[t][p], steps);
}

/* dot (panels, 64) of the count panels from this one on = 33 for each negative group, which the complements lack. */
BL_INLINE void tl5_begin(int32_t *dot, const uint8_t *packed, int64_t panel, int64_t count)
{
    memcpy(dot, packed + panel * BL_PANEL * (int64_t)sizeof *dot, (size_t)(count * BL_PANEL) * sizeof *dot);
    for (int64_t r = 0; r < count * BL_PANEL; r++) dot[r] *= TL5_NEGATIVE;
}

/* dot (n, panels [lo, hi), 64) += one block of groups from g on. next: the weights that are read after these. */
static void tl5_sweep(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *tables, int64_t rows,
                      int64_t cols, int64_t g, int64_t lo, int64_t hi, const uint8_t *next, int64_t n)
{
    const int64_t groups = bl_tl5_block_groups(g, cols), token_bytes = tl5_token_bytes(cols, n);
    const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, lo, g);
    const uint8_t *end = packed + bl_tl5_offset(rows, cols, hi, g);
    tables += 2 * BL_TL5_TABLE * g;
    for (int64_t p = lo; p < hi; p += 2, dot += 2 * BL_PANEL, vectors += 2 * BL_PANEL * groups) {
        const int64_t beyond = BL_AHEAD - (end - vectors);
        const uint8_t *ahead = beyond < 0 ? end + beyond : next + beyond;
#define BL_PANELS(tokens, panels)                                                                                      \
    tl5_block(dot, dot_stride, vectors, tables, token_bytes, groups, ahead, tokens, panels)
        if (n == 1 && hi - p > 1) BL_PANELS(1, 2);
        else if (n == 1) BL_PANELS(1, 1);
        else if (hi - p > 1) BL_PANELS(2, 2);
        else BL_PANELS(2, 1);
#undef BL_PANELS
    }
}

/* One token or two and panels [lo, hi), all of whose rows dot has room for. Behind the end of these panels come those
 * of the next block; behind the last block, most likely another matrix. */
static void tl5_look_ups(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *tables, int64_t rows,
                         int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t t = 0; t < n; t++) tl5_begin(dot + t * dot_stride, packed, lo, hi - lo);
    for (int64_t g = 0, following; g < groups; g = following) {
        following = g + bl_tl5_block_groups(g, cols);
        const int64_t next =
            following < groups ? bl_tl5_offset(rows, cols, lo, following) : bl_tl5_offset(rows, cols, hi, g);
        tl5_sweep(dot, dot_stride, packed, tables, rows, cols, g, lo, hi, packed + next, n);
    }
}

/* Rows of a last panel that is not full go through a buffer. */
static void tl5_gemv(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *tables, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const int64_t end = hi / BL_PANEL, whole = end * BL_PANEL;
    if (lo < whole) tl5_look_ups(dot + lo, dot_stride, packed, tables, rows, cols, lo / BL_PANEL, end, n);
    if (whole == hi) return;
    int32_t last[BL_OWN_TOKENS][BL_PANEL];
    tl5_look_ups(last[0], BL_PANEL, packed, tables, rows, cols, end, end + 1, n);
    for (int64_t t = 0; t < n; t++) memcpy(dot + t * dot_stride + whole, last[t], (size_t)(hi - whole) * sizeof **last);
}

/* ---- look-ups by columns ----------------------------------------------------------------------------------------- */

/* Where the shares of two workers meet: at a pair of panels in the block that starts with this group. */
typedef struct { int64_t group, panel; } tl5_border;

/* Where the share of a worker starts; the last one's ends where that of the worker after it would. */
BL_INLINE tl5_border tl5_share_start(int64_t panels, int64_t cols, int worker, int workers)
{
    const int64_t groups = bl_tl5_groups(cols), at = groups * worker / workers;
    if (at == groups) return (tl5_border){groups, 0};
    const int64_t start = at / BL_TL5_BLOCK * BL_TL5_BLOCK;
    return (tl5_border){start, (at - start) * panels / bl_tl5_block_groups(start, cols) / 2 * 2};
}

/* Whole blocks, as matrices with other numbers of panels part them elsewhere. */
static void tl5_prepare_share(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n, int worker, int workers)
{
    (void)n;
    const int64_t groups = bl_tl5_groups(cols), end = bl_round_up(groups * (worker + 1) / workers, BL_TL5_BLOCK);
    const int64_t start = groups * worker / workers / BL_TL5_BLOCK * BL_TL5_BLOCK;
    tl5_prepare_tables(prepared, q, cols, start, end < groups ? end : groups);
}

/* The weights of a share follow each other in memory. Read by rows, each block of them is a piece of its own, and what
 * the processor fetches behind its end is fetched for nothing: two threads lose a tenth of the bandwidth to it at 6912
 * rows, and a quarter at 640 (Zen 5). */
static void tl5_gemm_share(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                           int64_t rows, int64_t cols, int64_t n, int worker, int workers)
{
    const int64_t panels = bl_panels(rows);
    const tl5_border start = tl5_share_start(panels, cols, worker, workers);
    const tl5_border end = tl5_share_start(panels, cols, worker + 1, workers);
    for (int64_t t = 0; t < n; t++) {
        if (worker == 0) tl5_begin(dot + t * dot_stride, packed, 0, panels);
        else memset(dot + t * dot_stride, 0, (size_t)(panels * BL_PANEL) * sizeof *dot);
    }
    for (int64_t g = start.group; g < end.group || (g == end.group && end.panel); g += BL_TL5_BLOCK) {
        const int64_t lo = g == start.group ? start.panel : 0, hi = g == end.group ? end.panel : panels;
        const uint8_t *next = packed + bl_tl5_offset(rows, cols, hi, g);
        tl5_sweep(dot + BL_PANEL * lo, dot_stride, packed, prepared, rows, cols, g, lo, hi, next, n);
    }
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Four groups of 32 rows, those of one half of a panel, transposed: bytes of 16 rows x 4 groups. */
BL_INLINE void tl5_transpose(__m512i bytes[2], const __m512i group[4], const int half)
{
    const __m512i g01 = half ? _mm512_unpackhi_epi8(group[0], group[1]) : _mm512_unpacklo_epi8(group[0], group[1]);
    const __m512i g23 = half ? _mm512_unpackhi_epi8(group[2], group[3]) : _mm512_unpacklo_epi8(group[2], group[3]);
    bytes[0] = _mm512_unpacklo_epi16(g01, g23);
    bytes[1] = _mm512_unpackhi_epi16(g01, g23);
}

/* The codes of bytes, or of the values 0 .. 127: four of two bits, and the fifth. Where dots keep two pipes busy, a
 * look-up costs more than shifting and masking (Zen 4). */
typedef struct { __m512i four, fifth; } tl5_codes;
typedef struct { tl5_codes first, second; } tl5_decoder;

BL_INLINE tl5_decoder tl5_make_decoder(void)
{
    uint8_t four[BL_TL5_TABLE], fifth[BL_TL5_TABLE];
    for (int v = 0; v < BL_TL5_TABLE; v++) {
        uint8_t codes[BL_TL5_GROUP];
        bl_tl5_unpack_byte(codes, (uint8_t)(v > BL_TL5_MOST ? 0 : v));
        four[v] = (uint8_t)(codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6);
        fifth[v] = codes[4];
    }
    return (tl5_decoder){{_mm512_loadu_si512(four), _mm512_loadu_si512(fifth)},
                         {_mm512_loadu_si512(four + 64), _mm512_loadu_si512(fifth + 64)}};
}

/* A negative value has 2 - code. */
BL_INLINE tl5_codes tl5_decode_bytes(__m512i bytes, const tl5_decoder *decoder)
{
    const __mmask64 negative = _mm512_movepi8_mask(bytes);
    const __m512i four = _mm512_permutex2var_epi8(decoder->first.four, bytes, decoder->second.four);
    const __m512i fifth = _mm512_permutex2var_epi8(decoder->first.fifth, bytes, decoder->second.fifth);
    return (tl5_codes){_mm512_mask_sub_epi8(four, negative, _mm512_set1_epi8((char)0xaa), four),
                       _mm512_mask_sub_epi8(fifth, negative, _mm512_set1_epi8(2), fifth)};
}

BL_INLINE __m512i tl5_code(const tl5_codes *codes, const int k)
{
    if (k == BL_TL5_GROUP - 1) return codes->fifth;
    return _mm512_and_si512(_mm512_srli_epi16(codes->four, (unsigned)(2 * k)), _mm512_set1_epi8(3));
}

/* Load up to four groups; those that do not exist are zero. */
BL_INLINE void tl5_load(__m512i group[4], const uint8_t *vectors, int64_t groups)
{
    for (int i = 0; i < 4; i++)
        group[i] = i < groups ? _mm512_loadu_si512(vectors + BL_PANEL * i) : _mm512_setzero_si512();
}

/* sum (tokens, 16 vectors rows) += four groups of a panel, or of its second half, times five quads of each token. */
BL_INLINE void tl5_add(__m512i sum[][4], const __m512i group[4], const uint8_t *values, int64_t token_bytes,
                       const tl5_decoder *decoder, const int half, const int tokens, const int vectors)
{
    __m512i bytes[4];
    tl5_codes codes[4];
    tl5_transpose(bytes, group, half);
    if (vectors == 4) tl5_transpose(bytes + 2, group, 1);
    for (int v = 0; v < vectors; v++) codes[v] = tl5_decode_bytes(bytes[v], decoder);
    for (int k = 0; k < BL_TL5_GROUP; k++) {
        __m512i code[4];
        for (int v = 0; v < vectors; v++) code[v] = tl5_code(&codes[v], k);
        for (int t = 0; t < tokens; t++) {
            const __m512i q = broadcast_quad(values + t * token_bytes + 4 * k);
            for (int v = 0; v < vectors; v++) sum[t][v] = dpbusd(sum[t][v], code[v], q);
        }
    }
}

/* A few tokens times the rows of a panel, or of half of it; count rows of the panel are wanted. The same part of the
 * next panel is prefetched, and for a first panel, which nobody has prefetched, its own next block. */
BL_INLINE void tl5_tile(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *values, int64_t rows,
                        int64_t cols, int64_t panel, int first, int64_t count, int64_t token_bytes,
                        const tl5_decoder *decoder, const int half, const int tokens, const int vectors)
{
    const int64_t groups = bl_tl5_groups(cols);
    __m512i sum[TL5_TILE][4], group[4];
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < vectors; v++) sum[t][v] = _mm512_setzero_si512();
    for (int64_t begin = 0; begin < groups; begin += BL_TL5_BLOCK) {
        const int64_t here = bl_tl5_block_groups(begin, cols);
        const uint8_t *block = packed + bl_tl5_offset(rows, cols, panel, begin);
        const uint8_t *q = values + BL_TL5_GROUP * begin, *ahead = block + BL_PANEL * (here + 2 * half);
        const uint8_t *following = NULL;
        if (first && begin + here < groups) following = packed + bl_tl5_offset(rows, cols, panel, begin + here);
        int64_t g = 0;
        for (; g + 4 <= here; g += 4) {
            for (int i = 0; i < vectors; i++) prefetch_near(ahead + BL_PANEL * (g + i));
            for (int i = 0; following && i < 4; i++) prefetch_near(following + BL_PANEL * (g + i));
            tl5_load(group, block + BL_PANEL * g, 4);
            tl5_add(sum, group, q + BL_TL5_GROUP * g, token_bytes, decoder, half, tokens, vectors);
        }
        if (g == here) continue;
        tl5_load(group, block + BL_PANEL * g, here - g);
        tl5_add(sum, group, q + BL_TL5_GROUP * g, token_bytes, decoder, half, tokens, vectors);
    }
    for (int t = 0; t < tokens; t++) {
        const __m512i total = _mm512_set1_epi32(token_sum(values + t * token_bytes));
        for (int v = 0; v < vectors; v++) {
            const int64_t row = 32 * half + 16 * v, left = count - row;
            const __mmask16 wanted = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
            _mm512_mask_storeu_epi32(dot + t * dot_stride + row, wanted, _mm512_sub_epi32(sum[t][v], total));
        }
    }
}

/* Tiles of up to TL5_TILE tokens: the whole panel where registers hold its sums, else one half after the other. */
static void tl5_tiles(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                      int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    const tl5_decoder decoder = tl5_make_decoder();
    const int64_t token_bytes = tl5_token_bytes(cols, n);
#define BL_TILE(half, tokens, vectors)                                                                                 \
    tl5_tile(dot + t * dot_stride + row, dot_stride, packed, prepared + sizeof(bl_prepared) + t * token_bytes, rows,   \
             cols, row / BL_PANEL, row == lo && t == 0, hi - row, token_bytes, &decoder, half, tokens, vectors)
#define BL_HALVES(tokens) BL_TILE(0, tokens, 2), BL_TILE(1, tokens, 2)
    for (int64_t row = lo; row < hi; row += BL_PANEL)
        for (int64_t t = 0, tokens; t < n; t += tokens) {
            tokens = bl_even_share(n - t, TL5_TILE);
            switch (tokens) {
            case 3: BL_TILE(0, 3, 4); break;
            case 4: BL_TILE(0, 4, 4); break;
            case 5: BL_HALVES(5); break;
            case 6: BL_HALVES(6); break;
            case 7: BL_HALVES(7); break;
            default: BL_HALVES(8); break;
            }
        }
#undef BL_HALVES
#undef BL_TILE
}

BL_INLINE void tl5_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                          int64_t quad, int64_t quads)
{
    const tl5_decoder decoder = tl5_make_decoder();
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t g = quad / 5 * 4; quads > 0; g += 4, quads -= 5, codes += 5 * BL_QUAD_BYTES) {
        const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
        __m512i group[4], bytes[4];
        tl5_load(group, vectors, groups - g);
        for (int i = 0; i < 4; i++) prefetch(vectors + BL_PANEL * i + BL_AHEAD);
        tl5_transpose(bytes, group, 0);
        tl5_transpose(bytes + 2, group, 1);
        for (int v = 0; v < 4; v++) {
            const tl5_codes decoded = tl5_decode_bytes(bytes[v], &decoder);
            for (int k = 0; k < BL_TL5_GROUP; k++)
                _mm512_storeu_si512(codes + BL_QUAD_BYTES * k + 64 * v, tl5_code(&decoded, k));
        }
    }
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

static void tl5_gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                     int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n <= BL_OWN_TOKENS) tl5_gemv(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n);
    else if (n <= TL5_IN_TILES) tl5_tiles(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n);
    else
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols),
                      tl5_token_bytes(cols, n), tl5_decode, panel_dot);
}

static const bl_cell tl5_cell = {.token_bytes = tl5_token_bytes,
                                 .prepare = tl5_prepare,
                                 .gemm = tl5_gemm,
                                 .sums = {BL_CODE_MOST, 5, {TL5_DIGITS, TL5_WORDS}},
                                 .prepare_share = tl5_prepare_share,
                                 .gemm_share = tl5_gemm_share};
