/* test_failing_calls.c - each system call of a function fails in turn, in the process: readers and writers of files,
 * data sets and archives say so by their code, leave the old file or the whole new one, and can be called again. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpus.h"
#include "base/descriptors.h"
#include "base/file.h"
#include "base/line_file.h"
#include "base/signals.h"
#include "base/thread.h"
#include "base/unfinished.h"
#include "data/dataset.h"
#include "data/synth.h"
#include "faults/io.h"
#include "io/onnx.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/seal.h"
#include "program.h"
#include "task/classify.h"

static const struct {
    const char *call;
    int code;
} faults[] = {
    {"open", EIO},       {"open", EACCES},  {"open", ELOOP},      {"open", ENOMEM},  {"open", EMFILE},
    {"open", ENFILE},    {"open", ENOENT},  {"open", ENOTDIR},    {"open", ENXIO},   {"open", ENAMETOOLONG},
    {"pread", EIO},      {"pread", EINTR},  {"write", EIO},       {"write", ENOSPC}, {"write", EDQUOT},
    {"write", EINTR},    {"write", 0},      {"write", 1000},      {"pread", 1000},   {"close", EIO},
    {"fsync", EIO},      {"fsync", EINVAL}, {"stat", EIO},        {"stat", ENOTDIR},
    {"rename", EIO},     {"rename", EPERM}, {"rename", EINVAL},   {"rename", ENOSYS}, {"rename", EEXIST},
    {"stat", EACCES},    {"stat", ELOOP},   {"lstat", EIO},       {"fstat", EIO},    {"mkdir", EROFS},
    {"mkdir", EEXIST},   {"opendir", EIO},  {"opendir", ENOENT},  {"opendir", ELOOP}, {"opendir", ENOTDIR},
    {"readdir", EIO},    {"posix_fallocate", ENOSPC}, {"posix_fallocate", EDQUOT}, {"posix_fallocate", EFBIG},
};

typedef bool Work(const char *path, Err *err);

static char path[SCRATCH_PATH + 16];

/* A call that succeeds all the same was tried again, or did not need what failed. */
static void each_fails(const char *name, Work *work) {
    Err err = {0};
    if (!work(path, &err)) fail_msg("%s: %s", name, err.text);
    for (size_t i = 0; i < COUNTOF(faults); i++) {
        char rule[SCRATCH_PATH + 64];
        err = (Err){0};
        snprintf(rule, sizeof rule, "%s:%s:1:0:0", faults[i].call, folder); /* none fails, all are counted */
        io_fail(rule);
        if (!work(path, &err)) fail_msg("%s, undisturbed: %s", name, err.text);
        const int met = io_met(0);
        for (int skip = 0; skip < met && skip < 40; skip++) {
            err = (Err){0};
            int times = faults[i].code == EINTR ? 3 : 1000; /* a signal without end is no fault of the disk */
            snprintf(rule, sizeof rule, "%s:%s:%d:%d:%d", faults[i].call, folder, faults[i].code, skip, times);
            io_fail(rule);
            bool ok = work(path, &err);
            assert_true(io_met(0) > skip);
            io_fail(NULL);
            int code = err.code;
            bool told = code == EXIT_IO || code == EXIT_INPUT || (code == EXIT_MEMORY && faults[i].code == ENOMEM) ||
                        (code == EXIT_USAGE && faults[i].code == EEXIST);
            if (ok ? code != EXIT_DONE : !told) fail_msg("%s, %s: %d %s", name, rule, code, err.text);
        }
        io_fail(NULL);
    }
    err = (Err){0};
    if (!work(path, &err)) fail_msg("%s, again: %s", name, err.text);
    shell("! find . -name '*.tmp.*' | grep .");
}

/* ---- files ---- */

static bool is_old_or_new(const char *file) {
    char text[64] = "";
    if (access(file, F_OK) != 0) return true;
    read_text(text, sizeof text, file);
    return strcmp(text, "old text") == 0 || strcmp(text, "new text") == 0;
}

static bool write_file(const char *file, Err *err) {
    Err ignored = {0};
    if (access(file, F_OK) != 0) (void)file_write(file, "old text", 8, &ignored);
    bool ok = file_write(file, "new text", 8, err);
    assert_true(is_old_or_new(file));
    return ok;
}

