/* parallel.h - the compute threads: one team for the whole process, shared with the matrix library (both are OpenMP,
 * so they never compete). Work is cut by shape alone, never by the number of threads, so results do not depend on it. */
#ifndef MALA_PARALLEL_H
#define MALA_PARALLEL_H

/* Sets the number of threads of later calls from this thread; at least 1. */
void parallel_set_threads(int threads);
int parallel_threads(void);

/* Runs body(arg, index, thread) for index 0 .. count-1, each once, thread < parallel_threads(). Neighbouring indices
 * go to the same thread, so that a tile written by one op is in the cache of the thread that reads it next. */
void parallel_for(int count, void (*body)(void *arg, int index, int thread), void *arg);

#endif
