#include "base/thread.h"

#include <errno.h>
#include <signal.h>

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
