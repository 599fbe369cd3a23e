/* A function in a process of its own, which ends without this one if it executes what the processor lacks. */
#ifndef BL_APART_H
#define BL_APART_H

enum { BL_UNFINISHED = -1 };

/* The result of run(context), at least 0, or BL_UNFINISHED if it ended its process; *fault is then the signal that did,
 * or 0 if that is not known. Other threads may go on meanwhile, so run must neither take locks nor allocate; what it
 * writes is lost. Where there can be no second process, it runs in this one. */
int bl_run_apart(int (*run)(void *), void *context, int *fault);

#endif
