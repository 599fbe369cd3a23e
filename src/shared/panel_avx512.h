/* The dot of decoded panels by vpdpbusd: four vectors of 16 rows times up to six tokens in registers. Included by the
 * tier avx512 inside its target region. */

BL_INLINE void panel_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                          const int tokens)
{
    __m512i sum_i32x16[6][4];
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < 4; v++) sum_i32x16[t][v] = _mm512_loadu_si512(sum + BL_PANEL * t + 16 * v);
    for (int64_t quad = 0; quad < quads; quad++, codes += BL_QUAD_BYTES, values += 4) {
        const __m512i c0 = _mm512_loadu_si512(codes), c1 = _mm512_loadu_si512(codes + 64);
        const __m512i c2 = _mm512_loadu_si512(codes + 128), c3 = _mm512_loadu_si512(codes + 192);
        for (int t = 0; t < tokens; t++) {
            const __m512i q = broadcast_quad(values + t * token_bytes);
            sum_i32x16[t][0] = dpbusd(sum_i32x16[t][0], c0, q);
            sum_i32x16[t][1] = dpbusd(sum_i32x16[t][1], c1, q);
            sum_i32x16[t][2] = dpbusd(sum_i32x16[t][2], c2, q);
            sum_i32x16[t][3] = dpbusd(sum_i32x16[t][3], c3, q);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < 4; v++) _mm512_storeu_si512(sum + BL_PANEL * t + 16 * v, sum_i32x16[t][v]);
}

BL_INLINE void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                         int64_t n)
{
#define BL_TILE(tokens) panel_tile(sum, codes, values, token_bytes, quads, tokens)
    for (; n >= 6; n -= 6, sum += 6 * BL_PANEL, values += 6 * token_bytes) BL_TILE(6);
    switch (n) {
    case 1: BL_TILE(1); break;
    case 2: BL_TILE(2); break;
    case 3: BL_TILE(3); break;
    case 4: BL_TILE(4); break;
    case 5: BL_TILE(5); break;
    }
#undef BL_TILE
}
