/* test_durable.c - what survives a power cut: a file's bytes are synced before it gets its name, and the folder that
 * holds the name after that; what cannot be synced is no success. This program's own fsync, rename, write and close
 * stand in front of the system's: they note what they are called for, and fail where a test says. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/line_file.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "scratch.h"

/* ---- calls, noted and failing ---- */

static char calls[4096]; /* "sync a.tmp; name a; sync .; " with names below the scratch folder */
static bool noting;
static char folder[SCRATCH_PATH];

static struct {
    const char *call, *part; /* the call that fails, on names that contain part; NULL: none */
    bool whole;              /* on that name alone */
    int code;
} fault;

static int write_room = INT_MAX; /* bytes that still go to "lines" before the disk is full */

/* the name below the scratch folder, "." for that itself, without a process's and a try's number; NULL elsewhere */
static const char *short_name(char out[256], const char *path) {
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0) return NULL;
    snprintf(out, 256, "%s", path[length] ? path + length + 1 : ".");
    char *number = strstr(out, ".tmp.");
    if (number) number[4] = '\0';
    return out;
}

static const char *path_of(char out[PATH_MAX], int fd) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    return out;
}

/* Notes a call; true when it is to fail, with errno. */
static bool meets(const char *call, const char *path) {
    char name[256];
    if (!noting || !short_name(name, path)) return false;
    size_t used = strlen(calls);
    if (strcmp(call, "close") != 0) snprintf(calls + used, sizeof calls - used, "%s %s; ", call, name);
    if (!fault.call || strcmp(fault.call, call) != 0) return false;
    if (!(fault.whole ? strcmp(name, fault.part) == 0 : strstr(name, fault.part) != NULL)) return false;
    errno = fault.code;
    return true;
}

