/* Mutexes, conditions and threads as pool.c needs them: of Windows, of WebAssembly, or of POSIX. */
#ifndef BL_THREADS_H
#define BL_THREADS_H

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
static inline void bl_thread_join(bl_thread t)
{
    WaitForSingleObject(t, INFINITE);
    CloseHandle(t);
}
static inline long bl_process(void) { return (long)GetCurrentProcessId(); }
#elif defined(__wasm__)
/* On shared memory. Threads are workers of JavaScript: whoever makes a pool starts them, and they call bl_pool_join. */
typedef struct { atomic_int state; } bl_mutex; /* 0 free, 1 locked, 2 locked while others may wait */
typedef struct { atomic_int wakes; } bl_condition;
typedef int bl_thread;
#define BL_THREAD_RESULT void *
static inline void bl_mutex_init(bl_mutex *m) { atomic_store(&m->state, 0); }
static inline void bl_mutex_lock(bl_mutex *m)
{
    int free = 0;
    if (atomic_compare_exchange_strong(&m->state, &free, 1)) return;
    while (atomic_exchange(&m->state, 2)) __builtin_wasm_memory_atomic_wait32((int *)&m->state, 2, -1);
}
static inline void bl_mutex_unlock(bl_mutex *m)
{
    if (atomic_exchange(&m->state, 0) == 2) __builtin_wasm_memory_atomic_notify((int *)&m->state, 1);
}
static inline void bl_condition_init(bl_condition *c) { atomic_store(&c->wakes, 0); }
static inline void bl_condition_wait(bl_condition *c, bl_mutex *m)
{
    const int wakes = atomic_load(&c->wakes);
    bl_mutex_unlock(m);
    __builtin_wasm_memory_atomic_wait32((int *)&c->wakes, wakes, -1);
    bl_mutex_lock(m);
}
static inline void bl_condition_wake(bl_condition *c)
{
    atomic_fetch_add(&c->wakes, 1);
    __builtin_wasm_memory_atomic_notify((int *)&c->wakes, (unsigned)-1);
}
static inline int bl_thread_start(bl_thread *t, BL_THREAD_RESULT (*f)(void *), void *arg)
{
    (void)t, (void)f, (void)arg;
    return 0;
}
static inline void bl_thread_join(bl_thread t) { (void)t; }
static inline long bl_process(void) { return 1; }
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
    pthread_attr_setstacksize(&attributes, 1 << 20); /* musl's own is 128 kB, and a kernel's tables take most of that */
    const int refused = pthread_create(t, &attributes, f, arg);
    pthread_attr_destroy(&attributes);
    return refused;
}
static inline void bl_thread_join(bl_thread t) { pthread_join(t, NULL); }
static inline long bl_process(void) { return getpid(); }
#endif

#endif
