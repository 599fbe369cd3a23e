/* The roof of reading by 256-bit registers. Included by the tiers avx2 and avxvnni inside their target regions. */

BL_INLINE __m256i roof_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

static uint64_t roof_read(const uint8_t *data, int64_t bytes)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int64_t i = 0; i < bytes; i += 128) {
        const uint8_t *from = data + i;
        a = _mm256_xor_si256(a, roof_load(from));
        b = _mm256_xor_si256(b, roof_load(from + 32));
        c = _mm256_xor_si256(c, roof_load(from + 64));
        d = _mm256_xor_si256(d, roof_load(from + 96));
    }
    uint64_t words[4];
    const __m256i all = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    _mm256_storeu_si256((__m256i *)(void *)words, all);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}
