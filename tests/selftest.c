/* The library without Python, so that it can run under sanitizers and on other processors.
 *
 *   selftest              kernels and float operations of every tier, and the pool; prints the tiers that ran
 *   selftest DUMP...      the engine on dumped models (see selftest_model.h); prints their logits as bits
 *
 * Build it with every .c file of src, as test_selftest.py does. Exit status 1 at the first fault, which is named. */
#include "selftest_draw.h"
#include "selftest_kernels.h"
#include "selftest_model.h"
#include "selftest_ops.h"
#include "selftest_pool.h"

static void check_agreement(void)
{
    bl_check_input *given = room(sizeof *given);
    bl_check_output *results = room(2 * (int64_t)sizeof *results);
    for (int i = 0; i < bl_tier_count; i++) {
        if (!runs_here(bl_tiers[i])) continue;
        if (!bl_tier_agrees(bl_tiers[i], given, results)) FAIL("bl_tier_agrees refuses %s", bl_tiers[i]->name);
        printf("%s\n", bl_tiers[i]->name);
    }
    free(given);
    free(results);
}

/* ThreadSanitizer has nothing to find in what runs on one thread. */
#ifdef __SANITIZE_THREAD__
enum { THREADS_ONLY = 1 };
#else
enum { THREADS_ONLY = 0 };
#endif

/* Systems without fork() run nothing apart. */
#if !defined(_WIN32) && !defined(__wasm__)
static int trapped(void *context)
{
    const int *result = context;
    if (*result < 0) __builtin_trap();
    return *result;
}

/* Rounds nothing, as a tier may do that executes what this processor does not have. */
static void trap_store(uint16_t *to, const float *x, int64_t n)
{
    (void)to, (void)x, (void)n;
    __builtin_trap();
}

/* What runs apart gives its result, or ends alone: SIGILL on x86, SIGTRAP on ARM. */
static void check_apart(void)
{
    int fault = 77, results[] = {0, 5, -1};
    fflush(stdout); /* else a child that ThreadSanitizer ends writes it too */
    for (int i = 0; i < 2; i++)
        if (bl_run_apart(trapped, &results[i], &fault) != results[i] || fault) FAIL("a result is lost on its way");
    if (bl_run_apart(trapped, &results[2], &fault) != BL_UNFINISHED) FAIL("a trap passes as a result");
    if (fault != SIGILL && fault != SIGTRAP) FAIL("a trap is told as signal %d", fault);
    signal(SIGCHLD, SIG_IGN); /* then nobody can wait for a child */
    if (bl_run_apart(trapped, &results[1], &fault) != 5 || fault) FAIL("a result is lost without a wait");
    if (bl_run_apart(trapped, &results[2], &fault) != BL_UNFINISHED || fault) FAIL("a trap needs a wait");
    signal(SIGCHLD, SIG_DFL);
    bl_check_input *given = room(sizeof *given);
    bl_check_output *output = room(2 * (int64_t)sizeof *output);
    bl_tier tier = bl_tier_scalar;
    if (bl_tier_proves(&tier, given, output, &fault) != 1) FAIL("a good tier does not prove itself");
    tier.store_f16 = trap_store;
    if (bl_tier_proves(&tier, given, output, &fault) != BL_UNFINISHED) FAIL("a tier that traps proves itself");
    free(given);
    free(output);
}
#else
static void check_apart(void) {}
#endif

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) check_model(arguments[i]);
    if (count > 1) return 0;
    check_agreement();
    check_apart();
    check_pool();
    if (THREADS_ONLY) return 0;
    check_ternary();
    check_dense();
    check_ops();
    check_draw();
    return 0;
}
