/* Kernel tl5: packing, and products in plain C. */
#include "kernels/tl5.h"

enum { PIECE = 5 * BL_BLOCK }; /* columns unpacked at once: whole groups and whole canonical blocks */

static int64_t packed_bytes(int64_t rows, int64_t cols)
{
    return bl_panels(rows) * BL_PANEL * (bl_tl5_groups(cols) + (int64_t)sizeof(int32_t));
}

/* codes (PIECE) of a canonical row from column k on; zero weights beyond its end. */
static void read_codes(uint8_t *codes, const uint8_t *row, int64_t row_bytes, int64_t k)
{
    memset(codes, 1, PIECE);
    for (int64_t b = k / 4; b < row_bytes && b < (k + PIECE) / 4; b += BL_BLOCK_BYTES, codes += BL_BLOCK)
        for (int p = 0; p < BL_BLOCK_BYTES; p++) {
            const uint8_t byte = row[b + p];
            codes[p] = byte >> 6;
            codes[p + 32] = byte >> 4 & 3;
            codes[p + 64] = byte >> 2 & 3;
            codes[p + 96] = byte & 3;
        }
}

/* Where each of the 243 values of five codes, as digits of base 3, has its byte. */
static void make_bytes(uint8_t bytes[256])
{
    for (int digits = 0; digits < 256; digits++) {
        const int v = digits - BL_TL5_MOST;
        bytes[digits] = (uint8_t)(v < 0 ? -v | 0x80 : v);
    }
}

/* The value of five codes as digits of base 3: the middle of a product, whose parts do not carry into each other. */
BL_INLINE int digits_of(const uint8_t *codes)
{
    uint64_t eight;
    memcpy(&eight, codes, sizeof eight);
    return (int)(eight * (81 + (27 << 8) + (9 << 16) + (3u << 24) + (1ull << 32)) >> 32 & 0xff);
}

static void pack_panel(uint8_t *packed, const uint8_t *canonical, int64_t rows, int64_t cols, int64_t panel,
                       const uint8_t bytes[256])
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), groups = bl_tl5_groups(cols);
    uint8_t codes[BL_PANEL][PIECE + 8];
    int32_t negatives[BL_PANEL] = {0};
    memset(codes, 1, sizeof codes);
    for (int64_t first = 0; first < groups; first += PIECE / BL_TL5_GROUP) {
        for (int64_t r = 0; r < BL_PANEL && panel * BL_PANEL + r < rows; r++)
            read_codes(codes[r], canonical + (panel * BL_PANEL + r) * row_bytes, row_bytes, first * BL_TL5_GROUP);
        for (int64_t g = first; g < groups && g < first + PIECE / BL_TL5_GROUP; g++) {
            const int64_t block = g / BL_TL5_BLOCK * BL_TL5_BLOCK;
            uint8_t *to = packed + bl_tl5_offset(rows, cols, panel, block) + (g - block) * BL_PANEL;
            for (int r = 0; r < BL_PANEL; r++) {
                const uint8_t byte = bytes[digits_of(codes[r] + (g - first) * BL_TL5_GROUP)];
                to[bl_panel_place(r)] = byte;
                negatives[r] += byte >> 7;
            }
        }
    }
    memcpy(packed + panel * (int64_t)sizeof negatives, negatives, sizeof negatives);
}

static void pack(uint8_t *packed, const uint8_t *canonical, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    uint8_t bytes[256];
    make_bytes(bytes);
    for (int64_t row = lo; row < hi; row += BL_PANEL) pack_panel(packed, canonical, rows, cols, row / BL_PANEL, bytes);
}

/* The byte of a row and a group. */
BL_INLINE uint8_t byte_of(const uint8_t *packed, int64_t rows, int64_t cols, int64_t row, int64_t group)
{
    const int64_t block = group / BL_TL5_BLOCK * BL_TL5_BLOCK;
    const uint8_t *vectors = packed + bl_tl5_offset(rows, cols, row / BL_PANEL, block);
    return vectors[(group - block) * BL_PANEL + bl_panel_place((int)(row % BL_PANEL))];
}

