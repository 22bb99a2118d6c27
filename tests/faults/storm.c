/* storm.c - preloaded into mala: a profiler's signal every two milliseconds of computing, whose handler runs on whatever
 * stack it meets. From when somebody waits for signals no other thread may meet it: one that does ends the program by
 * SIGABRT, and one that nobody ever waits in ends with 99. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static atomic_int waiting; /* the thread that waits for signals */

int sigwaitinfo(const sigset_t *set, siginfo_t *info) {
    static int (*next)(const sigset_t *, siginfo_t *);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "sigwaitinfo");
    atomic_store(&waiting, (int)gettid());
    return next(set, info);
}

static void meet(int number) {
    (void)number;
    int expected = atomic_load(&waiting);
    if (expected && expected != (int)gettid()) abort();
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_handler = meet, .sa_flags = SA_RESTART};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &(struct itimerval){{0, 2000}, {0, 2000}}, NULL);
}

__attribute__((destructor)) static void end(void) {
    if (!atomic_load(&waiting)) _exit(99);
}
