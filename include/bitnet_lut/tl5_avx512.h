/* Kernel tl5 by vpermi2b, which looks up 64 rows in a table of 128 bytes and ignores the sign bit of its index. Included
 * by avx512.h inside its target region.
 *
 * A sum T of five activations, -640 .. 635, is kept as two bytes, T = 32 high + low with low -16 .. 15. Negating is
 * complementing both, and 33 less per group: that constant is what the count of negatives is for. Six groups add up in
 * a byte that starts at 128 (6 * 21 and 6 * 16 at most 126); only then is it widened. A table is low (128 bytes) | high
 * (128 bytes). */

enum {
    BL_FN(TL5_STEP) = 6,
    BL_FN(TL5_START) = 128,
    BL_FN(TL5_NEGATIVE) = 33,
    BL_FN(TL5_TABLES) = 2 * BL_TL5_TABLE * BL_TL5_BLOCK, /* bytes of those of a block */
    BL_FN(TL5_TOKENS) = 8,     /* whose tables of a block lie on the stack */
    BL_FN(TL5_LOOKED_UP) = 32, /* tokens, most for which look-ups can be faster than decoding */
    BL_FN(TL5_PANELS) = 12     /* whose weights of a block stay in the nearest cache while every token passes */
};

/* The weights of five activations in the sums of 128 values, plus 1, as vpmaddubsw takes them: by pairs of activations
 * (the last pair has one), by vector of 32 sums. Sums of one vector are out of order, so that vpacksswb restores it. */
typedef struct { __m512i pair[3][4]; } BL_FN(tl5_weights);

BL_INLINE BL_FN(tl5_weights) BL_FN(tl5_make_weights)(void)
{
    BL_FN(tl5_weights) w;
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

/* Tables of one group of five activations, of which sum is the sum. */
BL_INLINE void BL_FN(tl5_table)(uint8_t *table, const BL_FN(tl5_weights) *w, const int8_t *q, int sum)
{
    int16_t pairs[3];
    memcpy(pairs, q, sizeof pairs);
    const __m512i q01 = _mm512_set1_epi16(pairs[0]), q23 = _mm512_set1_epi16(pairs[1]);
    const __m512i q4 = _mm512_set1_epi16(pairs[2]), offset = _mm512_set1_epi16((short)(16 - sum));
    const __m512i five_bits = _mm512_set1_epi16(31), sixteen = _mm512_set1_epi16(16);
    __m512i low[4], high[4];
    for (int i = 0; i < 4; i++) {
        const __m512i first = _mm512_add_epi16(_mm512_maddubs_epi16(w->pair[0][i], q01), offset);
        const __m512i rest = _mm512_add_epi16(_mm512_maddubs_epi16(w->pair[1][i], q23),
                                              _mm512_maddubs_epi16(w->pair[2][i], q4));
        const __m512i t16 = _mm512_add_epi16(first, rest); /* T + 16 */
        high[i] = _mm512_srai_epi16(t16, 5);
        low[i] = _mm512_sub_epi16(_mm512_and_si512(t16, five_bits), sixteen);
    }
    _mm512_storeu_si512(table, _mm512_packs_epi16(low[0], low[1]));
    _mm512_storeu_si512(table + 64, _mm512_packs_epi16(low[2], low[3]));
    _mm512_storeu_si512(table + 128, _mm512_packs_epi16(high[0], high[1]));
    _mm512_storeu_si512(table + 192, _mm512_packs_epi16(high[2], high[3]));
}

/* Tables of all groups of one token. */
static void BL_FN(tl5_prepare_tables)(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    const BL_FN(tl5_weights) w = BL_FN(tl5_make_weights)();
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t g = 0; g < groups; g++, prepared += 2 * BL_TL5_TABLE, q += BL_TL5_GROUP) {
        int8_t six[6] = {0};
        const int8_t *from = q;
        if (g == groups - 1) {
            memcpy(six, q, (size_t)(cols - g * BL_TL5_GROUP));
            from = six;
        }
        BL_FN(tl5_table)(prepared, &w, from, from[0] + from[1] + from[2] + from[3] + from[4]);
    }
}

