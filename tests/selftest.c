/* The headers without Python, so that they can run under sanitizers and on other processors.
 *
 *   selftest              kernels and float operations of every tier, and the pool; prints the tiers that ran
 *   selftest DUMP...      the engine on dumped models (see selftest_model.h); prints their logits as bits
 *
 * Build with -std=gnu11 -ffp-contract=off -Iinclude -pthread -lm. Exit status 1 at the first fault, which is named. */
#include "selftest_kernels.h"
#include "selftest_model.h"
#include "selftest_ops.h"
#include "selftest_pool.h"

static void check_agreement(void)
{
    bl_check_input *given = room(sizeof *given);
    bl_check_output *results = room(2 * (int64_t)sizeof *results);
    for (int i = 0; i < BL_TIER_COUNT; i++) {
        if (!runs_here(bl_tiers[i])) continue;
        if (!bl_tier_agrees(bl_tiers[i], given, results)) FAIL("bl_tier_agrees refuses %s", bl_tiers[i]->name);
        printf("%s\n", bl_tiers[i]->name);
    }
    free(given);
    free(results);
}

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) check_model(arguments[i]);
    if (count > 1) return 0;
    check_agreement();
    check_ternary();
    check_dense();
    check_ops();
    check_pool();
    return 0;
}
