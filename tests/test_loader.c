/* test_loader.c - batches: the same bytes for any number of threads, every sample once an epoch, bad files skipped by
 * rule, counted once and named. Also run under ThreadSanitizer (make tsan). */
#include "base/file.h"
#include "data/loader.h"
#include "pack.h"
#include "scratch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <limits.h>
#include <setjmp.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLASSES = 3, PER_CLASS = 7, SAMPLES = CLASSES * PER_CLASS, SIDE = 12 };

/* A data set of small PNGs in a temporary folder: classes/a|b|c/0.png .. 6.png, each of its own colour. */
typedef struct {
    char folder[SCRATCH_PATH];
    Dataset data;
} Scene;

static void put_file(const Scene *s, const char *name, const void *bytes, size_t count) {
    Err err = {0};
    char *path = path_join(s->folder, name), *folder = mem_strdup(path);
    *strrchr(folder, '/') = '\0';
    assert_true(dir_make(folder, &err));
    assert_true(file_write(path, bytes, count, &err));
    free(path), free(folder);
}

static void put_picture(const Scene *s, const char *name, int shade) {
    Err err = {0};
    Image image;
    uint8_t *bytes;
    size_t count;
    assert_true(image_new(&image, SIDE + shade % 5, SIDE + shade % 3, &err));
    for (int i = 0; i < 3 * image.width * image.height; i++) image.pixels[i] = (uint8_t)(7 * shade + 3 * i);
    assert_true(image_encode_png(&bytes, &count, &image, &err));
    put_file(s, name, bytes, count);
    image_free(&image);
    free(bytes);
}

static int make_scene(void **state) {
    Scene *s = mem_zalloc(1, sizeof *s);
    scratch_make(s->folder);
    for (int i = 0; i < SAMPLES; i++) {
        char name[64];
        snprintf(name, sizeof name, "train/%c/%d.png", 'a' + i / PER_CLASS, i % PER_CLASS);
        put_picture(s, name, i);
    }
    Err err = {0};
    *state = s;
    return dataset_open_folder(&s->data, s->folder, "train", NULL, 0, &err) ? 0 : -1;
}

static int remove_scene(void **state) {
    Scene *s = *state;
    scratch_remove(s->folder);
    dataset_close(&s->data);
    free(s);
    return 0;
}

static void spoil(const Scene *s, int sample) {
    char path[DATASET_PATH_MAX];
    dataset_path(&s->data, (size_t)sample, path);
    put_file(s, path + strlen(s->folder) + 1, "not a picture", 13);
}

static void expect_error(const Err *err, int code, const char *what) {
    assert_int_equal(err->code, code);
    if (!strstr(err->text, what)) fail_msg("\"%s\" where \"%s\" was expected", err->text, what);
}

static Loader *must_open(const LoaderOptions *options, const Dataset *data) {
    Err err = {0};
    Loader *l;
    assert_true(loader_open(&l, options, data, &err));
    return l;
}

static const Batch *must_next(Loader *l) {
    Err err = {0};
    const Batch *batch;
    if (!loader_next(l, &batch, &err)) fail_msg("%s", err.text);
    return batch;
}

static LoaderOptions options_of(bool train, int batch, int workers) {
    LoaderOptions o = loader_defaults(batch, SIDE, SIDE, train);
    o.workers = workers;
    o.seed = 5;
    o.max_bad = 0.5;
    return o;
}

/* FNV-1a over all that the batches of an epoch hold, from batch `first` on. */
static uint64_t epoch_hash(Loader *l, uint32_t epoch, int64_t first, int size) {
    uint64_t hash = 1469598103934665603u;
    loader_start_epoch(l, epoch, first);
    for (const Batch *b; (b = must_next(l));) {
        assert_in_range(b->count, 1, size);
        const struct {
            const void *bytes;
            size_t count;
        } parts[] = {{b->pixels, (size_t)b->count * 3 * SIDE * SIDE},
                     {b->labels, (size_t)b->count * sizeof *b->labels},
                     {b->samples, (size_t)b->count * sizeof *b->samples},
                     {&b->count, sizeof b->count},
                     {&b->index, sizeof b->index}};
        for (size_t p = 0; p < COUNTOF(parts); p++)
            for (size_t i = 0; i < parts[p].count; i++)
                hash = (hash ^ ((const uint8_t *)parts[p].bytes)[i]) * 1099511628211u;
    }
    return hash;
}