/* Tables of a block of one of several tokens, whose values of that block are in quad order: 20 of four groups. */
static void BL_FN(tl5_block_tables)(uint8_t *tables, const BL_FN(tl5_weights) *w, const uint8_t *values, int64_t groups)
{
    uint8_t order[64] = {0};
    int8_t q[BL_TL5_BLOCK * BL_TL5_GROUP + 64];
    for (int i = 0; i < 60; i++) order[i / 20 * 20 + i % 4 * BL_TL5_GROUP + i % 20 / 4] = (uint8_t)i;
    const __m512i order_u8x64 = _mm512_loadu_si512(order);
    const int64_t count = bl_round_up(groups, 4) * BL_TL5_GROUP;
    for (int64_t k = 0; k < count; k += 60) {
        const __mmask64 here = ~0ull >> (64 - (count - k < 60 ? count - k : 60));
        const __m512i i8x64 = _mm512_maskz_loadu_epi8(here, values + k);
        _mm512_storeu_si512(q + k, _mm512_permutexvar_epi8(order_u8x64, i8x64));
    }
    for (int64_t g = 0; g < groups; g++, tables += 2 * BL_TL5_TABLE) {
        const int8_t *five = q + BL_TL5_GROUP * g;
        BL_FN(tl5_table)(tables, w, five, five[0] + five[1] + five[2] + five[3] + five[4]);
    }
}

/* Values in quad order, 12 groups (60 columns, 15 quads) in a register; see bl_tl5_prepare_quads. */
static void BL_FN(tl5_prepare_quads)(uint8_t *prepared, const int8_t *q, int64_t cols)
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

static void BL_FN(tl5_prepare)(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n == 1) BL_FN(tl5_prepare_tables)(prepared, q, cols);
    else BL_FN(tl5_prepare_quads)(prepared, q, cols);
}

/* ---- look-ups --------------------------------------------------------------------------------------------------- */

/* Sums of up to a block of groups for 64 rows: unsigned bytes, and 16 bits of the even rows, with 256 times those of the
 * odd ones mixed in, and of the odd ones. All wrap; what comes out in the end fits. */
typedef struct { __m512i low, high, even_low, even_high, odd_low, odd_high; } BL_FN(tl5_sum);

/* Add one group of 64 rows to the bytes. negative: all bits of the rows whose weights are. */
BL_INLINE void BL_FN(tl5_look_up)(BL_FN(tl5_sum) *s, __m512i weights, __m512i negative, const __m512i table[4])
{
    const __m512i low = _mm512_permutex2var_epi8(table[0], weights, table[1]);
    const __m512i high = _mm512_permutex2var_epi8(table[2], weights, table[3]);
    s->low = _mm512_add_epi8(s->low, _mm512_xor_si512(low, negative));
    s->high = _mm512_add_epi8(s->high, _mm512_xor_si512(high, negative));
}

BL_INLINE void BL_FN(tl5_widen)(BL_FN(tl5_sum) *s)
{
    s->even_low = _mm512_add_epi16(s->even_low, s->low);
    s->even_high = _mm512_add_epi16(s->even_high, s->high);
    s->odd_low = _mm512_add_epi16(s->odd_low, _mm512_srli_epi16(s->low, 8));
    s->odd_high = _mm512_add_epi16(s->odd_high, _mm512_srli_epi16(s->high, 8));
    s->low = s->high = _mm512_set1_epi8((char)BL_FN(TL5_START));
}

