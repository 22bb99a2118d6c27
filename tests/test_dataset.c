/* test_dataset.c - which pictures there are and what each is called: folders, names, links and lists; which folder is
 * which split; nothing is left out in silence. */
#include "base/file.h"
#include "data/image.h"
#include "data/split.h"
#include "scratch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

static void put_file(const char *name, const void *bytes, size_t count) {
    Err err = {0};
    char *path = path_join(scratch_folder, name), *folder = mem_strdup(path);
    *strrchr(folder, '/') = '\0';
    assert_true(dir_make(folder, &err));
    assert_true(file_write(path, bytes, count, &err));
    free(path), free(folder);
}

static void put_link(const char *name, const char *target) {
    char *path = path_join(scratch_folder, name);
    assert_int_equal(symlink(target, path), 0);
    free(path);
}

/* A JPEG by its first bytes, different for each name; data sets do not decode. */
static void put_picture(const char *name) {
    char bytes[64];
    int n = snprintf(bytes, sizeof bytes, "\xff\xd8\xff%s", name);
    put_file(name, bytes, (size_t)n);
}

static void expect_error(Err *err, int code, const char *what) {
    assert_int_equal(err->code, code);
    if (!strstr(err->text, what)) fail_msg("\"%s\" where \"%s\" was expected", err->text, what);
    *err = (Err){0};
}

static Dataset must_open(const char *split) {
    Dataset d;
    Err err = {0};
    if (!dataset_open_folder(&d, scratch_folder, split, NULL, 0, &err)) fail_msg("%s", err.text);
    return d;
}

static void expect_refused(const char *split, const char *what) {
    Dataset d;
    Err err = {0};
    assert_false(dataset_open_folder(&d, scratch_folder, split, NULL, 0, &err));
    expect_error(&err, EXIT_INPUT, what);
}

/* The paths below the data set's root, in order, a blank behind each. */
static void expect_paths(const Dataset *d, const char *want) {
    char all[1024] = "";
    for (size_t i = 0; i < d->count; i++) {
        char path[DATASET_PATH_MAX];
        dataset_path(d, i, path);
        assert_memory_equal(path, d->root, strlen(d->root));
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s ", path + strlen(d->root) + 1);
    }
    assert_string_equal(all, want);
}

static void expect_folder(const Dataset *d, const char *name) {
    char *path = path_join(scratch_folder, name);
    assert_string_equal(d->root, path);
    free(path);
}

/* What split_announce says. */
static char *announced(const Dataset *d) {
    Log log;
    char *text = NULL;
    size_t count;
    FILE *out = open_memstream(&text, &count);
    assert_non_null(out);
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    split_announce(d, "validation", &log);
    fclose(out);
    return text;
}

static void expect_announced(const Dataset *d, const char *what, bool said) {
    char *text = announced(d);
    if ((strstr(text, what) != NULL) != said) fail_msg("\"%s\": \"%s\" was%s expected", text, what, said ? "" : " not");
    free(text);
}

/* ---- names and order ---- */

static void test_names_decide(void **state) {
    (void)state;
    static const char *const classes[] = {"a", "b", "c"};
    Err err = {0};
    Dataset d;
    put_picture("val/c/z.JPEG");
    put_picture("val/c/deep/er/y.pNg");
    put_file("val/c/.hidden.jpg", "", 0);
    put_picture("elsewhere/x.webp");
    put_link("val/b", "../elsewhere");
    assert_true(dataset_open_folder(&d, scratch_folder, "val", classes, 3, &err));
    expect_paths(&d, "b/x.webp c/deep/er/y.pNg c/z.JPEG ");
    for (size_t i = 0; i < 3; i++) assert_int_equal(dataset_label(&d, i), i == 0 ? 1 : 2);
    assert_int_equal(d.passed.count, 0); /* hidden names are not looked at */
    expect_announced(&d, "holds no picture of 1 of 3 classes, such as \"a\"", true);
    dataset_close(&d);
    put_picture("val/d/x.jpg");
    assert_false(dataset_open_folder(&d, scratch_folder, "val", classes, 3, &err));
    expect_error(&err, EXIT_INPUT, "val/d: no class of the training set has this name");
}

