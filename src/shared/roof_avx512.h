/* Reading memory by 64 bytes. Included by the tiers avx512 and amx inside their target regions. */

static uint64_t roof_read(const uint8_t *data, int64_t bytes)
{
    __m512i a = _mm512_setzero_si512(), b = a;
    for (int64_t i = 0; i < bytes; i += 128) {
        const uint8_t *from = data + i;
        a = _mm512_xor_si512(a, _mm512_loadu_si512(from));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(from + 64));
    }
    uint64_t words[8];
    _mm512_storeu_si512(words, _mm512_xor_si512(a, b));
    return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}
