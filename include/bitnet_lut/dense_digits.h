/* Prepared activations of the block types for registers of bytes. Included by dense_avx2.h and dense_avx512.h.
 *
 * Whole numbers are three balanced digits, x = 16384 a + 128 b + c with -64 <= digit <= 64, so that two products with
 * an unsigned byte fit 16 bits. Codes are made unsigned, and the sum of the activations times what was added is taken
 * off again, all modulo 2^32, in which the result lies.
 *
 * A register of 64 bytes has 16 sums of 4 bytes. So that each sum runs within one group, the four registers of a chunk
 * are transposed as 4 x 4 dwords in each of their four parts: dword v of part p of register i has bytes
 * 4 i .. 4 i + 3 of group 4 v + p. With 32 bytes, parts 0 and 1 are one half, 2 and 3 the other. */

typedef struct {
    int8_t digit[3][4][64];
    int32_t sum[BL_LANES];
    float step[BL_LANES];
} BL_FN(fixed);

/* The lane of a group in the transposed order; this swap is its own inverse. */
BL_INLINE int BL_FN(lane)(int group) { return group % 4 * 4 + group / 4; }

BL_INLINE void BL_FN(place_group)(BL_FN(fixed) *fixed, int group, const int32_t whole[BL_LANES], float step)
{
    const int lane = BL_FN(lane)(group);
    fixed->step[lane] = step;
    for (int j = 0; j < BL_LANES; j++) {
        const int at = 4 * lane + j % 4;
        const int32_t ab = (whole[j] + 64) >> 7, a = (ab + 64) >> 7;
        fixed->digit[0][j / 4][at] = (int8_t)a;
        fixed->digit[1][j / 4][at] = (int8_t)(ab - 128 * a);
        fixed->digit[2][j / 4][at] = (int8_t)(whole[j] - 128 * ab);
        fixed->sum[lane] += whole[j];
    }
}
