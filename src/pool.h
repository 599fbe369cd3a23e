/* A small team of threads. The caller is worker 0; the others wait, spinning for a moment and then asleep, so that a
 * pool costs nothing while idle and little when another process holds a core. One run at a time: a second caller
 * waits its turn. After fork() the child finds the team gone and starts a new one at its next run. */
#ifndef BL_POOL_H
#define BL_POOL_H

#include "bitnet_lut/bitnet_lut.h"

typedef void (*bl_task)(void *context, int worker, int workers);

#if defined(BL_NO_THREADS)

enum { BL_MAX_WORKERS = 1 };

struct bl_pool { int workers; };

#else

#include <stdatomic.h>

#include "threads.h"

enum { BL_MAX_WORKERS = 256 };

typedef struct {
    bl_pool *pool;
    int worker;
} bl_seat;

struct bl_pool {
    int workers;       /* the caller included */
    int started;       /* threads that exist: workers - 1, fewer if the system refused some */
    atomic_long owner; /* the process whose threads they are; its negative while it starts them */
    bl_task task;
    void *context;
    int stop;
    atomic_uint run;   /* counts runs: a change wakes the team */
    atomic_uint phase; /* counts barriers passed */
    atomic_int arrived;
    atomic_int sleepers;
    bl_mutex turn; /* held during a run */
    bl_mutex sleep;
    bl_condition wake;
    bl_thread threads[BL_MAX_WORKERS];
    bl_seat seats[BL_MAX_WORKERS];
};

#if defined(__wasm__)
/* The work of one of the threads; returns when the pool is freed. */
void bl_pool_join(bl_pool *pool, int worker);
#endif

#endif

/* A team of at most BL_MAX_WORKERS; where the system grants fewer threads, it is smaller. */
void bl_pool_init(bl_pool *pool, int workers);

/* Only after the last run has returned. */
void bl_pool_free(bl_pool *pool);

/* Run task(context, worker, workers) on every worker; it may call bl_pool_barrier between its parts. */
void bl_pool_run(bl_pool *pool, bl_task task, void *context);

/* Every worker of a run must call it; none returns before all have. */
void bl_pool_barrier(bl_pool *pool);

#endif
