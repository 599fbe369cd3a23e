/* Packs ggml's block types into the strips of blocks.h, and unpacks them. */
#include "shared/blocks.h"

int64_t bl_dense_packed_bytes(bl_type type, int64_t rows, int64_t cols)
{
    if (!bl_is_block_type(type)) return rows * bl_row_bytes(type, cols);
    return bl_round_up(rows, BL_STRIP) / BL_STRIP * bl_strip_bytes(type, cols);
}

/* ---- packing -------------------------------------------------------------------------------------------------- */

/* Unsigned codes of the columns (at most 256) of a row that start at a block. */
static void bl_block_codes(uint8_t codes[BL_CHUNK], bl_type type, const uint8_t *block, int64_t columns)
{
    if (type == BL_Q6_K) {
        for (int half = 0; half < 2; half++, codes += 128) {
            const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
            for (int p = 0; p < 32; p++) {
                codes[p] = (uint8_t)((low[p] & 15) | (high[p] & 3) << 4);
                codes[p + 32] = (uint8_t)((low[p + 32] & 15) | (high[p] >> 2 & 3) << 4);
                codes[p + 64] = (uint8_t)(low[p] >> 4 | (high[p] >> 4 & 3) << 4);
                codes[p + 96] = (uint8_t)(low[p + 32] >> 4 | high[p] >> 6 << 4);
            }
        }
        return;
    }
    for (int64_t k = 0; k < columns; k += 32, codes += 32, block += bl_row_bytes(type, 32))
        for (int i = 0; i < 16; i++) {
            codes[i] = type == BL_Q8_0 ? block[2 + i] ^ 0x80 : block[2 + i] & 15;
            codes[16 + i] = type == BL_Q8_0 ? block[18 + i] ^ 0x80 : block[2 + i] >> 4;
        }
}

/* Put the codes of 16 columns of a row among those of its 16 rows. */
static void bl_place_codes(uint8_t *to, bl_type type, const uint8_t codes[BL_LANES])
{
    uint32_t dword[4];
    int registers = 4;
    memcpy(dword, codes, sizeof dword);
    if (type == BL_Q4_0) {
        registers = 2;
        for (int q = 0; q < 2; q++) dword[q] |= dword[q + 2] << 4;
    } else if (type == BL_Q6_K) {
        registers = 3;
        for (int q = 0; q < 3; q++) dword[q] |= (dword[3] >> 2 * q & 0x03030303u) << 6;
    }
    for (int q = 0; q < registers; q++) memcpy(to + 64 * q, &dword[q], sizeof *dword);
}

/* One chunk of a row, which is row r of its strip. */
static void bl_pack_chunk(uint8_t *strip, int r, bl_type type, const uint8_t *row, int64_t cols, int64_t k)
{
    const int64_t block_cols = bl_block_cols(type), columns = cols - k < BL_CHUNK ? cols - k : BL_CHUNK;
    const uint8_t *blocks = row + bl_row_bytes(type, k);
    uint8_t codes[BL_CHUNK];
    bl_block_codes(codes, type, blocks, columns);
    for (int64_t b = 0; b < columns / block_cols; b++) {
        const uint8_t *block = blocks + bl_row_bytes(type, b * block_cols);
        memcpy(strip + (k / block_cols + b) * BL_HALVES_BYTES + 2 * r, block + (type == BL_Q6_K ? 208 : 0), 2);
    }
    uint8_t *units = strip + cols / block_cols * BL_HALVES_BYTES;
    for (int64_t g = 0; g < columns / BL_LANES; g++) {
        uint8_t *unit = units + bl_unit_of(cols / BL_LANES, k / BL_LANES + g) * bl_unit_bytes(type);
        if (type == BL_Q6_K) unit[r] = blocks[192 + g];
        unit += bl_unit_scales(type) + r / BL_LANES * bl_codes_bytes(type);
        bl_place_codes(unit + 4 * (r % BL_LANES), type, codes + BL_LANES * g);
    }
}

/* Strips of rows lo <= row < hi from rows (rows, bl_row_bytes(type, cols)) of a block type; lo is a multiple of
 * BL_STRIP, hi too or it is rows. Rows beyond the matrix are zero. */
void bl_pack_blocks(uint8_t *to, const uint8_t *from, bl_type type, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = bl_row_bytes(type, cols), strip_bytes = bl_strip_bytes(type, cols);
    for (int64_t first = lo; first < hi; first += BL_STRIP) {
        uint8_t *strip = to + first / BL_STRIP * strip_bytes;
        const int here = rows - first < BL_STRIP ? (int)(rows - first) : BL_STRIP;
        if (here < BL_STRIP) memset(strip, 0, (size_t)strip_bytes);
        for (int64_t k = 0; k < cols; k += BL_CHUNK)
            for (int r = 0; r < here; r++) bl_pack_chunk(strip, r, type, from + (first + r) * row_bytes, cols, k);
    }
}