static bool write_only_new(const char *file, Err *err) {
    FileWriter w;
    (void)unlink(file);
    if (!file_writer_open(&w, file, err)) return false;
    w.only_new = true;
    if (!file_writer_append(&w, "new text", 8, err)) return file_writer_fail(&w, err);
    bool ok = file_writer_finish(&w, err) && file_writer_commit(&w, err);
    file_writer_discard(&w);
    assert_true(is_old_or_new(file));
    return ok;
}

static bool read_file(const char *file, Err *err) {
    uint8_t *bytes, start[4];
    size_t count;
    if (!file_read(&bytes, &count, file, 100, err)) return false;
    free(bytes);
    FileReader r;
    if (!file_read_start(start, sizeof start, &count, file, err) || !file_reader_open(&r, file, err)) return false;
    bool ok = file_reader_read(&r, start, 1, 3, err);
    file_reader_close(&r);
    return ok;
}

static bool make_folders(const char *file, Err *err) {
    (void)file;
    char deep[SCRATCH_PATH + 32];
    DirList list;
    PathKind kind;
    shell("rm -rf made && ln -sf nowhere dangling");
    snprintf(deep, sizeof deep, "%s/made/a/b/", folder);
    if (!dir_make(deep, err) || !path_kind(&kind, deep, err) || !dir_list(&list, folder, err)) return false;
    assert_true(list.count > 0 && kind == PATH_FOLDER);
    dir_list_free(&list);
    file_remove_temporaries(path);
    return true;
}

static bool add_lines(const char *file, Err *err) {
    LineFile lines;
    (void)unlink(file);
    line_file_open(&lines, file);
    bool ok = line_file_add(&lines, "one", err) && line_file_add(&lines, "two", err);
    line_file_close(&lines);
    return ok;
}

static void test_files(void **state) {
    (void)state;
    each_fails("file_write", write_file);
    each_fails("only new", write_only_new);
    each_fails("file_read", read_file);
    each_fails("folders", make_folders);
    each_fails("lines", add_lines);
}

/* Of two faults at once the first is told. */
static void test_two_faults(void **state) {
    (void)state;
    char expected[SCRATCH_PATH + 100], text[64] = "";
    Err err = {0};
    LineFile lines;
    (void)unlink(path);
    assert_true(file_write(path, "old text", 8, &err));
    io_fail("fsync:/file:28:0:9 close:/file:5:0:9"); /* ENOSPC, EIO */
    assert_false(file_write(path, "new text", 8, &err));
    io_fail(NULL);
    snprintf(expected, sizeof expected, "%s: cannot be synced: No space left on device - free some space", path);
    assert_string_equal(err.text, expected);
    assert_int_equal(err.code, EXIT_IO);
    read_text(text, sizeof text, path);
    assert_string_equal(text, "old text");
    shell("! ls | grep tmp");

    err = (Err){0};
    line_file_open(&lines, path);
    io_fail("write:/file:28:0:9 close:/file:5:0:9");
    assert_false(line_file_add(&lines, "more", &err));
    io_fail(NULL);
    snprintf(expected, sizeof expected, "%s: writing failed (No space left on device) - check space and permi", path);
    assert_memory_equal(err.text, expected, strlen(expected));
    line_file_close(&lines); /* what waited is written at the end */
    read_text(text, sizeof text, path);
    assert_string_equal(text, "old textmore\n");
}

/* A disk that takes nothing, and says no why. */
static void test_writes_of_nothing(void **state) {
    (void)state;
    char text[64] = "";
    Err err = {0};
    LineFile lines;
    (void)unlink(path);
    assert_true(file_write(path, "old text", 8, &err));
    io_fail("write:/file:1000:0:1");
    assert_false(file_write(path, "new text", 8, &err));
    assert_non_null(strstr(err.text, "/file: cannot be written: Input/output error - check the disk"));
    err = (Err){0};
    line_file_open(&lines, path);
    io_fail("write:/file:1000:0:1");
    assert_false(line_file_add(&lines, "more", &err));
    io_fail(NULL);
    assert_non_null(strstr(err.text, "/file: writing failed (Input/output error) - "));
    line_file_close(&lines);
    read_text(text, sizeof text, path);
    assert_string_equal(text, "old textmore\n");
}