static void test_any_number_of_threads(void **state) {
    Scene *s = *state;
    spoil(s, 4), spoil(s, 5), spoil(s, SAMPLES - 1);
    static const int workers[] = {0, 1, 2, 5};
    for (int train = 0; train < 2; train++) {
        uint64_t hashes[COUNTOF(workers)][3];
        char bad[COUNTOF(workers)][1024] = {{0}};
        for (size_t w = 0; w < COUNTOF(workers); w++) {
            LoaderOptions o = options_of(train, 4, workers[w]);
            if (w == 2) o.ahead = 1;
            if (w == 2) o.keep_bytes = 5000; /* some pictures fit */
            if (w == 3) o.keep_bytes = 1 << 26; /* all do */
            Loader *l = must_open(&o, &s->data);
            for (uint32_t epoch = 0; epoch < 3; epoch++) hashes[w][epoch] = epoch_hash(l, epoch, 0, o.batch);
            size_t count, at = 0;
            const BadSample *list = loader_bad(l, &count);
            assert_int_equal(count, 3);
            for (size_t i = 0; i < count; i++)
                at += (size_t)snprintf(bad[w] + at, sizeof bad[w] - at, "%u %s\n", list[i].sample, list[i].reason);
            loader_close(l);
            assert_memory_equal(hashes[w], hashes[0], sizeof hashes[0]);
            assert_string_equal(bad[w], bad[0]);
        }
        if (train) assert_true(hashes[0][0] != hashes[0][1] && hashes[0][1] != hashes[0][2]);
        if (!train) assert_true(hashes[0][0] == hashes[0][1]);
    }
}

/* An epoch that is left early, begun again, or begun in the middle gives the same batches. */
static void test_any_beginning(void **state) {
    Scene *s = *state;
    LoaderOptions o = options_of(true, 4, 2);
    Loader *l = must_open(&o, &s->data);
    assert_null(must_next(l)); /* no epoch yet */
    uint64_t whole = epoch_hash(l, 3, 0, o.batch), tail = epoch_hash(l, 3, 2, o.batch);
    assert_true(whole != tail);
    loader_start_epoch(l, 9, 0);
    assert_non_null(must_next(l));
    loader_start_epoch(l, 8, 0);
    assert_true(epoch_hash(l, 3, 0, o.batch) == whole);
    assert_true(epoch_hash(l, 3, 2, o.batch) == tail);
    assert_null(must_next(l)); /* the end stays the end */
    loader_start_epoch(l, 3, loader_batches(l));
    assert_null(must_next(l));
    loader_start_epoch(l, 4, 0); /* closed with work under way */
    loader_close(l);
    o.seed++;
    l = must_open(&o, &s->data);
    assert_true(epoch_hash(l, 3, 0, o.batch) != whole);
    loader_close(l);
}