static void unpack(uint8_t *canonical, const uint8_t *packed, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_i2_s_row_bytes(cols), groups = bl_tl5_groups(cols);
    memset(canonical + lo * row_bytes, 0x55, (size_t)((hi - lo) * row_bytes)); /* zero weights, code 1 */
    for (int64_t row = lo; row < hi; row++)
        for (int64_t g = 0; g < groups; g++) {
            uint8_t codes[BL_TL5_GROUP];
            bl_tl5_unpack_byte(codes, byte_of(packed, rows, cols, row, g));
            for (int64_t k = BL_TL5_GROUP * g, j = 0; j < BL_TL5_GROUP && k < cols; j++, k++)
                canonical[row * row_bytes + k / BL_BLOCK * BL_BLOCK_BYTES + k % 32] ^=
                    (uint8_t)((codes[j] ^ 1) << (6 - k % BL_BLOCK / 32 * 2));
        }
}

/* table[v] = sum of the digits of v = 0 .. 121 times q (5). A v whose highest digit is k is 3^k plus a rest of either
 * sign whose sum is known by then. */
static void make_sums(int16_t table[BL_TL5_TABLE], const int8_t *q)
{
    int power = 1, known = 0; /* 3^k, and the largest v without digit k */
    memset(table, 0, BL_TL5_TABLE * sizeof *table);
    for (int k = 0; k < BL_TL5_GROUP; k++, power *= 3) {
        for (int v = known + 1; v <= known + power; v++) {
            const int rest = v - power;
            table[v] = (int16_t)(q[k] + (rest < 0 ? -table[-rest] : table[rest]));
        }
        known += power;
    }
}

void bl_tl5_prepare_quads(uint8_t *prepared, const int8_t *q, int64_t cols)
{
    bl_prepared head = {0};
    int8_t *values = (int8_t *)prepared + sizeof head;
    memset(values, 0, (size_t)(4 * bl_tl5_quads(cols)));
    for (int64_t k = 0; k < cols; k++) {
        const int64_t group = k / BL_TL5_GROUP;
        values[4 * (group / 4 * 5 + k % BL_TL5_GROUP) + group % 4] = q[k];
        head.sum += q[k];
    }
    memcpy(prepared, &head, sizeof head);
}

static void prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    if (n > 1) {
        bl_tl5_prepare_quads(prepared, q, cols);
        return;
    }
    for (int64_t g = 0; g < bl_tl5_groups(cols); g++) {
        int8_t five[BL_TL5_GROUP] = {0};
        int16_t table[BL_TL5_TABLE];
        const int64_t rest = cols - BL_TL5_GROUP * g;
        memcpy(five, q + BL_TL5_GROUP * g, (size_t)(rest < BL_TL5_GROUP ? rest : BL_TL5_GROUP));
        make_sums(table, five);
        memcpy(prepared + g * (int64_t)sizeof table, table, sizeof table);
    }
}

static void decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel, int64_t quad,
                   int64_t quads)
{
    const int64_t groups = bl_tl5_groups(cols), first = quad / 5 * 4;
    for (int64_t g = first; g < first + quads / 5 * 4; g++)
        for (int r = 0; r < BL_PANEL; r++) {
            uint8_t five[BL_TL5_GROUP] = {0};
            if (g < groups) bl_tl5_unpack_byte(five, byte_of(packed, rows, cols, panel * BL_PANEL + r, g));
            for (int j = 0; j < BL_TL5_GROUP; j++)
                codes[BL_QUAD_BYTES * ((g - first) / 4 * 5 + j) + 4 * r + (g - first) % 4] = five[j];
        }
}

static void gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared, int64_t rows,
                 int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    if (n > 1) {
        bl_panel_gemm(dot, dot_stride, packed, prepared, rows, cols, lo, hi, n, bl_tl5_quads(cols),
                      bl_tl5_token_bytes(cols, n), decode, bl_panel_dot_plain);
        return;
    }
    for (int64_t row = lo; row < hi; row++) {
        int32_t sum = 0;
        for (int64_t g = 0; g < bl_tl5_groups(cols); g++) {
            const uint8_t byte = byte_of(packed, rows, cols, row, g);
            int16_t found;
            memcpy(&found, prepared + (g * BL_TL5_TABLE + (byte & 0x7f)) * (int64_t)sizeof found, sizeof found);
            sum += byte & 0x80 ? -found : found;
        }
        dot[row] = sum;
    }
}

const bl_kernel bl_tl5 = {
    .name = "tl5",
    .panel = BL_PANEL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack = unpack,
    .plain = {.token_bytes = bl_tl5_token_bytes, .prepare = prepare, .gemm = gemm, .sums = {BL_CODE_MOST, 5, {{0}}}},
};