/* The first of them that is missing, not the first of all. */
static void test_a_missing_class_is_named(void **state) {
    (void)state;
    static const char *const classes[] = {"a", "b", "c", "d", "e"};
    Err err = {0};
    Dataset d;
    put_picture("val/a/x.jpg");
    put_picture("val/c/x.jpg");
    put_picture("val/e/x.jpg");
    assert_true(dataset_open_folder(&d, scratch_folder, "val", classes, 5, &err));
    expect_announced(&d, "holds no picture of 2 of 5 classes, such as \"b\"", true);
    dataset_close(&d);
}

/* 16 folders, that of the class or the one that was given among them; one more is refused. */
static void test_how_deep_folders_are_nested(void **state) {
    (void)state;
    Err err = {0};
    Dataset d;
    char *val = path_join(scratch_folder, "val"), *bottom = path_join(val, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16");
    put_picture("val/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/x.jpg");
    d = must_open("val");
    assert_int_equal(d.count, 1);
    dataset_close(&d);
    assert_false(dataset_open_pictures(&d, val, &err)); /* "val" is the first here */
    expect_error(&err, EXIT_INPUT, "/15/16: is nested more than 16 folders deep - is a link leading back?");
    put_picture("val/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/x.jpg");
    expect_refused("val", "/15/16/17: is nested more than 16 folders deep - is a link leading back?");
    assert_true(dataset_open_pictures(&d, bottom, &err));
    expect_paths(&d, "17/x.jpg x.jpg ");
    dataset_close(&d);
    free(val), free(bottom);
}

static void test_folders_that_make_no_sense(void **state) {
    (void)state;
    Err err = {0};
    Dataset d;
    put_file("train/empty/notes.txt", "", 0);
    expect_refused("train", "train/empty: this class holds no picture that can be read, but 1 other file - add");
    put_picture("train/empty/x.jpg");
    put_link("train/empty/loop", ".");
    expect_refused("train", "is a link leading back?");
    assert_false(dataset_open_folder(&d, "/nonexistent", NULL, NULL, 0, &err));
    expect_error(&err, EXIT_INPUT, "/nonexistent");
}

static void test_class_names_are_utf8(void **state) {
    (void)state;
    put_picture("train/caf\xc3\xa9/x.jpg");
    put_picture("train/th\xc3\xa9/x.jpg");
    Dataset d = must_open("train");
    assert_string_equal(d.classes[0], "caf\xc3\xa9");
    dataset_close(&d);
    put_picture("train/caf\xe9/x.jpg"); /* the same in Latin-1, and another: both would become "caf\xef\xbf\xbd" */
    put_picture("train/caf\xe8/x.jpg");
    expect_refused("train", ": the folder's name is not UTF-8, as a class's has to be - rename it");
}

/* ---- what is a picture ---- */

static void test_content_decides(void **state) {
    (void)state;
    put_picture("train/a/a.jpg");
    put_picture("train/a/b.jfif");
    put_picture("train/a/c.jpe");
    put_picture("train/a/d.tmp");
    put_picture("train/a/e");
    put_file("train/a/f.tif", "II*\0\x08\0\0\0", 8);
    put_file("train/a/g.TIF", "II*\0\x08\0\0\0", 8);
    put_file("train/a/h", "hello", 5);
    put_file("train/a/i.HEIC", "", 0);
    put_picture("train/j.png");
    put_file("train/k.txt", "hello", 5);
    Dataset d = must_open("train");
    expect_paths(&d, "a/a.jpg a/b.jfif a/c.jpe a/d.tmp a/e ");
    static const struct {
        const char *kind;
        size_t count;
        bool picture;
        const char *example;
    } want[] = {{"JPEG beside the class folders", 1, true, "train/j.png"},
                {".txt beside the class folders", 1, false, "train/k.txt"},
                {"TIFF", 2, true, "train/a/f.tif"},
                {"no extension", 1, false, "train/a/h"},
                {".heic", 1, true, "train/a/i.HEIC"}};
    assert_int_equal(d.passed.count, 6);
    assert_int_equal(d.passed.kinds, COUNTOF(want));
    for (size_t i = 0; i < COUNTOF(want); i++) {
        const PassedKind *k = &d.passed.kind[i];
        assert_string_equal(k->kind, want[i].kind);
        assert_int_equal(k->count, want[i].count);
        assert_int_equal(k->picture, want[i].picture);
        assert_string_equal(k->example + strlen(scratch_folder) + 1, want[i].example);
    }
    expect_announced(&d, "warning: ", true);
    expect_announced(&d, "6 files are not read, pictures among them:\n", true);
    expect_announced(&d, "  2 TIFF, such as ", true);
    dataset_close(&d);
}

static void test_more_kinds_than_are_told_apart(void **state) {
    (void)state;
    put_picture("train/a/a.jpg");
    for (int i = 0; i < 3 * PASSED_KINDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "train/a/x.%c%c", 'a' + i / 6, 'a' + i % 6);
        put_file(name, "x", 1);
    }
    Dataset d = must_open("train");
    assert_int_equal(d.passed.count, 3 * PASSED_KINDS);
    assert_int_equal(d.passed.kinds, PASSED_KINDS + 1);
    assert_int_equal(d.passed.kind[PASSED_KINDS].count, 2 * PASSED_KINDS);
    assert_string_equal(d.passed.kind[PASSED_KINDS].kind, "other kinds");
    expect_announced(&d, "warning: ", false); /* none of them promises to be a picture */
    expect_announced(&d, "36 files are no pictures:\n", true);
    dataset_close(&d);
}