static void test_each_sample_once(void **state) {
    Scene *s = *state;
    static const struct {
        bool train;
        LastBatch last;
        int batch, batches, last_count, total;
    } rows[] = {
        {false, LAST_SHORT, 4, 6, 1, 21}, {false, LAST_SHORT, 7, 3, 7, 21}, {false, LAST_SHORT, 50, 1, 21, 21},
        {true, LAST_SHORT, 4, 6, 1, 21},  {true, LAST_DROP, 4, 5, 4, 20},   {true, LAST_WRAP, 4, 6, 4, 24},
        {true, LAST_DROP, 50, 1, 50, 50}, {true, LAST_WRAP, 50, 1, 50, 50},
    };
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        LoaderOptions o = options_of(rows[i].train, rows[i].batch, 2);
        o.last = rows[i].last;
        Loader *l = must_open(&o, &s->data);
        assert_int_equal(loader_batches(l), rows[i].batches);
        assert_int_equal(loader_samples(l), rows[i].total);
        int met[SAMPLES] = {0}, total = 0, last_count = 0, batches = 0, in_order = 1;
        loader_start_epoch(l, 1, 0);
        for (const Batch *b; (b = must_next(l)); batches++) {
            assert_int_equal(b->index, batches);
            for (int k = 0; k < b->count; k++, total++) {
                met[b->samples[k]]++;
                in_order = in_order && b->samples[k] == (uint32_t)total;
                assert_int_equal(b->labels[k], b->samples[k] / PER_CLASS);
            }
            last_count = b->count;
        }
        assert_int_equal(batches, rows[i].batches);
        assert_int_equal(last_count, rows[i].last_count);
        assert_int_equal(total, rows[i].total);
        assert_int_equal(in_order, !rows[i].train);
        for (int k = 0; k < SAMPLES; k++) assert_in_range(met[k], total / SAMPLES, CEIL_DIV(total, SAMPLES));
        LoaderStats stats = loader_stats(l);
        assert_int_equal(stats.samples, total);
        assert_true(stats.decode_seconds > 0 && stats.wait_seconds > 0);
        loader_close(l);
    }
}

/* Unless told otherwise, training takes whole batches alone, and evaluation every sample. */
static void test_training_leaves_out_the_short_batch_by_default(void **state) {
    Scene *s = *state;
    for (int train = 0; train < 2; train++) {
        LoaderOptions o = loader_defaults(4, SIDE, SIDE, train);
        Loader *l = must_open(&o, &s->data);
        int counts[8] = {0}, batches = 0;
        loader_start_epoch(l, 0, 0);
        for (const Batch *b; batches < 8 && (b = must_next(l));) counts[batches++] = b->count;
        assert_int_equal(batches, train ? 5 : 6);
        for (int i = 0; i < batches; i++) assert_int_equal(counts[i], i < 5 ? 4 : 1);
        loader_close(l);
    }
}

static void test_batches_hold_the_pictures(void **state) {
    Scene *s = *state;
    Err err = {0};
    Resizer r = {0};
    LoaderOptions o = options_of(true, 5, 3);
    Loader *l = must_open(&o, &s->data);
    uint8_t pixels[3 * SIDE * SIDE];
    loader_start_epoch(l, 2, 0);
    for (const Batch *b; (b = must_next(l));)
        for (int k = 0; k < b->count; k++) {
            char path[DATASET_PATH_MAX];
            Image image;
            Rng rng = rng_make(o.seed, RNG_AUGMENT, b->samples[k], 2);
            dataset_path(&s->data, b->samples[k], path);
            assert_true(image_load(&image, path, &err));
            assert_true(transform_train(&r, pixels, &image, &o.train_transform, &rng, &err));
            assert_memory_equal(b->pixels + (size_t)k * sizeof pixels, pixels, sizeof pixels);
            image_free(&image);
        }
    loader_close(l);
    resizer_free(&r);
}

static void test_bad_files_in_training(void **state) {
    Scene *s = *state;
    spoil(s, 4), spoil(s, 5), spoil(s, SAMPLES - 1);
    LoaderOptions o = options_of(true, 7, 2);
    Loader *l = must_open(&o, &s->data);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        int met[SAMPLES] = {0};
        loader_start_epoch(l, epoch, 0);
        for (const Batch *b; (b = must_next(l));) {
            assert_int_equal(b->count, 7);
            for (int k = 0; k < b->count; k++) {
                met[b->samples[k]]++;
                assert_int_equal(b->labels[k], b->samples[k] / PER_CLASS);
            }
        }
        /* 6 stands in for 4 and 5, and 0 for the last one */
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(met[i], i == 6 ? 3 : i == 0 ? 2 : i == 4 || i == 5 || i == SAMPLES - 1 ? 0 : 1);
    }
    size_t count;
    const BadSample *bad = loader_bad(l, &count);
    assert_int_equal(count, 3); /* once each, over two epochs */
    for (size_t i = 0; i < count; i++) {
        char path[DATASET_PATH_MAX];
        dataset_path(&s->data, bad[i].sample, path);
        assert_memory_equal(bad[i].reason, path, strlen(path));
        assert_non_null(strstr(bad[i].reason, ": is none of JPEG, PNG"));
    }
    loader_close(l);
}

