/* test_signals.c - signals, descriptors and terminals as people and their tools use them: what is stopped saves and
 * says so with its exit code, what was to be ignored is ignored, and no signal ever meets a thread that computes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/rng.h"
#include "program.h"

#define ENDLESS "train data.path=data output=run " SMALL "sched.epochs=100000 -j 1 --quiet"
/* Sums that are long enough for the library's gemm to use the stack register for its own ends. */
#define LARGER \
    "train data.path=data output=run model.name=custom model.dims=[64,128,192,256] model.depths=[1,1,1,1] " \
    "model.heads=[1,2,3,4] model.projection=256 input.size=64 train.batch_size=8 sched.epochs=9999 " \
    "sched.warmup_epochs=0 optim.lr_base_size=0 -j 1 --quiet"
#define PATIENCE 60.0 /* seconds until something is said to hang */

static char program[512], preloads[512]; /* absolute, since the tests' programs run in their folder */

static int make_data(void **state) {
    (void)state;
    const char *binary = getenv("MALA");
    char *path = realpath(binary ? binary : "build/mala", NULL);
    assert_non_null(path);
    snprintf(program, sizeof program, "%s", path);
    free(path);
    snprintf(preloads, sizeof preloads, "%s", program);
    snprintf(strrchr(preloads, '/'), 32, "/tests");
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/done " SMALL "--quiet");
    /* a validation that takes a while */
    shell("mkdir -p much/val; cp -r data/train much/; for c in data/val/*; do d=much/val/$(basename $c); mkdir $d; "
          "f=$(ls $c/* | head -n 1); for i in $(seq 300); do ln $f $d/$i.jpg; done; done");
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- programs that run beside the test ---- */

/* How it is started. */
typedef struct {
    int ignored[5];      /* signals, 0 after the last */
    int closed;          /* bit set of descriptors */
    const char *preload; /* "storm" */
    const char *faults;  /* for faults_io.so */
    int input, output;   /* descriptors to use instead; 0: /dev/null, and the file `out` */
    int errors;          /* the same; 0: the file `err` */
} Start;

static void set_up_child(const Start *s) {
    char path[600];
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < 32; number++) signal(number, SIG_DFL); /* the tests may be a script's job */
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 0; i < 5 && s->ignored[i]; i++) signal(s->ignored[i], SIG_IGN);
    setpgid(0, 0); /* jobs of a shell */
    if (chdir(folder) != 0) _exit(126);
    dup2(s->input ? s->input : open("/dev/null", O_RDONLY), 0);
    dup2(s->output ? s->output : open("out", O_WRONLY | O_CREAT | O_TRUNC, 0666), 1);
    dup2(s->errors ? s->errors : open("err", O_WRONLY | O_CREAT | O_TRUNC, 0666), 2);
    for (int fd = 3; fd < 20; fd++) close(fd);
    for (int fd = 0; fd < 3; fd++)
        if (s->closed >> fd & 1) close(fd);
    if (s->preload || s->faults) {
        snprintf(path, sizeof path, "%s/faults_%s.so", preloads, s->preload ? s->preload : "io");
        setenv("LD_PRELOAD", path, 1);
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    }
    if (s->faults) setenv("MALA_FAULT", s->faults, 1);
}

/* mala with these arguments, apart by spaces; quotes are for the shell that others use. */
static pid_t start_as(Start how, const char *arguments) {
    char text[2048], *argv[64] = {program}, *rest = text;
    int count = 1;
    snprintf(text, sizeof text, "%s", arguments);
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        size_t length = strlen(word);
        if (length == 0) continue;
        if (*word == '\'') word[length - 1] = '\0', word++;
        argv[count++] = word;
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    set_up_child(&how);
    execv(program, argv);
    _exit(127);
}

static pid_t start(const char *arguments) { return start_as((Start){0}, arguments); }

static void pause_ms(double ms) {
    nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(ms * 1e6) % 1000000000}, NULL);
}

/* Its exit code, or 128 + the signal that killed it; *seconds that it took from now (NULL: not asked). */
static int end_of(pid_t pid, double *seconds) {
    int status;
    double begin = time_now();
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (time_now() - begin > PATIENCE) {
            kill(pid, SIGKILL);
            fail_msg("still running after %.0f s", PATIENCE);
        }
        pause_ms(2);
    }
    if (seconds) *seconds = time_now() - begin;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void said(void) {
    char path[SCRATCH_PATH + 8];
    snprintf(path, sizeof path, "%s/err", folder);
    read_text(errors, sizeof errors, path);
}

static void expect_end(int code, pid_t pid) {
    int got = end_of(pid, NULL);
    said();
    if (got != code) fail_msg("ended with %d instead of %d: %s", got, code, errors);
}

static int64_t size_of(const char *name) {
    char path[SCRATCH_PATH + 64];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &st) == 0 ? st.st_size : -1;
}

