/* The picture maker: what it promises about bytes, layout and annotations. Polygons and run lengths are filled here by
 * code of its own, so that a mistake shared by tracer and filler cannot hide. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/image.h"
#include "data/synth.h"
#include "data/synth_mask.h"
#include "data/synth_render.h"
#include "scratch.h"

enum { SCENES = 24, VAL_SCENES = 3 };

static char root[SCRATCH_PATH];
static char *one_thread; /* a data set that several tests read */

static SynthOptions small_options(const char *dir) {
    SynthOptions o = synth_defaults();
    o.dir = dir;
    o.train_per_class = 2, o.val_per_class = 1, o.train_scenes = SCENES, o.val_scenes = VAL_SCENES;
    o.size = 32, o.scene_size = 72, o.seed = 5;
    return o;
}

static void write_or_fail(const SynthOptions *o) {
    Err err = {0};
    if (!synth_write(o, NULL, NULL, &err)) fail_msg("%s", err.text);
}

static int make_fixture(void **state) {
    (void)state;
    scratch_make(root);
    one_thread = path_join(root, "one");
    SynthOptions o = small_options(one_thread);
    write_or_fail(&o);
    return 0;
}

static int drop_fixture(void **state) {
    (void)state;
    scratch_remove(root);
    free(one_thread);
    return 0;
}

static uint8_t *read_or_fail(const char *dir, const char *name, size_t *count) {
    char *path = path_join(dir, name);
    uint8_t *bytes;
    Err err = {0};
    if (!file_read(&bytes, count, path, 1u << 26, &err)) fail_msg("%s", err.text);
    free(path);
    return bytes;
}

/* Do two trees hold the same names and the same bytes? Counts the files. */
static int same_trees(const char *a, const char *b) {
    DirList in_a, in_b;
    Err err = {0};
    assert_true(dir_list(&in_a, a, &err) && dir_list(&in_b, b, &err));
    assert_int_equal(in_a.count, in_b.count);
    int files = 0;
    for (size_t i = 0; i < in_a.count; i++) {
        assert_string_equal(in_a.names[i], in_b.names[i]);
        char *path_a = path_join(a, in_a.names[i]), *path_b = path_join(b, in_b.names[i]);
        if (path_is_dir(path_a)) {
            files += same_trees(path_a, path_b);
        } else {
            size_t count_a, count_b;
            uint8_t *bytes_a = read_or_fail(a, in_a.names[i], &count_a);
            uint8_t *bytes_b = read_or_fail(b, in_b.names[i], &count_b);
            assert_int_equal(count_a, count_b);
            assert_memory_equal(bytes_a, bytes_b, count_a);
            free(bytes_a);
            free(bytes_b);
            files++;
        }
        free(path_a);
        free(path_b);
    }
    dir_list_free(&in_a);
    dir_list_free(&in_b);
    return files;
}

static void test_threads_change_nothing(void **state) {
    (void)state;
    char *dir = path_join(root, "three");
    SynthOptions o = small_options(dir);
    o.threads = 3;
    write_or_fail(&o);
    int pictures = 3 * synth_class_count() + SCENES + VAL_SCENES;
    assert_int_equal(same_trees(one_thread, dir), 2 * pictures + 3); /* label maps; classes.txt and annotations */
    free(dir);
}

static void test_seed_changes_pictures(void **state) {
    (void)state;
    char *dir = path_join(root, "seed");
    SynthOptions o = small_options(dir);
    o.train_per_class = 1, o.val_per_class = o.train_scenes = o.val_scenes = 0, o.seed = 6;
    write_or_fail(&o);
    size_t a, b;
    uint8_t *mine = read_or_fail(one_thread, "train/mug/mug_00001.jpg", &a);
    uint8_t *other = read_or_fail(dir, "train/mug/mug_00001.jpg", &b);
    assert_true(a != b || memcmp(mine, other, a) != 0);
    free(mine);
    free(other);
    static const char *const unasked[] = {"val", "scenes", "labels/val", "labels/scenes"};
    for (size_t i = 0; i < COUNTOF(unasked); i++) {
        char *path = path_join(dir, unasked[i]);
        assert_false(path_is_dir(path));
        free(path);
    }
    char *annotations = path_join(dir, "annotations");
    DirList list;
    Err err = {0};
    assert_true(dir_list(&list, annotations, &err));
    assert_int_equal(list.count, 1);
    assert_string_equal(list.names[0], "instances_train.json");
    dir_list_free(&list);
    free(annotations);
    free(dir);
}

