/* A small team of threads. The caller is worker 0; the others wait, spinning for a moment and then asleep, so that a
 * pool costs nothing while idle and little when another process holds a core. One run at a time: a second caller
 * waits its turn. After fork() the child finds the team gone and starts a new one at its next run. */
#ifndef BL_POOL_H
#define BL_POOL_H

#include <stdint.h>
#include <string.h>

#include "target.h"

typedef void (*bl_task)(void *context, int worker, int workers);

#if defined(BL_NO_THREADS)

enum { BL_MAX_WORKERS = 1 };
typedef struct { int workers; } bl_pool;
static inline void bl_pool_init(bl_pool *pool, int workers) { (void)workers; pool->workers = 1; }
static inline void bl_pool_free(bl_pool *pool) { (void)pool; }
static inline void bl_pool_run(bl_pool *pool, bl_task task, void *context) { (void)pool; task(context, 0, 1); }
static inline void bl_pool_barrier(bl_pool *pool) { (void)pool; }

#else

#include <stdatomic.h>

#if defined(_WIN32)
#include <windows.h>
typedef SRWLOCK bl_mutex;
typedef CONDITION_VARIABLE bl_condition;
typedef HANDLE bl_thread;
#define BL_THREAD_RESULT DWORD WINAPI
static inline void bl_mutex_init(bl_mutex *m) { InitializeSRWLock(m); }
static inline void bl_mutex_lock(bl_mutex *m) { AcquireSRWLockExclusive(m); }
static inline void bl_mutex_unlock(bl_mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void bl_condition_init(bl_condition *c) { InitializeConditionVariable(c); }
static inline void bl_condition_wait(bl_condition *c, bl_mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static inline void bl_condition_wake(bl_condition *c) { WakeAllConditionVariable(c); }
static inline int bl_thread_start(bl_thread *t, LPTHREAD_START_ROUTINE f, void *arg)
{
    *t = CreateThread(NULL, 0, f, arg, 0, NULL);
    return *t == NULL;
}
static inline void bl_thread_join(bl_thread t) { WaitForSingleObject(t, INFINITE); CloseHandle(t); }
static inline long bl_process(void) { return (long)GetCurrentProcessId(); }
#else
#include <pthread.h>
#include <unistd.h>
typedef pthread_mutex_t bl_mutex;
typedef pthread_cond_t bl_condition;
typedef pthread_t bl_thread;
#define BL_THREAD_RESULT void *
static inline void bl_mutex_init(bl_mutex *m) { pthread_mutex_init(m, NULL); }
static inline void bl_mutex_lock(bl_mutex *m) { pthread_mutex_lock(m); }
static inline void bl_mutex_unlock(bl_mutex *m) { pthread_mutex_unlock(m); }
static inline void bl_condition_init(bl_condition *c) { pthread_cond_init(c, NULL); }
static inline void bl_condition_wait(bl_condition *c, bl_mutex *m) { pthread_cond_wait(c, m); }
static inline void bl_condition_wake(bl_condition *c) { pthread_cond_broadcast(c); }
static inline int bl_thread_start(bl_thread *t, void *(*f)(void *), void *arg)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20); /* musl's own is 128 kB; decoded panels take 94 */
    const int refused = pthread_create(t, &attributes, f, arg);
    pthread_attr_destroy(&attributes);
    return refused;
}
static inline void bl_thread_join(bl_thread t) { pthread_join(t, NULL); }
static inline long bl_process(void) { return getpid(); }
#endif

enum { BL_MAX_WORKERS = 256, BL_SPINS = 2000 };

typedef struct bl_pool bl_pool;
typedef struct { bl_pool *pool; int worker; } bl_seat;

struct bl_pool {
    int workers;          /* the caller included */
    int started;          /* threads that exist: workers - 1, fewer if the system refused some */
    atomic_long owner;    /* the process whose threads they are; its negative while it starts them */
    bl_task task;
    void *context;
    int stop;
    atomic_uint run;      /* counts runs: a change wakes the team */
    atomic_uint phase;    /* counts barriers passed */
    atomic_int arrived;
    atomic_int sleepers;
    bl_mutex turn;        /* held during a run */
    bl_mutex sleep;
    bl_condition wake;
    bl_thread threads[BL_MAX_WORKERS];
    bl_seat seats[BL_MAX_WORKERS];
};

BL_INLINE void bl_pause(void)
{
#if BL_X86
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

/* Return once *word differs from old: at most BL_SPINS pauses (about 50 us), then asleep. */
static inline void bl_pool_await(bl_pool *pool, atomic_uint *word, unsigned old)
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

static inline void bl_pool_announce(bl_pool *pool, atomic_uint *word)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    bl_mutex_lock(&pool->sleep);
    bl_condition_wake(&pool->wake);
    bl_mutex_unlock(&pool->sleep);
}

/* Every worker of a run must call it; none returns before all have. */
static inline void bl_pool_barrier(bl_pool *pool)
{
    if (pool->workers == 1) return;
    const unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->workers) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        bl_pool_announce(pool, &pool->phase);
    } else bl_pool_await(pool, &pool->phase, phase);
}

static inline BL_THREAD_RESULT bl_pool_worker(void *argument)
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

/* Start the team; where the system grants fewer threads, the pool works with those. */
static inline void bl_pool_start(bl_pool *pool)
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
static inline void bl_pool_adopt(bl_pool *pool)
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

static inline void bl_pool_init(bl_pool *pool, int workers)
{
    memset(pool, 0, sizeof *pool);
    pool->workers = workers < 1 ? 1 : workers > BL_MAX_WORKERS ? BL_MAX_WORKERS : workers;
    bl_pool_adopt(pool);
}

/* Only after the last run has returned. */
static inline void bl_pool_free(bl_pool *pool)
{
    if (atomic_load(&pool->owner) != bl_process()) return;
    pool->stop = 1;
    bl_pool_announce(pool, &pool->run);
    for (int w = 1; w <= pool->started; w++) bl_thread_join(pool->threads[w]);
}

/* Run task(context, worker, workers) on every worker; it may call bl_pool_barrier between its parts. */
static inline void bl_pool_run(bl_pool *pool, bl_task task, void *context)
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
#endif