/* What is neither file nor folder is counted, whatever its name, and not waited for. */
static void test_pipes_are_counted(void **state) {
    (void)state;
    static const char *const names[] = {"train/a/pipe", "train/a/pipe.jpg", "train/pipe"};
    put_picture("train/a/x.jpg");
    for (size_t i = 0; i < COUNTOF(names); i++) {
        char *path = path_join(scratch_folder, names[i]);
        assert_int_equal(mkfifo(path, 0600), 0);
        free(path);
    }
    put_link("train/a/link.png", "pipe");
    Dataset d = must_open("train");
    expect_paths(&d, "a/x.jpg ");
    assert_int_equal(d.passed.count, 4);
    expect_announced(&d, "  3 special files, such as ", true);
    expect_announced(&d, "  1 special files beside the class folders, such as ", true);
    dataset_close(&d);
}

/* ---- what cannot be asked ---- */

static void test_links_to_nothing(void **state) {
    (void)state;
    Dataset d;
    char *folder;
    Err err = {0};
    put_picture("train/a/x.jpg");
    put_picture("train/b/x.jpg");
    put_link("train/c", "/nonexistent/c"); /* a class */
    expect_refused("train", "train/c: is a link to what is not there - is a disk missing?");
    put_picture("train2/a/x.jpg");
    put_link("train2/a/more", "/nonexistent/more"); /* a folder in a class */
    expect_refused("train2", "train2/a/more: is a link to what is not there");
    put_link("val", "/nonexistent/val"); /* a split */
    put_picture("validation/a/x.jpg");
    expect_refused("val", "val: is a link to what is not there");
    put_picture("train4/a/x.jpg"); /* a picture, by its name */
    put_link("train4/a/y.jpg", "/nonexistent/y.jpg");
    expect_refused("train4", "train4/a/y.jpg: is a link to what is not there");
    put_picture("train5/a/x.jpg");
    put_link("train5/a/y.jpg", "y.jpg");
    expect_refused("train5", "train5/a/y.jpg: is a link that leads in circles");
    folder = path_join(scratch_folder, "train5/a"); /* who asks for answers gets those that there are */
    put_picture("train5/a/z.jpg/1.jpg"); /* and a folder is one, whatever its name, and a link to it, too */
    put_picture("more/2.jpg");
    put_link("train5/a/z.png", "../../more");
    assert_true(dataset_open_pictures(&d, folder, &err));
    expect_paths(&d, "x.jpg y.jpg z.jpg/1.jpg z.png/2.jpg ");
    dataset_close(&d);
    free(folder);
    put_link("train2/b", "b");
    expect_refused("train2", "train2/b: is a link that leads in circles"); /* classes before what is in them */
    put_link("train3", "train3");
    expect_refused("train3", "train3: is a link that leads in circles");
    folder = path_join(scratch_folder, "train2");
    assert_false(dataset_open_pictures(&d, folder, &err));
    expect_error(&err, EXIT_INPUT, "train2/a/more: is a link to what is not there");
    free(folder);
}

