/* Rows of i2_s as decoded panels (shared/panel.h). Included by the x86 tiers that multiply them, inside their target
 * regions. */

/* Eight vectors of 8 dwords become 8 vectors of the dwords at the same place. */
BL_INLINE void transpose_i32x8(__m256i v[8])
{
    __m256i pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

/* The 16 quads of half a block, eight rows, from the eight dwords of each row with its codes in the low nibbles. */
BL_INLINE void i2_s_decode_half(uint8_t *codes, const __m256i dwords[8], const int shift)
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int i = 0; i < 8; i++) {
        const __m256i first = _mm256_and_si256(_mm256_srli_epi16(dwords[i], shift + 2), mask);
        const __m256i second = _mm256_and_si256(_mm256_srli_epi16(dwords[i], shift), mask);
        _mm256_storeu_si256((__m256i *)(void *)(codes + BL_QUAD_BYTES * i), first);
        _mm256_storeu_si256((__m256i *)(void *)(codes + BL_QUAD_BYTES * (8 + i)), second);
    }
}

/* Quads decoded at once: they stay in the first cache. */
enum { I2_S_QUADS = 80 };

/* Quads in the order of the columns, from a multiple of 16 on: 32 to a block. */
BL_INLINE void i2_s_decode(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols, int64_t panel,
                           int64_t quad, int64_t quads)
{
    (void)rows;
    const int64_t row_bytes = bl_i2_s_row_bytes(cols);
    packed += panel * BL_PANEL * row_bytes;
    for (int64_t b = quad / 32 * 32; b < quad + quads; b += 32)
        for (int r = 0; r < BL_PANEL; r += 8) {
            __m256i dwords[8];
            for (int i = 0; i < 8; i++) {
                const uint8_t *from = packed + (r + i) * row_bytes + b;
                prefetch(from + BL_PANEL * row_bytes);
                dwords[i] = load_u8x32(from);
            }
            transpose_i32x8(dwords);
            uint8_t *to = codes + BL_QUAD_BYTES * (b - quad) + 4 * r;
            if (b >= quad) i2_s_decode_half(to, dwords, 4);
            if (b + 16 < quad + quads) i2_s_decode_half(to + BL_QUAD_BYTES * 16, dwords, 0);
        }
}
