/* test_failing_calls.c - each system call of a function fails in turn, in the process: readers and writers of files,
 * data sets and archives say so by their code, leave the old file or the whole new one, and can be called again. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/line_file.h"
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
        cmocka_unit_test(test_what_killed_runs_left), cmocka_unit_test(test_unfinished),
        cmocka_unit_test(test_data), cmocka_unit_test(test_synth_ranges),
        cmocka_unit_test(test_synth_into_a_folder_that_cannot_be_listed),
        cmocka_unit_test(test_threads_of_synth_that_all_fail), cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_onnx)};
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
