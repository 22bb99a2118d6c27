/* test_process.c - libmala in somebody else's process: after every function of mala.h, failing calls too, all that the
 * process has is as it was, and what the process has set up changes no answer. */
#include <dirent.h>
#include <errno.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cmocka.h>
#include <omp.h>

#include "base/base.h"
#include "lib/mala.h"
#include "program.h"

extern char **environ;

enum { CLASSES_MOST = 64, SIDE = 32 };

static char weights[192], picture[400];
static MalaError error;

static int make_model(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    snprintf(weights, sizeof weights, "%s/run/weights/best.safetensors", folder);
    snprintf(picture, sizeof picture, "%s/picture", folder);
    shell("cp $(ls data/val/*/*.jpg data/val/*/*.png 2>/dev/null | head -n 1) picture");
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- what a process has ---- */

typedef struct {
    sigset_t mask;
    struct {
        void *handler;
        int flags;
    } actions[65];
    stack_t stack;
    struct itimerval timers[3];
    unsigned mxcsr; /* rounding, traps, flags, subnormals */
    int rounding, flags, traps;
    int omp_threads;
    char locale[512], directory[512], descriptors[2048], environment[20];
    mode_t umask;
    int priority, threads;
    struct rlimit limits[16];
} Process;

/* Names in a folder of /proc/self and what they point to, in their order; returns how many. */
static int list_folder(char *text, size_t room, const char *path) {
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t used = 0;
    int count = 0;
    text[0] = '\0';
    for (struct dirent *entry; (entry = readdir(dir)); ) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir)) continue;
        char target[256];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        used += (size_t)snprintf(text + used, room - used, "%s=%.*s ", entry->d_name, n > 0 ? (int)n : 0, target);
        assert_true(used < room);
        count++;
    }
    closedir(dir);
    return count;
}

/* A thread that has been joined may stand there for a moment. */
static int count_threads(void) {
    static char names[1 << 16];
    int least = 1 << 30;
    for (int i = 0; i < 5; i++) {
        least = MIN(least, list_folder(names, sizeof names, "/proc/self/task"));
        if (least > 1) usleep(200);
    }
    return least;
}

