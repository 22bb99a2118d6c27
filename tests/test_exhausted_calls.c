/* test_exhausted_calls.c - each allocation of a call fails in turn: decoders, readers and writers of the rooms data and
 * io, and every function of mala.h. All end with code 5 and can be called again, with the right result. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/signals.h"
#include "bitmaps.h"
#include "data/loader.h"
#include "data/synth.h"
#include "data/transform.h"
#include "faults/memory.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "io/zip.h"
#include "lib/mala.h"
#include "lib/model_file.h"
#include "program.h"
#include "task/classify.h"

/* What a call does with its allocations failing; its result is checked in here, too. False: err. */
typedef bool Work(void *arg, Err *err);

/* Every allocation of a call with MALA_SOAK set, or where there are few; else so many, spread over it. */
#define MOST 150

static void fail_one(const char *name, long n, bool ever_after, Work *work, void *arg) {
    Err err = {0};
    Rescue rescue = {0};
    Rescue *before = rescue_use(&rescue);
    memory_fail(n, ever_after);
    bool ok = setjmp(rescue.at) == 0 ? work(arg, &err) : false;
    (void)memory_stop();
    rescue_use(before);
    const Err *what = err.code ? &err : &rescue.err;
    if (!ok && what->code != EXIT_MEMORY) fail_msg("%s: allocation %ld: %d, %s", name, n, what->code, what->text);
    if (ok) assert_int_equal(err.code, 0);
}

/* lasting: every third time all that follow fail, too. */
static void each_fails(const char *name, bool lasting, Work *work, void *arg) {
    Err err = {0};
    if (!memory_can_fail()) skip();
    memory_fail(LONG_MAX, false);
    if (!work(arg, &err)) fail_msg("%s: %s", name, err.text);
    long met = memory_stop(), step = getenv("MALA_SOAK") ? 1 : MAX(met / MOST, 1);
    assert_true(met > 0);
    for (long n = 1; n <= met; n += step) fail_one(name, n, lasting && n % 3 == 0, work, arg);
    if (!work(arg, &err)) fail_msg("%s, again: %s", name, err.text);
}

/* ---- pictures ---- */

typedef struct {
    Buffer file;
    Image image; /* as it is decoded undisturbed */
} Picture;

static void make_picture(Image *image) {
    Err err = {0};
    assert_true(image_new(image, 37, 21, &err));
    for (int i = 0; i < 3 * 37 * 21; i++) image->pixels[i] = (uint8_t)(i * 7 + i / 37);
}

static bool same_image(const Image *a, const Image *b) {
    return a->width == b->width && a->height == b->height &&
           memcmp(a->pixels, b->pixels, (size_t)(3 * a->width * a->height)) == 0;
}

static bool decode(void *arg, Err *err) {
    const Picture *p = arg;
    Image image;
    if (!image_decode(&image, p->file.bytes, p->file.count, "picture", err)) return false;
    assert_true(same_image(&image, &p->image));
    image_free(&image);
    return true;
}

static void decoder_fails(const char *name, Buffer file) {
    Picture p = {.file = file};
    Err err = {0};
    if (!image_decode(&p.image, file.bytes, file.count, name, &err)) fail_msg("%s", err.text);
    each_fails(name, true, decode, &p);
    image_free(&p.image);
    buffer_free(&file);
}

static void test_decoders(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    Image image;
    Err err = {0};
    Buffer jpeg = {0}, png = {0};
    make_picture(&image);
    assert_true(image_encode_jpeg(&jpeg.bytes, &jpeg.count, &image, 90, &err));
    assert_true(image_encode_png(&png.bytes, &png.count, &image, &err));
    decoder_fails("JPEG", jpeg);
    decoder_fails("PNG", png);
    static const uint8_t colours[12] = {0, 1, 2, 3, 3, 2, 1, 0, 1, 2, 3, 0};
    static const uint32_t values[12] = {0, 1, 2, 3, 3, 2, 1, 0, 1, 2, 3, 0};
    decoder_fails("GIF", gif_make(&(GifSpec){.width = 4, .height = 3, .w = 4, .h = 3, .bits = 2, .transparent = -1,
                                             .colours = colours}));
    decoder_fails("BMP", bmp_make(&(BmpSpec){.width = 4, .height = 3, .bits = 8, .header = 40, .values = values}));
    image_free(&image);
}

