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
        parallel_set_threads(threads);
        assert_int_equal(parallel_threads(), threads);
        for (int round = 0; round < 200; round++) {
            Seen s;
            memset(&s, 0, sizeof s);
            int count = counts[round % 8];
            parallel_for(count, mark, &s);
            check_once(&s, count);
        }
    }
    parallel_set_threads(1);
}

static void nest(void *arg, int index, int thread) {
    (void)thread;
    Seen *s = arg;
    parallel_for(5, mark, &s[index]);
}

static void test_nested(void **state) {
    (void)state;
    static Seen s[16];
    parallel_set_threads(4);
    parallel_for(16, nest, s);
    for (int i = 0; i < 16; i++) check_once(&s[i], 5);
    parallel_set_threads(1);
}

static void *many(void *arg) {
    for (int i = 0; i < 300; i++) {
        Seen s;
        memset(&s, 0, sizeof s);
        parallel_for(100, mark, &s);
        for (int k = 0; k < 100; k++)
            if (atomic_load(&s.seen[k]) != 1) *(int *)arg = 1;
    }
    return NULL;
}

static void test_two_callers(void **state) {
    (void)state;
    pthread_t threads[3];
    int wrong[3] = {0};
    parallel_set_threads(3);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, many, &wrong[i]), 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) assert_int_equal(wrong[i], 0);
    parallel_set_threads(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_index_once), cmocka_unit_test(test_nested),
                                       cmocka_unit_test(test_two_callers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