/* Until a file has more bytes than `bytes`. */
static int64_t await_growth(pid_t pid, const char *name, int64_t bytes) {
    double begin = time_now();
    while (size_of(name) <= bytes) {
        if (waitpid(pid, NULL, WNOHANG) != 0 || time_now() - begin > PATIENCE) fail_msg("%s does not grow", name);
        pause_ms(2);
    }
    return size_of(name);
}

/* A training in `run` that has judged an epoch. */
static pid_t training(Start how) {
    shell("rm -rf run");
    pid_t pid = start_as(how, ENDLESS);
    int64_t heading = await_growth(pid, "run/results.csv", 0);
    await_growth(pid, "run/results.csv", heading);
    return pid;
}

static void expect_no_temporaries(void) { shell("! find . -name '*.tmp.*' | grep ."); }

/* ---- what stops ---- */

static void test_what_stops_saves(void **state) {
    (void)state;
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};
    for (size_t i = 0; i < COUNTOF(numbers); i++) {
        pid_t pid = training((Start){0});
        kill(pid, numbers[i]);
        expect_end(75, pid);
        expect_text(errors, "weights/last.safetensors is saved");
        EXPECT(0, "verify $T/run/weights/last.safetensors");
    }
}

/* An evaluation is given up in its middle: its epoch has no row, its weights are there. */
static void test_evaluation_stops(void **state) {
    (void)state;
    shell("rm -rf run");
    pid_t pid = start("train data.path=much output=run " SMALL "eval.batch_size=8 -t 1 -j 1 --quiet");
    await_growth(pid, "run/metrics.jsonl", 0);
    kill(pid, SIGTERM);
    expect_end(75, pid);
    EXPECT(0, "verify $T/run/weights/last.safetensors");
    shell("test $(wc -l <run/results.csv) = 1");
}

/* `timeout` sends its signal to the program and then to the group it is in. */
static void test_a_signal_that_comes_twice_is_one(void **state) {
    (void)state;
    shell("rm -rf run");
    pid_t pid = start_as((Start){.faults = "write:last.safetensors:28:0:2"}, ENDLESS); /* saving takes a second */
    await_growth(pid, "run/classes.txt", 0);
    kill(pid, SIGTERM);
    pause_ms(50);
    kill(pid, SIGTERM);
    expect_end(75, pid);
    EXPECT(0, "verify $T/run/weights/last.safetensors");
}

static void test_a_second_signal_ends_at_once(void **state) {
    (void)state;
    double seconds;
    shell("rm -rf run");
    pid_t pid = start_as((Start){.faults = "write:last.safetensors:28:0:99999"}, ENDLESS); /* tried for 3 s */
    await_growth(pid, "run/classes.txt", 0);
    kill(pid, SIGINT);
    pause_ms(400);
    kill(pid, SIGINT);
    assert_int_equal(end_of(pid, &seconds), 128 + SIGINT);
    assert_true(seconds < 1.5);
    expect_no_temporaries();
}

/* Where there is nothing to save the signal ends the program, and whoever waits for it sees that. */
static void test_what_saves_nothing_ends_by_the_signal(void **state) {
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = start("synth many --train 9999 --val 0 --scenes 0 --size 32 --quiet");
    await_growth(pid, "many", 0);
    kill(pid, SIGTERM);
    expect_end(128 + SIGTERM, pid);
    pid = start_as((Start){.input = pipes[0]}, "infer - --weights done --out answers --csv --quiet");
    pause_ms(300); /* it waits for names */
    kill(pid, SIGINT);
    expect_end(128 + SIGINT, pid);
    assert_int_equal(size_of("answers"), -1);
    expect_no_temporaries();
    pid = start("eval done --data much -t 1 -j 1 --quiet eval.batch_size=8");
    pause_ms(100);
    kill(pid, SIGHUP);
    expect_end(128 + SIGHUP, pid);
    close(pipes[0]), close(pipes[1]);
    shell("rm -rf many");
}

/* Whatever ends the program but SIGKILL and its own faults: nothing is left half written. */
static void test_what_ends_it_leaves_nothing(void **state) {
    (void)state;
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU, SIGQUIT, SIGPIPE, SIGUSR2, SIGALRM, SIGVTALRM,
                           SIGPROF, SIGIO, SIGPWR, SIGSTKFLT, SIGRTMIN, SIGRTMAX};
    for (size_t i = 0; i < COUNTOF(numbers); i++) {
        int pipes[2];
        char temporary[64];
        assert_int_equal(pipe(pipes), 0);
        pid_t pid = start_as((Start){.input = pipes[0]}, "infer - --weights done --out answers --csv --quiet");
        snprintf(temporary, sizeof temporary, "answers.tmp.%d.0", (int)pid);
        await_growth(pid, temporary, -1); /* and waits for names */
        kill(pid, numbers[i]);
        expect_end(128 + numbers[i], pid);
        expect_no_temporaries();
        close(pipes[0]), close(pipes[1]);
    }
}

