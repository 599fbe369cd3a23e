/* Target regions: code between BL_TARGET(isa) and BL_TARGET_END may use that instruction set; the rest of the
 * translation unit stays at the ABI baseline. MSVC compiles every intrinsic anywhere and needs no region. */
#ifndef BL_TARGET_H
#define BL_TARGET_H

#include "bitnet_lut/ternary.h" /* BL_INLINE */

#if defined(__x86_64__) || defined(_M_X64)
#define BL_X86 1
#include <immintrin.h>
#else
#define BL_X86 0
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define BL_ARM64 1
#include <arm_neon.h>
#else
#define BL_ARM64 0
#endif

/* A browser refuses a build as a whole if it does not know one instruction, so a flag of the compiler says which are
 * used. */
#if defined(__wasm_simd128__)
#define BL_WASM 1
#else
#define BL_WASM 0
#endif
#if defined(__wasm_relaxed_simd__)
#define BL_WASM_RELAXED 1
#else
#define BL_WASM_RELAXED 0
#endif

/* Whether the compiler knows AVX-VNNI. */
#if !BL_X86
#define BL_AVXVNNI 0
#elif defined(__apple_build_version__)
#define BL_AVXVNNI (__clang_major__ >= 13)
#elif defined(__clang__)
#define BL_AVXVNNI (__clang_major__ >= 12)
#elif defined(__GNUC__)
#define BL_AVXVNNI (__GNUC__ >= 11)
#else
#define BL_AVXVNNI (_MSC_VER >= 1930)
#endif

/* Whether the compiler knows AMX, whose permission is asked for on Linux only. */
#if BL_X86 && defined(BL_AMX_STANDIN)
#define BL_AMX 1
#elif BL_X86 && defined(__linux__) && defined(__clang__)
#define BL_AMX (__clang_major__ >= 12)
#elif BL_X86 && defined(__linux__) && defined(__GNUC__)
#define BL_AMX (__GNUC__ >= 11)
#else
#define BL_AMX 0
#endif

#if defined(__AVX__) && !defined(_MSC_VER)
#error "build for the ABI baseline (no -mavx, no -march=native): tiers are chosen at run time"
#endif

#define BL_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BL_TARGET(isa) BL_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define BL_TARGET_END BL_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define BL_TARGET(isa) BL_PRAGMA(GCC push_options) BL_PRAGMA(GCC target(isa))
#define BL_TARGET_END BL_PRAGMA(GCC pop_options)
#else
#define BL_TARGET(isa)
#define BL_TARGET_END
#endif

/* Arguments of BL_TARGET on ARM: gcc also wants a level of the architecture, which must not be below that of the whole
 * unit. */
#if defined(__clang__)
#define BL_TARGET_DOTPROD "dotprod"
#define BL_TARGET_I8MM "dotprod,i8mm"
#elif defined(__ARM_FEATURE_DOTPROD)
#define BL_TARGET_DOTPROD "+dotprod"
#define BL_TARGET_I8MM "+dotprod+i8mm"
#else
#define BL_TARGET_DOTPROD "arch=armv8.2-a+dotprod"
#define BL_TARGET_I8MM "arch=armv8.2-a+dotprod+i8mm"
#endif

/* clang before 16 (Apple clang before 15) has no intrinsics in a target region of ARM. */
#if defined(__apple_build_version__)
#define BL_ARM64_REGIONS (BL_ARM64 && __clang_major__ >= 15)
#elif defined(__clang__)
#define BL_ARM64_REGIONS (BL_ARM64 && __clang_major__ >= 16)
#else
#define BL_ARM64_REGIONS BL_ARM64
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off)
#endif

#endif