/* Where the file system cannot rename to a name that is free, a second name does it, and takes nobody's. */
static void test_only_new_without_the_flag(void **state) {
    (void)state;
    char text[64] = "";
    for (int taken = 0; taken < 2; taken++) {
        FileWriter w;
        Err err = {0};
        (void)unlink(path);
        assert_true(file_writer_open(&w, path, &err) && file_writer_append(&w, "new text", 8, &err));
        w.only_new = true;
        if (taken) assert_true(file_write(path, "old text", 8, &err));
        io_fail("rename:/file:22:0:9"); /* EINVAL */
        assert_int_equal(file_writer_commit(&w, &err), !taken);
        io_fail(NULL);
        assert_int_equal(err.code, taken ? EXIT_USAGE : EXIT_DONE);
        if (taken) assert_non_null(strstr(err.text, "/file: exists, it was written meanwhile - give another name"));
        read_text(text, sizeof text, path);
        assert_string_equal(text, taken ? "old text" : "new text");
        shell("! ls | grep tmp");
    }
}

static void test_folders_in_odd_places(void **state) {
    (void)state;
    char made[SCRATCH_PATH + 16];
    Err err = {0};
    io_fail("mkdir:/mala-none:30:0:9"); /* EROFS */
    assert_false(dir_make("/mala-none", &err));
    assert_string_equal(err.text,
                        "/mala-none: the folder cannot be made: Read-only file system - choose another place");
    assert_int_equal(err.code, EXIT_IO);
    /* another process makes it between the look and the making */
    err = (Err){0};
    snprintf(made, sizeof made, "%s/made", folder);
    shell("mkdir -p made");
    io_fail("stat:/made:2:0:1");
    if (!dir_make(made, &err)) fail_msg("%s", err.text);
    io_fail(NULL);
}

/* A look that fails for a moment is repeated, like reading; one that fails on is no answer, and nothing is replaced. */
static void test_a_look_that_fails(void **state) {
    (void)state;
    char text[64] = "";
    Err err = {0};
    PathKind kind;
    (void)unlink(path);
    assert_true(file_write(path, "old text", 8, &err));
    io_fail("stat:/file:5:0:2"); /* EIO */
    assert_true(path_kind(&kind, path, &err));
    assert_int_equal(kind, PATH_FILE);
    io_fail("stat:/:5:0:2");
    assert_true(path_is_dir(folder));
    io_fail("stat:/file:5:0:2");
    assert_true(file_write(path, "new text", 8, &err));
    io_fail("stat:/file:5:0:9");
    assert_false(file_write(path, "newer text", 10, &err));
    io_fail(NULL);
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, "/file: cannot be examined: Input/output error"));
    read_text(text, sizeof text, path);
    assert_string_equal(text, "new text");
}

static bool is_there(const char *name) {
    char whole[SCRATCH_PATH + 32];
    snprintf(whole, sizeof whole, "%s/%s", folder, name);
    return access(whole, F_OK) == 0;
}

/* Of killed runs; nothing else whose name is much like it. */
static void test_what_killed_runs_left(void **state) {
    (void)state;
    static const char *const left[] = {"w.tmp.123.0", "w.tmp.4.17"};
    static const char *const others[] = {"w", "w.tmp.123", "w.tmp.x.0", "w.tmp.1.", "w.tmp.1.0.bak", "v.tmp.1.0"};
    char name[SCRATCH_PATH + 8];
    shell("touch w.tmp.123.0 w.tmp.4.17 w w.tmp.123 w.tmp.x.0 w.tmp.1. w.tmp.1.0.bak v.tmp.1.0");
    snprintf(name, sizeof name, "%s/w", folder);
    file_remove_temporaries(name);
    for (size_t i = 0; i < COUNTOF(left); i++) assert_false(is_there(left[i]));
    for (size_t i = 0; i < COUNTOF(others); i++)
        if (!is_there(others[i])) fail_msg("%s is gone", others[i]);
    shell("rm *.tmp.*");
}

/* A library's call that is given up takes what it was writing with it. */
static void test_unfinished(void **state) {
    (void)state;
    FileWriter w;
    Err err = {0};
    assert_true(file_writer_open(&w, path, &err));
    char temporary[SCRATCH_PATH + 64];
    snprintf(temporary, sizeof temporary, "%s", w.temporary);
    Rescue rescue = {0};
    Rescue *before = rescue_use(&rescue);
    if (setjmp(rescue.at) == 0) mem_exhausted("a test");
    rescue_use(before);
    assert_int_equal(rescue.err.code, EXIT_MEMORY);
    assert_int_equal(access(temporary, F_OK), -1);
    file_writer_discard(&w);
}