/* Train and val are different pictures, of the asked size, in one folder for each class. */
static void test_layout(void **state) {
    (void)state;
    size_t count;
    char *classes = (char *)read_or_fail(one_thread, "classes.txt", &count), *line = classes;
    for (int k = 0; k < synth_class_count(); k++) {
        size_t length = strlen(synth_class_name(k));
        assert_memory_equal(line, synth_class_name(k), length);
        assert_int_equal(line[length], '\n');
        line += length + 1;
        if (k > 0) assert_true(strcmp(synth_class_name(k - 1), synth_class_name(k)) < 0);
        char name[128];
        for (int i = 1; i <= 2; i++) {
            snprintf(name, sizeof name, "%s/train/%s/%s_%05d.jpg", one_thread, synth_class_name(k), synth_class_name(k),
                     i);
            Image image;
            Err err = {0};
            if (!image_load(&image, name, &err)) fail_msg("%s", err.text);
            int shorter = MIN(image.width, image.height), longer = MAX(image.width, image.height);
            assert_int_equal(shorter, 32);
            assert_in_range(longer, 32, 40);
            image_free(&image);
        }
    }
    assert_int_equal(*line, '\0');
    free(classes);
    size_t a, b;
    uint8_t *train = read_or_fail(one_thread, "train/car/car_00001.jpg", &a);
    uint8_t *val = read_or_fail(one_thread, "val/car/car_00001.jpg", &b);
    assert_true(a != b || memcmp(train, val, a) != 0);
    free(train);
    free(val);
}

static void test_refusals(void **state) {
    (void)state;
    SynthOptions o = small_options(one_thread);
    Err err = {0};
    assert_false(synth_write(&o, NULL, NULL, &err));
    assert_int_equal(err.code, EXIT_USAGE);
    assert_non_null(strstr(err.text, "is not empty - "));

    char *dir = path_join(root, "never");
    o = small_options(dir);
    o.size = 8;
    err = (Err){0};
    assert_false(synth_write(&o, NULL, NULL, &err));
    assert_string_equal(err.text, "picture size: 8 is out of range - give 32 to 1024");
    o = small_options(dir);
    o.jpeg_quality_min = 90, o.jpeg_quality_max = 80;
    err = (Err){0};
    assert_false(synth_write(&o, NULL, NULL, &err));
    assert_string_equal(err.text, "highest JPEG quality: 80 is out of range - give 90 to 100");
    assert_false(path_is_dir(dir));
    free(dir);
}

/* Nothing is asked for: a folder, there or not, of which only the names of the classes are written. */
static void test_no_pictures(void **state) {
    (void)state;
    char *dir = path_join(root, "none");
    SynthOptions o = small_options(dir);
    o.train_per_class = o.val_per_class = o.train_scenes = o.val_scenes = 0;
    Err err = {0};
    for (int there = 0; there < 2; there++) {
        if (there) assert_true(dir_make(dir, &err));
        write_or_fail(&o);
        DirList list;
        assert_true(dir_list(&list, dir, &err));
        assert_int_equal(list.count, 1);
        dir_list_free(&list);
        size_t count, count_of_one;
        uint8_t *names = read_or_fail(dir, "classes.txt", &count);
        uint8_t *names_of_one = read_or_fail(one_thread, "classes.txt", &count_of_one);
        assert_int_equal(count, count_of_one);
        assert_memory_equal(names, names_of_one, count);
        free(names), free(names_of_one);
        scratch_remove(dir);
    }
    free(dir);
}

typedef struct {
    int calls, last, total;
} Calls;

static void count_calls(void *arg, int done, int total) {
    Calls *calls = arg;
    calls->calls++;
    calls->last = MAX(calls->last, done);
    calls->total = total;
}

static void test_progress_reaches_the_end(void **state) {
    (void)state;
    char *dir = path_join(root, "progress");
    SynthOptions o = small_options(dir);
    o.train_per_class = 5, o.val_per_class = o.train_scenes = o.val_scenes = 0, o.threads = 2;
    Calls calls = {0};
    Err err = {0};
    assert_true(synth_write(&o, count_calls, &calls, &err));
    assert_int_equal(calls.total, 5 * synth_class_count());
    assert_int_equal(calls.last, calls.total);
    assert_in_range(calls.calls, 2, calls.total);
    free(dir);
}

/* ---- annotations ---- */

