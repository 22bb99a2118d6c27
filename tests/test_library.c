/* test_library.c - libmala through its public header: the same numbers as the program, errors as text, several threads,
 * and the example program linked with the shared and with the static library. */
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/mala.h"
#include "base/base.h"
#include "io/tensor_file.h"
#include "lib/golden.h"
#include "lib/predictor.h"
#include "colours.h"
#include "program.h"
#include "reacts.h"

static char weights[192], picture[400];

static int make_model(void **state) {
    (void)state;
    folder_make();
    char data[160];
    snprintf(data, sizeof data, "%s/data", folder);
    colours_make(data, 6, 3);
    EXPECT(0, "train data.path=$T/data output=$T/run " LEARNS "--json --quiet");
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
    assert_int_equal(info.classes, COLOUR_CLASSES);
    assert_true(info.height == 32 && info.width == 32);
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

/* What the tests below can see: pictures, and runs of pictures, have scores of their own. */
static void test_network_reacts(void **state) {
    (void)state;
    static Scores s;
    char arguments[400];
    snprintf(arguments, sizeof arguments, "$T/data/val --weights %s", weights);
    scores_of(&s, arguments);
    expect_reacts(&s, 5e-4, 3);
}

enum { COUNT = 7, SIDE = 32 };

/* Pictures of different classes, cut to the network's size. */
static void load_cuts(MalaImage images[COUNT], uint8_t pixels[COUNT][SIDE * SIDE * 3]) {
    for (int n = 0; n < COUNT; n++) {
        char path[300];
        MalaImage whole;
        snprintf(path, sizeof path, "%s/data/val/%s/0%d.png", folder, colour_class((5 * n) % COLOUR_CLASSES), n % 3);
        assert_true(mala_image_load(&whole, path, &error));
        assert_true(whole.width == 40 && whole.height == 36);
        for (int y = 0; y < SIDE; y++) memcpy(pixels[n] + y * SIDE * 3, whole.pixels + (y * 40 + 4) * 3, SIDE * 3);
        images[n] = (MalaImage){SIDE, SIDE, pixels[n]};
        mala_image_free(&whole);
    }
}

/* A tensor by hand: planes of red, green and blue, normalised as ImageNet's are. */
static void make_planes(float planes[3][SIDE * SIDE], const uint8_t pixels[SIDE * SIDE * 3]) {
    static const double mean[3] = {0.485, 0.456, 0.406}, std[3] = {0.229, 0.224, 0.225};
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        planes[i % 3][i / 3] = (float)((pixels[i] / 255.0 - mean[i % 3]) / std[i % 3]);
}

static void expect_same(const float *a, const float *b, int count, float most) {
    for (int i = 0; i < count; i++)
        if (!(fabsf(a[i] - b[i]) <= most))
            fail_msg("number %d: %.7g instead of %.7g", i, (double)b[i], (double)a[i]);
}

/* Every picture by itself, in batches of which there are several and the last is not full, and as a tensor: where the
 * model takes pictures of the network's size whole, all are the same. */
static void test_tensors_and_batches(void **state) {
    (void)state;
    enum { K = COLOUR_CLASSES };
    static uint8_t pixels[COUNT][SIDE * SIDE * 3];
    static float planes[COUNT][3][SIDE * SIDE], alone[COUNT][K], prob[COUNT][K], got[COUNT + 1][K];
    MalaImage images[COUNT];
    MalaModel *model = mala_model_open(weights, (const char *[]){"input.crop_pct=1"}, 1, &error);
    if (!model) fail_msg("%s", error.text);
    MalaRunner *one = new_runner(model, (MalaRunnerOptions){0});
    MalaRunner *three = new_runner(model, (MalaRunnerOptions){.batch = 3});
    MalaRunner *tensors = new_runner(model, (MalaRunnerOptions){.batch = 3, .tensors = true});
    load_cuts(images, pixels);
    for (int n = 0; n < COUNT; n++) {
        make_planes(planes[n], pixels[n]);
        assert_true(mala_run_images(one, alone[n], prob[n], &images[n], 1, &error));
        for (int k = 0; k < n; k++) {
            float apart = 0;
            for (int c = 0; c < K; c++) apart = fmaxf(apart, fabsf(alone[n][c] - alone[k][c]));
            if (apart < 0.01f) fail_msg("pictures %d and %d have the same logits", n, k); /* nothing could be seen */
        }
    }
    MalaRunner *const runners[] = {one, three};
    for (int r = 0; r < 2; r++) {
        for (int k = 0; k < K; k++) got[COUNT][k] = -7;
        assert_true(mala_run_images(runners[r], got[0], NULL, images, COUNT, &error));
        expect_same(alone[0], got[0], COUNT * K, 1e-5f);
        assert_true(mala_run_images(runners[r], NULL, got[0], images, COUNT, &error));
        expect_same(prob[0], got[0], COUNT * K, 1e-6f);
        for (int k = 0; k < K; k++) assert_true(got[COUNT][k] == -7);
    }
    assert_true(mala_run_tensors(tensors, got[0], NULL, &planes[0][0][0], COUNT, &error));
    expect_same(alone[0], got[0], COUNT * K, 1e-4f);
    assert_true(mala_run_tensors(tensors, NULL, got[0], &planes[0][0][0], COUNT, &error));
    expect_same(prob[0], got[0], COUNT * K, 1e-5f);
    assert_true(mala_run_images(three, got[0], NULL, images, 0, &error));
    assert_false(mala_run_tensors(one, got[0], NULL, &planes[0][0][0], 1, &error));
    expect_text(error.text, "made for pictures, and needs them - for tensors, one with MalaRunnerOptions.tensors");
    assert_false(mala_run_images(tensors, got[0], NULL, images, 1, &error));
    expect_text(error.text, "made for tensors, and needs them - for pictures, one without MalaRunnerOptions.tensors");
    assert_false(mala_run_images(one, got[0], NULL, images, -1, &error));
    mala_runner_free(one), mala_runner_free(three), mala_runner_free(tensors);
    mala_model_close(model);
}

/* Pictures without pixels, in the second batch of two, are told; the runner goes on with good ones. */
static void test_empty_pictures_are_told(void **state) {
    (void)state;
    static uint8_t pixels[COUNT][SIDE * SIDE * 3];
    static float want[COUNT * COLOUR_CLASSES], got[COUNT * COLOUR_CLASSES];
    MalaImage images[COUNT];
    MalaModel *model = open_model();
    MalaRunner *runner = new_runner(model, (MalaRunnerOptions){.batch = 4});
    load_cuts(images, pixels);
    assert_true(mala_run_images(runner, want, NULL, images, COUNT, &error));
    const MalaImage good = images[5];
    const MalaImage empty[] = {{SIDE, SIDE, NULL}, {0, SIDE, pixels[5]}, {SIDE, 0, pixels[5]}, {-1, SIDE, pixels[5]},
                               {SIDE, -1, pixels[5]}};
    for (size_t i = 0; i < COUNTOF(empty); i++) {
        images[5] = empty[i];
        memset(&error, 0, sizeof error);
        assert_false(mala_run_images(runner, got, NULL, images, COUNT, &error));
        assert_int_equal(error.code, EXIT_USAGE);
        assert_string_equal(error.text, "mala_run_images: an empty picture");
    }
    images[5] = good;
    assert_true(mala_run_images(runner, got, NULL, images, COUNT, &error));
    assert_memory_equal(got, want, sizeof got);
    mala_runner_free(runner);
    mala_model_close(model);
}

/* Of whatever is asked for, and wherever among the tensors the bad one is. */
static void test_answers_that_are_no_numbers_are_told(void **state) {
    (void)state;
    static float planes[4][3 * SIDE * SIDE], logits[4 * COLOUR_CLASSES], prob[4 * COLOUR_CLASSES];
    MalaModel *model = open_model();
    MalaRunner *runner = new_runner(model, (MalaRunnerOptions){.batch = 2, .tensors = true});
    for (int bad = 0; bad < 4; bad++) {
        for (int i = 0; i < 3 * SIDE * SIDE; i++) planes[bad][i] = NAN;
        for (int asked = 1; asked < 4; asked++) {
            memset(&error, 0, sizeof error);
            assert_false(mala_run_tensors(runner, asked & 1 ? logits : NULL, asked & 2 ? prob : NULL, planes[0], 4,
                                          &error));
            assert_int_equal(error.code, EXIT_INPUT);
            expect_text(error.text, "mala_run: answers are not finite");
        }
        memset(planes[bad], 0, sizeof planes[bad]);
        assert_true(mala_run_tensors(runner, logits, prob, planes[0], 4, &error));
    }
    mala_runner_free(runner);
    mala_model_close(model);
}

static int count_tasks(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *e; (e = readdir(tasks));) count += e->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* The caller's thread is one of them. Threads that have ended may stand there for a moment. */
static void test_a_runner_has_the_threads_it_was_given(void **state) {
    (void)state;
    static const int given[] = {1, 2, 5};
    MalaModel *model = open_model();
    int idle = count_tasks(); /* more than one under a sanitizer */
    for (int tries = 0; tries < 20 && idle > 1; tries++, usleep(500)) idle = MIN(idle, count_tasks());
    for (size_t i = 0; i < COUNTOF(given); i++) {
        MalaRunner *runner = new_runner(model, (MalaRunnerOptions){.threads = given[i]});
        const int want = idle + given[i] - 1;
        for (int tries = 0; count_tasks() != want && tries < 400; tries++) usleep(500);
        assert_int_equal(count_tasks(), want);
        mala_runner_free(runner);
    }
    mala_model_close(model);
}

/* A batch's results are its own, as many as it has: of two that are queued the second may be the smaller one, or the
 * larger one. */
static void test_two_batches_queued(void **state) {
    (void)state;
    enum { K = COLOUR_CLASSES };
    static uint8_t pixels[COUNT][SIDE * SIDE * 3];
    static float want[COUNT * K], logits[COUNT * K], prob[COUNT * K];
    MalaImage images[COUNT];
    Err err = {0};
    ModelFile file;
    Backend cpu;
    Predictor p;
    load_cuts(images, pixels);
    assert_true(model_file_open(&file, weights, NULL, NULL, 0, NULL, &err) && backend_open_cpu(&cpu, 1, &err));
    if (!predictor_open(&p, &file, &cpu, 3, false, &err)) fail_msg("%s", err.text);
    for (int n = 0; n < COUNT; n++) assert_true(predictor_run(&p, want + n * K, NULL, pixels[n], 1, &err));
    static const int counts[][2] = {{3, 1}, {1, 3}, {2, 2}};
    for (size_t i = 0; i < COUNTOF(counts); i++) {
        const int first = counts[i][0], second = counts[i][1];
        assert_true(predictor_queue(&p, pixels[0], first, &err) && predictor_queue(&p, pixels[first], second, &err));
        for (int half = 0, at = 0; half < 2; at += counts[i][half++]) {
            const int n = counts[i][half];
            for (int k = 0; k < COUNT * K; k++) logits[k] = prob[k] = -700;
            assert_true(predictor_read(&p, logits, prob, &err));
            expect_same(want + at * K, logits, n * K, 1e-5f);
            for (int k = 0; k < COUNT * K; k++) {
                if (k < n * K) assert_true(prob[k] >= 0 && prob[k] <= 1);
                else assert_true(logits[k] == -700 && prob[k] == -700);
            }
        }
    }
    predictor_close(&p);
    cpu.close(&cpu);
    model_file_close(&file);
}

/* The k best, ties by lower class; no more than there are. */
static void test_top(void **state) {
    (void)state;
    const float scores[4] = {1, 3, 3, 2};
    int32_t top[6] = {-7, -7, -7, -7, -7, -7};
    mala_top(top, scores, 4, 2);
    assert_true(top[0] == 1 && top[1] == 2 && top[2] == -7);
    mala_top(top, scores, 4, 6);
    assert_true(top[0] == 1 && top[1] == 2 && top[2] == 3 && top[3] == 0 && top[4] == -7);
}

/* Answers of the model with these settings; its height. */
static int run_with(float prob[COLOUR_CLASSES], const char *const *settings, int count, const MalaImage *image) {
    MalaModel *model = mala_model_open(weights, settings, count, &error);
    if (!model) fail_msg("%s", error.text);
    MalaRunner *runner = new_runner(model, (MalaRunnerOptions){.threads = 2, .device = "cpu"});
    assert_true(mala_run_images(runner, NULL, prob, image, 1, &error));
    const int height = mala_model_info(model).height;
    mala_runner_free(runner);
    mala_model_close(model);
    return height;
}

/* Every setting changes what the network sees of a picture. */
static void test_settings_are_heard(void **state) {
    (void)state;
    const char *settings[] = {"input.crop_pct=0.6", "input.mean=[0,0,0]", "input.std=[1,1,1]",
                              "input.interpolation=bilinear", "input.size=64"};
    float prob[COUNTOF(settings) + 1][COLOUR_CLASSES];
    MalaImage image;
    assert_true(mala_image_load(&image, picture, &error));
    assert_int_equal(run_with(prob[0], NULL, 0, &image), 32);
    for (size_t i = 1; i <= COUNTOF(settings); i++) { /* the first and one more */
        const char *const both[] = {settings[0], settings[i - 1]};
        assert_int_equal(run_with(prob[i], both, 2, &image), i == COUNTOF(settings) ? 64 : 32);
        float apart = 0;
        for (int k = 0; k < COLOUR_CLASSES; k++) apart = fmaxf(apart, fabsf(prob[i][k] - prob[i > 1][k]));
        if (apart < 1e-4f) fail_msg("%s changes nothing", settings[i - 1]);
    }
    mala_image_free(&image);
}

/* The golden logits in a file are what its network makes of the golden inputs. */
static void test_golden_logits_are_the_networks(void **state) {
    (void)state;
    static uint8_t pixels[SIDE * SIDE * 3];
    float logits[COLOUR_CLASSES];
    Err err = {0};
    TensorFile f;
    MalaModel *model = mala_model_open(weights, (const char *[]){"input.crop_pct=1"}, 1, &error);
    MalaRunner *runner = new_runner(model, (MalaRunnerOptions){0});
    assert_true(tensor_file_open(&f, weights, NULL, &err));
    cJSON *json = cJSON_Parse(tensor_file_metadata(&f, GOLDEN_KEY)), *inputs;
    inputs = cJSON_GetObjectItemCaseSensitive(json, "inputs");
    assert_int_equal(cJSON_GetArraySize(inputs), GOLDEN_INPUTS);
    for (int i = 0; i < GOLDEN_INPUTS; i++) {
        const cJSON *kept = cJSON_GetArrayItem(inputs, i);
        golden_input(pixels, i, SIDE, SIDE);
        assert_true(mala_run_images(runner, logits, NULL, &(MalaImage){SIDE, SIDE, pixels}, 1, &error));
        assert_int_equal(cJSON_GetArraySize(kept), COLOUR_CLASSES);
        for (int k = 0; k < COLOUR_CLASSES; k++)
            assert_float_equal(cJSON_GetArrayItem(kept, k)->valuedouble, logits[k], 1e-5);
    }
    cJSON_Delete(json);
    tensor_file_close(&f);
    mala_runner_free(runner);
    mala_model_close(model);
}

static void test_info_is_the_programs(void **state) {
    (void)state;
    MalaModel *model = open_model();
    const MalaInfo info = mala_model_info(model);
    EXPECT(0, "info $T/run --json");
    cJSON *json = json_line(output);
    assert_true((double)info.parameters == number_of(json, "parameters") && info.macs == number_of(json, "macs"));
    cJSON_Delete(json);
    mala_model_close(model);
    model = mala_model_open(weights, (const char *[]){"input.size=[32,96]"}, 1, &error); /* height, width */
    assert_non_null(model);
    assert_true(mala_model_info(model).height == 32 && mala_model_info(model).width == 96);
    mala_model_close(model);
}

static void test_errors(void **state) {
    (void)state;
    assert_null(mala_model_open("/nowhere.safetensors", NULL, 0, &error));
    assert_int_equal(error.code, EXIT_INPUT);
    expect_text(error.text, "/nowhere.safetensors");
    assert_null(mala_model_open("/no\n\x1b[31m.safetensors", NULL, 0, &error));
    expect_text(error.text, "/no\\x0a\\x1b[31m.safetensors: "); /* one line */
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
    const MalaRunnerOptions refused[] = {{.batch = -1}, {.batch = 65536}, {.threads = -1}};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_null(mala_runner_new(model, &refused[i], &error));
        assert_int_equal(error.code, 2);
        expect_text(error.text, "mala_runner_new: batch is 0 to 65535, and threads a count");
    }
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

/* A caller may have a rescue of its own: calls that fail and calls that do not leave it in place. */
static void test_rescue(void **state) {
    (void)state;
    assert_true(fail_check());
    Rescue mine, *before = rescue_use(&mine);
    MalaModel *model = mala_model_open(weights, NULL, 0, &error), *none = mala_model_open("/nowhere", NULL, 0, &error);
    Rescue *found = rescue_use(before);
    assert_ptr_equal(found, &mine);
    assert_true(model && !none);
    mala_model_close(model);
    assert_null(rescue_use(NULL));
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_reacts),
        cmocka_unit_test(test_same_as_program),
        cmocka_unit_test(test_tensors_and_batches),
        cmocka_unit_test(test_empty_pictures_are_told),
        cmocka_unit_test(test_answers_that_are_no_numbers_are_told),
        cmocka_unit_test(test_a_runner_has_the_threads_it_was_given),
        cmocka_unit_test(test_two_batches_queued),
        cmocka_unit_test(test_top),
        cmocka_unit_test(test_settings_are_heard),
        cmocka_unit_test(test_golden_logits_are_the_networks),
        cmocka_unit_test(test_info_is_the_programs),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_rescue),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_example_shared),
        cmocka_unit_test(test_example_static),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
