#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/thread.h"

#define SPINS 2000 /* about 30 microseconds */

typedef struct {
    _Alignas(64) atomic_int next; /* index to take; at `end` the share is done. Others may take from it, too. */
    int end;
} Share;

typedef struct {
    Team *team;
    int thread;
} Member;

struct Team {
    pthread_mutex_t turn; /* held by the thread whose loop the team runs */
    pthread_mutex_t lock; /* guards sleeping and waking */
    pthread_cond_t work, done;
    pthread_t threads[PARALLEL_MOST];
    Member members[PARALLEL_MOST];
    int size; /* with the caller */
    pid_t process; /* in a child of fork() the helpers are missing */
    bool closing;
    atomic_uint round; /* grows with each loop */
    atomic_int busy;   /* helpers that have not finished this round */
    void (*body)(void *arg, int index, int thread);
    void *arg;
    Share shares[PARALLEL_MOST];
};

/* the calling thread's own; loops without one run in the caller alone */
static _Thread_local Team *mine;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_as(Team *t, int thread) {
    for (int i = 0; i < t->size; i++) {
        Share *share = &t->shares[(thread + i) % t->size];
        for (;;) {
            int index = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
            if (index >= share->end) break;
            t->body(t->arg, index, thread);
        }
    }
}

static void await_round(Team *t, unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&t->round, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load_explicit(&t->round, memory_order_acquire) == seen) pthread_cond_wait(&t->work, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void *helper(void *arg) {
    Team *t = ((Member *)arg)->team;
    int thread = ((Member *)arg)->thread;
    mine = t;
    for (unsigned seen = 0;; seen++) {
        await_round(t, seen);
        if (t->closing) return NULL;
        work_as(t, thread);
        if (atomic_fetch_sub_explicit(&t->busy, 1, memory_order_acq_rel) != 1) continue;
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->done);
        pthread_mutex_unlock(&t->lock);
    }
}

static void begin_round(Team *t) {
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add_explicit(&t->round, 1, memory_order_release);
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static void await_helpers(Team *t) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&t->busy, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load_explicit(&t->busy, memory_order_acquire) != 0) pthread_cond_wait(&t->done, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

Team *team_new(int threads) {
    Team *t = aligned_alloc(64, ROUND_UP(sizeof *t, 64));
    if (!t) mem_exhausted("a team of threads");
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->turn, NULL);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    int wanted = MIN(MAX(threads, 1), PARALLEL_MOST);
    t->size = wanted;
    t->process = getpid();
    /* a system that grants fewer threads gives a smaller team, not another result */
    for (int i = 1; i < wanted; i++) {
        t->members[i] = (Member){t, i};
        if (thread_start(&t->threads[i], helper, &t->members[i]) != 0) {
            t->size = i;
            break;
        }
    }
    return t;
}

/* Waits for the helpers' end. */
static void dismiss(Team *t) {
    t->closing = true;
    begin_round(t);
    for (int i = 1; i < t->size; i++) pthread_join(t->threads[i], NULL);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->turn);
}

void team_free(Team *t) {
    if (!t) return;
    if (mine == t) mine = NULL;
    if (t->process == getpid()) dismiss(t);
    free(t);
}

Team *team_use(Team *t) {
    Team *before = mine;
    mine = t;
    return before;
}

int team_size(const Team *t) { return t ? t->size : 1; }
int parallel_threads(void) { return team_size(mine); }

void parallel_for(int count, void (*body)(void *arg, int index, int thread), void *arg) {
    Team *t = mine;
    if (count <= 1 || !t || t->size == 1 || t->process != getpid() || pthread_mutex_trylock(&t->turn) != 0) {
        for (int i = 0; i < count; i++) body(arg, i, 0);
        return;
    }
    t->body = body;
    t->arg = arg;
    for (int i = 0; i < t->size; i++) {
        atomic_store_explicit(&t->shares[i].next, (int)((int64_t)count * i / t->size), memory_order_relaxed);
        t->shares[i].end = (int)((int64_t)count * (i + 1) / t->size);
    }
    atomic_store_explicit(&t->busy, t->size - 1, memory_order_relaxed);
    begin_round(t);
    work_as(t, 0);
    await_helpers(t);
    pthread_mutex_unlock(&t->turn);
}
