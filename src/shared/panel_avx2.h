/* The dot of decoded panels by the tier's add_products. Included by the tiers avx2 and avxvnni inside their target
 * regions. */

/* Steps whose sums stay within int16: with codes up to 3 a pair of products reaches -768. */
enum { PANEL_STEPS = 40 };

/* sum += codes . values for 8 vectors rows of a panel and a few tokens, over at most PANEL_STEPS quads. */
BL_INLINE void panel_tile(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                          const int vectors, const int tokens)
{
    __m256i part[6][4];
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < vectors; v++) part[t][v] = _mm256_setzero_si256();
    for (int64_t quad = 0; quad < quads; quad++) {
        __m256i c[4];
        for (int v = 0; v < vectors; v++) c[v] = load_u8x32(codes + BL_QUAD_BYTES * quad + 32 * v);
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, values + t * token_bytes + 4 * quad, sizeof four);
            const __m256i q = _mm256_set1_epi32(four);
            for (int v = 0; v < vectors; v++) part[t][v] = add_products(part[t][v], c[v], q);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int v = 0; v < vectors; v++) {
            __m256i *to = (__m256i *)(void *)(sum + BL_PANEL * t + 8 * v);
            const __m256i i32x8 = widen(part[t][v]);
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), i32x8));
        }
}

/* The whole panel for 1 to 6 tokens: as many vectors at once as leave registers for the codes. */
BL_INLINE void panel_tokens(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes,
                            int64_t quads, const int tokens)
{
    const int vectors = tokens < 3 ? 4 : 2;
    for (int v = 0; v < BL_PANEL / 8; v += vectors)
        panel_tile(sum + 8 * v, codes + 32 * v, values, token_bytes, quads, vectors, tokens);
}

static void panel_dot(int32_t *sum, const uint8_t *codes, const uint8_t *values, int64_t token_bytes, int64_t quads,
                      int64_t n)
{
#define BL_TOKENS(tokens) panel_tokens(to, c, q, token_bytes, steps, tokens)
    for (int64_t quad = 0; quad < quads; quad += PANEL_STEPS) {
        const int64_t steps = quads - quad < PANEL_STEPS ? quads - quad : PANEL_STEPS;
        const uint8_t *c = codes + BL_QUAD_BYTES * quad;
        for (int64_t t = 0, tokens; t < n; t += tokens) {
            tokens = bl_even_share(n - t, 6);
            int32_t *to = sum + BL_PANEL * t;
            const uint8_t *q = values + t * token_bytes + 4 * quad;
            switch (tokens) {
            case 1: BL_TOKENS(1); break;
            case 2: BL_TOKENS(2); break;
            case 3: BL_TOKENS(3); break;
            case 4: BL_TOKENS(4); break;
            case 5: BL_TOKENS(5); break;
            default: BL_TOKENS(6); break;
            }
        }
    }
#undef BL_TOKENS
}