static void *open_another(void *arg) {
    Err err = {0};
    char name[SCRATCH_PATH + 32];
    snprintf(name, sizeof name, "%s/another", folder);
    assert_true(file_writer_open(arg, name, &err));
    return NULL;
}

/* Whoever gives up takes what it was writing, and nothing of another thread's or of its parent's. */
static void test_unfinished_of_others(void **state) {
    (void)state;
    FileWriter mine, other;
    Err err = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_another, &other), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(file_writer_open(&mine, path, &err));
    pid_t child = fork();
    if (child == 0) {
        unfinished_remove();
        _exit(access(mine.temporary, F_OK) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    unfinished_remove();
    assert_int_equal(access(mine.temporary, F_OK), -1);
    assert_int_equal(access(other.temporary, F_OK), 0);
    file_writer_discard(&mine);
    file_writer_discard(&other);
    shell("! ls | grep tmp");
}

static int thousand_million(void) { return 1000 * 1000 * 1000; }

/* What ends a program is an error of a library's call, with its place; sizes that no number holds are no memory. */
static void test_rescues(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it ends the program where so much is asked for */
#endif
    for (volatile int k = 0; k < 3; k++) {
        Rescue rescue = {0};
        Rescue *before = rescue_use(&rescue);
        if (setjmp(rescue.at) == 0) {
            if (k == 0) CHECK(thousand_million() < 1, "with %d", 5);
            if (k == 1) free(mem_zalloc(SIZE_MAX / 2, 3));
            if (k == 2) free(mem_resize(NULL, SIZE_MAX / 2, 3));
            fail_msg("no rescue from %d", k);
        }
        rescue_use(before);
        assert_int_equal(rescue.err.code, k == 0 ? EXIT_BUG : EXIT_MEMORY);
        if (k == 0) {
            assert_memory_equal(rescue.err.text, "bug: tests/test_failing_calls.c:", 32);
            assert_non_null(strstr(rescue.err.text, ": thousand_million() < 1: with 5"));
        } else {
            assert_string_equal(rescue.err.text, "memory: cannot allocate 18446744073709551615 bytes - close other "
                                                 "programs or use a smaller batch");
        }
    }
    void *nothing_tried;
    Err err = {0};
    assert_false(mem_try(&nothing_tried, SIZE_MAX, &err));
    assert_null(nothing_tried);
    assert_int_equal(err.code, EXIT_MEMORY);
    static const size_t empty[][2] = {{0, 8}, {8, 0}, {0, 0}};
    for (size_t i = 0; i < COUNTOF(empty); i++) {
        void *nothing = mem_zalloc(empty[i][0], empty[i][1]);
        assert_non_null(nothing);
        nothing = mem_resize(nothing, empty[i][0], empty[i][1]);
        assert_non_null(nothing);
        free(nothing);
    }
}

/* ---- the process ---- */

static void test_affinity(void **state) {
    (void)state;
    const int count = cpus_affinity();
    assert_true(count > 0);
    io_fail("sched_getaffinity:process:22:0:3"); /* EINVAL: the kernel's mask is larger */
    assert_int_equal(cpus_affinity(), count);
    assert_int_equal(io_met(0), 4);
    io_fail("sched_getaffinity:process:22:0:1000");
    assert_int_equal(cpus_affinity(), 0);
    io_fail("sched_getaffinity:process:1:0:1000"); /* EPERM */
    assert_int_equal(cpus_affinity(), 0);
    assert_int_equal(cpus_usable() > 0, true); /* one at least */
    assert_int_equal(io_met(0), 2);
    io_fail(NULL);
}

/* A stack whose size cannot be asked for is taken as it is; one that cannot be raised is too small. */
static void test_stack_limits(void **state) {
    (void)state;
    struct rlimit before, now;
    Err err = {0};
    assert_int_equal(getrlimit(RLIMIT_STACK, &before), 0);
    struct rlimit small = {.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_STACK, &small), 0);
    io_fail("getrlimit:process:1:0:9");
    assert_true(thread_stack_suffices(&err));
    io_fail("setrlimit:process:1:0:9");
    bool suffices = thread_stack_suffices(&err);
    io_fail(NULL);
    assert_int_equal(getrlimit(RLIMIT_STACK, &now), 0);
    assert_true(now.rlim_cur == small.rlim_cur);
    assert_false(suffices);
    assert_int_equal(err.code, EXIT_MEMORY);
    char expected[100];
    snprintf(expected, sizeof expected, "stack: limited to 64 KiB, %d KiB are needed - raise it: ulimit -s %d",
             STACK_LEAST >> 10, STACK_LEAST >> 10);
    assert_string_equal(err.text, expected);
    err = (Err){0};
    assert_true(thread_stack_suffices(&err)); /* raised by itself */
    assert_int_equal(getrlimit(RLIMIT_STACK, &now), 0);
    assert_true(now.rlim_cur == STACK_LEAST);
    assert_int_equal(setrlimit(RLIMIT_STACK, &before), 0);
}

