/* test_file.c - whole files: what readers refuse, that a writer leaves the old file or the new one, folders, names. */
#include "base/file.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

typedef struct {
    char folder[SCRATCH_PATH];
} Scene;

static int set_up(void **state) {
    Scene *s = mem_zalloc(1, sizeof *s);
    scratch_make(s->folder);
    *state = s;
    return 0;
}

static int tear_down(void **state) {
    Scene *s = *state;
    scratch_remove(s->folder);
    free(s);
    return 0;
}

static void expect_content(const char *path, const char *text) {
    Err err = {0};
    uint8_t *bytes;
    size_t count;
    assert_true(file_read(&bytes, &count, path, 1 << 20, &err));
    assert_int_equal(count, strlen(text));
    assert_string_equal((char *)bytes, text);
    free(bytes);
}

static size_t names_in(const char *folder) {
    Err err = {0};
    DirList list;
    assert_true(dir_list(&list, folder, &err));
    size_t count = list.count;
    dir_list_free(&list);
    return count;
}

static void test_write_then_read(void **state) {
    Scene *s = *state;
    Err err = {0};
    char *path = path_join(s->folder, "a");
    assert_true(file_write(path, "first", 5, &err));
    expect_content(path, "first");
    assert_true(file_write(path, "2nd", 3, &err));
    expect_content(path, "2nd");
    assert_true(file_write(path, "", 0, &err));
    expect_content(path, "");
    assert_int_equal(names_in(s->folder), 1);
    free(path);
}

static void test_old_file_until_commit(void **state) {
    Scene *s = *state;
    Err err = {0};
    FileWriter w;
    char *path = path_join(s->folder, "a");
    assert_true(file_write(path, "old", 3, &err));

    assert_true(file_writer_open(&w, path, &err));
    assert_true(file_writer_append(&w, "ne", 2, &err));
    expect_content(path, "old");
    file_writer_discard(&w);
    expect_content(path, "old");
    assert_int_equal(names_in(s->folder), 1); /* no temporary stays */

    assert_true(file_writer_open(&w, path, &err));
    assert_true(file_writer_append(&w, "ne", 2, &err));
    assert_true(file_writer_append(&w, "w", 1, &err));
    expect_content(path, "old");
    assert_true(file_writer_commit(&w, &err));
    expect_content(path, "new");
    assert_int_equal(names_in(s->folder), 1);
    free(path);
}

static void test_failed_write_keeps_old(void **state) {
    Scene *s = *state;
    Err err = {0};
    FileWriter w;
    char *path = path_join(s->folder, "a");
    assert_true(file_write(path, "old", 3, &err));
    assert_true(file_writer_open(&w, path, &err));
    /* a descriptor that cannot be written stands for a disk that fails */
    int read_only = open(path, O_RDONLY);
    assert_true(dup2(read_only, w.fd) == w.fd);
    close(read_only);
    assert_false(file_writer_append(&w, "new", 3, &err));
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, path));
    file_writer_discard(&w);
    expect_content(path, "old");

    err = (Err){0};
    assert_true(file_writer_open(&w, path, &err));
    assert_int_equal(unlink(w.temporary), 0); /* the rename will fail */
    assert_false(file_writer_commit(&w, &err));
    assert_int_equal(err.code, EXIT_IO);
    expect_content(path, "old");
    assert_int_equal(names_in(s->folder), 1);
    free(path);
}

/* What is written to the temporary name in steps, and files that belong together. */
static void test_steps(void **state) {
    Scene *s = *state;
    Err err = {0};
    FileWriter w, never = {0};
    char *path = path_join(s->folder, "a"), *told = path_join(s->folder, "a: no good");
    file_writer_discard(&never); /* closes no descriptor of anybody's */
    assert_true(file_writer_open(&w, path, &err));
    assert_true(file_write(w.temporary, "first", 5, &err)); /* takes the place of the open one */
    assert_true(file_write(w.temporary, "second", 6, &err));
    assert_int_equal(names_in(s->folder), 1);
    assert_true(file_writer_finish(&w, &err));
    assert_true(file_writer_finish(&w, &err));
    assert_true(file_writer_commit(&w, &err));
    expect_content(path, "second");
    assert_int_equal(names_in(s->folder), 1);
    /* an error of the temporary file is one of the file */
    assert_true(file_writer_open(&w, path, &err));
    err_set(&err, EXIT_INPUT, "%s: no good", w.temporary);
    assert_false(file_writer_fail(&w, &err));
    assert_string_equal(err.text, told);
    assert_int_equal(err.code, EXIT_INPUT);
    expect_content(path, "second");
    assert_int_equal(names_in(s->folder), 1);
    free(path), free(told);
}