/* ---- and back --------------------------------------------------------------------------------------------------- */

/* The codes of 16 columns of a row from among those of its 16 rows. */
static void bl_find_codes(uint8_t codes[BL_LANES], bl_type type, const uint8_t *from)
{
    uint32_t dword[4] = {0};
    for (int q = 0; q < (int)bl_codes_bytes(type) / 64; q++) memcpy(&dword[q], from + 64 * q, sizeof *dword);
    if (type == BL_Q4_0)
        for (int q = 0; q < 2; q++) {
            dword[q + 2] = dword[q] >> 4 & 0x0f0f0f0fu;
            dword[q] &= 0x0f0f0f0fu;
        }
    else if (type == BL_Q6_K)
        for (int q = 0; q < 3; q++) {
            dword[3] |= (dword[q] >> 6 & 0x03030303u) << 2 * q;
            dword[q] &= 0x3f3f3f3fu;
        }
    memcpy(codes, dword, sizeof dword);
}

/* What bl_block_codes read. */
static void bl_write_codes(uint8_t *block, bl_type type, const uint8_t codes[BL_CHUNK], int64_t columns)
{
    if (type == BL_Q6_K) {
        for (int half = 0; half < 2; half++, codes += 128) {
            uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
            for (int p = 0; p < 32; p++) {
                low[p] = (uint8_t)((codes[p] & 15) | (codes[p + 64] & 15) << 4);
                low[p + 32] = (uint8_t)((codes[p + 32] & 15) | (codes[p + 96] & 15) << 4);
                high[p] = (uint8_t)(codes[p] >> 4 | codes[p + 32] >> 4 << 2 | codes[p + 64] >> 4 << 4 |
                                    codes[p + 96] >> 4 << 6);
            }
        }
        return;
    }
    for (int64_t k = 0; k < columns; k += 32, codes += 32, block += bl_row_bytes(type, 32))
        for (int i = 0; i < 16; i++) {
            block[2 + i] = (uint8_t)(type == BL_Q8_0 ? codes[i] ^ 0x80 : codes[i] | codes[16 + i] << 4);
            if (type == BL_Q8_0) block[18 + i] = codes[16 + i] ^ 0x80;
        }
}

/* blocks = one chunk, in ggml's blocks, of row r of a strip; returns its columns. */
int64_t bl_unpack_chunk(uint8_t *blocks, const uint8_t *strip, int r, bl_type type, int64_t cols, int64_t k)
{
    const int64_t block_cols = bl_block_cols(type), columns = cols - k < BL_CHUNK ? cols - k : BL_CHUNK;
    const uint8_t *units = strip + cols / block_cols * BL_HALVES_BYTES;
    uint8_t codes[BL_CHUNK];
    for (int64_t g = 0; g < columns / BL_LANES; g++) {
        const uint8_t *unit = units + bl_unit_of(cols / BL_LANES, k / BL_LANES + g) * bl_unit_bytes(type);
        if (type == BL_Q6_K) blocks[192 + g] = unit[r];
        unit += bl_unit_scales(type) + r / BL_LANES * bl_codes_bytes(type);
        bl_find_codes(codes + BL_LANES * g, type, unit + 4 * (r % BL_LANES));
    }
    bl_write_codes(blocks, type, codes, columns);
    for (int64_t b = 0; b < columns / block_cols; b++) {
        uint8_t *block = blocks + bl_row_bytes(type, b * block_cols);
        memcpy(block + (type == BL_Q6_K ? 208 : 0), strip + (k / block_cols + b) * BL_HALVES_BYTES + 2 * r, 2);
    }
    return columns;
}

/* Rows lo <= row < hi, (hi - lo, bl_row_bytes(type, cols)) in ggml's blocks, from strips. */
void bl_unpack_blocks(uint8_t *to, const uint8_t *strips, bl_type type, int64_t cols, int64_t lo, int64_t hi)
{
    uint8_t blocks[BL_CHUNK_BYTES];
    for (int64_t row = lo; row < hi; row++)
        for (int64_t k = 0; k < cols; k += BL_CHUNK) {
            const uint8_t *strip = strips + row / BL_STRIP * bl_strip_bytes(type, cols);
            const int64_t columns = bl_unpack_chunk(blocks, strip, (int)(row % BL_STRIP), type, cols, k);
            memcpy(to, blocks, (size_t)bl_row_bytes(type, columns));
            to += bl_row_bytes(type, columns);
        }
}
