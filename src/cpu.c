/* What this CPU and its operating system can run. */
#include "bitnet_lut/bitnet_lut.h"
#include "target.h"

#if BL_X86 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if BL_X86 && defined(_MSC_VER)
#include <intrin.h>
#elif BL_X86
#include <cpuid.h>
#elif BL_ARM64 && defined(__linux__)
#include <sys/auxv.h>
#elif BL_ARM64 && defined(__APPLE__)
#include <sys/sysctl.h>
#elif BL_ARM64 && defined(_WIN32)
#include <windows.h>
#endif

const char *const bl_cpu_names[BL_CPU_COUNT] = {
    "avx2", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512vbmi",
    "gfni", "neon", "dotprod", "i8mm",     "avxvnni",  "amx",      "wasm128",    "wasmrelaxed"};

#if BL_X86
static void bl_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
#if defined(_MSC_VER)
    __cpuidex((int *)r, (int)leaf, (int)subleaf);
#else
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
#endif
}

/* The register state the operating system saves: 0x06 for ymm, 0xe6 for zmm, 0x60000 for the tiles of AMX. */
static uint32_t bl_xgetbv(void)
{
#if defined(_MSC_VER)
    return (uint32_t)_xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* else gcc may move it before the test of OSXSAVE */
    return low;
#endif
}

/* Whether this process may use tiles. Linux wants to be asked, once a process, since they make every saved context
 * larger; it refuses where a signal stack is too small for that. */
static int bl_may_use_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ASK = 0x1023, TILES = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, ASK, TILES) == 0;
#else
    return 0;
#endif
}
#endif

#if BL_ARM64
/* The extensions to Armv8.0 that the operating system reports. */
static uint32_t bl_cpu_arm64(void)
{
    uint32_t found = 0;
#if defined(__linux__)
    if (getauxval(AT_HWCAP) & 1ul << 20) found |= BL_CPU_DOTPROD; /* HWCAP_ASIMDDP */
    if (getauxval(AT_HWCAP2) & 1ul << 13) found |= BL_CPU_I8MM;   /* HWCAP2_I8MM */
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    if (!sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) && has) found |= BL_CPU_DOTPROD;
    has = 0;
    if (!sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &size, NULL, 0) && has) found |= BL_CPU_I8MM;
#elif defined(_WIN32)
    if (IsProcessorFeaturePresent(43)) found |= BL_CPU_DOTPROD; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
    if (IsProcessorFeaturePresent(66)) found |= BL_CPU_I8MM;    /* PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE */
#endif
    return found;
}
#endif

uint32_t bl_cpu(void)
{
    uint32_t found = 0;
#if BL_X86
    uint32_t r[4];
    bl_cpuid(0, 0, r);
    if (r[0] < 7) return 0;
    bl_cpuid(1, 0, r);
    const uint32_t leaf1_ecx = r[2];
    if (!(leaf1_ecx & (1u << 27))) return 0; /* OSXSAVE: without it xgetbv is illegal */
    const uint32_t saved = bl_xgetbv();
    if ((saved & 0x06) != 0x06) return 0;
    bl_cpuid(7, 0, r);
    const uint32_t subleaves = r[0], ebx = r[1], ecx = r[2], edx = r[3];
    if (ebx & (1u << 5)) found |= BL_CPU_AVX2;
    if (leaf1_ecx & (1u << 29)) found |= BL_CPU_F16C;
    if (ecx & (1u << 8)) found |= BL_CPU_GFNI;
    if (subleaves >= 1) {
        bl_cpuid(7, 1, r);
        if (r[0] & (1u << 4)) found |= BL_CPU_AVXVNNI;
    }
    if ((saved & 0xe6) != 0xe6) return found;
    if (ebx & (1u << 16)) found |= BL_CPU_AVX512F;
    if (ebx & (1u << 17)) found |= BL_CPU_AVX512DQ;
    if (ebx & (1u << 30)) found |= BL_CPU_AVX512BW;
    if (ebx & (1u << 31)) found |= BL_CPU_AVX512VL;
    if (ecx & (1u << 1)) found |= BL_CPU_AVX512VBMI;
    if (ecx & (1u << 11)) found |= BL_CPU_AVX512VNNI;
    enum { TILE = 1 << 24, INT8 = 1 << 25, SAVED = 0x60000 };
    if ((edx & TILE) && (edx & INT8) && (saved & SAVED) == SAVED && bl_may_use_tiles()) found |= BL_CPU_AMX;
#elif BL_ARM64
    found = BL_CPU_NEON | bl_cpu_arm64();
#elif BL_WASM_RELAXED
    found = BL_CPU_WASM128 | BL_CPU_WASMRELAXED;
#elif BL_WASM
    found = BL_CPU_WASM128;
#endif
    return found;
}
