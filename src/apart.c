/* Runs a function in a child process. */
#include "apart.h"

#if (defined(__unix__) || defined(__APPLE__)) && !defined(__wasm__)

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

/* fork(), on Linux without the handlers that libraries have registered: the one of OpenBLAS would end its threads. */
static pid_t fork_silently(void)
{
#if defined(__linux__)
    return (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, 0ul, 0ul, 0ul, 0ul);
#else
    return fork();
#endif
}

/* A fault ends the child at once: no handler of the parent reports it, and no core is written. */
static void fault_silently(void)
{
    static const int faults[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT};
    const struct rlimit none = {0, 0};
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) signal(faults[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
}

int bl_run_apart(int (*run)(void *), void *context, int *fault)
{
    volatile int *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *fault = 0;
    if ((void *)shared == MAP_FAILED) return run(context);
    *shared = BL_UNFINISHED;
    const pid_t child = fork_silently();
    if (child == 0) {
        fault_silently();
        *shared = run(context);
        _exit(0);
    }
    int status = 0, result;
    if (child < 0) {
        result = run(context);
    } else {
        pid_t ended; /* less than 0 if a handler of the program has waited for the child before */
        do ended = waitpid(child, &status, 0);
        while (ended < 0 && errno == EINTR);
        if (ended == child && WIFSIGNALED(status)) *fault = WTERMSIG(status);
        result = *shared;
    }
    munmap((void *)shared, sizeof *shared);
    return result;
}

#else

int bl_run_apart(int (*run)(void *), void *context, int *fault)
{
    *fault = 0;
    return run(context);
}

#endif
