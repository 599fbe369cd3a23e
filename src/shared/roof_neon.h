/* The roof of reading by 128-bit registers. Included by the tiers neon and up inside their target regions. */

static uint64_t roof_read(const uint8_t *data, int64_t bytes)
{
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    for (int64_t i = 0; i < bytes; i += 64) {
        const uint8_t *from = data + i;
        a = veorq_u8(a, vld1q_u8(from));
        b = veorq_u8(b, vld1q_u8(from + 16));
        c = veorq_u8(c, vld1q_u8(from + 32));
        d = veorq_u8(d, vld1q_u8(from + 48));
    }
    const uint64x2_t all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(a, b), veorq_u8(c, d)));
    return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
}