/* Errors say the name that was asked for: neither where a link leads, nor what it becomes below another folder. */
static void test_the_name_that_is_told(void **state) {
    Scene *s = *state;
    static const char *const names[] = {"a", "link"};
    Err err = {0};
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(s->folder), 0);
    assert_true(file_write("a", "old", 3, &err));
    assert_int_equal(symlink("a", "link"), 0);
    for (size_t i = 0; i < COUNTOF(names); i++) {
        FileWriter outer, inner;
        char expected[64];
        err = (Err){0};
        assert_true(file_writer_open(&outer, names[i], &err));
        assert_true(file_writer_open(&inner, outer.temporary, &err));
        int read_only = open("a", O_RDONLY);
        assert_true(dup2(read_only, inner.fd) == inner.fd);
        close(read_only);
        assert_false(file_writer_append(&inner, "new", 3, &err));
        file_writer_discard(&inner);
        assert_false(file_writer_fail(&outer, &err));
        snprintf(expected, sizeof expected, "%s: cannot be written: ", names[i]);
        assert_memory_equal(err.text, expected, strlen(expected));
        assert_int_equal(names_in("."), 2);
    }
    assert_int_equal(unlink("link"), 0);
    assert_int_equal(chdir(before), 0);
}

static void test_only_new(void **state) {
    Scene *s = *state;
    Err err = {0};
    FileWriter a, b;
    char *path = path_join(s->folder, "a");
    assert_true(file_writer_open(&a, path, &err));
    assert_true(file_writer_open(&b, path, &err));
    a.only_new = b.only_new = true;
    assert_true(file_writer_append(&a, "from a", 6, &err));
    assert_true(file_writer_commit(&a, &err));
    assert_false(file_writer_commit(&b, &err));
    assert_int_equal(err.code, EXIT_USAGE);
    assert_non_null(strstr(err.text, path));
    expect_content(path, "from a");
    assert_int_equal(names_in(s->folder), 1);
    free(path);
}

static void test_two_writers_at_once(void **state) {
    Scene *s = *state;
    Err err = {0};
    FileWriter a, b;
    char *path = path_join(s->folder, "a");
    assert_true(file_writer_open(&a, path, &err));
    assert_true(file_writer_open(&b, path, &err));
    assert_true(file_writer_append(&a, "from a", 6, &err));
    assert_true(file_writer_append(&b, "from b", 6, &err));
    assert_true(file_writer_commit(&a, &err));
    expect_content(path, "from a");
    assert_true(file_writer_commit(&b, &err));
    expect_content(path, "from b");
    free(path);
}

static void test_write_refused(void **state) {
    Scene *s = *state;
    Err err = {0};
    char *path = path_join(s->folder, "missing/a");
    assert_false(file_write(path, "x", 1, &err));
    assert_int_equal(err.code, EXIT_IO);
    free(path);

    const char *never[] = {s->folder, "/dev/null"};
    for (size_t i = 0; i < COUNTOF(never); i++) {
        err = (Err){0};
        assert_false(file_write(never[i], "x", 1, &err));
        assert_int_equal(err.code, EXIT_IO);
        assert_non_null(strstr(err.text, "is not a regular file"));
    }
    struct stat st;
    assert_true(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
}

static void test_write_through_link(void **state) {
    Scene *s = *state;
    Err err = {0};
    char *path = path_join(s->folder, "a"), *other = path_join(s->folder, "link");
    assert_true(file_write(path, "old", 3, &err));
    assert_int_equal(symlink("a", other), 0);
    assert_true(file_write(other, "new", 3, &err));
    expect_content(path, "new");
    struct stat st;
    assert_true(lstat(other, &st) == 0 && S_ISLNK(st.st_mode));
    free(path), free(other);
}

static void expect_unreadable(const char *path, const char *what) {
    FileReader reader;
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    assert_false(file_read(&bytes, &count, path, SIZE_MAX, &err));
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, what));
    assert_null(bytes);
    err = (Err){0};
    assert_false(file_reader_open(&reader, path, &err));
    assert_int_equal(err.code, EXIT_INPUT);
    file_reader_close(&reader);
}

static void test_read_refused(void **state) {
    Scene *s = *state;
    char *fifo = path_join(s->folder, "fifo"), *loop = path_join(s->folder, "loop");
    char *missing = path_join(s->folder, "missing");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(symlink("loop", loop), 0);
    expect_unreadable(missing, "cannot be opened");
    expect_unreadable(s->folder, "is a folder");
    expect_unreadable(fifo, "is not a regular file"); /* and at once: nobody writes to it */
    expect_unreadable(loop, "cannot be opened");
    expect_unreadable("/dev/zero", "is not a regular file");
    free(fifo), free(loop), free(missing);
}

