/* What the parts of the self-test share: memory of exact size, repeatable numbers, and how a failure ends it. */
#ifndef BL_SELFTEST_H
#define BL_SELFTEST_H

#include <stdio.h>
#include <stdlib.h>
#if !defined(__wasm__)
#include <signal.h>
#endif

#include "apart.h"
#include "check.h"
#include "bitnet_lut/bitnet_lut.h"
#include "cache.h"
#include "pool.h"

#define FAIL(...) (fprintf(stderr, "selftest: " __VA_ARGS__), fputc('\n', stderr), exit(1))

/* A heap block of exactly this size, filled with a pattern: AddressSanitizer sees any access beyond it. */
static void *room(int64_t bytes)
{
    void *block = malloc(bytes ? (size_t)bytes : 1);
    if (!block) FAIL("no memory for %lld bytes", (long long)bytes);
    memset(block, 0xa5, (size_t)bytes);
    return block;
}

static int runs_here(const bl_tier *tier) { return (tier->needs & ~bl_cpu()) == 0; }

/* xorshift32 */
static uint32_t random_bits(void)
{
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static int random_below(int n) { return (int)(random_bits() >> 8) % n; }

#endif
