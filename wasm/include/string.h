/* The memory functions, which memory.c has. */
#ifndef BL_WASM_STRING_H
#define BL_WASM_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* Without a library the compiler takes these names for any functions, and only builtins of a few bytes become loads and
 * stores. */
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#define memcmp __builtin_memcmp

#endif
