#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/base.h"

#define SPINS 2000 /* about 30 microseconds */

typedef struct {
    _Alignas(64) atomic_int next; /* index to take; at `end` the share is done. Others may take from it, too. */
    int end;
} Share;

/* The one team of the process, as the C library has one heap: threads are a resource of the process, and whoever
 * computes takes turns. */
static struct {
    pthread_mutex_t turn; /* held by the thread whose loop the team runs */
    pthread_mutex_t lock; /* guards sleeping and waking */
    pthread_cond_t work, done;
    pthread_t threads[PARALLEL_MOST];
    int size; /* with the caller */
    bool closing;
    atomic_uint round; /* grows with each loop */
    atomic_int busy;   /* helpers that have not finished this round */
    void (*body)(void *arg, int index, int thread);
    void *arg;
    Share shares[PARALLEL_MOST];
} team = {.turn = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER,
          .size = 1};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_as(int thread) {
    for (int i = 0; i < team.size; i++) {
        Share *share = &team.shares[(thread + i) % team.size];
        for (;;) {
            int index = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
            if (index >= share->end) break;
            team.body(team.arg, index, thread);
        }
    }
}

static void await_round(unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team.round, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&team.lock);
    while (atomic_load_explicit(&team.round, memory_order_acquire) == seen) pthread_cond_wait(&team.work, &team.lock);
    pthread_mutex_unlock(&team.lock);
}

static void *helper(void *arg) {
    int thread = (int)(intptr_t)arg;
    for (unsigned seen = 0;; seen++) {
        await_round(seen);
        if (team.closing) return NULL;
        work_as(thread);
        if (atomic_fetch_sub_explicit(&team.busy, 1, memory_order_acq_rel) != 1) continue;
        pthread_mutex_lock(&team.lock);
        pthread_cond_signal(&team.done);
        pthread_mutex_unlock(&team.lock);
    }
}

static void begin_round(void) {
    pthread_mutex_lock(&team.lock);
    atomic_fetch_add_explicit(&team.round, 1, memory_order_release);
    pthread_cond_broadcast(&team.work);
    pthread_mutex_unlock(&team.lock);
}

static void await_helpers(void) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team.busy, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&team.lock);
    while (atomic_load_explicit(&team.busy, memory_order_acquire) != 0) pthread_cond_wait(&team.done, &team.lock);
    pthread_mutex_unlock(&team.lock);
}

void parallel_set_threads(int threads) {
    threads = MIN(MAX(threads, 1), PARALLEL_MOST);
    pthread_mutex_lock(&team.turn);
    if (threads != team.size) {
        team.closing = true;
        begin_round();
        for (int i = 1; i < team.size; i++) pthread_join(team.threads[i], NULL);
        team.closing = false;
        atomic_store(&team.round, 0);
        team.size = 1;
        /* a system that grants fewer threads gives a smaller team, not another result */
        for (int i = 1; i < threads; i++) {
            if (pthread_create(&team.threads[i], NULL, helper, (void *)(intptr_t)i) != 0) break;
            team.size = i + 1;
        }
    }
    pthread_mutex_unlock(&team.turn);
}

int parallel_threads(void) { return team.size; }

void parallel_for(int count, void (*body)(void *arg, int index, int thread), void *arg) {
    if (count <= 1 || team.size == 1 || pthread_mutex_trylock(&team.turn) != 0) {
        for (int i = 0; i < count; i++) body(arg, i, 0);
        return;
    }
    team.body = body;
    team.arg = arg;
    for (int i = 0; i < team.size; i++) {
        atomic_store_explicit(&team.shares[i].next, (int)((int64_t)count * i / team.size), memory_order_relaxed);
        team.shares[i].end = (int)((int64_t)count * (i + 1) / team.size);
    }
    atomic_store_explicit(&team.busy, team.size - 1, memory_order_relaxed);
    begin_round();
    work_as(0);
    await_helpers();
    pthread_mutex_unlock(&team.turn);
}