/* ---- what does not ---- */

static void test_what_was_ignored_stays_ignored(void **state) {
    (void)state;
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};
    pid_t pid = training((Start){.ignored = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU}});
    for (size_t i = 0; i < COUNTOF(numbers); i++) {
        kill(pid, numbers[i]);
        pause_ms(20);
        await_growth(pid, "run/results.csv", size_of("run/results.csv"));
    }
    kill(pid, SIGKILL);
    assert_int_equal(end_of(pid, NULL), 128 + SIGKILL);
}

/* Scripts start what runs in the background so; one that is sent SIGINT by name is meant. */
static void test_a_scripts_job_can_be_stopped(void **state) {
    (void)state;
    pid_t pid = training((Start){.ignored = {SIGINT, SIGQUIT}});
    kill(pid, SIGINT);
    expect_end(75, pid);
}

/* Ctrl-Z and fg, Ctrl-\. */
static void test_jobs_can_be_suspended(void **state) {
    (void)state;
    int status;
    pid_t pid = training((Start){0});
    kill(pid, SIGTSTP);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    int64_t before = size_of("run/results.csv");
    kill(pid, SIGCONT);
    await_growth(pid, "run/results.csv", before);
    kill(pid, SIGQUIT);
    expect_end(128 + SIGQUIT, pid);
}

/* `mala infer ... | head` ends, quietly; where the signal is ignored it ends, too, and says why. */
static void test_a_reader_that_has_gone(void **state) {
    (void)state;
    for (int ignored = 0; ignored < 2; ignored++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        close(pipes[0]);
        pid_t pid = start_as((Start){.output = pipes[1], .ignored = {ignored ? SIGPIPE : 0}},
                             "infer much/val --weights done --quiet");
        close(pipes[1]);
        expect_end(ignored ? 4 : 128 + SIGPIPE, pid);
        if (ignored) expect_text(errors, "standard output: writing failed: Broken pipe - whoever reads it has gone");
        assert_int_equal(strchr(errors, '\n') != NULL, ignored);
    }
}

/* `mala train 2>&1 | tee log`: Ctrl-C ends both, and tee first. What cannot be said any more ends nothing. */
static void test_nobody_reads_what_is_said(void **state) {
    (void)state;
    int pipes[2];
    shell("rm -rf run");
    assert_int_equal(pipe(pipes), 0);
    close(pipes[0]);
    pid_t pid = start_as((Start){.errors = pipes[1]},
                         "train data.path=data output=run " SMALL "sched.epochs=100000 -j 1");
    close(pipes[1]);
    await_growth(pid, "run/results.csv", await_growth(pid, "run/results.csv", 0));
    kill(pid, SIGINT);
    assert_int_equal(end_of(pid, NULL), 75);
    shell("grep -q 'stopped by signal 2 at step' run/log.txt");
    EXPECT(0, "verify $T/run/weights/last.safetensors");
}

/* ---- descriptors ---- */

static void test_closed_descriptors(void **state) {
    (void)state;
    const int sets[] = {1, 2, 4, 7};
    for (size_t i = 0; i < COUNTOF(sets); i++) {
        const int closed = sets[i];
        shell("rm -rf run twin.safetensors scenes");
        expect_end(0, start_as((Start){.closed = closed}, "train data.path=data output=run " SMALL "--quiet"));
        assert_int_equal(size_of("run/.lock"), 0);
        shell("head -n 1 run/results.csv | grep -q ^epoch,time && head -c 1 run/config.json | grep -q {");
        EXPECT(0, "verify $T/run/weights/best.safetensors");
        expect_end(0, start_as((Start){.closed = closed}, "export done twin.safetensors"));
        EXPECT(0, "verify $T/twin.safetensors");
        expect_end(0, start_as((Start){.closed = closed}, "infer data/val --weights done"));
        expect_end(0, start_as((Start){.closed = closed}, "eval done --data data"));
        expect_end(0, start_as((Start){.closed = closed}, "synth scenes --train 1 --val 1 --scenes 1 --size 32"));
    }
    pid_t pid = start_as((Start){.closed = 1}, "infer - --weights done"); /* not the list in its own weights */
    int code = end_of(pid, NULL);
    said();
    assert_in_range(code, 0, 3);
    assert_null(strstr(errors, "safetensors:"));
}

/* ---- which threads take signals ---- */

/* The mask of blocked signals in a thread's status. */
static unsigned long long blocked_in(const char *status) {
    FILE *f = fopen(status, "r");
    char line[256];
    unsigned long long mask = 0;
    while (f && fgets(line, sizeof line, f)) (void)sscanf(line, "SigBlk: %llx", &mask);
    if (f) (void)fclose(f);
    return mask;
}

