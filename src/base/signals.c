#include "base/signals.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/unfinished.h"

#define STACK_BYTES (256 << 10) /* room for the frames and handlers of a profiler that was preloaded */

static const int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};

/* These and those of real time end a program, too, and ask nothing: what it was writing is removed before. Beside them
 * only SIGKILL and a thread's own faults do. */
static const int ends[] = {SIGQUIT, SIGPIPE, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT};

/* What a thread brings upon itself must reach it: a fault, a job in the background that wants the terminal (reading
 * would fail instead of waiting). SIGXFSZ and SIGPIPE are none of them: blocked, a write beyond the limit fails with
 * EFBIG, one that nobody reads with EPIPE, as one to a full disk does, and what began it cleans up or goes on. */
static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGTTIN, SIGTTOU};

static sigset_t asking, taken, mask; /* stops; what the thread waits for; that, and what was blocked at the start */
static bool background; /* a job for which SIGINT of the terminal is not meant */
static atomic_int stop;
static atomic_bool listening;

/* By the signal's default action, in this thread. */
static void end_by(int number) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    unfinished_end();
    signal(number, SIG_DFL);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    _exit(128 + number); /* the first process of a container is not ended by a default action */
}

static void *take(void *arg) {
    double first = 0;
    (void)arg;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    for (;;) {
        siginfo_t from;
        int number = sigwaitinfo(&taken, &from);
        if (number < 0 || (number == SIGINT && background && from.si_code > 0)) continue; /* > 0: of the kernel */
        if (!sigismember(&asking, number)) end_by(number);
        bool asked = atomic_load(&stop) != 0;
        if (!asked && atomic_load(&listening)) {
            first = time_now();
            atomic_store(&stop, number);
        } else if (!asked || (number != SIGXCPU && time_now() - first >= SIGNALS_SAME)) {
            end_by(number);
        }
    }
    return NULL;
}

static bool has(int number, void (*action)(int)) {
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == action;
}

/* If it would end the process: neither ignored, nor blocked, nor caught by somebody else. Linux keeps a blocked signal
 * for who waits for it, also where its action is to be ignored. */
static void choose(int number, const sigset_t *before) {
    bool deadly = has(number, SIG_DFL) || (number == SIGINT && background);
    if (!deadly || sigismember(before, number)) return;
    sigaddset(&taken, number), sigaddset(&mask, number);
}

static void choose_all(const sigset_t *before) {
    background = has(SIGINT, SIG_IGN) && has(SIGQUIT, SIG_IGN);
    sigemptyset(&asking), sigemptyset(&taken);
    mask = *before;
    for (size_t i = 0; i < COUNTOF(stops); i++) sigaddset(&asking, stops[i]), choose(stops[i], before);
    for (size_t i = 0; i < COUNTOF(ends); i++) choose(ends[i], before);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++) choose(number, before);
}

bool signals_begin(Err *err) {
    sigset_t outside, before;
    pthread_t thread;
    sigfillset(&outside);
    for (size_t i = 0; i < COUNTOF(own); i++) sigdelset(&outside, own[i]);
    if (!has(SIGPIPE, SIG_DFL)) sigdelset(&outside, SIGPIPE); /* the handler of somebody else waits for it */
    pthread_sigmask(SIG_BLOCK, &outside, &before);
    choose_all(&before);
    int code = thread_create(&thread, STACK_BYTES, take, NULL);
    if (code == 0) pthread_detach(thread);
    return code == 0 || err_set(err, EXIT_MEMORY, "signals: cannot start the thread that takes them: %s - end other "
                                "programs", strerror(code));
}

void signals_listen(bool on) { atomic_store(&listening, on); }

int signals_stop(void) { return atomic_load_explicit(&stop, memory_order_relaxed); }

void signals_unread(int fd) {
    struct pollfd end = {.fd = fd};
    if (sigismember(&taken, SIGPIPE) && poll(&end, 1, 0) == 1 && (end.revents & POLLERR)) end_by(SIGPIPE);
}
