/* thread.h - threads that the program and the library start, and what becomes of them in a forked child. */
#ifndef MALA_THREAD_H
#define MALA_THREAD_H

#include <pthread.h>

#include "base/base.h"

/* As pthread_create, with a stack of so many bytes whatever `ulimit -s` or the C library has for a default; larger
 * where the process's thread-local storage alone would fill it. */
int thread_create(pthread_t *out, size_t stack_bytes, void *(*run)(void *arg), void *arg);

/* The same for a thread that takes no signals: they are the program's, whose handlers must not run on the stack of a
 * thread that computes. The caller's own mask is as it was. Its stack is THREAD_STACK bytes. */
#define THREAD_STACK (2 << 20)
int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg);

/* Has the main thread the stack that the program needs, STACK_LEAST bytes? It would be killed in the middle of its work
 * by `ulimit -s 64`. EXIT_MEMORY where the limit is lower and cannot be raised. */
#define STACK_LEAST (1 << 20)
bool thread_stack_suffices(Err *err);

/* A child of fork() has the memory of its parent and none of its threads, and locks may be held there by threads that
 * it has not. Who owns threads remembers its getpid(); where that is another one now, they are gone: use no lock, join
 * nothing, and let the memory of condition variables be (destroying one waits for its waiters). */

#endif