/* Root may search every folder, so this asks for a name that is too long for the file system. */
static void test_path_that_cannot_be_asked(void **state) {
    (void)state;
    char *name = mem_zalloc(400, 1), path[512];
    memset(name, 'x', 300);
    snprintf(path, sizeof path, "%s/%s", scratch_folder, name);
    PathKind kind;
    Err err = {0};
    assert_false(path_kind(&kind, path, &err));
    expect_error(&err, EXIT_IO, "cannot be examined");
    Dataset d;
    assert_false(dataset_open_folder(&d, scratch_folder, name, NULL, 0, &err));
    expect_error(&err, EXIT_IO, "cannot be examined");
    free(name);
}

/* Root may look everywhere: there, somebody else does, where the system has somebody else. */
static void test_unsearchable_folder(void **state) {
    (void)state;
    Dataset d;
    Err err = {0};
    put_picture("train/a/x.jpg");
    put_picture("train/b/deep/x.jpg");
    char *folder = path_join(scratch_folder, "train/b");
    assert_int_equal(chmod(folder, 0644), 0);
    assert_int_equal(chmod(scratch_folder, 0755), 0);
    const bool root = geteuid() == 0;
    if (root && seteuid(65534) != 0) skip();
    bool opened = dataset_open_folder(&d, scratch_folder, "train", NULL, 0, &err);
    if (root) assert_int_equal(seteuid(0), 0);
    assert_false(opened);
    expect_error(&err, EXIT_IO, "train/b/deep: cannot be examined: Permission denied");
    assert_int_equal(chmod(folder, 0700), 0);
    free(folder);
}

/* ---- splits ---- */

static void test_names_of_splits(void **state) {
    (void)state;
    put_picture("test/a/x.jpg");
    expect_refused("val", "holds no folder \"val\", nor \"valid\", \"validation\", but test - expected ");
    expect_refused("train", "holds no folder \"train\", nor \"training\", but test - expected ");
    static const char *const order[] = {"validation", "valid", "val"}; /* each is preferred to those before */
    for (size_t i = 0; i < COUNTOF(order); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/a/x.jpg", order[i]);
        put_picture(name);
        Dataset d = must_open("val");
        expect_folder(&d, order[i]);
        expect_announced(&d, "validation folder: ", true);
        expect_announced(&d, "which is not used", i > 0);
        dataset_close(&d);
    }
    Dataset d = must_open("test"); /* what is asked for by name */
    expect_folder(&d, "test");
    dataset_close(&d);
    put_picture("training/a/x.jpg");
    d = must_open("train");
    expect_folder(&d, "training");
    dataset_close(&d);
}

static void test_what_evaluation_takes(void **state) {
    (void)state;
    static const char *const classes[] = {"bus", "train"};
    const char *split;
    Err err = {0};
    put_picture("bus/x.jpg");
    assert_true(split_to_judge(&split, scratch_folder, "val", "train", classes, 1, &err));
    assert_null(split); /* the class folders themselves */
    put_picture("train/x.jpg");
    assert_true(split_to_judge(&split, scratch_folder, "val", "train", classes, 2, &err));
    assert_null(split); /* "train" is a class here */
    assert_false(split_to_judge(&split, scratch_folder, "val", "train", classes, 1, &err));
    expect_error(&err, EXIT_INPUT, "holds no folder \"val\", nor \"valid\", \"validation\", but bus, train - expected");
    put_picture("valid/bus/x.jpg");
    assert_true(split_to_judge(&split, scratch_folder, "val", "train", classes, 1, &err));
    assert_string_equal(split, "val");
}

static SplitShared shared(const char *train, const char *val) {
    Dataset a = must_open(train), b = must_open(val);
    SplitShared s = split_shared(&a, &b);
    dataset_close(&a), dataset_close(&b);
    return s;
}

