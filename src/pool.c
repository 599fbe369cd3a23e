#include "pool.h"

#include <string.h>

#include "target.h"

#if defined(BL_NO_THREADS)

void bl_pool_init(bl_pool *pool, int workers)
{
    (void)workers;
    pool->workers = 1;
}

void bl_pool_free(bl_pool *pool) { (void)pool; }

void bl_pool_run(bl_pool *pool, bl_task task, void *context)
{
    (void)pool;
    task(context, 0, 1);
}

void bl_pool_barrier(bl_pool *pool) { (void)pool; }

#else

/* Pauses that take about 50 us. WebAssembly has no instruction to pause. */
#if defined(__wasm__)
enum { BL_SPINS = 20000 };
#else
enum { BL_SPINS = 2000 };
#endif

static void bl_pause(void)
{
#if BL_X86
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

/* Return once *word differs from old: at most BL_SPINS pauses, then asleep. */
static void bl_pool_await(bl_pool *pool, atomic_uint *word, unsigned old)
{
    for (int i = 0; i < BL_SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        bl_pause();
    }
    bl_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(word) == old) bl_condition_wait(&pool->wake, &pool->sleep);
    atomic_fetch_sub(&pool->sleepers, 1);
    bl_mutex_unlock(&pool->sleep);
}

static void bl_pool_announce(bl_pool *pool, atomic_uint *word)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    bl_mutex_lock(&pool->sleep);
    bl_condition_wake(&pool->wake);
    bl_mutex_unlock(&pool->sleep);
}

void bl_pool_barrier(bl_pool *pool)
{
    if (pool->workers == 1) return;
    const unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->workers) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        bl_pool_announce(pool, &pool->phase);
    } else bl_pool_await(pool, &pool->phase, phase);
}

static BL_THREAD_RESULT bl_pool_worker(void *argument)
{
    const bl_seat seat = *(bl_seat *)argument;
    bl_pool *pool = seat.pool;
    for (unsigned seen = 0;; seen++) {
        bl_pool_await(pool, &pool->run, seen);
        if (pool->stop) return 0;
        pool->task(pool->context, seat.worker, pool->workers);
        bl_pool_barrier(pool);
    }
}

#if defined(__wasm__)
void bl_pool_join(bl_pool *pool, int worker) { bl_pool_worker(&pool->seats[worker]); }
#endif

/* Start the team; where the system grants fewer threads, the pool works with those. */
static void bl_pool_start(bl_pool *pool)
{
    pool->stop = 0;
    pool->started = 0;
    atomic_store(&pool->run, 0);
    atomic_store(&pool->phase, 0);
    atomic_store(&pool->arrived, 0);
    atomic_store(&pool->sleepers, 0);
    bl_mutex_init(&pool->turn);
    bl_mutex_init(&pool->sleep);
    bl_condition_init(&pool->wake);
    for (int w = 1; w < pool->workers; w++) {
        pool->seats[w].pool = pool;
        pool->seats[w].worker = w;
        if (bl_thread_start(&pool->threads[w], bl_pool_worker, &pool->seats[w])) break;
        pool->started++;
    }
    pool->workers = pool->started + 1;
}

/* Make sure that the team is this process's: a child of fork() has none, and only its first caller starts it. */
static void bl_pool_adopt(bl_pool *pool)
{
    const long self = bl_process();
    long owner = atomic_load(&pool->owner);
    while (owner != self) {
        if (owner != -self && atomic_compare_exchange_strong(&pool->owner, &owner, -self)) {
            bl_pool_start(pool);
            atomic_store(&pool->owner, self);
            return;
        }
        bl_pause();
        owner = atomic_load(&pool->owner);
    }
}

void bl_pool_init(bl_pool *pool, int workers)
{
    memset(pool, 0, sizeof *pool);
    pool->workers = workers < 1 ? 1 : workers > BL_MAX_WORKERS ? BL_MAX_WORKERS : workers;
    bl_pool_adopt(pool);
}

void bl_pool_free(bl_pool *pool)
{
    if (atomic_load(&pool->owner) != bl_process()) return;
    pool->stop = 1;
    bl_pool_announce(pool, &pool->run);
    for (int w = 1; w <= pool->started; w++) bl_thread_join(pool->threads[w]);
}

void bl_pool_run(bl_pool *pool, bl_task task, void *context)
{
    bl_pool_adopt(pool);
    bl_mutex_lock(&pool->turn);
    pool->task = task;
    pool->context = context;
    bl_pool_announce(pool, &pool->run);
    task(context, 0, pool->workers);
    bl_pool_barrier(pool);
    bl_mutex_unlock(&pool->turn);
}

#endif
