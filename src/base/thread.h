/* thread.h - threads that the program and the library start, and what becomes of them in a forked child. */
#ifndef MALA_THREAD_H
#define MALA_THREAD_H

#include <pthread.h>

/* As pthread_create, for a thread that takes no signals: they are the program's, whose handlers must not run on the
 * stack of a thread that computes. The caller's own mask is as it was. */
int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg);

/* A child of fork() has the memory of its parent and none of its threads, and locks may be held there by threads that
 * it has not. Who owns threads remembers this number; where it is another one now, they are gone: use no lock, join
 * nothing, and let the memory of condition variables be (destroying one waits for its waiters). Costs a load. */
unsigned fork_count(void);

#endif