/* Even-odd fill at pixel middles, or-ed into mask: each row is flipped to the right of every edge that crosses it. */
static void fill_polygon(uint8_t *mask, int width, int height, const cJSON *polygon) {
    int n = cJSON_GetArraySize(polygon) / 2;
    assert_true(n >= 3 && cJSON_GetArraySize(polygon) % 2 == 0);
    double *xy = malloc((size_t)n * 2 * sizeof *xy);
    for (int i = 0; i < 2 * n; i++) xy[i] = cJSON_GetArrayItem(polygon, i)->valuedouble;
    uint8_t *row = malloc((size_t)width);
    for (int y = 0; y < height; y++) {
        memset(row, 0, (size_t)width);
        for (int i = 0; i < n; i++) {
            const double *a = xy + 2 * i, *b = xy + 2 * ((i + 1) % n), middle = y + 0.5;
            assert_true(a[0] >= 0 && a[0] <= width && a[1] >= 0 && a[1] <= height);
            if ((a[1] < middle) == (b[1] < middle)) continue;
            double at = a[0] + (b[0] - a[0]) * (middle - a[1]) / (b[1] - a[1]);
            for (int x = 0; x < width; x++) row[x] ^= x + 0.5 > at;
        }
        for (int x = 0; x < width; x++) mask[y * width + x] |= row[x];
    }
    free(row);
    free(xy);
}

static void fill_runs(uint8_t *mask, int width, int height, const cJSON *segmentation) {
    const cJSON *size = cJSON_GetObjectItem(segmentation, "size"), *run;
    assert_int_equal(cJSON_GetArrayItem(size, 0)->valueint, height);
    assert_int_equal(cJSON_GetArrayItem(size, 1)->valueint, width);
    int at = 0, inside = 0;
    cJSON_ArrayForEach(run, cJSON_GetObjectItem(segmentation, "counts")) {
        assert_true(at + run->valueint <= width * height);
        for (int i = 0; i < run->valueint; i++, at++) mask[at % height * width + at / height] = (uint8_t)inside;
        inside = !inside;
    }
    assert_int_equal(at, width * height);
}

static int int_of(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItem(object, key);
    assert_true(cJSON_IsNumber(value));
    return value->valueint;
}

/* Is [x, y, w, h] the bounds of the pixels of value in labels, and area their number? */
static void check_bounds(const cJSON *annotation, const uint8_t *mask, int width, int height, int value) {
    int low[2] = {width, height}, high[2] = {-1, -1}, area = 0;
    for (int i = 0; i < width * height; i++) {
        if (mask[i] != value) continue;
        low[0] = MIN(low[0], i % width), low[1] = MIN(low[1], i / width);
        high[0] = MAX(high[0], i % width), high[1] = MAX(high[1], i / width);
        area++;
    }
    const cJSON *box = cJSON_GetObjectItem(annotation, "bbox");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cJSON_GetArrayItem(box, i)->valueint, low[i]);
        assert_int_equal(cJSON_GetArrayItem(box, i + 2)->valueint, high[i] + 1 - low[i]);
    }
    assert_int_equal(int_of(annotation, "area"), area);
}

static double mask_iou(const uint8_t *a, const uint8_t *labels, int value, int pixels) {
    int both = 0, any = 0;
    for (int i = 0; i < pixels; i++) both += a[i] && labels[i] == value, any += a[i] || labels[i] == value;
    return (double)both / any;
}

typedef struct {
    int annotations, crowds, alone;
} Seen;

/* One picture against its label map: every category's polygons fill what the map gives the category. */
static void check_picture(const cJSON *annotations, int image, const uint8_t *labels, int width, int height,
                          Seen *seen) {
    int of_category[256] = {0}, pixels = width * height;
    uint8_t *mask = malloc((size_t)pixels);
    const cJSON *a;
    cJSON_ArrayForEach(a, annotations) {
        if (int_of(a, "image_id") != image) continue;
        seen->annotations++;
        if (int_of(a, "iscrowd")) {
            seen->crowds++;
            fill_runs(mask, width, height, cJSON_GetObjectItem(a, "segmentation"));
            check_bounds(a, mask, width, height, 1);
            for (int i = 0; i < pixels; i++) assert_true(!mask[i] || labels[i] == 255);
        } else {
            of_category[int_of(a, "category_id")]++;
        }
    }
    for (int k = 1; k < 255; k++) {
        assert_int_equal(of_category[k] > 0, memchr(labels, k, (size_t)pixels) != NULL);
        if (!of_category[k]) continue;
        assert_true(k <= synth_class_count());
        memset(mask, 0, (size_t)pixels);
        cJSON_ArrayForEach(a, annotations) {
            if (int_of(a, "image_id") != image || int_of(a, "category_id") != k || int_of(a, "iscrowd")) continue;
            const cJSON *polygon;
            cJSON_ArrayForEach(polygon, cJSON_GetObjectItem(a, "segmentation")) {
                fill_polygon(mask, width, height, polygon);
            }
            if (of_category[k] == 1) check_bounds(a, labels, width, height, k), seen->alone++;
        }
        assert_true(mask_iou(mask, labels, k, pixels) > 0.95);
    }
    free(mask);
}