/* What a child does comes to its exit code; -1: it was ended by SIGABRT. */
static int code_of_child(int (*work)(void)) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(work());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) == SIGABRT ? -1 : 100;
}

static int make_a_mistake(void) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) return 1;
    CHECK(thousand_million() < 1, "with %d", 5);
    return 2;
}

static void test_a_mistake_aborts(void **state) {
    (void)state;
    char text[400];
    assert_int_equal(code_of_child(make_a_mistake), -1);
    read_text(text, sizeof text, path);
    assert_memory_equal(text, "mala: bug: tests/test_failing_calls.c:", 38);
    assert_non_null(strstr(text, ": thousand_million() < 1: with 5\n"));
}

static bool refused(const char *text, const char *wanted) {
    Err err = {0};
    return !standard_output_write(text, text ? strlen(text) : 0, &err) && err.code == EXIT_IO &&
           strcmp(err.text, wanted) == 0;
}

static int print_to_a_full_disk(void) {
    Err err = {0};
    if (!freopen("/dev/null", "w", stdout) || !standard_output_write("text", 4, &err)) return 1;
    if (!freopen("/dev/full", "w", stdout)) return 77;
    if (!refused("text", "standard output: writing failed: No space left on device - check space on the device"))
        return 2;
    /* the next one has not asked why */
    return refused(NULL, "standard output: writing failed - is there space, and does anybody read it?") ? 0 : 3;
}

static int print_to_nobody(void) {
    int ends[2];
    signal(SIGPIPE, SIG_IGN);
    if (pipe(ends) != 0 || dup2(ends[1], STDOUT_FILENO) < 0) return 1;
    close(ends[0]), close(ends[1]);
    return refused("text", "standard output: writing failed: Broken pipe - whoever reads it has gone") ? 0 : 2;
}

static int without_descriptors(void) {
    Err err = {0};
    close(STDIN_FILENO);
    io_fail("open:/dev/null:24:0:9"); /* EMFILE */
    bool secure = descriptors_secure(&err);
    if (secure || err.code != EXIT_IO || strcmp(err.text, "/dev/null: cannot be opened for descriptor 0, which is "
                                                          "closed: Too many open files - give it"))
        return 1;
    io_fail(NULL);
    err = (Err){0};
    return descriptors_secure(&err) && fcntl(STDIN_FILENO, F_GETFD) >= 0 ? 0 : 2;
}

static void test_descriptors(void **state) {
    (void)state;
    assert_int_equal(code_of_child(print_to_a_full_disk), 0);
    assert_int_equal(code_of_child(print_to_nobody), 0);
    assert_int_equal(code_of_child(without_descriptors), 0);
}

static volatile sig_atomic_t handled;

static void note(int number, siginfo_t *from, void *context) {
    (void)from, (void)context;
    handled = number;
}

static bool comes_true(bool (*question)(void)) {
    for (int i = 0; i < 1000 && !question(); i++)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL);
    return question();
}

static bool is_handled(void) { return handled == SIGTERM; }
static bool is_stopped(void) { return signals_stop() == SIGUSR1; }