static void test_one_thread_takes_signals(void **state) {
    (void)state;
    const int from_outside[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPROF, SIGALRM, SIGVTALRM, SIGTSTP};
    pid_t pid = training((Start){0});
    char path[512];
    int threads = 0, open = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        char status[800];
        snprintf(status, sizeof status, "%s/%s/status", path, entry->d_name);
        unsigned long long mask = blocked_in(status);
        bool all = true;
        for (size_t i = 0; i < COUNTOF(from_outside); i++) all = all && (mask >> (from_outside[i] - 1) & 1);
        threads++, open += !all;
        if (atoi(entry->d_name) == (int)pid) assert_true(all); /* main computes */
    }
    closedir(dir);
    kill(pid, SIGKILL);
    end_of(pid, NULL);
    assert_true(threads >= 3); /* main, the one for signals, a loader's */
    assert_int_equal(open, 1);
}

/* ---- a storm of signals, and stops at random times ---- */

/* What is stopped, from when on, how much later at most, and whether it has something to save. */
static const struct {
    const char *arguments;
    const char *begun; /* a file that is there then; NULL: from its start */
    double latest_ms;
    bool saves;
} victims[] = {
    {ENDLESS, NULL, 600, true},
    {"infer data/val --weights done --out answers --csv --force --quiet", NULL, 120, false},
    {ENDLESS, "run/classes.txt", 800, true}, /* an epoch and its saving take less */
    {"export done exported.onnx --force --quiet", NULL, 120, false},
    {"train data.path=much output=run " SMALL "eval.batch_size=8 -t 1 -j 1 --quiet", "run/metrics.jsonl", 300, true},
    {"eval done --data much --quiet", NULL, 400, false},
    {LARGER, "run/classes.txt", 600, true},
};

/* One run of a victim, storm and all; the seconds that it took to stop go into *seconds. Returns its end. */
static int stop_one(int victim, int number, double after_ms, double *seconds) {
    shell("rm -rf run");
    pid_t pid = start_as((Start){.preload = "storm"}, victims[victim].arguments);
    if (victims[victim].begun) await_growth(pid, victims[victim].begun, 0);
    pause_ms(after_ms);
    kill(pid, number);
    int code = end_of(pid, seconds);
    said();
    bool right = code == 0 || code == 128 + number || (victims[victim].saves && code == 75);
    if (!right)
        fail_msg("mala %s: signal %d after %.1f ms: ended with %d: %s", victims[victim].arguments, number, after_ms,
                 code, errors);
    if (victims[victim].saves && code == 128 + number && size_of("run/results.csv") >= 0)
        fail_msg("mala %s: signal %d after %.1f ms: a run was begun, nothing saved", victims[victim].arguments, number,
                 after_ms);
    if (code == 75) EXPECT(0, "verify $T/run/weights/last.safetensors --quiet");
    expect_no_temporaries();
    return code;
}

static int from_environment(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* MALA_SIGNALS: how many (make soak: 240); MALA_SEED: which. */
static void test_stops_in_a_storm(void **state) {
    (void)state;
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1}, count = from_environment("MALA_SIGNALS", 21);
    Rng rng = rng_make((uint64_t)from_environment("MALA_SEED", 1), RNG_TEST, 0, 0);
    double longest = 0;
    int saved = 0;
    for (int i = 0; i < count; i++) {
        int victim = i % (int)COUNTOF(victims), number = numbers[rng_below(&rng, COUNTOF(numbers))];
        double seconds;
        saved += stop_one(victim, number, (double)rng_uniform(&rng) * victims[victim].latest_ms, &seconds) == 75;
        longest = MAX(longest, seconds);
    }
    print_message("%d stopped at random times, %d of them saved, the slowest %.0f ms later\n", count, saved,
                  1000 * longest);
    assert_true(saved >= count / 7); /* else the times are none of training */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_stops_saves),
        cmocka_unit_test(test_evaluation_stops),
        cmocka_unit_test(test_a_signal_that_comes_twice_is_one),
        cmocka_unit_test(test_a_second_signal_ends_at_once),
        cmocka_unit_test(test_what_saves_nothing_ends_by_the_signal),
        cmocka_unit_test(test_what_ends_it_leaves_nothing),
        cmocka_unit_test(test_what_was_ignored_stays_ignored),
        cmocka_unit_test(test_a_scripts_job_can_be_stopped),
        cmocka_unit_test(test_jobs_can_be_suspended),
        cmocka_unit_test(test_a_reader_that_has_gone),
        cmocka_unit_test(test_nobody_reads_what_is_said),
        cmocka_unit_test(test_closed_descriptors),
        cmocka_unit_test(test_one_thread_takes_signals),
        cmocka_unit_test(test_stops_in_a_storm),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
