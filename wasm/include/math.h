/* What the engine needs, as instructions of WebAssembly. */
#ifndef BL_WASM_MATH_H
#define BL_WASM_MATH_H

static inline float sqrtf(float x) { return __builtin_sqrtf(x); }

#endif