static void test_limit(void **state) {
    Scene *s = *state;
    Err err = {0};
    uint8_t *bytes;
    size_t count;
    char *path = path_join(s->folder, "a");
    assert_true(file_write(path, "12345", 5, &err));
    assert_true(file_read(&bytes, &count, path, 5, &err));
    free(bytes);
    assert_false(file_read(&bytes, &count, path, 4, &err));
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "more than the 4 allowed"));

    int fd = open(path, O_WRONLY);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0); /* sparse: refused before memory is taken */
    close(fd);
    err = (Err){0};
    assert_false(file_read(&bytes, &count, path, 1 << 20, &err));
    assert_int_equal(err.code, EXIT_INPUT);
    free(path);
}

/* What happens to a file that changes meanwhile is in test_tensor_file. */
static void test_reader(void **state) {
    Scene *s = *state;
    Err err = {0};
    char bytes[6] = "";
    char *path = path_join(s->folder, "a");
    FileReader file, memory = file_reader_of("a", "pieces", 6), nothing = file_reader_of("a", NULL, 0);
    assert_true(file_write(path, "pieces", 6, &err));
    assert_true(file_reader_open(&file, path, &err));
    const FileReader *readers[] = {&file, &memory};
    for (size_t i = 0; i < COUNTOF(readers); i++) {
        assert_int_equal(readers[i]->count, 6);
        assert_true(file_reader_read(readers[i], bytes, 3, 3, &err));
        assert_true(file_reader_read(readers[i], bytes + 3, 0, 3, &err));
        assert_memory_equal(bytes, "cespie", 6);
        assert_true(file_reader_read(readers[i], bytes, 6, 0, &err));
    }
    assert_true(file_reader_read(&nothing, NULL, 0, 0, &err));
    file_reader_close(&file);
    file_reader_close(&memory);
    free(path);
}

static void test_folders(void **state) {
    Scene *s = *state;
    Err err = {0};
    char *deep = path_join(s->folder, "x/y/z");
    assert_true(dir_make(deep, &err));
    assert_true(dir_make(deep, &err));
    assert_true(path_is_dir(deep));
    const char *names[] = {"b", ".hidden", "a", "B", "\xc3\xa9", "a b"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        char *path = path_join(deep, names[i]);
        assert_true(file_write(path, "", 0, &err));
        free(path);
    }
    DirList list;
    assert_true(dir_list(&list, deep, &err));
    const char *sorted[] = {"B", "a", "a b", "b", "\xc3\xa9"};
    assert_int_equal(list.count, COUNTOF(sorted));
    for (size_t i = 0; i < list.count; i++) assert_string_equal(list.names[i], sorted[i]);
    dir_list_free(&list);

    char *file = path_join(deep, "a"), *below = path_join(deep, "a/q");
    assert_false(dir_make(file, &err));
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, "File exists - give another name"));
    err = (Err){0};
    assert_false(dir_make(below, &err));
    assert_int_equal(err.code, EXIT_IO);
    err = (Err){0};
    assert_false(dir_list(&list, file, &err));
    assert_int_equal(err.code, EXIT_INPUT);
    free(deep), free(file), free(below);
}

static void test_join(void **state) {
    (void)state;
    const char *rows[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"a//", "/b", "a/b"}, {"/", "b", "/b"},
                             {"", "b", "b"},    {"a", "", "a"},     {"a/b", "c/d", "a/b/c/d"}};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        char *joined = path_join(rows[i][0], rows[i][1]);
        assert_string_equal(joined, rows[i][2]);
        free(joined);
    }
}

/* Those of a run that died, and nothing that merely looks like them: it may be somebody's. */
static void test_only_temporaries_are_removed(void **state) {
    Scene *s = *state;
    Err err = {0};
    static const char *const names[] = {"a.tmp.12.0", "a.tmp.7.31", /* and what stays: */
                                        "a",          "a.bak.12.0",  "a.tmp.12",     "a.tmp.12.",
                                        "a.tmp.x.0",  "a.tmp.12.0x", "ab.tmp.12.0",  "b.tmp.12.0"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        char *path = path_join(s->folder, names[i]);
        assert_true(file_write(path, "x", 1, &err));
        free(path);
    }
    char *path = path_join(s->folder, "a");
    file_remove_temporaries(path);
    free(path);
    for (size_t i = 0; i < COUNTOF(names); i++) {
        path = path_join(s->folder, names[i]);
        if ((access(path, F_OK) == 0) != (i > 1)) fail_msg("%s", names[i]);
        free(path);
    }
}