/* What was ignored, though not as a job in the background has it, and what somebody else takes is not ours. */
static int take_signals(void) {
    Err err = {0};
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    signal(SIGINT, SIG_IGN), signal(SIGQUIT, SIG_DFL), signal(SIGUSR1, SIG_DFL);
    sigaction(SIGTERM, &action, NULL);
    if (!signals_begin(&err)) return 1;
    signals_listen(true);
    kill(getpid(), SIGINT), kill(getpid(), SIGTERM);
    if (!comes_true(is_handled) || signals_stop() != 0) return 2;
    kill(getpid(), SIGUSR1);
    return comes_true(is_stopped) ? 0 : 3;
}

static void test_signals_of_others(void **state) {
    (void)state;
    assert_int_equal(code_of_child(take_signals), 0);
}

/* ---- data sets ---- */

static bool find_pictures(const char *file, Err *err) {
    (void)file;
    char data[SCRATCH_PATH + 8];
    Dataset set = {0};
    snprintf(data, sizeof data, "%s/data", folder);
    bool ok = dataset_open_folder(&set, data, "train", NULL, 0, err);
    dataset_close(&set);
    return ok;
}

static bool render(const char *file, Err *err) {
    (void)file;
    char where[SCRATCH_PATH + 16];
    shell("rm -rf rendered");
    snprintf(where, sizeof where, "%s/rendered", folder);
    SynthOptions o = synth_defaults();
    o.dir = where, o.train_per_class = 0, o.val_per_class = 0, o.train_scenes = 1, o.val_scenes = 0;
    o.size = o.scene_size = 32, o.threads = 1;
    return synth_write(&o, NULL, NULL, err);
}

static void test_data(void **state) {
    (void)state;
    each_fails("data set", find_pictures);
    each_fails("synth", render);
}

/* Into a folder that cannot be listed nothing is written: it may hold what is somebody's. */
static void test_synth_into_a_folder_that_cannot_be_listed(void **state) {
    (void)state;
    char where[SCRATCH_PATH + 16];
    snprintf(where, sizeof where, "%s/rendered", folder);
    shell("rm -rf rendered && mkdir rendered");
    Err err = {0};
    SynthOptions o = synth_defaults();
    o.dir = where;
    io_fail("opendir:rendered:13:0:1000"); /* EACCES */
    assert_false(synth_write(&o, NULL, NULL, &err));
    io_fail(NULL);
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, "/rendered: the folder cannot be opened: Permission denied - check its perm"));
    shell("rmdir rendered");
}

/* Threads that fail at once: one of them tells it, all stop, and no list says that the pictures are there. */
static void test_threads_of_synth_that_all_fail(void **state) {
    (void)state;
    char where[SCRATCH_PATH + 16];
    snprintf(where, sizeof where, "%s/rendered", folder);
    for (int threads = 1; threads <= 8; threads *= 8) {
        shell("rm -rf rendered");
        Err err = {0};
        SynthOptions o = synth_defaults();
        o.dir = where, o.train_per_class = 0, o.val_per_class = 0, o.train_scenes = 64, o.val_scenes = 0;
        o.size = o.scene_size = 32, o.threads = threads;
        io_fail("posix_fallocate:rendered/scenes:28:0:1000"); /* ENOSPC */
        assert_false(synth_write(&o, NULL, NULL, &err));
        assert_in_range(io_met(0), 1, threads);
        io_fail(NULL);
        assert_int_equal(err.code, EXIT_IO);
        assert_non_null(strstr(err.text, ".jpg: cannot be written: No space left on device - free some space"));
        shell("! find rendered -type f | grep .");
    }
}

static void expect_refused(SynthOptions o) {
    Err err = {0};
    assert_false(synth_write(&o, NULL, NULL, &err));
    assert_int_equal(err.code, EXIT_USAGE);
}

static void test_synth_ranges(void **state) {
    (void)state;
    SynthOptions o = synth_defaults();
    o.dir = path;
    static const size_t fields[] = {
        offsetof(SynthOptions, train_per_class), offsetof(SynthOptions, val_per_class),
        offsetof(SynthOptions, train_scenes),    offsetof(SynthOptions, val_scenes),
        offsetof(SynthOptions, size),            offsetof(SynthOptions, scene_size),
        offsetof(SynthOptions, jpeg_quality_min), offsetof(SynthOptions, jpeg_quality_max),
        offsetof(SynthOptions, threads)};
    for (size_t i = 0; i < COUNTOF(fields); i++)
        for (int beyond = -1; beyond <= 100000; beyond += 100001) {
            SynthOptions wrong = o;
            *(int *)((char *)&wrong + fields[i]) = beyond;
            expect_refused(wrong);
        }
    o.dir = folder; /* not empty */
    expect_refused(o);
}