static void test_shared_pictures(void **state) {
    (void)state;
    static char large[5000];
    put_picture("train/a/1.jpg");
    put_picture("train/a/2.jpg");
    put_picture("val/a/1.jpg"); /* as long as "train" is not */
    put_picture("VALID/a/1.jpg"); /* as long, other bytes */
    assert_int_equal(shared("train", "val").shared, 0);
    assert_int_equal(shared("train", "VALID").shared, 0);
    assert_int_equal(shared("train", "VALID").looked, 1);
    assert_int_equal(shared("train", "train").shared, 2); /* the same files */
    put_file("val/b/copy.jpg", "\xff\xd8\xfftrain/a/2.jpg", 16);
    SplitShared s = shared("train", "val");
    assert_int_equal(s.looked, 2);
    assert_int_equal(s.shared, 1);
    assert_int_equal(s.train, 1);
    assert_int_equal(s.val, 1);
    put_link("val/b/link.jpg", "../../train/a/1.jpg");
    assert_int_equal(shared("train", "val").shared, 2);
    put_file("train/c/large.jpg", large, sizeof large);
    large[0] = 1; /* the ends are equal, the wholes are not */
    put_file("val/c/large.jpg", large, sizeof large);
    assert_int_equal(shared("train", "val").shared, 2);
}

/* Pictures as long as each other, as uncompressed ones are, cost the reading of their ends: were each compared as a
 * whole with all the others, no more than the first few would be looked at. */
static void test_shared_pictures_that_are_as_long(void **state) {
    (void)state;
    enum { PICTURES = 30 };
    for (int i = 0; i < PICTURES; i++) {
        char name[64], bytes[16];
        snprintf(bytes, sizeof bytes, "\xff\xd8\xff%08d", i);
        snprintf(name, sizeof name, "train/a/%02d.jpg", i);
        put_file(name, bytes, strlen(bytes));
        snprintf(name, sizeof name, "val/a/%02d.jpg", i);
        put_file(name, bytes, strlen(bytes));
    }
    SplitShared s = shared("train", "val");
    assert_int_equal(s.looked, PICTURES);
    assert_int_equal(s.shared, PICTURES);
    assert_int_equal(s.train, s.val);
}

/* Pictures that are gone or empty by the time of the comparison are of nobody; more than are looked at are not said. */
static void test_shared_pictures_that_change(void **state) {
    (void)state;
    Log log;
    char *text = NULL, name[64], *path = path_join(scratch_folder, "val/a/gone.jpg");
    size_t count;
    put_picture("train/a/1.jpg");
    put_picture("val/a/gone.jpg");
    put_file("val/a/empty.jpg", "", 0);
    put_file("val/a/1.jpg", "\xff\xd8\xfftrain/a/1.jpg", 16);
    put_picture("val/a/folder.jpg");
    Dataset train = must_open("train"), val = must_open("val");
    char *folder = path_join(scratch_folder, "val/a/folder.jpg");
    assert_true(unlink(path) == 0 && unlink(folder) == 0 && mkdir(folder, 0777) == 0);
    free(folder);
    SplitShared s = split_shared(&train, &val);
    assert_int_equal(s.looked, 1);
    assert_int_equal(s.shared, 1);
    dataset_close(&val);
    FILE *out = open_memstream(&text, &count);
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    split_warn_of_shared(&train, &train, &log);
    fclose(out);
    assert_non_null(strstr(text, "warning: "));
    assert_non_null(strstr(text, "train/a/1.jpg"));
    dataset_close(&train);
    for (int i = 0; i < 210; i++) { /* 200 wholes of equal ends and lengths are read */
        static char large[5000];
        large[0] = (char)i, large[1] = 1;
        snprintf(name, sizeof name, "long/a/%03d.jpg", i);
        put_file(name, large, sizeof large);
    }
    static const char other[5000];
    put_file("one/a/x.jpg", other, sizeof other);
    s = shared("long", "one");
    assert_int_equal(s.shared + s.looked, 0);
    free(text), free(path);
}

