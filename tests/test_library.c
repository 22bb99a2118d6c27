/* test_library.c - libmala through its public header: the same numbers as the program, errors as text, several threads,
 * and the example program linked with the shared and with the static library. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/mala.h"
#include "base/base.h"
#include "program.h"

static char weights[192], picture[400];

static int make_model(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--json --quiet");
    snprintf(weights, sizeof weights, "%s/run/weights/best.safetensors", folder);
    shell("ls data/val/*/* | head -n 1 >first");
    char list[160], name[200];
    snprintf(list, sizeof list, "%s/first", folder);
    read_text(name, sizeof name, list);
    name[strcspn(name, "\n")] = '\0';
    snprintf(picture, sizeof picture, "%s/%s", folder, name);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

static MalaError error;

static MalaModel *open_model(void) {
    MalaModel *model = mala_model_open(weights, NULL, 0, &error);
    if (!model) fail_msg("%s", error.text);
    return model;
}

static MalaRunner *new_runner(const MalaModel *model, MalaRunnerOptions options) {
    MalaRunner *runner = mala_runner_new(model, &options, &error);
    if (!runner) fail_msg("%s", error.text);
    return runner;
}

static void test_same_as_program(void **state) {
    (void)state;
    MalaModel *model = open_model();
    MalaInfo info = mala_model_info(model);
    assert_true(info.classes >= 10 && info.height == 32 && info.width == 32 && info.parameters > 1000 && info.macs > 1e4);
    MalaRunner *runner = new_runner(model, (MalaRunnerOptions){.threads = 1});
    float *prob = mem_zalloc((size_t)info.classes, sizeof *prob);
    MalaImage image;
    assert_true(mala_image_load(&image, picture, &error));
    assert_true(mala_run_images(runner, NULL, prob, &image, 1, &error));
    int32_t top[3];
    mala_top(top, prob, info.classes, 3);

    char command[1024];
    snprintf(command, sizeof command, "infer %s --weights %s --json --topk 3", picture, weights);
    EXPECT(0, command);
    cJSON *json = json_line(output), *predictions = cJSON_GetObjectItemCaseSensitive(json, "predictions");
    for (int i = 0; i < 3; i++) {
        const cJSON *p = cJSON_GetArrayItem(predictions, i);
        assert_int_equal((int)number_of(p, "class"), top[i]);
        assert_true((float)number_of(p, "score") == prob[top[i]]);
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(p, "label")->valuestring, mala_model_label(model, top[i]));
    }
    cJSON_Delete(json);
    assert_null(mala_model_label(model, info.classes));
    assert_null(mala_model_label(model, -1));
    mala_image_free(&image);
    free(prob);
    mala_runner_free(runner);
    mala_model_close(model);
}

/* A picture of the network's size is not scaled: as a tensor it must give the same, in a batch or alone. */
static void test_tensors_and_batches(void **state) {
    (void)state;
    enum { COUNT = 5, PIXELS = 32 * 32 };
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    MalaModel *model = open_model();
    int classes = mala_model_info(model).classes;
    MalaRunner *pictures = new_runner(model, (MalaRunnerOptions){.batch = 2});
    MalaRunner *tensors = new_runner(model, (MalaRunnerOptions){.batch = 3, .tensors = true});
    static uint8_t pixels[COUNT][PIXELS * 3];
    static float planes[COUNT][3][PIXELS];
    MalaImage images[COUNT];
    for (int n = 0; n < COUNT; n++) {
        for (int i = 0; i < PIXELS * 3; i++) {
            pixels[n][i] = (uint8_t)(i * 7 + n * 31 + i / 96 * 5);
            planes[n][i % 3][i / 3] = ((float)pixels[n][i] / 255 - mean[i % 3]) / std[i % 3];
        }
        images[n] = (MalaImage){32, 32, pixels[n]};
    }
    float *a = mem_zalloc((size_t)(COUNT * classes), sizeof *a), *b = mem_zalloc((size_t)(COUNT * classes), sizeof *b);
    assert_true(mala_run_images(pictures, a, NULL, images, COUNT, &error));
    assert_true(mala_run_tensors(tensors, b, NULL, &planes[0][0][0], COUNT, &error));
    for (int i = 0; i < COUNT * classes; i++) assert_float_equal(a[i], b[i], 1e-4);
    for (int n = 0; n < COUNT; n++) assert_true(mala_run_images(pictures, b + n * classes, NULL, &images[n], 1, &error));
    for (int i = 0; i < COUNT * classes; i++) assert_float_equal(a[i], b[i], 1e-5);
    assert_false(mala_run_tensors(pictures, a, NULL, &planes[0][0][0], 1, &error));
    assert_false(mala_run_images(tensors, a, NULL, images, 1, &error));
    free(a);
    free(b);
    mala_runner_free(pictures);
    mala_runner_free(tensors);
    mala_model_close(model);
}