int fsync(int fd) {
    char path[PATH_MAX];
    return meets("sync", path_of(path, fd)) ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
    return meets("name", to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    return meets("name", to) ? -1 : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

int close(int fd) {
    char path[PATH_MAX];
    bool fails = noting && meets("close", path_of(path, fd));
    int code = errno, result = (int)syscall(SYS_close, fd);
    if (fails) errno = code;
    return fails ? -1 : result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[PATH_MAX];
    if (write_room != INT_MAX && strstr(path_of(path, fd), "/lines")) {
        if (write_room == 0) return errno = ENOSPC, -1;
        count = MIN(count, (size_t)write_room);
        write_room -= (int)count;
    }
    return syscall(SYS_write, fd, bytes, count);
}

/* ---- asking ---- */

static Err err;

static int set_up(void **state) {
    (void)state;
    scratch_make(folder);
    char *real = realpath(folder, NULL);
    snprintf(folder, sizeof folder, "%s", real);
    free(real);
    fault.call = NULL, fault.whole = false, write_room = INT_MAX, err = (Err){0};
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    noting = false, fault.call = NULL, write_room = INT_MAX;
    scratch_remove(folder);
    return 0;
}

static const char *in_folder(const char *name) {
    static char path[SCRATCH_PATH + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void begin(void) { calls[0] = '\0', noting = true; }

static void expect_calls(const char *want) {
    noting = false;
    assert_string_equal(calls, want);
}

static void expect_content(const char *name, const char *text) {
    uint8_t *bytes;
    size_t count;
    assert_true(file_read(&bytes, &count, in_folder(name), 1 << 20, &err));
    assert_string_equal((char *)bytes, text);
    free(bytes);
}

static size_t names_in_folder(void) {
    DirList list;
    assert_true(dir_list(&list, folder, &err));
    size_t count = list.count;
    dir_list_free(&list);
    return count;
}

/* ---- files ---- */

static void test_bytes_then_name_then_folder(void **state) {
    (void)state;
    for (int again = 0; again < 2; again++) { /* over an old file as well */
        begin();
        assert_true(file_write(in_folder("a"), "text", 4, &err));
        expect_calls("sync a.tmp; name a; sync .; ");
    }
    FileWriter w;
    begin();
    assert_true(file_writer_open(&w, in_folder("b"), &err));
    w.only_new = true;
    assert_true(file_writer_append(&w, "text", 4, &err) && file_writer_commit(&w, &err));
    expect_calls("sync b.tmp; name b; sync .; ");
    begin(); /* what comes later than the first of two files that belong together */
    assert_true(file_writer_open(&w, in_folder("c"), &err) && file_writer_finish(&w, &err));
    expect_calls("sync c.tmp; ");
    begin();
    assert_true(file_writer_commit(&w, &err));
    expect_calls("name c; sync .; ");
}

/* What can be made again is not worth the wait. */
static void test_quick_files_are_not_synced(void **state) {
    (void)state;
    begin();
    assert_true(file_write_quickly(in_folder("a"), "text", 4, &err));
    expect_calls("name a; ");
    expect_content("a", "text");
}

static void test_weights_are_synced(void **state) {
    (void)state;
    static const float x[2] = {1, 2};
    StoredTensor t = {.name = "x", .dtype = STORED_F32, .rank = 1, .shape = {2}, .count = 2, .data = x};
    begin();
    assert_true(safetensors_write(in_folder("w.safetensors"), &t, 1, NULL, 0, &err));
    expect_calls("sync w.safetensors.tmp; name w.safetensors; sync .; ");
    begin();
    if (!pth_write(in_folder("w.pth"), NULL, &t, 1, NULL, 0, &err)) fail_msg("%s", err.text);
    expect_calls("sync w.pth.tmp; name w.pth; sync .; ");
}

static void test_new_folders_are_synced_in_theirs(void **state) {
    (void)state;
    begin();
    assert_true(dir_make(in_folder("a/b/c"), &err));
    expect_calls("sync .; sync a; sync a/b; ");
    begin();
    assert_true(dir_make(in_folder("a/b/c"), &err));
    expect_calls("");
}

static void expect_failure(const char *text) {
    noting = false;
    assert_int_equal(err.code, EXIT_IO);
    if (!strstr(err.text, text)) fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    err = (Err){0};
}

/* The old file stands, nothing is left beside it, and what failed to sync is not synced again: the second try would
 * succeed without the bytes. */
static void test_what_cannot_be_synced_is_no_success(void **state) {
    (void)state;
    assert_true(file_write(in_folder("a"), "old", 3, &err));
    fault.call = "sync", fault.part = "a.tmp", fault.code = EIO;
    begin();
    assert_false(file_write(in_folder("a"), "new", 3, &err));
    expect_failure("/a: cannot be synced: Input/output error - check the disk");
    assert_string_equal(calls, "sync a.tmp; ");
    expect_content("a", "old");
    assert_int_equal(names_in_folder(), 1);

    fault.call = "close"; /* where quotas and network shares report */
    fault.code = EDQUOT;
    begin();
    assert_false(file_write(in_folder("a"), "new", 3, &err));
    expect_failure("/a: cannot be closed");
    expect_content("a", "old");
    assert_int_equal(names_in_folder(), 1);

    fault.call = "name", fault.part = "a", fault.code = EACCES;
    begin();
    assert_false(file_write(in_folder("a"), "new", 3, &err));
    expect_failure("/a: cannot be replaced");
    expect_content("a", "old");
    assert_int_equal(names_in_folder(), 1);
}

/* The name may be lost then, and that is said; but a file system that cannot sync folders at all promises nothing. */
static void test_a_folder_that_cannot_be_synced(void **state) {
    (void)state;
    assert_true(dir_make(in_folder("sub"), &err));
    static const int codes[] = {EIO, EINVAL};
    for (int k = 0; k < 2; k++) {
        bool ok = codes[k] == EINVAL;
        fault.call = NULL;
        assert_true(file_write_quickly(in_folder("sub/b"), "old", 3, &err));
        (void)rmdir(in_folder("sub/inner"));
        begin();
        /* the folder alone: a file in it is synced without a fault, its name has more than "sub" */
        fault.call = "sync", fault.part = "sub", fault.code = codes[k], fault.whole = true;
        assert_int_equal(file_write(in_folder("sub/b"), "new", 3, &err), ok);
        if (!ok) expect_failure("/sub: cannot be synced");
        expect_content("sub/b", "new");
        begin();
        assert_int_equal(dir_make(in_folder("sub/inner"), &err), ok);
        if (!ok) expect_failure("/sub: cannot be synced");
        noting = false;
    }
}

/* ---- lines ---- */

/* A disk that fills up in the middle of a line and is emptied again: every line once, none torn. */
static void test_lines_wait_for_a_full_disk(void **state) {
    (void)state;
    LineFile f;
    line_file_open(&f, in_folder("lines"));
    assert_true(line_file_add(&f, "first", &err));
    write_room = 4;
    assert_false(line_file_add(&f, "second line", &err));
    expect_failure("/lines: writing failed (No space left on device)");
    assert_false(line_file_add(&f, "third", &err));
    expect_failure("writing failed");
    expect_content("lines", "first\nseco");
    write_room = 5;
    assert_false(line_file_flush(&f, &err));
    expect_failure("writing failed");
    expect_content("lines", "first\nsecond li");
    write_room = INT_MAX;
    assert_true(line_file_add(&f, "fourth", &err));
    expect_content("lines", "first\nsecond line\nthird\nfourth\n");
    assert_true(line_file_flush(&f, &err));
    expect_content("lines", "first\nsecond line\nthird\nfourth\n");
    write_room = 2;
    assert_false(line_file_add(&f, "fifth", &err));
    write_room = INT_MAX;
    line_file_close(&f); /* tries once more */
    expect_content("lines", "first\nsecond line\nthird\nfourth\nfifth\n");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_then_name_then_folder),
        TEST(test_quick_files_are_not_synced),
        TEST(test_weights_are_synced),
        TEST(test_new_folders_are_synced_in_theirs),
        TEST(test_what_cannot_be_synced_is_no_success),
        TEST(test_a_folder_that_cannot_be_synced),
        TEST(test_lines_wait_for_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