/* What is missing is told with what is there. */
static void test_missing_splits_and_classes(void **state) {
    (void)state;
    static const char *const classes[] = {"cat", "dog"};
    Err err = {0};
    Dataset d;
    expect_refused("train", ", but no folder - expected ");
    put_file("a/x", "", 0);
    expect_refused("train", "holds no folder \"train\", nor \"training\"");
    for (int i = 0; i < 7; i++) {
        char name[16];
        snprintf(name, sizeof name, "%c/x", 'a' + i);
        put_file(name, "", 0);
    }
    expect_refused("other", ", but a, b, c, d, e, f, ... - expected ");
    put_file("val/notes.txt", "", 0);
    expect_refused("val", "val: holds no class folders");
    put_picture("val/cta/x.jpg");
    assert_false(dataset_open_folder(&d, scratch_folder, "val", classes, 2, &err));
    expect_error(&err, EXIT_INPUT, "val/cta: no class of the training set has this name - did you mean \"cat\"?");
    put_picture("val/aardvark/x.jpg");
    assert_false(dataset_open_folder(&d, scratch_folder, "val", classes, 2, &err));
    expect_error(&err, EXIT_INPUT, "no class of the training set has this name (it has 2, \"cat\" to \"dog\")");
    put_file("train/void/a.txt", "", 0), put_file("train/void/b", "", 0);
    put_file("train/void/c.an_extension_of_many", "", 0);
    expect_refused("train", "no picture that can be read, but 3 other files - add");
    put_file("hollow/none/.hidden", "", 0);
    expect_refused("hollow", "none: this class holds no picture - add");
}

/* ---- without labels ---- */

static void test_lists(void **state) {
    (void)state;
    Err err = {0};
    Dataset d;
    char path[DATASET_PATH_MAX], *list = path_join(scratch_folder, "list.txt");
    put_file("list.txt", "\xef\xbb\xbftrain/a/0.png\r\n\ntrain/b/no extension", 39);
    assert_true(dataset_open_list(&d, list, &err));
    expect_paths(&d, "train/a/0.png train/b/no extension ");
    assert_int_equal(dataset_label(&d, 1), -1);
    dataset_close(&d);
    put_file("list.txt", "/abs/x.jpg\0b\nc.jpg\0", 19);
    assert_true(dataset_open_list(&d, list, &err));
    assert_int_equal(d.count, 2);
    dataset_path(&d, 0, path);
    assert_string_equal(path, "/abs/x.jpg");
    dataset_path(&d, 1, path);
    assert_string_equal(path + strlen(scratch_folder), "/b\nc.jpg");
    dataset_close(&d);
    put_file("list.txt", "\n\n", 2);
    assert_false(dataset_open_list(&d, list, &err));
    expect_error(&err, EXIT_INPUT, "list.txt: holds no picture");
    put_file("list.txt", "a\nb\0", 4);
    assert_false(dataset_open_list(&d, list, &err));
    expect_error(&err, EXIT_INPUT, "list.txt: line 2 holds a NUL");
    free(list);
}

static void test_paths(void **state) {
    (void)state;
    Err err = {0};
    Dataset d;
    char path[DATASET_PATH_MAX], *train = path_join(scratch_folder, "train");
    put_picture("train/a/0.png");
    put_picture("train/b/1.png");
    assert_true(dataset_open_pictures(&d, train, &err));
    expect_paths(&d, "a/0.png b/1.png ");
    dataset_close(&d);
    const char *both[] = {"x.jpg", train};
    assert_true(dataset_open_paths(&d, both, 2, &err));
    assert_int_equal(d.count, 3);
    dataset_path(&d, 0, path);
    assert_string_equal(path, "x.jpg");
    dataset_path(&d, 1, path);
    assert_string_equal(path + strlen(train), "/a/0.png");
    dataset_close(&d);
    char *long_name = mem_zalloc(5001, 1);
    memset(long_name, 'x', 5000);
    assert_false(dataset_open_paths(&d, (const char *const *)&long_name, 1, &err));
    expect_error(&err, EXIT_INPUT, "the path is longer than 4095 bytes");
    free(long_name), free(train);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_set_up, scratch_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_names_decide),          TEST(test_folders_that_make_no_sense),
        TEST(test_class_names_are_utf8),  TEST(test_content_decides),
        TEST(test_links_to_nothing),      TEST(test_pipes_are_counted),
        TEST(test_more_kinds_than_are_told_apart),
        TEST(test_unsearchable_folder),   TEST(test_path_that_cannot_be_asked),
        TEST(test_names_of_splits),       TEST(test_what_evaluation_takes),
        TEST(test_missing_splits_and_classes), TEST(test_shared_pictures_that_change),
        TEST(test_shared_pictures),       TEST(test_lists),
        TEST(test_a_missing_class_is_named), TEST(test_how_deep_folders_are_nested),
        TEST(test_shared_pictures_that_are_as_long),
        TEST(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
