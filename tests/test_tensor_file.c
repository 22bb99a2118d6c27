/* test_tensor_file.c - F-08: a file of weights that another program cuts, writes over or replaces between the moment
 * it was opened and the moment a tensor is read. Never a signal; an error, or what was opened. F-09: reads that give
 * little, are interrupted or fail. And names without what wrappers put before them. */
#include "io/tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "scratch.h"

enum { COUNT = 40000 }; /* of elements: more than one piece of what is read at once, and many pages */

static const char *const names[] = {"weights.safetensors", "weights.pth"};
static const StoredType types[] = {STORED_F32, STORED_F64, STORED_BF16};

typedef enum { NOTHING, CUT_SHORT, CUT_TO_NOTHING, APPENDED, WRITTEN_OVER, REPLACED, UNLINKED } Harm;

static char *path_of(int format) { return path_join(scratch_folder, names[format]); }

static void write_weights(const char *path, int format, StoredType type, const void *data) {
    const StoredTensor t[] = {{.name = "w", .dtype = type, .rank = 1, .shape = {COUNT}, .data = data}};
    Err err = {0};
    bool ok = format == 0 ? safetensors_write(path, t, 1, NULL, 0, &err) : pth_write(path, "model", t, 1, NULL, 0, &err);
    if (!ok) fail_msg("%s", err.text);
}

static void harm(const char *path, int format, StoredType type, const void *data, Harm how) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    if (how == CUT_SHORT) assert_int_equal(truncate(path, st.st_size / 2), 0);
    if (how == CUT_TO_NOTHING) assert_int_equal(truncate(path, 0), 0);
    if (how == REPLACED) write_weights(path, format, type, data);
    if (how == UNLINKED) assert_int_equal(unlink(path), 0);
    if (how != APPENDED && how != WRITTEN_OVER) return;
    int fd = open(path, O_WRONLY | (how == APPENDED ? O_APPEND : 0));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    /* so that the test does not depend on how fine the clock of the file system is */
    const struct timespec later[2] = {{.tv_sec = st.st_atime}, {.tv_sec = st.st_mtime + 1}};
    assert_int_equal(futimens(fd, later), 0);
    close(fd);
}

static void test_changed(void **state) {
    (void)state;
    static const struct {
        Harm how;
        const char *messages[2]; /* one of them; none: what was opened is read */
    } cases[] = {
        {NOTHING, {NULL}},
        {CUT_SHORT, {": ended before byte ", ": was changed while it was read"}}, /* some pieces are still there */
        {CUT_TO_NOTHING, {": ended before byte ", "!"}},
        {APPENDED, {": was changed while it was read", "!"}},
        {WRITTEN_OVER, {": was changed while it was read", "!"}},
        {REPLACED, {NULL}},
        {UNLINKED, {NULL}},
    };
    double *zeros = mem_zalloc(COUNT, sizeof *zeros), *ones = mem_zalloc(COUNT, sizeof *ones);
    float *values = mem_zalloc(COUNT, sizeof *values);
    memset(ones, 0x3f, COUNT * sizeof *ones); /* a number in each of the types, and not 0 */
    for (int format = 0; format < 2; format++)
        for (size_t type = 0; type < COUNTOF(types); type++)
            for (size_t i = 0; i < COUNTOF(cases); i++) {
                char *path = path_of(format);
                TensorFile f;
                Err err = {0};
                write_weights(path, format, types[type], zeros);
                if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
                harm(path, format, types[type], ones, cases[i].how);
                memset(values, 0xff, COUNT * sizeof *values);
                bool ok = tensor_file_read_f32(values, &f, &f.tensors[0], &err);
                assert_int_equal(ok, cases[i].messages[0] == NULL);
                for (int k = 0; ok && k < COUNT; k++) assert_true(values[k] == 0);
                if (!ok) {
                    assert_int_equal(err.code, EXIT_IO);
                    assert_memory_equal(err.text, path, strlen(path));
                    bool said = strstr(err.text, cases[i].messages[0]) || strstr(err.text, cases[i].messages[1]);
                    if (!said || strchr(err.text, '\n')) fail_msg("%s", err.text);
                }
                tensor_file_close(&f);
                free(path);
            }
    free(zeros), free(ones), free(values);
}

/* The same while it is written as another file: nothing incomplete appears. */
static void test_copied(void **state) {
    (void)state;
    double *zeros = mem_zalloc(COUNT, sizeof *zeros);
    char *out = path_join(scratch_folder, "out");
    for (int format = 0; format < 2; format++)
        for (int to = 0; to < 2; to++) {
            char *path = path_of(format);
            TensorFile f;
            Err err = {0};
            write_weights(path, format, STORED_F32, zeros);
            if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
            harm(path, format, STORED_F32, NULL, CUT_SHORT);
            assert_false(to == 0 ? safetensors_write(out, f.tensors, f.tensor_count, NULL, 0, &err)
                                 : pth_write(out, NULL, f.tensors, f.tensor_count, NULL, 0, &err));
            assert_int_equal(err.code, EXIT_IO);
            assert_int_not_equal(access(out, F_OK), 0);
            tensor_file_close(&f);
            free(path);
        }
    free(zeros);
    free(out);
}

/* ---- F-09 ---- */

static struct {
    size_t at_most; /* bytes a call; 0: all */
    int every;      /* every so many calls one is interrupted; 0: none */
    int failing;    /* this call and all after it fail; 0: none */
    int calls;
} faults;

