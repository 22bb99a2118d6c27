/* test_onednn.c - what the library of products and convolutions does to the process that it runs in: no signal meets
 * its generated code on a foreign stack, and the caller's threads and signals are as they were. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "task/classify.h"

/* omp.h's, which not every clang has */
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int threads);

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- training steps ---- */

typedef struct {
    Backend backend;
    ClassifyGraph graph;
    State state;
    Plan *plan;
} Run;

static void run_open(Run *r, const int dims[4], int side, int threads) {
    ClassifySpec spec = {.model = {.depths = {1, 1, 1, 1},
                                   .heads = {1, 1, 1, 1},
                                   .attention = {ATTN_MALA, ATTN_INLINE, ATTN_LINEAR, ATTN_SOFTMAX},
                                   .mlp_ratio = 3.5,
                                   .projection = 300,
                                   .classes = 7},
                         .mean = {0.5f, 0.5f, 0.5f},
                         .std = {0.25f, 0.25f, 0.25f}};
    for (int i = 0; i < 4; i++) spec.model.dims[i] = dims[i];
    OK(backend_open_cpu(&r->backend, threads, &err));
    r->graph = classify_train_graph(&spec, 3, side, side);
    OK(state_new(&r->state, r->graph.graph, &r->backend, classify_train_roles(&spec), &err));
    OK(state_init(&r->state, 5, &err));
    OK(plan_new(&r->plan, r->graph.graph, &r->backend, &r->state, (Val[]){r->graph.loss}, 1, (PlanOptions){0}, &err));
}

static void run_close(Run *r) {
    plan_free(r->plan);
    state_free(&r->state);
    classify_graph_free(&r->graph);
    r->backend.close(&r->backend);
}

/* ---- signals ---- */

static char *stack_begin, *stack_end; /* of the thread that has the handlers */
static atomic_int taken, astray;

static void take_signal(int number) {
    (void)number;
    char *here = __builtin_frame_address(0);
    atomic_fetch_add(&taken, 1);
    if (here < stack_begin || here >= stack_end) atomic_fetch_add(&astray, 1);
}

static void find_stack(void) {
    pthread_attr_t attr;
    size_t size;
    void *begin;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attr), 0);
    assert_int_equal(pthread_attr_getstack(&attr, &begin, &size), 0);
    pthread_attr_destroy(&attr);
    stack_begin = begin;
    stack_end = stack_begin + size;
}

/* A signal each so many microseconds; 0 ends it. */
static void storm(int microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void train_in_storm(const int dims[4], int side) {
    Run r;
    run_open(&r, dims, side, 2);
    find_stack();
    struct sigaction act = {.sa_handler = take_signal, .sa_flags = SA_RESTART}, before;
    sigaction(SIGALRM, &act, &before);
    atomic_store(&taken, 0);
    storm(20);
    double end = time_now() + 0.4;
    for (int step = 0; step < 3 || time_now() < end; step++) plan_run(r.plan);
    storm(0);
    sigaction(SIGALRM, &before, NULL);
    OK(plan_healthy(r.plan, &err));
    run_close(&r);
    int all = atomic_load(&taken), outside = atomic_load(&astray);
    if (all < 20) fail_msg("only %d signals arrived", all);
    if (outside) fail_msg("%d of %d handlers ran outside the stack", outside, all);
}

/* Sums of 85 numbers and more are what the library moves the stack register for; channels of odd counts are what it has
 * no convolution for. */
static void test_storm(void **state) {
    (void)state;
    train_in_storm((const int[4]){64, 128, 192, 256}, 64);
    train_in_storm((const int[4]){12, 20, 36, 44}, 96);
}

/* The same with the kernels of older processors: the library reads the variable once. */
static void test_storm_on(void **state) {
    char path[512], command[640];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(length > 0);
    path[length] = '\0';
    snprintf(command, sizeof command, "ONEDNN_MAX_CPU_ISA=%s '%s' storm >/dev/null 2>&1", (const char *)*state, path);
    if (system(command) != 0) fail_msg("%s", command);
}

static sigset_t masks[2];
static atomic_int arrived;

static void keep_mask(void *arg, int index, int thread) {
    (void)arg, (void)index;
    pthread_sigmask(SIG_SETMASK, NULL, &masks[thread]);
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < 2) usleep(100); /* so that each thread takes one */
}

static void test_compute_threads_take_no_signals(void **state) {
    (void)state;
    Team *team = team_new(2), *before = team_use(team);
    if (team_size(team) == 2) {
        atomic_store(&arrived, 0);
        parallel_for(2, keep_mask, NULL);
        for (int number = 1; number < 32; number++) {
            if (number == SIGKILL || number == SIGSTOP) continue;
            assert_int_equal(sigismember(&masks[1], number), 1);
            assert_int_equal(sigismember(&masks[0], number), 0);
        }
    }
    team_use(before);
    team_free(team);
}

/* ---- the caller's settings ---- */

static void test_openmp_setting_is_the_callers(void **state) {
    (void)state;
    const int wanted[] = {3, 1};
    for (size_t i = 0; i < COUNTOF(wanted); i++) {
        omp_set_num_threads(wanted[i]);
        sigset_t before, after;
        pthread_sigmask(SIG_SETMASK, NULL, &before);
        Run r;
        run_open(&r, (const int[4]){16, 24, 32, 40}, 64, 2);
        assert_int_equal(omp_get_max_threads(), wanted[i]);
        plan_run(r.plan);
        assert_int_equal(omp_get_max_threads(), wanted[i]);
        run_close(&r);
        assert_int_equal(omp_get_max_threads(), wanted[i]);
        pthread_sigmask(SIG_SETMASK, NULL, &after);
        for (int number = 1; number < 32; number++)
            assert_int_equal(sigismember(&before, number), sigismember(&after, number));
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "storm") == 0) {
        const struct CMUnitTest one[] = {cmocka_unit_test(test_storm)};
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    static char avx2[] = "AVX2", avx[] = "AVX", sse[] = "SSE41";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        {"storm_avx2", test_storm_on, NULL, NULL, avx2},
        {"storm_avx", test_storm_on, NULL, NULL, avx},
        {"storm_sse41", test_storm_on, NULL, NULL, sse},
        cmocka_unit_test(test_compute_threads_take_no_signals),
        cmocka_unit_test(test_openmp_setting_is_the_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