static uint64_t hash_environment(void) {
    uint64_t hash = 14695981039346656037u;
    for (char **e = environ; *e; e++)
        for (const char *c = *e; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
    return hash;
}

static void look(Process *p) {
    fenv_t floats;
    memset(p, 0, sizeof *p);
    p->rounding = fegetround(), p->flags = fetestexcept(FE_ALL_EXCEPT), p->traps = fegetexcept();
#if defined(__x86_64__)
    p->mxcsr = _mm_getcsr();
#endif
    feholdexcept(&floats); /* looking traps nothing */
    pthread_sigmask(SIG_BLOCK, NULL, &p->mask);
    for (int n = 1; n <= 64; n++) {
        struct sigaction now;
        if (sigaction(n, NULL, &now) != 0) continue;
        p->actions[n].handler = (void *)now.sa_handler, p->actions[n].flags = now.sa_flags;
    }
    sigaltstack(NULL, &p->stack);
    for (int i = 0; i < 3; i++) getitimer(i, &p->timers[i]);
    p->omp_threads = omp_get_max_threads();
    snprintf(p->locale, sizeof p->locale, "%s", setlocale(LC_ALL, NULL));
    assert_non_null(getcwd(p->directory, sizeof p->directory));
    list_folder(p->descriptors, sizeof p->descriptors, "/proc/self/fd");
    snprintf(p->environment, sizeof p->environment, "%016llx", (unsigned long long)hash_environment());
    p->umask = umask(0);
    umask(p->umask);
    p->priority = getpriority(PRIO_PROCESS, 0);
    for (int i = 0; i < 16; i++) getrlimit(i, &p->limits[i]);
    p->threads = count_threads();
    fesetenv(&floats);
}

#define SAME(what) \
    if (memcmp(&a->what, &b->what, sizeof a->what) != 0) fail_msg("%s changes the caller's " #what, call)

static void expect_same(const Process *a, const Process *b, const char *call, bool threads, bool descriptors) {
    SAME(mask);
    SAME(actions);
    SAME(stack);
    SAME(rounding);
    SAME(flags);
    SAME(traps);
    SAME(mxcsr);
    SAME(omp_threads);
    SAME(locale);
    SAME(directory);
    SAME(environment);
    SAME(umask);
    SAME(priority);
    SAME(limits);
    for (int i = 0; i < 3; i++) SAME(timers[i].it_interval);
    if (descriptors && strcmp(a->descriptors, b->descriptors) != 0)
        fail_msg("%s: descriptors %s, and then %s", call, a->descriptors, b->descriptors);
    if (threads) assert_int_equal(a->threads, b->threads);
}

static Process before;

/* The call, with the process as it was after it. A runner has threads, a model its file. */
#define NEUTRAL(call, threads, descriptors) \
    do { \
        Process after_; \
        look(&before); \
        call; \
        look(&after_); \
        expect_same(&before, &after_, #call, threads, descriptors); \
    } while (0)

/* ---- a caller who has set everything up ---- */

static void handle(int number) { (void)number; }

static void set_process_up(void) {
    static char stack[1 << 16];
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &some, NULL);
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaction(SIGINT, &action, NULL), sigaction(SIGSEGV, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    omp_set_num_threads(3);
    umask(027);
    setenv("MALA_SOMEBODYS", "own", 1);
    fesetround(FE_UPWARD);
    feraiseexcept(FE_UNDERFLOW);
    feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* subnormals are flushed, and read as zero */
#endif
}

static void set_process_back(void) {
    sigset_t none;
    fesetenv(FE_DFL_ENV);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_DFL), signal(SIGSEGV, SIG_DFL), signal(SIGPIPE, SIG_DFL);
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    omp_set_num_threads(1);
    unsetenv("MALA_SOMEBODYS");
}

/* ---- every function ---- */

static void call_what_works(void) {
    MalaModel *model = NULL;
    MalaRunner *runner = NULL, *tensors = NULL;
    MalaInfo info;
    MalaImage image;
    static float prob[CLASSES_MOST], planes[3 * SIDE * SIDE];
    int32_t top[3];
    bool ok = false;
    const char *label = NULL;
    MalaRunnerOptions options = {.threads = 2}, plain = {.threads = 2, .tensors = true};
    Process first, last;
    look(&first);
    NEUTRAL((void)mala_version(), true, true);
    NEUTRAL(model = mala_model_open(weights, NULL, 0, &error), true, false);
    if (!model) fail_msg("%s", error.text);
    NEUTRAL(info = mala_model_info(model), true, true);
    assert_in_range(info.classes, 1, CLASSES_MOST);
    NEUTRAL(label = mala_model_label(model, 0), true, true);
    assert_non_null(label);
    NEUTRAL(runner = mala_runner_new(model, &options, &error), false, true);
    if (!runner) fail_msg("%s", error.text);
    NEUTRAL(tensors = mala_runner_new(model, &plain, &error), false, true);
    NEUTRAL(ok = mala_image_load(&image, picture, &error), true, true);
    if (!ok) fail_msg("%s", error.text);
    NEUTRAL(ok = mala_run_images(runner, NULL, prob, &image, 1, &error), true, true);
    if (!ok) fail_msg("%s", error.text);
    NEUTRAL(ok = mala_run_tensors(tensors, prob, NULL, planes, 1, &error), true, true);
    if (!ok) fail_msg("%s", error.text);
    NEUTRAL(mala_top(top, prob, info.classes, 3), true, true);
    NEUTRAL(mala_image_free(&image), true, true);
    NEUTRAL(mala_runner_free(runner), false, true);
    NEUTRAL(mala_runner_free(tensors), false, true);
    NEUTRAL(mala_model_close(model), true, false);
    look(&last);
    expect_same(&first, &last, "all together", true, true);
}

static void call_what_fails(void) {
    MalaModel *model = NULL;
    MalaRunner *runner = NULL;
    MalaImage image;
    bool ok = true;
    const char *const wrong[] = {"input.size=33"};
    static const float nan_planes[3 * SIDE * SIDE] = {[0 ... 3 * SIDE * SIDE - 1] = __builtin_nanf("")};
    static float prob[CLASSES_MOST];
    MalaRunnerOptions vast = {.threads = 2, .batch = 1 << 30}, abacus = {.device = "abacus"};
    MalaRunnerOptions cuda = {.device = "cuda:9"};
    NEUTRAL(model = mala_model_open("/nowhere", NULL, 0, &error), true, true);
    NEUTRAL(model = mala_model_open(picture, NULL, 0, &error), true, true);
    NEUTRAL(model = mala_model_open(weights, wrong, 1, &error), true, true);
    NEUTRAL(model = mala_model_open(NULL, NULL, 0, NULL), true, true);
    assert_null(model);
    NEUTRAL(ok = mala_image_load(&image, weights, &error), true, true);
    assert_false(ok);
    NEUTRAL(ok = mala_image_load(&image, "/nowhere", &error), true, true);
    assert_false(ok);
    model = mala_model_open(weights, NULL, 0, &error);
    assert_non_null(model);
    NEUTRAL(runner = mala_runner_new(model, &vast, &error), true, true);
    NEUTRAL(runner = mala_runner_new(model, &abacus, &error), true, true);
    NEUTRAL(runner = mala_runner_new(model, &cuda, &error), true, true);
    NEUTRAL(runner = mala_runner_new(NULL, NULL, &error), true, true);
    assert_null(runner);
    MalaRunnerOptions plain = {.threads = 2, .tensors = true};
    runner = mala_runner_new(model, &plain, &error);
    assert_non_null(runner);
    NEUTRAL(ok = mala_run_tensors(runner, prob, NULL, nan_planes, 1, &error), true, true);
    assert_false(ok);
    NEUTRAL(ok = mala_run_images(runner, prob, NULL, &image, 1, &error), true, true);
    assert_false(ok);
    mala_runner_free(runner);
    mala_model_close(model);
}

static void test_nothing_of_the_caller_changes(void **state) {
    (void)state;
    call_what_works();
    call_what_fails();
}

static void test_nothing_of_a_caller_with_settings_changes(void **state) {
    (void)state;
    set_process_up();
    call_what_works();
    call_what_fails();
    set_process_back();
}

/* ---- the other way round ---- */

typedef struct {
    float logits[CLASSES_MOST], prob[CLASSES_MOST], more[CLASSES_MOST];
    int32_t top[3];
    double macs;
    int width, height;
    uint64_t pixels;
} Answers;

static float planes[3 * SIDE * SIDE];

/* Numbers down to subnormals. */
static void make_planes(void) {
    for (int i = 0; i < 3 * SIDE * SIDE; i++)
        planes[i] = (float)(i * 7919 % 65536) * (i % 3 ? 3e-5f : 1e-42f);
}

static void answer(Answers *a) {
    MalaImage image;
    memset(a, 0, sizeof *a);
    MalaModel *model = mala_model_open(weights, NULL, 0, &error);
    assert_non_null(model);
    MalaInfo info = mala_model_info(model);
    a->macs = info.macs;
    MalaRunner *runner = mala_runner_new(model, &(MalaRunnerOptions){.threads = 2}, &error);
    MalaRunner *tensors = mala_runner_new(model, &(MalaRunnerOptions){.threads = 2, .tensors = true}, &error);
    assert_true(runner && tensors);
    assert_true(mala_image_load(&image, picture, &error));
    a->width = image.width, a->height = image.height;
    for (int i = 0; i < 3 * image.width * image.height; i++) a->pixels = a->pixels * 31 + image.pixels[i];
    assert_true(mala_run_images(runner, a->logits, a->prob, &image, 1, &error));
    assert_true(mala_run_tensors(tensors, a->more, NULL, planes, 1, &error));
    const float tiny[3] = {2e-44f, 4e-44f, 3e-44f};
    mala_top(a->top, tiny, 3, 3);
    mala_image_free(&image);
    mala_runner_free(runner);
    mala_runner_free(tensors);
    mala_model_close(model);
}

static void test_answers_do_not_depend_on_the_caller(void **state) {
    (void)state;
    static Answers usual, other;
    make_planes();
    answer(&usual);
    assert_true(usual.top[0] == 1 && usual.top[1] == 2);
    const int roundings[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (size_t i = 0; i < COUNTOF(roundings); i++) {
        fesetround(roundings[i]);
        answer(&other);
        fesetenv(FE_DFL_ENV);
        assert_memory_equal(&usual, &other, sizeof usual);
    }
    set_process_up();
    answer(&other);
    set_process_back();
    assert_memory_equal(&usual, &other, sizeof usual);
}

/* A comma in numbers, where there is a locale that has one. */
static void test_answers_do_not_depend_on_the_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ru_RU.UTF-8"};
    static Answers usual, other;
    bool found = false;
    make_planes();
    answer(&usual);
    for (size_t i = 0; !found && i < COUNTOF(names); i++) found = setlocale(LC_ALL, names[i]) != NULL;
    if (!found) skip();
    answer(&other);
    call_what_works();
    setlocale(LC_ALL, "C");
    assert_memory_equal(&usual, &other, sizeof usual);
}

/* ---- fork ---- */

/* Exit code of a child that asks a runner it has from its parent; 128 + 14: it hung. */
static int ask_in_child(MalaRunner *runner, const MalaModel *model, const MalaImage *image, const float *expected,
                        bool bare) {
    pid_t child = bare ? _Fork() : fork(); /* the bare one calls nobody who asked to be told */
    assert_true(child >= 0);
    if (child == 0) {
        static float prob[CLASSES_MOST];
        size_t bytes = sizeof *prob * (size_t)mala_model_info(model).classes;
        alarm(20);
        bool ok = mala_run_images(runner, NULL, prob, image, 1, NULL) && memcmp(prob, expected, bytes) == 0;
        MalaRunner *own = mala_runner_new(model, &(MalaRunnerOptions){.threads = 3}, NULL);
        memset(prob, 0, sizeof prob);
        ok = ok && own && mala_run_images(own, NULL, prob, image, 1, NULL) && memcmp(prob, expected, bytes) == 0;
        mala_runner_free(own);
        mala_runner_free(runner);
        _exit(ok ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_a_forked_child_has_its_parents_runner(void **state) {
    (void)state;
    static float prob[CLASSES_MOST];
    MalaImage image;
    MalaModel *model = mala_model_open(weights, NULL, 0, &error);
    MalaRunner *runner = mala_runner_new(model, &(MalaRunnerOptions){.threads = 3}, &error);
    assert_true(runner && mala_image_load(&image, picture, &error));
    assert_true(mala_run_images(runner, NULL, prob, &image, 1, &error));
    for (int i = 0; i < 5; i++) {
        if (i == 3) usleep(20000); /* its threads sleep by now */
        assert_int_equal(ask_in_child(runner, model, &image, prob, i % 2), 0);
        assert_true(mala_run_images(runner, NULL, prob, &image, 1, &error));
    }
    mala_image_free(&image);
    mala_runner_free(runner);
    mala_model_close(model);
}

/* ---- a caller with a profiler ---- */

static volatile sig_atomic_t met;

static void count_signal(int number) {
    (void)number;
    met++;
}

/* Handlers run on the stacks of the caller's threads: nothing may be there but stack. */
static void test_a_callers_timer(void **state) {
    (void)state;
    static float usual[CLASSES_MOST], prob[CLASSES_MOST];
    MalaImage image;
    MalaModel *model = mala_model_open(weights, NULL, 0, &error);
    int bytes = (int)sizeof *prob * mala_model_info(model).classes;
    assert_true(mala_image_load(&image, picture, &error));
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART}, was;
    sigaction(SIGPROF, &action, &was);
    clock_t most = clock() + 20 * CLOCKS_PER_SEC; /* of this process, as the timer: others may have the processor */
    met = 0;
    for (int i = 0; i < 3 || (met < 50 && clock() < most); i++) {
        MalaRunner *runner = mala_runner_new(model, &(MalaRunnerOptions){.threads = 1 + i % 2}, &error);
        assert_non_null(runner);
        for (int k = 0; k < 10; k++) {
            assert_true(mala_run_images(runner, NULL, i ? prob : usual, &image, 1, &error));
            if (i) assert_memory_equal(prob, usual, bytes);
        }
        mala_runner_free(runner);
        if (i == 0) setitimer(ITIMER_PROF, &(struct itimerval){{0, 500}, {0, 500}}, NULL);
    }
    setitimer(ITIMER_PROF, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    sigaction(SIGPROF, &was, NULL);
    assert_true(met >= 50);
    mala_image_free(&image);
    mala_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_of_the_caller_changes),
        cmocka_unit_test(test_nothing_of_a_caller_with_settings_changes),
        cmocka_unit_test(test_answers_do_not_depend_on_the_caller),
        cmocka_unit_test(test_answers_do_not_depend_on_the_locale),
        cmocka_unit_test(test_a_forked_child_has_its_parents_runner),
        cmocka_unit_test(test_a_callers_timer),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