/* In place of the C library's. */
ssize_t pread(int fd, void *out, size_t count, off_t at) {
    faults.calls++;
    if (faults.failing && faults.calls >= faults.failing) {
        errno = EIO;
        return -1;
    }
    if (faults.every && faults.calls % faults.every == 0) {
        errno = EINTR;
        return -1;
    }
    return syscall(SYS_pread64, fd, out, faults.at_most ? MIN(count, faults.at_most) : count, at);
}

/* What is tried again after a moment is tried again at once. */
int nanosleep(const struct timespec *wanted, struct timespec *left) { return (void)wanted, (void)left, 0; }

/* Opens and reads under the faults that are set. */
static bool read_whole(float *out, const char *path, Err *err) {
    TensorFile f;
    faults.calls = 0;
    *err = (Err){0};
    if (!tensor_file_open(&f, path, NULL, err)) return false;
    bool ok = tensor_file_read_f32(out, &f, tensor_file_find(&f, "w"), err);
    tensor_file_close(&f);
    return ok;
}

static void test_faulty_reads(void **state) {
    (void)state;
    float *values = mem_zalloc(COUNT, sizeof *values), *got = mem_zalloc(COUNT, sizeof *got);
    for (int i = 0; i < COUNT; i++) values[i] = (float)i;
    for (int format = 0; format < 2; format++) {
        char *path = path_of(format);
        Err err;
        write_weights(path, format, STORED_F32, values);
        for (int how = 0; how < 2; how++) {
            memset(got, 0, COUNT * sizeof *got);
            faults.at_most = how == 0, faults.every = how == 1 ? 2 : 0;
            if (!read_whole(got, path, &err)) fail_msg("%s", err.text);
            assert_true(faults.calls > 2);
            assert_memory_equal(got, values, COUNT * sizeof *got);
        }
        faults.at_most = 0, faults.every = 0;
        assert_true(read_whole(got, path, &err));
        const int calls = faults.calls;
        for (faults.failing = 1; faults.failing <= calls; faults.failing++) {
            assert_false(read_whole(got, path, &err));
            assert_int_equal(err.code, EXIT_IO);
            assert_true(strncmp(err.text, path, strlen(path)) == 0 && strstr(err.text, "Input/output error"));
        }
        faults.failing = 0;
        free(path);
    }
    free(values);
    free(got);
}

/* Wrappers' prefixes go, whatever the format; "model." only where no tensor lacks it. */
static void test_prefixes(void **state) {
    (void)state;
    static const struct {
        const char *stored[2], *read[2];
    } cases[] = {{{"a", "b"}, {"a", "b"}},
                 {{"module.a", "b"}, {"a", "b"}},
                 {{"_orig_mod.module.a", "module.module.b"}, {"a", "b"}},
                 {{"model.a", "model.b"}, {"a", "b"}},
                 {{"module.backbone.a", "backbone._orig_mod.b"}, {"a", "b"}},
                 {{"model.a", "b"}, {"model.a", "b"}},
                 {{"model.a", "module.b"}, {"model.a", "b"}},
                 {{"models.a", "models.b"}, {"models.a", "models.b"}},
                 {{"model", "model.b"}, {"model", "model.b"}}};
    for (size_t i = 0; i < 2 * COUNTOF(cases); i++) {
        Err err = {0};
        const char *const *stored = cases[i / 2].stored, *const *wanted = cases[i / 2].read;
        StoredTensor t[2] = {{.name = stored[0], .dtype = STORED_U8, .rank = 0, .data = "x"},
                             {.name = stored[1], .dtype = STORED_U8, .rank = 0, .data = "y"}};
        TensorFile f;
        char path[200];
        snprintf(path, sizeof path, "%s/prefixes", scratch_folder);
        assert_true(i % 2 ? pth_write(path, "model", t, 2, NULL, 0, &err) : safetensors_write(path, t, 2, NULL, 0, &err));
        if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
        for (int k = 0; k < 2; k++)
            if (!tensor_file_find(&f, wanted[k])) fail_msg("%s is not read as %s", stored[k], wanted[k]);
        assert_int_equal(f.prefix != NULL, strcmp(stored[0], wanted[0]) != 0 || strcmp(stored[1], wanted[1]) != 0);
        tensor_file_close(&f);
    }
}

/* Names that the prefixes alone kept apart: which of the two was meant is not guessed. */
static void test_names_that_become_one(void **state) {
    (void)state;
    static const char *const stored[][2] = {{"module.w", "w"}, {"_orig_mod.w", "module.w"}, {"w", "module.module.w"}};
    for (size_t i = 0; i < 2 * COUNTOF(stored); i++) {
        Err err = {0};
        StoredTensor t[2] = {{.name = stored[i / 2][0], .dtype = STORED_U8, .rank = 0, .data = "x"},
                             {.name = stored[i / 2][1], .dtype = STORED_U8, .rank = 0, .data = "y"}};
        TensorFile f;
        char path[200];
        snprintf(path, sizeof path, "%s/twice", scratch_folder);
        assert_true(i % 2 ? pth_write(path, "model", t, 2, NULL, 0, &err)
                          : safetensors_write(path, t, 2, NULL, 0, &err));
        assert_false(tensor_file_open(&f, path, NULL, &err));
        assert_int_equal(err.code, EXIT_INPUT);
        if (!strstr(err.text, "/twice: two tensors are named \"w\"")) fail_msg("%s", err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_changed), cmocka_unit_test(test_copied),
                                       cmocka_unit_test(test_faulty_reads), cmocka_unit_test(test_prefixes),
                                       cmocka_unit_test(test_names_that_become_one)};
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