/* dot (64) += the sums of a block, at most 48 * 641, widened in that many steps, in natural order of rows. */
BL_INLINE void BL_FN(tl5_finish)(int32_t *dot, const BL_FN(tl5_sum) *s, int64_t steps)
{
    const __m512i start = _mm512_set1_epi16((short)(uint16_t)(BL_FN(TL5_START) * 33 * steps));
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

/* Up to six groups of neighbouring panels, whose vectors are stride bytes apart; what is ahead is fetched in the order
 * of its addresses. */
BL_INLINE void BL_FN(tl5_step)(BL_FN(tl5_sum) sum[2][2], const uint8_t *vectors, int64_t stride, const uint8_t *tables,
                               int64_t token_bytes, const uint8_t *ahead, int64_t groups, const int tokens,
                               const int panels)
{
    const __m512i spread = _mm512_set1_epi64((long long)0x8080808080808080ull); /* bit 7 to every bit */
    for (int64_t g = 0; g < groups; g++) {
        __m512i weights[2], negative[2], table[4];
        for (int p = 0; p < panels; p++) {
            BL_FN(prefetch)(ahead + BL_PANEL * (panels * g + p));
            weights[p] = BL_FN(lut_kept)(_mm512_loadu_si512(vectors + p * stride + BL_PANEL * g));
            negative[p] = _mm512_gf2p8affine_epi64_epi8(weights[p], spread, 0);
        }
        for (int t = 0; t < tokens; t++) {
            for (int i = 0; i < 4; i++)
                table[i] = BL_FN(lut_kept)(
                    _mm512_loadu_si512(tables + t * token_bytes + 2 * BL_TL5_TABLE * g + 64 * i));
            for (int p = 0; p < panels; p++) BL_FN(tl5_look_up)(&sum[t][p], weights[p], negative[p], table);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) BL_FN(tl5_widen)(&sum[t][p]);
}

/* A pass of one token, or of two, over the weights of a block: sums and tables of the first one, and how far off the
 * other's are. Several passes fetch what comes next by turns: which of how many this is. Behind the end of the panels of
 * a block that are asked for, those of the next block come next; behind the last block, most likely another matrix. */
typedef struct {
    int32_t *dot;
    int64_t dot_stride;
    const uint8_t *tables;
    int64_t token_bytes, turn, turns;
    const uint8_t *end, *next;
} BL_FN(tl5_pass);

/* dot (tokens, panels, 64) += one block of groups of neighbouring panels. ahead: weights that are fetched meanwhile. */
BL_INLINE void BL_FN(tl5_block)(BL_FN(tl5_pass) of, const uint8_t *vectors, int64_t groups, const uint8_t *ahead,
                                const int tokens, const int panels)
{
    enum { STEP = BL_FN(TL5_STEP), TABLE = 2 * BL_TL5_TABLE };
    const __m512i zero = _mm512_setzero_si512(), start = _mm512_set1_epi8((char)BL_FN(TL5_START));
    const int64_t stride = BL_PANEL * groups;
    BL_FN(tl5_sum) sum[2][2];
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) sum[t][p] = (BL_FN(tl5_sum)){start, start, zero, zero, zero, zero};
    for (int64_t g = 0, wait = of.turn; g < groups; g += STEP, wait--) {
        const uint8_t *next = wait ? vectors : ahead; /* to fetch what is in the cache costs little */
        if (wait == 0) wait = of.turns;
        BL_FN(tl5_step)(sum, vectors + BL_PANEL * g, stride, of.tables + TABLE * g, of.token_bytes,
                        next + BL_PANEL * panels * g, groups - g < STEP ? groups - g : STEP, tokens, panels);
    }
    const int64_t steps = (groups + STEP - 1) / STEP;
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++)
            BL_FN(tl5_finish)(of.dot + t * of.dot_stride + BL_PANEL * p, &sum[t][p], steps);
}

/* dot (tokens, panels, 64) += one block of groups of up to TL5_PANELS panels. One pass alone fetches a little ahead;
 * several fetch the panels to which all of them come next. */
BL_INLINE void BL_FN(tl5_panels)(BL_FN(tl5_pass) of, const uint8_t *vectors, int64_t groups, int64_t panels,
                                 const int tokens)
{
    const int64_t pair = 2 * BL_PANEL * groups, distance = of.turns == 1 ? BL_AHEAD : BL_PANEL * groups * panels;
    for (; panels > 0; panels -= 2, of.dot += 2 * BL_PANEL, vectors += pair) {
        const int64_t beyond = distance - (of.end - vectors);
        const uint8_t *ahead = beyond < 0 ? of.end + beyond : of.next + beyond;
        if (panels == 1) BL_FN(tl5_block)(of, vectors, groups, ahead, tokens, 1);
        else BL_FN(tl5_block)(of, vectors, groups, ahead, tokens, 2);
    }
}

/* dot (panels, 64) of the count panels from this one on = what the complements of negative groups lack. */
BL_INLINE void BL_FN(tl5_begin)(int32_t *dot, const uint8_t *packed, int64_t panel, int64_t count)
{
    memcpy(dot, packed + panel * BL_PANEL * (int64_t)sizeof *dot, (size_t)(count * BL_PANEL) * sizeof *dot);
    for (int64_t r = 0; r < count * BL_PANEL; r++) dot[r] *= BL_FN(TL5_NEGATIVE);
}

