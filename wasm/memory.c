/* The memory functions that compilers call. Long ones by the instructions for that, which browsers execute as calls
 * whose cost short ones would feel. This file alone is compiled with those instructions. */
#include <stdint.h>
#include <string.h>

#undef memcpy
#undef memset
#undef memcmp

enum { SHORT = 128 };

typedef uint64_t word __attribute__((may_alias, aligned(1)));

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    if (n > SHORT) return __builtin_memcpy(to, from, n);
    uint8_t *t = to;
    const uint8_t *f = from;
    for (; n >= 8; n -= 8, t += 8, f += 8) *(word *)t = *(const word *)f;
    for (; n; n--) *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t n) { return __builtin_memmove(to, from, n); }

void *memset(void *to, int byte, size_t n)
{
    if (n > SHORT) return __builtin_memset(to, byte, n);
    uint8_t *t = to;
    const word eight = (uint8_t)byte * 0x0101010101010101u;
    for (; n >= 8; n -= 8, t += 8) *(word *)t = eight;
    for (; n; n--) *t++ = (uint8_t)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}
