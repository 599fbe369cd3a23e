/* The table of kernels and the table of tiers. A new kernel or tier has its one row here. */
#include "bitnet_lut/bitnet_lut.h"
#include "target.h"

extern const bl_kernel bl_i2_s, bl_tl1, bl_tl2, bl_tl5;

const bl_kernel *const bl_kernels[BL_KERNEL_COUNT] = {
    [BL_I2_S] = &bl_i2_s, [BL_TL1] = &bl_tl1, [BL_TL2] = &bl_tl2, [BL_TL5] = &bl_tl5};

/* The tiers that are compiled for each architecture, best first. */
#if BL_X86 && BL_AVXVNNI && BL_AMX
#define BL_TIERS(ROW) ROW(amx) ROW(avx512) ROW(avxvnni) ROW(avx2) ROW(scalar)
#elif BL_X86 && BL_AVXVNNI
#define BL_TIERS(ROW) ROW(avx512) ROW(avxvnni) ROW(avx2) ROW(scalar)
#elif BL_X86
#define BL_TIERS(ROW) ROW(avx512) ROW(avx2) ROW(scalar)
#elif BL_ARM64_REGIONS
#define BL_TIERS(ROW) ROW(neoni8mm) ROW(neondot) ROW(neon) ROW(scalar)
#elif BL_ARM64
#define BL_TIERS(ROW) ROW(neon) ROW(scalar)
#elif BL_WASM_RELAXED
#define BL_TIERS(ROW) ROW(wasmrelaxed) ROW(wasm128) ROW(scalar)
#elif BL_WASM
#define BL_TIERS(ROW) ROW(wasm128) ROW(scalar)
#else
#define BL_TIERS(ROW) ROW(scalar)
#endif

#define BL_DECLARE(name) extern const bl_tier bl_tier_##name;
BL_TIERS(BL_DECLARE)

#define BL_ROW(name) &bl_tier_##name,
const bl_tier *const bl_tiers[] = {BL_TIERS(BL_ROW)};
const int bl_tier_count = sizeof bl_tiers / sizeof *bl_tiers;

const bl_cell *bl_cell_of(const bl_tier *tier, int kernel)
{
    return tier->cells[kernel] ? tier->cells[kernel] : &bl_kernels[kernel]->plain;
}
