/* test_parallel.c - each index once, whatever the number of threads, nested and concurrent calls included. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "base/thread.h"

#define MOST 3000
typedef struct {
    atomic_int seen[MOST];
    atomic_int bad_thread;
} Seen;

static void mark(void *arg, int index, int thread) {
    Seen *s = arg;
    atomic_fetch_add(&s->seen[index], 1);
    if (thread < 0 || thread >= parallel_threads()) atomic_store(&s->bad_thread, 1);
}

static void check_once(Seen *s, int count) {
    for (int i = 0; i < MOST; i++) assert_int_equal(atomic_load(&s->seen[i]), i < count);
    assert_int_equal(atomic_load(&s->bad_thread), 0);
}

static void test_each_index_once(void **state) {
    (void)state;
    static const int counts[] = {0, 1, 2, 3, 7, 64, 1000, MOST};
    for (int threads = 1; threads <= 9; threads++) {
        Team *team = team_new(threads);
        team_use(team);
        assert_int_equal(parallel_threads(), threads);
        for (int round = 0; round < 200; round++) {
            Seen s;
            memset(&s, 0, sizeof s);
            int count = counts[round % 8];
            parallel_for(count, mark, &s);
            check_once(&s, count);
        }
        team_free(team);
        assert_int_equal(parallel_threads(), 1);
    }
}

static void nest(void *arg, int index, int thread) {
    (void)thread;
    Seen *s = arg;
    parallel_for(5, mark, &s[index]);
}

static void test_nested(void **state) {
    (void)state;
    static Seen s[16];
    Team *team = team_new(4);
    assert_null(team_use(team));
    parallel_for(16, nest, s);
    for (int i = 0; i < 16; i++) check_once(&s[i], 5);
    assert_ptr_equal(team_use(NULL), team);
    team_free(team);
}

typedef struct {
    Team *team;
    int wrong;
} Caller;

static void *many(void *arg) {
    Caller *c = arg;
    team_use(c->team);
    for (int i = 0; i < 300; i++) {
        Seen s;
        memset(&s, 0, sizeof s);
        parallel_for(100, mark, &s);
        for (int k = 0; k < 100; k++) c->wrong |= atomic_load(&s.seen[k]) != 1;
    }
    return NULL;
}

/* Three callers at once: with one team for all, and with one each. */
static void test_callers(void **state) {
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        pthread_t threads[3];
        Team *common = team_new(3);
        Caller callers[3] = {0};
        for (int i = 0; i < 3; i++) {
            callers[i].team = shared ? common : team_new(2);
            assert_int_equal(pthread_create(&threads[i], NULL, many, &callers[i]), 0);
        }
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(callers[i].wrong, 0);
            if (!shared) team_free(callers[i].team);
        }
        team_free(common);
    }
}

/* Counts as stack of every thread, as that of a library that is preloaded does. */
static _Thread_local char storage[1 << 20];

static void *touch(void *arg) {
    char far[600 << 10];
    memset(far, 1, sizeof far);
    storage[sizeof storage - 1] = far[0];
    *(int *)arg = storage[sizeof storage - 1];
    return NULL;
}

/* Threads start beside much thread-local storage, and have their stack where the limit leaves next to none. */
static void test_stacks(void **state) {
    (void)state;
    pthread_t thread;
    pthread_attr_t attr;
    int touched = 0;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own data of a thread lie on the stack, too */
#endif
    assert_int_equal(thread_create(&thread, 256 << 10, touch, &touched), 0);
    pthread_join(thread, NULL);
    assert_int_equal(touched, 1);
    assert_int_equal(pthread_getattr_default_np(&attr), 0);
    pthread_attr_setstacksize(&attr, sizeof storage + (128 << 10));
    assert_int_equal(pthread_setattr_default_np(&attr), 0);
    touched = 0;
    assert_int_equal(thread_start(&thread, touch, &touched), 0);
    pthread_join(thread, NULL);
    assert_int_equal(touched, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stacks), cmocka_unit_test(test_each_index_once), cmocka_unit_test(test_nested),
                                       cmocka_unit_test(test_callers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
