#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

int thread_create(pthread_t *out, size_t stack_bytes, void *(*run)(void *arg), void *arg) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack_bytes);
    int code = pthread_create(out, &attr, run, arg);
    pthread_attr_destroy(&attr);
    return code == EINVAL ? pthread_create(out, NULL, run, arg) : code; /* thread-local storage may need more */
}

int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = thread_create(out, THREAD_STACK, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

bool thread_stack_suffices(Err *err) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= STACK_LEAST) return true;
    rlim_t had = limit.rlim_cur;
    limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)STACK_LEAST); /* it grows under the limit of the moment */
    if (limit.rlim_cur == STACK_LEAST && setrlimit(RLIMIT_STACK, &limit) == 0) return true;
    return err_set(err, EXIT_MEMORY, "stack: limited to %llu KiB, %d KiB are needed - raise it: ulimit -s %d",
                   (unsigned long long)had >> 10, STACK_LEAST >> 10, STACK_LEAST >> 10);
}