static void test_errors(void **state) {
    (void)state;
    assert_null(mala_model_open("/nowhere.safetensors", NULL, 0, &error));
    assert_int_equal(error.code, EXIT_INPUT);
    expect_text(error.text, "/nowhere.safetensors");
    assert_null(mala_model_open(picture, NULL, 0, &error));
    assert_int_equal(error.code, EXIT_INPUT);
    assert_null(mala_model_open(NULL, NULL, 0, NULL));
    assert_null(mala_model_open(weights, (const char *[]){"input.sise=64"}, 1, &error));
    assert_string_equal(error.text, "settings: unknown option \"input.sise\" - did you mean \"input.size\"?");
    assert_null(mala_model_open(weights, (const char *[]){"train.threads=1", "input.size=33"}, 2, &error));
    assert_string_equal(error.text, "settings: input.size: 33 is no multiple of 32 - nearest: 32 or 64");
    char arguments[512];
    snprintf(arguments, sizeof arguments, "export %s $T/backbone.pth --as backbone", weights);
    EXPECT(0, arguments);
    snprintf(arguments, sizeof arguments, "%s/backbone.pth", folder);
    assert_null(mala_model_open(arguments, NULL, 0, &error));
    expect_text(error.text, "without a classifier");
    MalaModel *model = open_model();
    assert_null(mala_runner_new(model, &(MalaRunnerOptions){.device = "abacus"}, &error));
    assert_int_equal(error.code, EXIT_USAGE);
    expect_text(error.text, "runner options: device: \"abacus\"");
    assert_null(mala_runner_new(NULL, NULL, &error));
    MalaImage image;
    assert_false(mala_image_load(&image, weights, &error));
    assert_int_equal(error.code, EXIT_INPUT);
    mala_image_free(&image);
    mala_model_close(model);
    mala_model_close(NULL);
    mala_runner_free(NULL);
    assert_int_not_equal(strlen(mala_version()), 0);
}

static bool fail_check(void) {
    Rescue r, *before = rescue_use(&r);
    if (setjmp(r.at) == 0) CHECK(before != before, "thrown %d", 7);
    rescue_use(before);
    expect_text(r.err.text, "thrown 7");
    return r.err.code == EXIT_BUG;
}

static void test_rescue(void **state) {
    (void)state;
    assert_true(fail_check());
}

/* ---- threads ---- */

typedef struct {
    const MalaModel *model;
    int threads;
    float prob[64];
    bool ok;
} Worker;

static void *work(void *arg) {
    Worker *w = arg;
    MalaImage image;
    MalaRunner *runner = mala_runner_new(w->model, &(MalaRunnerOptions){.threads = w->threads}, NULL);
    w->ok = runner && mala_image_load(&image, picture, NULL);
    for (int i = 0; w->ok && i < 20; i++) w->ok = mala_run_images(runner, NULL, w->prob, &image, 1, NULL);
    if (w->ok) mala_image_free(&image);
    mala_runner_free(runner);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    MalaModel *model = open_model();
    assert_true(mala_model_info(model).classes <= 64);
    pthread_t threads[4];
    static Worker workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (Worker){.model = model, .threads = 1 + i % 3};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
        assert_true(workers[i].ok);
        assert_memory_equal(workers[i].prob, workers[0].prob, sizeof workers[i].prob);
    }
    mala_model_close(model);
}

/* ---- the example ---- */

static void run_example(const char *name) {
    const char *program = getenv("MALA");
    char command[1024], path[160], text[512];
    int length = program ? (int)(strlen(program) - strlen("mala")) : 0;
    snprintf(command, sizeof command, "%.*s%s %s %s >%s/said", length, program ? program : "", program ? name : "", weights,
             picture, folder);
    if (!program) skip();
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/said", folder);
    read_text(text, sizeof text, path);
    expect_text(text, picture);
    expect_text(text, " %\n");
}

static void test_example_shared(void **state) {
    (void)state;
    run_example("library_example");
}
static void test_example_static(void **state) {
    (void)state;
    run_example("library_example_static");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_as_program), cmocka_unit_test(test_tensors_and_batches),
                                       cmocka_unit_test(test_errors),          cmocka_unit_test(test_rescue),
                                       cmocka_unit_test(test_threads),         cmocka_unit_test(test_example_shared),
                                       cmocka_unit_test(test_example_static)};
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
