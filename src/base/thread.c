#include "base/thread.h"

#include <signal.h>
#include <stdatomic.h>

#include "base/base.h"

int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static pthread_once_t watched = PTHREAD_ONCE_INIT;
static atomic_uint forks;

static void count_fork(void) { atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed); }

static void watch(void) {
    if (pthread_atfork(NULL, NULL, count_fork) != 0) mem_exhausted("a note of forks");
}

unsigned fork_count(void) {
    pthread_once(&watched, watch);
    return atomic_load_explicit(&forks, memory_order_relaxed);
}