/* Ids count from 1, so none comes twice. */
static void check_ids(const cJSON *list) {
    int expected = 1;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) assert_int_equal(int_of(item, "id"), expected++);
}

/* A class picture shows its class, once. */
static void check_class_picture(const cJSON *annotations, int image, const char *file) {
    const char *kind = strchr(file, '/') + 1;
    const cJSON *a;
    int objects = 0;
    cJSON_ArrayForEach(a, annotations) {
        if (int_of(a, "image_id") != image) continue;
        const char *name = synth_class_name(int_of(a, "category_id") - 1);
        assert_memory_equal(kind, name, strlen(name));
        assert_int_equal(kind[strlen(name)], '/');
        assert_false(int_of(a, "iscrowd"));
        objects++;
    }
    assert_int_equal(objects, 1);
}

static void check_file(const cJSON *annotations, const cJSON *image, Seen *seen) {
    const char *file = cJSON_GetObjectItem(image, "file_name")->valuestring;
    char name[160];
    Image photo, map;
    Err err = {0};
    snprintf(name, sizeof name, "%s/%s", one_thread, file);
    if (!image_load(&photo, name, &err)) fail_msg("%s", err.text);
    snprintf(name, sizeof name, "%s/labels/%.*s.png", one_thread, (int)strlen(file) - 4, file);
    if (!image_load(&map, name, &err)) fail_msg("%s", err.text);
    assert_true(photo.width == int_of(image, "width") && photo.height == int_of(image, "height"));
    assert_true(map.width == photo.width && map.height == photo.height);
    int pixels = map.width * map.height;
    for (int i = 0; i < pixels; i++) map.pixels[i] = map.pixels[3 * i]; /* grey: one byte a pixel from here on */
    check_picture(annotations, int_of(image, "id"), map.pixels, map.width, map.height, seen);
    if (strncmp(file, "scenes/", 7) != 0) check_class_picture(annotations, int_of(image, "id"), file);
    image_free(&photo);
    image_free(&map);
}

/* per_class: described pictures of each class. */
static void check_split(const char *split, int per_class, int scenes, Seen *seen) {
    char name[128];
    size_t count;
    snprintf(name, sizeof name, "annotations/instances_%s.json", split);
    char *text = (char *)read_or_fail(one_thread, name, &count);
    cJSON *json = cJSON_ParseWithOpts(text, NULL, true);
    assert_non_null(json);
    free(text);
    const cJSON *images = cJSON_GetObjectItem(json, "images"), *annotations = cJSON_GetObjectItem(json, "annotations");
    assert_int_equal(cJSON_GetArraySize(images), per_class * synth_class_count() + scenes);
    check_ids(images);
    check_ids(annotations);
    const cJSON *categories = cJSON_GetObjectItem(json, "categories"), *image;
    for (int k = 0; k < synth_class_count(); k++) {
        const cJSON *category = cJSON_GetArrayItem(categories, k);
        assert_int_equal(int_of(category, "id"), k + 1);
        assert_string_equal(cJSON_GetObjectItem(category, "name")->valuestring, synth_class_name(k));
    }
    int in_scenes = 0;
    cJSON_ArrayForEach(image, images) {
        const char *file = cJSON_GetObjectItem(image, "file_name")->valuestring;
        snprintf(name, sizeof name, "scenes/%s/", split);
        bool scene = strncmp(file, name, strlen(name)) == 0;
        assert_true(scene || (strncmp(file, split, strlen(split)) == 0 && file[strlen(split)] == '/'));
        in_scenes += scene;
        check_file(annotations, image, seen);
    }
    assert_int_equal(in_scenes, scenes);
    cJSON_Delete(json);
}

static void test_annotations_say_what_the_pictures_show(void **state) {
    (void)state;
    Seen seen = {0};
    check_split("train", 2, SCENES, &seen);
    check_split("val", 1, VAL_SCENES, &seen);
    int class_pictures = 3 * synth_class_count();
    assert_true(seen.annotations >= class_pictures + 2 * SCENES);
    assert_true(seen.crowds > 0 && seen.alone > class_pictures + SCENES);
}

/* ---- tracing ---- */

