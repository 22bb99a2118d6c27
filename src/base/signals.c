#include "base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/unfinished.h"

#define STACK_BYTES (256 << 10) /* room for the frames and handlers of a profiler that was preloaded */

static const int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};

/* What a thread brings upon itself must reach it: a fault, a write to a pipe that nobody reads, a job in the background
 * that wants the terminal (reading would fail instead of waiting). SIGXFSZ is none of them: blocked, a write beyond the
 * limit fails with EFBIG, as one to a full disk does, and what began it cleans up. */
static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPIPE, SIGTTIN, SIGTTOU};

static sigset_t taken, mask; /* what the thread waits for; that, and what was blocked when the program started */
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

/* Those that would end the process: neither ignored, nor blocked, nor caught by somebody else. Linux keeps a blocked
 * signal for who waits for it, also where its action is to be ignored. */
static void choose(const sigset_t *before) {
    background = has(SIGINT, SIG_IGN) && has(SIGQUIT, SIG_IGN);
    sigemptyset(&taken);
    mask = *before;
    for (size_t i = 0; i < COUNTOF(stops); i++) {
        bool ends = has(stops[i], SIG_DFL) || (stops[i] == SIGINT && background);
        if (!ends || sigismember(before, stops[i])) continue;
        sigaddset(&taken, stops[i]), sigaddset(&mask, stops[i]);
    }
}

bool signals_begin(Err *err) {
    sigset_t outside, before;
    pthread_t thread;
    sigfillset(&outside);
    for (size_t i = 0; i < COUNTOF(own); i++) sigdelset(&outside, own[i]);
    pthread_sigmask(SIG_BLOCK, &outside, &before);
    choose(&before);
    int code = thread_create(&thread, STACK_BYTES, take, NULL);
    if (code == 0) pthread_detach(thread);
    return code == 0 || err_set(err, EXIT_MEMORY, "signals: cannot start the thread that takes them: %s - end other "
                                "programs", strerror(code));
}

void signals_listen(bool on) { atomic_store(&listening, on); }

int signals_stop(void) { return atomic_load_explicit(&stop, memory_order_relaxed); }