/* An error that was set stays, with its cause; nobody has to ask for one. */
static void test_the_first_error_stays(void **state) {
    Scene *s = *state;
    char *missing = path_join(s->folder, "missing");
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    err_set(&err, EXIT_USAGE, "the first");
    assert_false(file_read(&bytes, &count, missing, 10, &err));
    assert_false(file_fail(&err, missing, "cannot be read", EIO));
    assert_string_equal(err.text, "the first");
    assert_int_equal(err.code, EXIT_USAGE);
    assert_int_equal(err.system, 0);
    assert_false(file_read(&bytes, &count, missing, 10, NULL));
    assert_false(file_fail(NULL, missing, "cannot be read", EIO));
    err = (Err){0};
    assert_false(file_read(&bytes, &count, missing, 10, &err));
    assert_int_equal(err.system, ENOENT);
    free(missing);
}

/* A hundred runs of this number died: their files may be somebody's. */
static void test_no_temporary_name_is_free(void **state) {
    Scene *s = *state;
    char name[SCRATCH_PATH + 64], expected[SCRATCH_PATH + 64], *path = path_join(s->folder, "a");
    Err err = {0};
    assert_true(file_write(path, "old", 3, &err));
    for (int k = 0; k < 100; k++) {
        snprintf(name, sizeof name, "%s.tmp.%ld.%d", path, (long)getpid(), k);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_true(fd >= 0);
        close(fd);
        if (k == 98) assert_true(file_write(path, "old", 3, &err)); /* one is */
    }
    assert_false(file_write(path, "new", 3, &err));
    snprintf(expected, sizeof expected, "%s: cannot be created: File exists - give another name", path);
    assert_string_equal(err.text, expected);
    assert_int_equal(err.code, EXIT_IO);
    expect_content(path, "old");
    assert_int_equal(names_in(s->folder), 101);
    free(path);
}

static void expect_kind(const char *folder, const char *name, PathKind wanted) {
    char *path = path_join(folder, name);
    PathKind kind;
    Err err = {0};
    if (!path_kind(&kind, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(kind, wanted);
    free(path);
}

static void test_kinds(void **state) {
    Scene *s = *state;
    Err err = {0};
    char *path = path_join(s->folder, "a");
    assert_true(file_write(path, "x", 1, &err));
    expect_kind(s->folder, "", PATH_FOLDER);
    expect_kind(s->folder, "a", PATH_FILE);
    expect_kind(s->folder, "a/b", PATH_NOTHING);
    expect_kind(s->folder, "b", PATH_NOTHING);
    expect_kind("/dev", "null", PATH_OTHER);
    free(path);
}

/* Names without a folder, and a folder that is gone. */
static void test_where_we_are(void **state) {
    Scene *s = *state;
    Err err = {0};
    char before[4096], here[4096], *gone = path_join(s->folder, "gone"), *path;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(s->folder), 0);
    assert_non_null(getcwd(here, sizeof here));
    assert_true(file_write("a.tmp.1.0", "x", 1, &err) && file_write("b.tmp.1.0", "x", 1, &err));
    file_remove_temporaries("a");
    assert_int_equal(access("a.tmp.1.0", F_OK), -1);
    assert_int_equal(access("b.tmp.1.0", F_OK), 0);
    static const char *const paths[][2] = {{"x", "/x"}, {"./x", "/x"}, {".x", "/.x"}, {"../x", "/../x"}};
    for (size_t i = 0; i < COUNTOF(paths); i++) {
        char *expected = path_join(here, paths[i][1]);
        path = path_absolute(paths[i][0]);
        assert_string_equal(path, expected);
        free(path), free(expected);
    }
    assert_true(dir_make(gone, &err));
    assert_int_equal(chdir(gone), 0);
    assert_int_equal(rmdir(gone), 0);
    path = path_absolute("./x"); /* the name still says what was asked for */
    assert_string_equal(path, "./x");
    free(path);
    path = path_absolute("/x");
    assert_string_equal(path, "/x");
    free(path);
    assert_int_equal(chdir(before), 0);
    free(gone);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_write_then_read),     TEST(test_old_file_until_commit), TEST(test_failed_write_keeps_old),
        TEST(test_two_writers_at_once), TEST(test_write_refused),         TEST(test_write_through_link),
        TEST(test_steps),               TEST(test_the_name_that_is_told), TEST(test_only_new),
        TEST(test_read_refused),        TEST(test_limit),                 TEST(test_reader),
        TEST(test_folders),             TEST(test_join),                  TEST(test_only_temporaries_are_removed),
        TEST(test_the_first_error_stays), TEST(test_no_temporary_name_is_free), TEST(test_kinds),
        TEST(test_where_we_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