/* A chunk that libpng leaves out for want of memory, and decodes on, is a picture turned wrongly. */
static void test_png_turned_by_its_exif(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    static const uint8_t chunk[] = {0, 0, 0, 26, 'e', 'X', 'I', 'f', 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1,
                                    1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0};
    Image image;
    Err err = {0};
    Buffer plain = {0}, turned = {0};
    ZipCrc crc;
    make_picture(&image);
    assert_true(image_encode_png(&plain.bytes, &plain.count, &image, &err));
    zip_crc_init(&crc);
    uint32_t check = __builtin_bswap32(zip_crc(&crc, 0, chunk + 4, sizeof chunk - 4));
    buffer_put(&turned, plain.bytes, 33); /* signature and IHDR */
    buffer_put(&turned, chunk, sizeof chunk), buffer_put(&turned, &check, 4);
    buffer_put(&turned, plain.bytes + 33, plain.count - 33);
    Image decoded;
    assert_true(image_decode(&decoded, turned.bytes, turned.count, "turned", &err));
    assert_int_equal(decoded.width, image.height);
    image_free(&decoded), image_free(&image);
    buffer_free(&plain);
    decoder_fails("turned PNG", turned);
}

static bool encode(void *arg, Err *err) {
    const Image *image = arg;
    uint8_t *bytes[2] = {NULL};
    size_t count[2];
    bool ok = image_encode_jpeg(&bytes[0], &count[0], image, 75, err) &&
              image_encode_png(&bytes[1], &count[1], image, err);
    for (int i = 0; i < 2; i++) free(bytes[i]);
    return ok;
}

static void test_encoders(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    Image image;
    make_picture(&image);
    each_fails("encoders", true, encode, &image);
    image_free(&image);
}

static bool crop(void *arg, Err *err) {
    Resizer resizer = {0};
    uint8_t pixels[3 * 16 * 16];
    TrainTransform t = {.width = 16, .height = 16, .crop = CROP_PADDED, .pad = 2};
    Rng rng = rng_make(1, RNG_TEST, 0, 0);
    bool ok = transform_train(&resizer, pixels, arg, &t, &rng, err);
    resizer_free(&resizer);
    return ok;
}

static void test_padded_crop(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    Image image;
    make_picture(&image);
    each_fails("padded crop", true, crop, &image);
    image_free(&image);
}

/* ---- data sets ---- */

static char data[SCRATCH_PATH + 8];

static bool read_data(void *arg, Err *err) {
    Dataset set = {0};
    Loader *loader = NULL;
    const Batch *batch;
    if (!dataset_open_folder(&set, data, "train", NULL, 0, err)) return false;
    LoaderOptions options = loader_defaults(5, 32, 32, arg == NULL); /* with an argument: as evaluation reads */
    options.keep_bytes = 1 << 20;
    bool ok = loader_open(&loader, &options, &set, err);
    for (uint32_t epoch = 1; ok && epoch <= 2; epoch++) {
        loader_start_epoch(loader, epoch, 0);
        while ((ok = loader_next(loader, &batch, err)) && batch) assert_true(batch->count > 0);
    }
    size_t bad = 0;
    if (ok) (void)loader_bad(loader, &bad);
    if (loader) loader_close(loader);
    dataset_close(&set);
    assert_true(!ok || bad == 0);
    return ok;
}

static void test_loader(void **state) {
    (void)state;
    each_fails("loader", true, read_data, NULL);
    each_fails("loader of evaluation", true, read_data, data);
}

static int threads_refused;

/* The second thread may fail when the first one runs. */
static bool open_loader(void *arg, Err *err) {
    Loader *loader;
    LoaderOptions options = loader_defaults(2, 8, 8, false);
    options.workers = 2;
    if (loader_open(&loader, &options, arg, err)) {
        loader_close(loader);
        return true;
    }
    assert_null(loader);
    if (!strncmp(err->text, "loader: cannot start thread ", 28)) {
        char number = (char)('1' + threads_refused++ % 2);
        assert_int_equal(err->text[28], number);
        assert_non_null(strstr(err->text, " of 2: Resource temporarily unavailable - use fewer workers"));
    }
    return false;
}

static void test_threads_of_a_loader(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    Dataset set = {0};
    Err err = {0};
    assert_true(dataset_open_folder(&set, data, "train", NULL, 0, &err));
    each_fails("loader's threads", false, open_loader, &set);
    assert_int_equal(threads_refused, 2);
    dataset_close(&set);
}