static void test_bad_files_in_evaluation(void **state) {
    Scene *s = *state;
    for (int i = 4; i < 8; i++) spoil(s, i); /* all of batch 1 */
    spoil(s, 9);
    LoaderOptions o = options_of(false, 4, 2);
    Loader *l = must_open(&o, &s->data);
    static const int counts[] = {4, 3, 4, 4, 1}, index[] = {0, 2, 3, 4, 5};
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        size_t batches = 0;
        uint32_t next = 0;
        loader_start_epoch(l, epoch, 0);
        for (const Batch *b; (b = must_next(l)); batches++) {
            assert_int_equal(b->count, counts[batches]);
            assert_int_equal(b->index, index[batches]);
            for (int k = 0; k < b->count; k++, next++) {
                while ((next >= 4 && next < 8) || next == 9) next++;
                assert_int_equal(b->samples[k], next);
                assert_int_equal(b->labels[k], next / PER_CLASS);
            }
        }
        assert_int_equal(batches, COUNTOF(counts));
    }
    size_t count;
    loader_bad(l, &count);
    assert_int_equal(count, 5);
    loader_close(l);
}

/* Runs an epoch to its error. */
static void expect_stop(const LoaderOptions *o, const Dataset *data, int batches, const char *what) {
    Err err = {0};
    Loader *l = must_open(o, data);
    const Batch *batch = NULL;
    int delivered = 0;
    loader_start_epoch(l, 0, 0);
    while (loader_next(l, &batch, &err) && batch) delivered++;
    expect_error(&err, EXIT_INPUT, what);
    assert_null(batch);
    assert_int_equal(delivered, batches);
    size_t listed;
    const BadSample *bad = loader_bad(l, &listed);
    for (size_t i = 0; i < listed; i++) /* told as a warning, so not in the error */
        assert_true(o->max_bad == 1 || !strstr(err.text, bad[i].reason));
    loader_close(l);
}

static void test_bad_files_that_stop(void **state) {
    Scene *s = *state;
    spoil(s, 9), spoil(s, 13);
    for (int workers = 0; workers < 4; workers += 3) {
        LoaderOptions o = options_of(false, 4, workers);
        o.on_bad = BAD_ERROR;
        expect_stop(&o, &s->data, 2, "/b/2.png: is none of JPEG, PNG");
        o.on_bad = BAD_SKIP;
        static const double shares[] = {1.0 / SAMPLES, 0.001}; /* one picture, and less: one may be bad */
        for (size_t i = 0; i < COUNTOF(shares); i++) {
            o.max_bad = shares[i];
            expect_stop(&o, &s->data, 3,
                        "/b/6.png: is none of JPEG, PNG, WebP, GIF, BMP - give one of these (bad picture number 2 of "
                        "21, more than data.max_bad=0.0");
        }
        o.max_bad = 0;
        expect_stop(&o, &s->data, 2, "/b/2.png: is none of");
    }
    for (int i = 0; i < SAMPLES; i++) spoil(s, i);
    LoaderOptions o = options_of(true, 4, 2);
    o.max_bad = 1;
    expect_stop(&o, &s->data, 0, "none of its 21 pictures can be used");
    o = options_of(false, 4, 2);
    o.max_bad = 1;
    Loader *l = must_open(&o, &s->data);
    loader_start_epoch(l, 0, 0);
    assert_null(must_next(l)); /* an evaluation of nothing, all of it counted */
    size_t count;
    loader_bad(l, &count);
    assert_int_equal(count, SAMPLES);
    loader_close(l);
}