static void check_trace(const uint8_t *ids, int width, int height, double least) {
    MaskTrace trace;
    assert_true(mask_trace(&trace, ids, width, height, 1));
    uint8_t *mask = calloc((size_t)width, (size_t)height);
    for (int i = 0; i < trace.polygon_count; i++) {
        cJSON *polygon = cJSON_CreateIntArray(trace.polygons[i].xy, 2 * trace.polygons[i].points);
        fill_polygon(mask, width, height, polygon);
        cJSON_Delete(polygon);
    }
    assert_true(mask_iou(mask, ids, 1, width * height) >= least);
    free(mask);
    mask_trace_free(&trace);
}

static void test_tracing_odd_masks(void **state) {
    (void)state;
    enum { W = 37, H = 29 };
    uint8_t ids[W * H] = {0};
    MaskTrace trace;
    assert_false(mask_trace(&trace, ids, W, H, 1));
    assert_int_equal(trace.polygon_count, 0);

    ids[5 * W + 7] = 1; /* one pixel, then one that touches it by a corner */
    check_trace(ids, W, H, 1);
    ids[6 * W + 8] = 1;
    check_trace(ids, W, H, 1);

    memset(ids, 1, sizeof ids); /* a full picture: four corners; then holes, one of them a pixel wide */
    assert_true(mask_trace(&trace, ids, W, H, 1));
    assert_int_equal(trace.polygon_count, 1);
    assert_int_equal(trace.polygons[0].points, 4);
    mask_trace_free(&trace);
    for (int y = 8; y < 20; y++) memset(ids + y * W + 10, 0, 9);
    ids[3 * W + 30] = ids[22 * W + 15] = 0;
    check_trace(ids, W, H, 0.97);

    for (int k = 0; k < 20; k++) { /* noise: pieces within holes of pieces */
        Rng rng = rng_make((uint64_t)k, RNG_TEST, 0, 0);
        for (int i = 0; i < W * H; i++) ids[i] = rng_uniform(&rng) < 0.3f + 0.02f * (float)k;
        check_trace(ids, W, H, 0.97);
    }
}

static void test_runs_of_a_mask(void **state) {
    (void)state;
    const uint8_t ids[6] = {1, 0, 1, /* */ 1, 0, 0};
    uint32_t *runs;
    int count = mask_runs(&runs, ids, 3, 2, 1);
    const uint32_t expected[] = {0, 2, 2, 1, 1};
    assert_int_equal(count, COUNTOF(expected));
    assert_memory_equal(runs, expected, sizeof expected);
    free(runs);
}

/* ---- rendering ---- */

static void test_sine_is_a_sine(void **state) {
    (void)state;
    for (int i = -4000; i <= 4000; i++) {
        float turns = (float)i / 1000;
        assert_true(fabs(sin_turns(turns) - sin(turns * 6.283185307179586)) < 1e-5);
        assert_true(fabs(cos_turns(turns) - cos(turns * 6.283185307179586)) < 1e-5);
    }
}

/* Every kind is large in its pictures, and the pixels before JPEG are those of every other machine and compiler. */
static void test_pixels_are_the_same_everywhere(void **state) {
    (void)state;
    enum { SIDE = 48 };
    Scene *scene = mem_zalloc(1, sizeof *scene);
    Film film;
    Image image;
    Err err = {0};
    assert_true(film_new(&film, SIDE, SIDE, &err) && image_new(&image, SIDE, SIDE, &err));
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (int k = 0; k < 3 * SYNTH_KINDS; k++) {
        Rng rng = rng_make(1, RNG_SYNTH, (uint64_t)k, 0);
        scene_draw(scene, k % SYNTH_KINDS, &rng);
        film_render(&film, scene);
        film_develop(&image, &film, &scene->camera, &rng);
        int shown = 0;
        for (int i = 0; i < SIDE * SIDE; i++) shown += film.ids[i] == 1;
        assert_in_range(shown, SIDE * SIDE / 50, SIDE * SIDE * 9 / 10);
        for (int i = 0; i < 3 * SIDE * SIDE; i++) hash = (hash ^ image.pixels[i]) * 0x100000001b3u;
    }
    if (hash != 0xd18e84f32b8cb03au) fail_msg("the pixels' hash is 0x%016llx", (unsigned long long)hash);
    image_free(&image);
    film_free(&film);
    free(scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_seed_changes_pictures),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_pictures),
        cmocka_unit_test(test_progress_reaches_the_end),
        cmocka_unit_test(test_annotations_say_what_the_pictures_show),
        cmocka_unit_test(test_tracing_odd_masks),
        cmocka_unit_test(test_runs_of_a_mask),
        cmocka_unit_test(test_sine_is_a_sine),
        cmocka_unit_test(test_pixels_are_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, make_fixture, drop_fixture);
}