/* dot += one block of groups from g on, panels [lo, hi), n tokens two by two. */
static void BL_FN(tl5_sweep)(BL_FN(tl5_pass) all, const uint8_t *packed, int64_t rows, int64_t cols, int64_t g,
                             int64_t lo, int64_t hi, int64_t n)
{
    const int64_t groups = bl_tl5_block_groups(g, cols), following = g + groups;
    all.end = packed + bl_tl5_offset(rows, cols, hi, g);
    all.next = following < bl_tl5_groups(cols) ? packed + bl_tl5_offset(rows, cols, lo, following) : all.end;
    for (int64_t p = lo; p < hi; p += BL_FN(TL5_PANELS)) {
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, p, g);
        const int64_t panels = hi - p < BL_FN(TL5_PANELS) ? hi - p : BL_FN(TL5_PANELS);
        for (int64_t t = 0; t < n; t += 2) {
            BL_FN(tl5_pass) of = all;
            of.dot += t * all.dot_stride + BL_PANEL * (p - lo);
            of.tables += t * all.token_bytes;
            of.turn = t / 2, of.turns = (n + 1) / 2;
            if (n - t == 1) BL_FN(tl5_panels)(of, vectors, groups, panels, 1);
            else BL_FN(tl5_panels)(of, vectors, groups, panels, 2);
        }
    }
}

/* One token, panels [lo, hi), all of whose rows dot has room for. */
static void BL_FN(tl5_one)(int32_t *dot, const uint8_t *packed, const uint8_t *tables, int64_t rows, int64_t cols,
                           int64_t lo, int64_t hi)
{
    BL_FN(tl5_begin)(dot, packed, lo, hi - lo);
    for (int64_t g = 0; g < bl_tl5_groups(cols); g += BL_TL5_BLOCK) {
        const BL_FN(tl5_pass) all = {.dot = dot, .tables = tables + 2 * BL_TL5_TABLE * g};
        BL_FN(tl5_sweep)(all, packed, rows, cols, g, lo, hi, 1);
    }
}

/* Up to TL5_TOKENS tokens prepared as quads: the tables of a block are made where they are used, since those of a whole
 * token are fifty times its activations, too much for the caches and from one core to another. Not inlined, since on the
 * stack of the gemm they make decoding slower by a tenth. */