/* ---- tensors ---- */

static const float values[6] = {1, 2, 3, 4, 5, 6};
static const StoredTensor tensors[] = {{.name = "b", .dtype = STORED_F32, .rank = 2, .shape = {2, 3}, .data = values},
                                       {.name = "a", .dtype = STORED_F32, .rank = 1, .shape = {6}, .data = values}};
static const StoredPair pairs[] = {{"key", "value"}};

static bool read_back(const char *file, Err *err) {
    TensorFile f;
    float got[6];
    if (!tensor_file_open(&f, file, NULL, err)) return false;
    bool ok = tensor_file_read_f32(got, &f, tensor_file_find(&f, "a"), err) && seal_check_metadata(&f, err) &&
              seal_check_tensors(&f, err);
    if (ok) assert_memory_equal(got, values, sizeof got);
    tensor_file_close(&f);
    return ok;
}

static bool write_sealed(const char *file, bool pth, Err *err) {
    Seal seal;
    bool ok = seal_make(&seal, tensors, 2, pairs, 1, err) &&
              (pth ? pth_write(file, "model", tensors, 2, seal.pairs, seal.count, err)
                   : safetensors_write(file, tensors, 2, seal.pairs, seal.count, err));
    seal_free(&seal);
    return ok && read_back(file, err);
}

static bool as_safetensors(const char *file, Err *err) { return write_sealed(file, false, err); }
static bool as_pth(const char *file, Err *err) { return write_sealed(file, true, err); }

static ClassifyGraph network;
static State weights;

static bool as_onnx(const char *file, Err *err) {
    OnnxOutput logits = {network.logits, "logits"};
    OnnxSpec spec = {.name = "net", .outputs = &logits, .output_count = 1};
    return onnx_export(file, network.graph, &weights, &spec, err);
}

static void test_onnx(void **state) {
    (void)state;
    ClassifySpec spec = {.model = {.dims = {8, 16, 32, 64}, .depths = {1, 1, 1, 1}, .heads = {1, 1, 2, 2}, .mlp_ratio = 2,
                                   .projection = 64, .classes = 9, .layer_scale = {1, 1, 1, 1}},
                         .std = {1, 1, 1}};
    Backend cpu;
    Err err = {0};
    network = classify_eval_graph(&spec, 1, 32, 32, 0);
    assert_true(backend_open_cpu(&cpu, 1, &err));
    assert_true(state_new(&weights, network.graph, &cpu, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    assert_true(state_init(&weights, 1, &err));
    each_fails("onnx", as_onnx); /* more than a writer's buffer holds */
    state_free(&weights);
    classify_graph_free(&network);
    cpu.close(&cpu);
}

static void test_tensors(void **state) {
    (void)state;
    each_fails("safetensors", as_safetensors);
    each_fails("pth", as_pth);
}

static int make_files(void **state) {
    (void)state;
    folder_make();
    io_hurry();
    EXPECT(0, "synth $T/data --train 1 --val 0 --scenes 0 --size 32 --seed 7 --quiet");
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files), cmocka_unit_test(test_two_faults), cmocka_unit_test(test_writes_of_nothing),
        cmocka_unit_test(test_only_new_without_the_flag), cmocka_unit_test(test_folders_in_odd_places),
        cmocka_unit_test(test_a_look_that_fails),
        cmocka_unit_test(test_what_killed_runs_left), cmocka_unit_test(test_unfinished),
        cmocka_unit_test(test_unfinished_of_others), cmocka_unit_test(test_rescues), cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_stack_limits), cmocka_unit_test(test_a_mistake_aborts),
        cmocka_unit_test(test_descriptors), cmocka_unit_test(test_signals_of_others),
        cmocka_unit_test(test_data), cmocka_unit_test(test_synth_ranges),
        cmocka_unit_test(test_synth_into_a_folder_that_cannot_be_listed),
        cmocka_unit_test(test_threads_of_synth_that_all_fail), cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_onnx)};
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