static bool list_data(void *arg, Err *err) {
    Dataset set = {0};
    bool ok = dataset_open_list(&set, arg, err);
    if (ok) assert_int_equal(set.count, 2);
    dataset_close(&set);
    return ok;
}

static void test_list(void **state) {
    (void)state;
    char list[SCRATCH_PATH + 16];
    snprintf(list, sizeof list, "%s/list", folder);
    shell("ls data/train/*/* | head -n 2 >list");
    each_fails("list", true, list_data, list);
}

static bool render(void *arg, Err *err) {
    shell("rm -rf rendered");
    SynthOptions o = synth_defaults();
    o.dir = arg, o.train_per_class = 0, o.val_per_class = 0, o.train_scenes = 1, o.val_scenes = 0;
    o.size = o.scene_size = 32, o.threads = 1;
    return synth_write(&o, NULL, NULL, err);
}

static void test_synth(void **state) {
    (void)state;
    char path[SCRATCH_PATH + 16];
    snprintf(path, sizeof path, "%s/rendered", folder);
    each_fails("synth", true, render, path);
    shell("! find rendered -name '*.tmp.*' | grep .");
}

/* ---- files of tensors ---- */

static bool open_and_read(void *arg, Err *err) {
    TensorFile file;
    if (!tensor_file_open(&file, arg, NULL, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < file.tensor_count; i++) {
        const StoredTensor *t = &file.tensors[i];
        if (t->dtype != STORED_F32) continue;
        void *owned = NULL;
        const void *bytes;
        ok = stored_tensor_load(&bytes, &owned, t, err);
        free(owned);
    }
    tensor_file_close(&file);
    return ok;
}

static void test_readers(void **state) {
    (void)state;
    each_fails("safetensors", true, open_and_read, "tests/golden/attention_mala.safetensors");
    each_fails("checkpoint", true, open_and_read, "tests/golden/checkpoint.pth");
    each_fails("state dict", true, open_and_read, "tests/golden/state_dict.pth");
}

static bool check_model(void *arg, Err *err) {
    char *classes[] = {"circle", "square", "star"};
    return model_file_check(arg, classes, 3, 3, err);
}

/* Before training: not a name that cannot be read back, but no memory to read it. */
static void test_check_before_training(void **state) {
    (void)state;
    Config config;
    Err err = {0};
    if (!memory_can_fail()) skip();
    assert_true(config_load(&config, NULL, NULL, 0, &err));
    each_fails("check of what would be saved", true, check_model, &config);
    config_free(&config);
}

static bool make_absolute(void *arg, Err *err) {
    (void)err;
    char *path = path_absolute("./././name"), *expected = path_join(arg, "name");
    assert_string_equal(path, expected);
    free(path), free(expected);
    return true;
}

static void test_absolute_path(void **state) {
    (void)state;
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    each_fails("absolute path", true, make_absolute, here);
}

/* In a child, since from then on signals are taken. */
static void test_signals(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    pid_t child = fork();
    if (child == 0) {
        Err err = {0};
        memory_fail(1, true);
        bool began = signals_begin(&err);
        (void)memory_stop();
        bool told = err.code == EXIT_MEMORY && !strcmp(err.text, "signals: cannot start the thread that takes them: "
                                                                 "Resource temporarily unavailable - end other "
                                                                 "programs");
        err = (Err){0};
        bool again = signals_begin(&err);
        _exit(began ? 1 : !told ? 2 : !again ? 3 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static bool write_both(void *arg, Err *err) {
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const StoredTensor tensors[] = {{.name = "b", .dtype = STORED_F32, .rank = 2, .shape = {2, 3}, .data = values},
                                    {.name = "a", .dtype = STORED_F32, .rank = 1, .shape = {6}, .data = values}};
    const StoredPair pairs[] = {{"key", "value"}, {"another", "one"}};
    char path[2][SCRATCH_PATH + 32];
    snprintf(path[0], sizeof path[0], "%s/x.safetensors", (char *)arg);
    snprintf(path[1], sizeof path[1], "%s/x.pth", (char *)arg);
    return safetensors_write(path[0], tensors, 2, pairs, 2, err) &&
           pth_write(path[1], "model", tensors, 2, pairs, 2, err) && open_and_read(path[0], err) &&
           open_and_read(path[1], err);
}

static void test_writers(void **state) {
    (void)state;
    each_fails("writers", true, write_both, folder);
    shell("! find . -name '*.tmp.*' | grep .");
}

static bool save_and_load(void *arg, Err *err) {
    char path[SCRATCH_PATH + 32];
    TensorFile file;
    WeightsReport report;
    snprintf(path, sizeof path, "%s/saved.safetensors", folder);
    if (!weights_save(path, arg, ROLE_WEIGHT, NULL, 0, err) || !tensor_file_open(&file, path, NULL, err)) return false;
    bool ok = weights_load(&report, arg, &file, &(WeightsPolicy){0}, err);
    assert_true(!ok || report.tensors == report.wanted_tensors);
    tensor_file_close(&file);
    return ok;
}

static void test_weights(void **state) {
    (void)state;
    if (!memory_can_fail()) skip();
    ClassifySpec spec = {.model = {.dims = {8, 8, 16, 16}, .depths = {1, 1, 1, 1}, .heads = {1, 1, 2, 2},
                                   .mlp_ratio = 2, .projection = 16, .classes = 5, .layer_scale = {1, 1, 1, 1}},
                         .std = {1, 1, 1}};
    Backend cpu;
    State s;
    Err err = {0};
    ClassifyGraph network = classify_eval_graph(&spec, 1, 32, 32, 0);
    assert_true(backend_open_cpu(&cpu, 1, &err));
    assert_true(state_new(&s, network.graph, &cpu, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    assert_true(state_init(&s, 1, &err));
    each_fails("weights", true, save_and_load, &s);
    shell("! find . -name '*.tmp.*' | grep .");
    state_free(&s);
    classify_graph_free(&network);
    cpu.close(&cpu);
}

/* ---- mala.h ---- */

static char weights[SCRATCH_PATH + 64], picture[SCRATCH_PATH + 64];

static bool told(MalaError *error, Err *err) {
    const bool said = error->code == 5 && strstr(error->text, "memory");
    return err_set(err, said ? EXIT_MEMORY : EXIT_BUG, "%d: %s", error->code, error->text);
}

/* Every function, one after another; a failing one can be called again at once. */
static bool use_library(void *arg, Err *err) {
    float *expected = arg;
    MalaError error = {0};
    MalaImage image;
    float prob[64] = {0};
    MalaModel *model = mala_model_open(weights, NULL, 0, &error);
    if (!model) return told(&error, err);
    int classes = mala_model_info(model).classes;
    assert_true(classes <= 64 && mala_model_label(model, 0));
    MalaRunner *runner = mala_runner_new(model, &(MalaRunnerOptions){.threads = 1}, &error);
    bool ok = runner && mala_image_load(&image, picture, &error);
    if (ok) {
        ok = mala_run_images(runner, NULL, prob, &image, 1, &error);
        if (ok && expected[0] == 0) memcpy(expected, prob, sizeof prob); /* the first, undisturbed one */
        if (ok) assert_memory_equal(prob, expected, (size_t)classes * sizeof *prob);
        mala_image_free(&image);
    }
    mala_runner_free(runner);
    mala_model_close(model);
    return ok || told(&error, err);
}

/* One at a time: oneDNN is left by a jump where even what is kept in reserve for it cannot be had. And oneDNN 2 crashes
 * where its own malloc gives nothing, which a program may turn into code 5, and a library cannot. */
static void test_library(void **state) {
    (void)state;
    memory_spare("libdnnl");
    float expected[64] = {0};
    each_fails("mala.h", false, use_library, expected);
    memory_spare(NULL);
}

/* ---- */

static int make_files(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 1 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--epochs 1 --quiet");
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(weights, sizeof weights, "%s/run/weights/best.safetensors", folder);
    snprintf(picture, sizeof picture, "%s/data/val/car/car_00001.jpg", folder);
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders), cmocka_unit_test(test_png_turned_by_its_exif), cmocka_unit_test(test_encoders),
        cmocka_unit_test(test_loader),   cmocka_unit_test(test_threads_of_a_loader),    cmocka_unit_test(test_list),
        cmocka_unit_test(test_synth),    cmocka_unit_test(test_readers),                cmocka_unit_test(test_writers),
        cmocka_unit_test(test_check_before_training), cmocka_unit_test(test_absolute_path),
        cmocka_unit_test(test_signals), cmocka_unit_test(test_padded_crop),
        cmocka_unit_test(test_weights), cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