BL_NOINLINE static void BL_FN(tl5_few)(int32_t *dot, int64_t dot_stride, const uint8_t *packed,
                                       const uint8_t *prepared, int64_t rows, int64_t cols, int64_t lo, int64_t hi,
                                       int64_t n)
{
    uint8_t tables[BL_FN(TL5_TOKENS)][BL_FN(TL5_TABLES)];
    const BL_FN(tl5_weights) w = BL_FN(tl5_make_weights)();
    const BL_FN(tl5_pass) all = {.dot = dot, .dot_stride = dot_stride, .tables = tables[0],
                                 .token_bytes = BL_FN(TL5_TABLES)};
    for (int64_t t = 0; t < n; t++) BL_FN(tl5_begin)(dot + t * dot_stride, packed, lo, hi - lo);
    for (int64_t g = 0; g < bl_tl5_groups(cols); g += BL_TL5_BLOCK) {
        const uint8_t *values = prepared + sizeof(bl_prepared) + BL_TL5_GROUP * g;
        for (int64_t t = 0; t < n; t++)
            BL_FN(tl5_block_tables)(tables[t], &w, values + t * bl_tl5_token_bytes(cols, 2),
                                    bl_tl5_block_groups(g, cols));
        BL_FN(tl5_sweep)(all, packed, rows, cols, g, lo, hi, n);
    }
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Four groups of 64 rows to five quads: transposed to bytes of 16 rows x 4 groups, each of which is looked up five
 * times; a negative value has 2 - code. */
BL_INLINE void BL_FN(tl5_decode_quads)(uint8_t *codes, const __m512i group[4], const __m512i table[5][2])
{
    const __m512i two = _mm512_set1_epi8(2);
    const __m512i low01 = _mm512_unpacklo_epi8(group[0], group[1]), high01 = _mm512_unpackhi_epi8(group[0], group[1]);
    const __m512i low23 = _mm512_unpacklo_epi8(group[2], group[3]), high23 = _mm512_unpackhi_epi8(group[2], group[3]);
    const __m512i rows[4] = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
                             _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
    for (int v = 0; v < 4; v++) {
        const __mmask64 negative = _mm512_movepi8_mask(rows[v]);
        for (int k = 0; k < BL_TL5_GROUP; k++) {
            const __m512i code = _mm512_permutex2var_epi8(table[k][0], rows[v], table[k][1]);
            _mm512_storeu_si512(codes + BL_QUAD_BYTES * k + 64 * v, _mm512_mask_sub_epi8(code, negative, two, code));
        }
    }
}

BL_INLINE void BL_FN(tl5_decode)(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                                 int64_t quad, int64_t quads)
{
    uint8_t bytes[BL_TL5_GROUP][BL_TL5_TABLE];
    __m512i table[BL_TL5_GROUP][2];
    for (int v = 0; v < BL_TL5_TABLE; v++) {
        uint8_t five[BL_TL5_GROUP];
        bl_tl5_unpack_byte(five, (uint8_t)(v > BL_TL5_MOST ? 0 : v));
        for (int k = 0; k < BL_TL5_GROUP; k++) bytes[k][v] = five[k];
    }
    memcpy(table, bytes, sizeof table);
    const int64_t groups = bl_tl5_groups(cols);
    for (int64_t g = quad / 5 * 4; quads > 0; g += 4, quads -= 5, codes += 5 * BL_QUAD_BYTES) {
        const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
        const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
        __m512i group[4];
        for (int i = 0; i < 4; i++) {
            group[i] = g + i < groups ? _mm512_loadu_si512(vectors + BL_PANEL * i) : _mm512_setzero_si512();
            BL_FN(prefetch)(vectors + BL_PANEL * i + BL_AHEAD);
        }
        BL_FN(tl5_decode_quads)(codes, group, table);
    }
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

/* Whether that many panels of rows pay for the tables of n tokens: as measured, on Zen 4. */
BL_INLINE int BL_FN(tl5_looks_up)(int64_t panels, int64_t n)
{
    return n <= BL_FN(TL5_LOOKED_UP) && n + 2 <= panels;
}

static void BL_FN(tl5_gemv)(int32_t *dot, const uint8_t *packed, const uint8_t *tables, int64_t rows, int64_t cols,
                            int64_t lo, int64_t hi)
{
    const int64_t whole = hi / BL_PANEL * BL_PANEL; /* rows of a last panel that is not full go through a buffer */
    if (lo < whole) BL_FN(tl5_one)(dot + lo, packed, tables, rows, cols, lo / BL_PANEL, whole / BL_PANEL);
    if (whole == hi) return;
    int32_t last[BL_PANEL];
    BL_FN(tl5_one)(last, packed, tables, rows, cols, whole / BL_PANEL, whole / BL_PANEL + 1);
    memcpy(dot + whole, last, (size_t)(hi - whole) * sizeof *last);
}

static void BL_FN(tl5_gemm)(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
                            int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n == 1) {
        BL_FN(tl5_gemv)(dot, packed, prepared, rows, cols, lo, hi);
        return;
    }
    const int64_t token_bytes = bl_tl5_token_bytes(cols, n), first = lo / BL_PANEL, end = hi / BL_PANEL;
    if (BL_FN(tl5_looks_up)(end - first, n)) {
        const int64_t passes = (n + BL_FN(TL5_TOKENS) - 1) / BL_FN(TL5_TOKENS);
        const int64_t each = bl_round_up((n + passes - 1) / passes, 2); /* two tokens pass together */
        for (int64_t t = 0; t < n; t += each)
            BL_FN(tl5_few)(dot + t * dot_stride + lo, dot_stride, packed, prepared + t * token_bytes, rows, cols, first,
                           end, n - t < each ? n - t : each);
        lo = end * BL_PANEL;
    }
    if (lo < hi)
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols), token_bytes,
                      BL_FN(tl5_decode), BL_FN(panel_dot));
}

static const bl_cell BL_FN(tl5) = {bl_tl5_token_bytes, BL_FN(tl5_prepare), BL_FN(tl5_gemm)};