/* In training a bad picture is followed by the next, and the limit may be met before a good one is. */
static void test_bad_files_beyond_the_limit_in_training(void **state) {
    Scene *s = *state;
    spoil(s, 3), spoil(s, 4), spoil(s, 5);
    for (uint32_t epoch = 0; epoch < 60; epoch++) { /* in any order */
        LoaderOptions o = options_of(true, SAMPLES, (int)epoch % 3);
        const size_t allowed = 1 + epoch / 3 % 2;
        o.max_bad = (double)allowed / SAMPLES + 1e-9;
        Err err = {0};
        const Batch *batch;
        Loader *l = must_open(&o, &s->data);
        loader_start_epoch(l, epoch, 0);
        assert_false(loader_next(l, &batch, &err));
        assert_null(batch);
        expect_error(&err, EXIT_INPUT,
                     allowed == 1 ? "(bad picture number 2 of 21, more than data.max_bad=0.047619 allows)"
                                  : "(bad picture number 3 of 21, more than data.max_bad=0.0952381 allows)");
        size_t count;
        const BadSample *bad = loader_bad(l, &count);
        assert_int_equal(count, allowed);
        for (size_t i = 0; i < count; i++) assert_in_range(bad[i].sample, 3, 5);
        loader_close(l);
    }
}

/* One picture stands in for all others, and is large: many threads decode it at once, and one of them keeps it. */
static void test_many_threads_keep_one_picture(void **state) {
    Scene *s = *state;
    enum { GOOD = 10, LARGE = 800 };
    Err err = {0};
    Image image;
    uint8_t *bytes;
    size_t count;
    for (int i = 0; i < SAMPLES; i++)
        if (i != GOOD) spoil(s, i);
    assert_true(image_new(&image, LARGE, LARGE, &err));
    for (int i = 0; i < 3 * LARGE * LARGE; i++) image.pixels[i] = (uint8_t)((unsigned)i * (unsigned)i >> 7);
    assert_true(image_encode_png(&bytes, &count, &image, &err));
    char path[DATASET_PATH_MAX];
    dataset_path(&s->data, GOOD, path);
    put_file(s, path + strlen(s->folder) + 1, bytes, count);
    uint64_t expected[2] = {0};
    for (int workers = 0; workers <= 6; workers += 3) {
        LoaderOptions o = options_of(true, 12, workers);
        o.max_bad = 1;
        o.keep_bytes = workers ? 1 << 26 : 0;
        Loader *l = must_open(&o, &s->data);
        for (uint32_t epoch = 0; epoch < 2; epoch++) {
            uint64_t hash = epoch_hash(l, epoch, 0, o.batch);
            if (workers == 0) expected[epoch] = hash;
            assert_true(hash == expected[epoch]);
        }
        (void)loader_bad(l, &count);
        assert_int_equal(count, SAMPLES - 1);
        loader_close(l);
    }
    image_free(&image);
    free(bytes);
}

/* What the system says of a file says nothing about its picture: the run ends, whatever may be bad. */
static void test_files_that_cannot_be_opened(void **state) {
    Scene *s = *state;
    char path[DATASET_PATH_MAX];
    dataset_path(&s->data, 9, path);
    static const char *const targets[] = {NULL, "nowhere", "2.png"}; /* gone, a link to nothing, one to itself */
    for (size_t i = 0; i < COUNTOF(targets); i++) {
        (void)unlink(path);
        if (targets[i]) assert_int_equal(symlink(targets[i], path), 0);
        for (int train = 0; train < 2; train++) {
            LoaderOptions o = options_of(train, 3, 2);
            o.max_bad = 0.5;
            Err err = {0};
            const Batch *batch;
            Loader *l = must_open(&o, &s->data);
            loader_start_epoch(l, 0, 0);
            while (loader_next(l, &batch, &err) && batch) continue;
            expect_error(&err, EXIT_INPUT, "/b/2.png: cannot be opened: ");
            loader_close(l);
        }
    }
}

