/* What JavaScript calls. Every export of the module stands in this file. */
#include "bitnet_lut/bitnet_lut.h"
#include "check.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

/* How many tiers this module has, the best first. */
int EXPORT(web_tier_count)(void) { return bl_tier_count; }

/* Bytes that web_tier_proves needs. */
int EXPORT(web_proof_bytes)(void) { return (int)(sizeof(bl_check_input) + 2 * sizeof(bl_check_output)); }

/* Whether a tier gives the bits of the scalar one, given web_proof_bytes() of memory at a multiple of 64. */
int EXPORT(web_tier_proves)(int tier, void *memory)
{
    bl_check_input *in = memory;
    return bl_tier_agrees(bl_tiers[tier], in, (bl_check_output *)(void *)(in + 1));
}
