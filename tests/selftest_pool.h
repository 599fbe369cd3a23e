/* The pool: barriers hold, many runs follow each other, callers take turns, and a forked child has a team again. */
#ifndef BL_SELFTEST_POOL_H
#define BL_SELFTEST_POOL_H

#include "selftest.h"

#if !defined(_WIN32) && !defined(BL_NO_THREADS) && !defined(BL_SELFTEST_NO_FORK)
#define BL_SELFTEST_FORK
#include <sys/wait.h>
#endif

enum { PHASES = 3, RUNS = 300, FORKS = 3 };

typedef struct {
    bl_pool *pool;
    int64_t count[BL_LANES]; /* by worker; more than any team here */
    int failed;
} relay;

/* In each phase a worker adds one to its own count, and between two barriers reads what all have counted. */
static void run_relay(void *context, int worker, int workers)
{
    relay *r = context;
    for (int phase = 0; phase < PHASES; phase++) {
        r->count[worker]++;
        bl_pool_barrier(r->pool);
        for (int w = 0; w < workers; w++)
            if (r->count[w] != r->count[worker] || r->pool->workers != workers) r->failed = 1;
        bl_pool_barrier(r->pool);
    }
}

static int relay_fails(bl_pool *pool, int runs)
{
    relay r = {.pool = pool};
    for (int run = 0; run < runs; run++) bl_pool_run(pool, run_relay, &r);
    return r.failed || r.count[0] != (int64_t)runs * PHASES;
}

#if defined(BL_NO_THREADS)

static void check_pool(void)
{
    bl_pool pool;
    bl_pool_init(&pool, 4);
    if (pool.workers != 1 || relay_fails(&pool, RUNS)) FAIL("the pool without threads does not work");
    bl_pool_free(&pool);
}

#else

typedef struct {
    bl_pool *pool;
    int failed;
} caller;

static BL_THREAD_RESULT call_pool(void *argument)
{
    caller *c = argument;
    c->failed = relay_fails(c->pool, RUNS / 10);
    return 0;
}

static void check_callers(bl_pool *pool)
{
    caller second = {pool, 0};
    bl_thread thread;
    if (bl_thread_start(&thread, call_pool, &second)) FAIL("no second thread");
    const int failed = relay_fails(pool, RUNS / 10);
    bl_thread_join(thread);
    if (failed || second.failed) FAIL("two callers disturb each other on %d workers", pool->workers);
}

/* The child has only the calling thread; both must still be able to run. */
static void check_fork(bl_pool *pool)
{
#if defined(BL_SELFTEST_FORK)
    const pid_t child = fork();
    if (child < 0) FAIL("fork");
    if (child == 0) {
        alarm(30); /* a child that waits for the parent's threads waits forever */
        check_callers(pool);
        bl_pool_free(pool);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        FAIL("%d workers after fork: %#x", pool->workers, (unsigned)status);
    if (relay_fails(pool, RUNS / 10)) FAIL("%d workers after the fork of a child", pool->workers);
#else
    (void)pool;
#endif
}

static void check_pool(void)
{
    for (int workers = 1; workers <= 4; workers++) {
        bl_pool *pool = room(sizeof *pool);
        bl_pool_init(pool, workers);
        if (pool->workers != workers || relay_fails(pool, RUNS)) FAIL("%d workers do not keep together", workers);
        check_callers(pool);
        for (int child = 0; child < FORKS; child++) check_fork(pool);
        bl_pool_free(pool);
        free(pool);
    }
}

#endif
#endif