/* Root may read everything: there, somebody else does, where the system has somebody else. */
static void test_pictures_that_may_not_be_read(void **state) {
    Scene *s = *state;
    char path[DATASET_PATH_MAX];
    dataset_path(&s->data, 9, path);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(chmod(s->folder, 0755), 0);
    const bool root = geteuid() == 0;
    if (root && seteuid(65534) != 0) skip();
    LoaderOptions o = options_of(false, 4, 0);
    o.max_bad = 0.5;
    Err err = {0};
    const Batch *batch;
    Loader *l = must_open(&o, &s->data);
    loader_start_epoch(l, 0, 0);
    while (loader_next(l, &batch, &err) && batch) continue;
    if (root) assert_int_equal(seteuid(0), 0);
    expect_error(&err, EXIT_IO, "/b/2.png: cannot be opened: Permission denied");
    loader_close(l);
}

/* Every picture of a real set decodes, in both ways. */
static void test_real_pictures(void **state) {
    (void)state;
    char *pack = pack_open("imagenet_sample");
    if (!pack) skip();
    Err err = {0};
    Dataset d;
    char *folder = path_join(pack, "images");
    assert_true(dataset_open_folder(&d, folder, NULL, NULL, 0, &err));
    assert_int_equal(d.count, 200);
    assert_int_equal(d.class_count, 200);
    for (int train = 0; train < 2; train++) {
        LoaderOptions o = loader_defaults(32, 64, 96, train);
        o.workers = 2;
        o.on_bad = BAD_ERROR;
        o.last = LAST_SHORT;
        Loader *l = must_open(&o, &d);
        loader_start_epoch(l, 0, 0);
        int total = 0;
        for (const Batch *b; (b = must_next(l));) total += b->count;
        assert_int_equal(total, 200);
        loader_close(l);
    }
    dataset_close(&d);
    free(folder);
    pack_close(pack);
}

/* Sizes whose bytes no number holds: a picture's, a batch's, those of all batches that are decoded ahead. */
static void test_batches_beyond_memory(void **state) {
    Scene *s = *state;
    static const struct {
        int side, batch, ahead;
    } sizes[] = {{INT_MAX, INT_MAX, 1}, {INT_MAX, 2, 1}, {1 << 30, 4, 1 << 20}};
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        for (int train = 0; train < 2; train++) {
            LoaderOptions o = options_of(train, sizes[i].batch, 0);
            Loader *l = NULL;
            Err err = {0};
            o.ahead = sizes[i].ahead;
            o.train_transform.width = o.train_transform.height = sizes[i].side;
            o.eval_transform.width = o.eval_transform.height = sizes[i].side;
            assert_false(loader_open(&l, &o, &s->data, &err));
            assert_int_equal(err.code, EXIT_MEMORY);
            assert_non_null(strstr(err.text, "memory: no room for batches of "));
        }
}

/* A child has none of its parent's threads; it waits for none, and says so. */
static void test_a_forked_child_does_not_wait(void **state) {
    Scene *s = *state;
    for (int workers = 0; workers < 3; workers += 2) {
        LoaderOptions o = options_of(true, 4, workers);
        Loader *l = must_open(&o, &s->data);
        const Batch *b;
        Err err = {0};
        loader_start_epoch(l, 1, 0);
        assert_true(loader_next(l, &b, &err));
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            bool ok = loader_next(l, &b, &err);
            loader_start_epoch(l, 2, 0);
            ok = ok && loader_next(l, &b, &err);
            loader_close(l);
            _exit(ok ? 0 : (int)err.code);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), workers ? EXIT_BUG : 0);
        assert_true(loader_next(l, &b, &err));
        loader_close(l);
    }
    loader_close(NULL); /* none was opened */
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_scene, remove_scene)
    const struct CMUnitTest tests[] = {
        TEST(test_any_number_of_threads),     TEST(test_any_beginning),         TEST(test_each_sample_once),
        TEST(test_batches_hold_the_pictures), TEST(test_bad_files_in_training), TEST(test_bad_files_in_evaluation),
        TEST(test_bad_files_that_stop),       TEST(test_bad_files_beyond_the_limit_in_training),
        TEST(test_many_threads_keep_one_picture), TEST(test_a_forked_child_does_not_wait),
        TEST(test_batches_beyond_memory), TEST(test_training_leaves_out_the_short_batch_by_default),
        TEST(test_files_that_cannot_be_opened), TEST(test_pictures_that_may_not_be_read),
        cmocka_unit_test(test_real_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
