/* test_runs.c - what training runs decide beside their steps: whose folder it is, what a start from weights takes over,
 * what is said of an epoch, which pictures count, when a row of metrics is written. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/rundir.h"
#include "colours.h"
#include "io/tensor_file.h"
#include "program.h"

#define RUN "train data.path=$T/data " LEARNS
#define SHORT "sched.epochs=1 sched.warmup_epochs=0 "

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static char *file_in(const char *name) {
    static char path[2][256];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[0], "%s/%s", folder, name);
    return path[turn];
}

static int make_run(void **state) {
    (void)state;
    folder_make();
    colours_make(file_in("data"), 4, 2);
    EXPECT(0, RUN "output=$T/run sched.epochs=4");
    shell("cp err said && cp out result");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- whose folder it is ---- */

/* While another process holds the lock, nobody trains there: not by request, and not by chance. */
static void test_one_run_at_a_time_in_a_folder(void **state) {
    (void)state;
    shell("mkdir -p locked/weights");
    int lock = open(file_in("locked/.lock"), O_RDWR | O_CREAT, 0644);
    assert_true(lock >= 0 && flock(lock, LOCK_EX) == 0);
    EXPECT(9, RUN SHORT "output=$T/locked exist_ok=true");
    expect_text(errors, "another process is training here");
    EXPECT(0, RUN SHORT "output=$T/locked -q");
    shell("test ! -e locked/results.csv && test -e locked-2/results.csv");
    close(lock);
    EXPECT(0, RUN SHORT "output=$T/locked -q"); /* nobody holds it now, and nothing is in it */
    shell("test -e locked/results.csv && test ! -e locked-3");
    EXPECT(0, RUN SHORT "output=$T/locked exist_ok=true -q"); /* a run that is over holds nothing */
    shell("test -e locked/earlier-1/results.csv && test ! -e locked/earlier-2");
    EXPECT(0, RUN SHORT "output=$T/locked exist_ok=true -q");
    shell("test -e locked/earlier-2/weights/best.safetensors && test -e locked/earlier-1/config.json");
}

/* Within a process, too: held from opening to closing. */
static void test_a_closed_folder_is_free(void **state) {
    (void)state;
    RunDir first, second;
    Err why = {0};
    OK(rundir_open(&first, file_in("held"), true, NULL, &err));
    assert_false(rundir_open(&second, file_in("held"), true, NULL, &why));
    assert_int_equal(why.code, EXIT_LOCKED);
    rundir_close(&first);
    OK(rundir_open(&second, file_in("held"), true, NULL, &err));
    rundir_close(&second);
}

/* What opening a run leaves is nothing; whatever else lies there is something. */
static void test_what_takes_a_folder(void **state) {
    (void)state;
    shell(
        "mkdir -p free/weights && touch free/.lock && mkdir -p one/weights two && touch one/weights/x two/notes file");
    EXPECT(0, RUN SHORT "output=$T/free -q");
    EXPECT(0, RUN SHORT "output=$T/one -q");
    EXPECT(0, RUN SHORT "output=$T/two -q");
    EXPECT(0, RUN SHORT "output=$T/two -q");
    shell("test -e free/results.csv && test -e one-2/results.csv && test -e two-2/results.csv && test -e "
          "two-3/results.csv");
    shell("test ! -e free-2 && test ! -e one/results.csv && test ! -e two/results.csv");
    EXPECT(4, RUN SHORT "output=$T/file");
    EXPECT(2, RUN SHORT "output=$T/data/run"); /* data sets are never written to */
    expect_text(errors, "lies inside the data set");
    shell("test ! -e data/run");
    EXPECT(2, "train output=$T/nowhere " LEARNS);
    EXPECT(2, "train data.path=$T/none output=$T/nowhere " LEARNS);
}

/* Slashes and dots at the end are no part of a folder's name: the run beside it has its number, and none lies in it. */
static void test_the_number_follows_the_name(void **state) {
    (void)state;
    static const char *const spellings[] = {"ends/", "ends/.", "ends//./", "ends/x/.."};
    shell("mkdir -p ends/x");
    char arguments[400];
    for (size_t i = 0; i < COUNTOF(spellings); i++) {
        snprintf(arguments, sizeof arguments, RUN SHORT "output=$T/%s -q", spellings[i]);
        EXPECT(0, arguments);
        shell("test -e ends-2/results.csv && rm -r ends-2 && test \"$(ls -A ends)\" = x");
    }
    EXPECT(2, RUN SHORT "output=/");
    expect_text(errors, "the root of all folders");
    EXPECT(2, RUN SHORT "output=/../. --dry-run");
    EXPECT(4, RUN SHORT "output=$T/nowhere/..");
}

/* Going on from a run in its own folder moves it away: config.json names where its weights are, in whatever way the
 * folder was spelt. */
static void test_weights_are_named_where_they_lie(void **state) {
    (void)state;
    static const char *const spellings[] = {"own", "own/", "own/.", "own/weights/best.safetensors", "link"};
    static char text[1 << 14];
    shell("cp -r run own && ln -s own link");
    for (size_t i = 0; i < COUNTOF(spellings); i++) {
        char arguments[600], want[300];
        snprintf(arguments, sizeof arguments, RUN SHORT "output=$T/own exist_ok=true --weights $T/%s -q", spellings[i]);
        EXPECT(0, arguments);
        read_text(text, sizeof text, file_in("own/config.json"));
        snprintf(want, sizeof want, "/own/earlier-%zu%s\"", i + 1, i == 3 ? "/weights/best.safetensors" : "");
        expect_text(text, want);
    }
}

/* ---- a start from weights ---- */

static float *read_tensor(const char *file, const char *name, size_t *count) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in(file), NULL, &err));
    const StoredTensor *t = tensor_file_find(&f, name);
    if (!t) fail_msg("%s has no %s", file, name);
    float *values = mem_zalloc(t->count, sizeof *values);
    OK(tensor_file_read_f32(values, &f, t, &err));
    *count = t->count;
    tensor_file_close(&f);
    return values;
}

/* |a - b| / |b| of a tensor in two files; -1 where the sizes differ. */
static double apart(const char *a, const char *b, const char *tensor) {
    size_t n, m;
    float *x = read_tensor(a, tensor, &n), *y = read_tensor(b, tensor, &m);
    double d = 0, size = 0;
    for (size_t i = 0; n == m && i < n; i++) d += pow((double)x[i] - y[i], 2), size += pow((double)y[i], 2);
    free(x), free(y);
    return n == m ? sqrt(d / size) : -1;
}

/* A step too small to matter: what is saved is what it began with. */
#define STILL SHORT "optim.lr=1e-9 sched.min_lr=1e-9 optim.weight_decay=0 -q "
#define BEST "run/weights/best.safetensors"

static void test_a_start_takes_the_weights_over(void **state) {
    (void)state;
    static const char *const body[] = {"layers.0.blocks.0.attn.qkvo.weight", "layers.3.blocks.0.gamma_2", "norm.bias",
                                       "patch_embed.proj.10.weight"};
    EXPECT(0, RUN STILL "output=$T/same --weights $T/run");
    EXPECT(0, RUN STILL "output=$T/average --weights $T/run train.ema=true train.seed=1");
    EXPECT(0, RUN STILL "output=$T/fresh train.seed=1");
    for (size_t i = 0; i < COUNTOF(body); i++) {
        assert_true(apart("same/weights/last.safetensors", BEST, body[i]) < 1e-4);
        assert_true(apart("average/weights/last.safetensors", BEST, body[i]) < 1e-4);
        assert_true(apart("fresh/weights/last.safetensors", BEST, body[i]) > 1e-3);
    }
    assert_true(apart("same/weights/last.safetensors", BEST, "head.weight") < 1e-4);
    assert_true(apart("average/weights/last.safetensors", BEST, "head.weight") < 1e-4);
}

/* Weights of another network: the settings that would make it theirs are told, and do. */
static void test_a_start_from_another_network(void **state) {
    (void)state;
    char command[1000];
    static const char add[] = "run: holds another network than this run's - for its own add ";
    static const char *const others[] = {"'model.dims=[16,16,16,32]'", "'model.depths=[1,1,2,1]'"};
    for (size_t i = 0; i < COUNTOF(others); i++) {
        snprintf(command, sizeof command, RUN "output=$T/none --weights $T/run %s", others[i]);
        EXPECT(3, command);
        expect_text(errors, add);
        expect_text(errors, "does not fit the model");
        expect_text(errors, "add model.name=custom model.dims=16,16,16,16 model.depths=1,1,1,1 model.heads=1,1,2,2 "
                    "model.mlp_ratio=3.5 model.projection=32\n");
    }
    EXPECT(3, "train data.path=$T/data output=$T/none --weights $T/run input.size=32"); /* a mavit_t */
    const char *settings = strstr(errors, add);
    assert_non_null(settings);
    settings += strlen(add);
    snprintf(command, sizeof command, "train data.path=$T/data output=$T/none --weights $T/run input.size=32 -n %.*s",
             (int)strcspn(settings, "\n"), settings);
    EXPECT(0, command);
    EXPECT(3, RUN "output=$T/none --weights $T/run model.mlp_ratio=2"); /* the same channels and blocks */
    assert_null(strstr(errors, add));
    EXPECT(0, RUN "output=$T/none -n --weights $T/run 'model.depths=[1,1,2,1]' --allow-missing 'layers.2.blocks.1.*'");
    assert_null(strstr(errors, add));
}

/* Names decide: with one of another name, in another order or fewer of them the head is that of a new network. */
static void test_a_head_of_other_names_starts_anew(void **state) {
    (void)state;
    shell("cp -r data other && mv other/train/red_ring other/train/red_wheel && mv other/val/red_ring "
          "other/val/red_wheel");
    shell("cp -r data fewer && rm -r fewer/*/red_ring");
    shell("cp -r data first && rm -r first/*/red_square"); /* the last one: all others are where they were */
    EXPECT(0, RUN STILL "output=$T/fresh8");
    EXPECT(0, RUN STILL "output=$T/other8 --weights $T/run data.path=$T/other");
    EXPECT(0, RUN STILL "output=$T/fewer7 --weights $T/run data.path=$T/fewer");
    assert_true(apart("other8/weights/last.safetensors", BEST, "layers.0.blocks.0.attn.qkvo.weight") < 1e-4);
    assert_true(apart("other8/weights/last.safetensors", "fresh8/weights/last.safetensors", "head.weight") < 1e-4);
    assert_true(apart("other8/weights/last.safetensors", BEST, "head.weight") > 0.1);
    assert_true(apart("fewer7/weights/last.safetensors", BEST, "head.weight") == -1);
    assert_true(apart("fewer7/weights/last.safetensors", BEST, "norm.bias") < 1e-4);
    /* and whatever its width: what is between, which is too wide, has to be named, the head does not */
    EXPECT(3, RUN STILL "output=$T/none --weights $T/run data.path=$T/first model.projection=24");
    expect_text(errors, "proj.weight");
    EXPECT(0, RUN STILL "output=$T/narrow7 --weights $T/run data.path=$T/first model.projection=24 "
              "--allow-missing 'proj.*,norm.*'");
    EXPECT(3, RUN STILL "output=$T/none --weights $T/run model.projection=24 --allow-missing 'proj.*,norm.*'");
    expect_text(errors, "head.weight");
}

/* ---- what is said of an epoch ---- */

/* The table says what results.csv has, with a star where the epoch was the best so far. */
static void test_the_table_is_the_results(void **state) {
    (void)state;
    static char said[1 << 14], rows[1 << 12];
    read_text(said, sizeof said, file_in("said"));
    read_text(rows, sizeof rows, file_in("run/results.csv"));
    const char *row = rows;
    static char measured[1 << 12];
    read_text(measured, sizeof measured, file_in("run/metrics.jsonl"));
    const char *metrics = measured;
    double best = -1;
    for (int e = 1; e <= 4; e++) {
        int epoch;
        double time, loss, top1, top5, val, rate;
        char want[200];
        row = strchr(row, '\n') + 1;
        assert_int_equal(sscanf(row, "%d,%lf,%lf,%lf,%lf,%lf,%lf", &epoch, &time, &loss, &top1, &top5, &val, &rate), 7);
        snprintf(want, sizeof want, "epoch %d/4  %10.4f  %8.4f  %6.2f %%  %6.2f %%  ", e, loss, val, 100 * top1,
                 100 * top5);
        expect_text(said, want);
        const char *line = strstr(said, want), *end = strchr(line, '\n');
        assert_int_equal(end[-1] == '*', top1 > best);
        cJSON *json = json_line(metrics); /* measured a moment before */
        const double quotient = atof(line + strlen(want)) / number_of(json, "perf/images_per_sec");
        assert_true(quotient > 0.25 && quotient < 4);
        cJSON_Delete(json);
        metrics = strchr(metrics, '\n') + 1;
        best = fmax(best, top1);
    }
    int best_epoch = 0, of = 0;
    double share;
    static char result[1 << 10];
    read_text(result, sizeof result, file_in("result"));
    assert_int_equal(
        sscanf(strstr(result, ": best top-1"), ": best top-1 %lf %% (epoch %d of %d) in", &share, &best_epoch, &of), 3);
    assert_float_equal(share, 100 * best, 0.006);
    assert_int_equal(of, 4);
    row = rows;
    for (int e = 0; e < best_epoch; e++) row = strchr(row, '\n') + 1;
    char first[32];
    snprintf(first, sizeof first, ",%.6f,", best);
    expect_text(strchr(strchr(row, ',') + 1, ','), first);
    expect_text(said, "32 training and 16 validation pictures, 8 classes\n");
    expect_text(said, "4 epochs of 4 steps of 8 pictures\n");
}

/* A first epoch is the best there is, even where it is never right: validation pictures of one class alone, of which
 * the network has not heard. */
static void test_the_first_epoch_is_kept_whatever_it_is(void **state) {
    (void)state;
    shell("cp -r data wrong && rm -r wrong/val/* && cp -r data/val/red_square wrong/val/");
    EXPECT(0, RUN "data.path=$T/wrong output=$T/wrong-run sched.epochs=2 optim.lr=1e-9 sched.min_lr=1e-9 --json");
    cJSON *json = json_line(output);
    assert_true(number_of(json, "best_top1") == 0);
    assert_int_equal((int)number_of(json, "best_epoch"), 1);
    cJSON_Delete(json);
    shell("test -e wrong-run/weights/best.safetensors");
    expect_text(errors, "wrong/val: holds no picture of 7 of 8 classes");
}

/* Every so many steps over all epochs, and where an epoch ends: 4 steps of each of 3 epochs. */
static void test_rows_of_metrics(void **state) {
    (void)state;
    static const struct {
        const char *arguments;
        const char *steps;
    } cases[] = {{RUN "output=$T/m3 sched.epochs=3 log.interval=3 -q", "3 4 6 8 9 12 "},
                 {RUN "output=$T/m4 sched.epochs=3 log.interval=4 -q", "4 8 12 "},
                 {RUN "output=$T/m50 sched.epochs=3 -q", "4 8 12 "}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        static char text[1 << 14];
        char steps[100] = "", path[32];
        EXPECT(0, cases[i].arguments);
        snprintf(path, sizeof path, "m%s/metrics.jsonl", (const char *[]){"3", "4", "50"}[i]);
        read_text(text, sizeof text, file_in(path));
        for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
            cJSON *json = json_line(line);
            snprintf(steps + strlen(steps), sizeof steps - strlen(steps), "%d ", (int)number_of(json, "step"));
            assert_int_equal((int)number_of(json, "epoch"), ((int)number_of(json, "step") + 3) / 4);
            const double made = number_of(json, "perf/images_per_sec") * number_of(json, "time");
            if (line == text) assert_true(made >= 7.9 * number_of(json, "step") && made < 24 * number_of(json, "step"));
            assert_true(made > 0);
            assert_null(cJSON_GetObjectItemCaseSensitive(json, "train/loss_scale"));
            cJSON_Delete(json);
        }
        assert_string_equal(steps, cases[i].steps);
    }
}

/* ---- which pictures count ---- */

/* Bad pictures are said once each, whatever the epochs, and counted; good ones are what is judged. */
static void test_bad_pictures_are_counted(void **state) {
    (void)state;
    shell("cp -r data bad && echo x >bad/train/red_bar/00.png && echo y >bad/train/red_ring/01.png && "
          "echo z >bad/val/blue_bar/01.png");
    EXPECT(0, RUN "data.path=$T/bad output=$T/bad-run sched.epochs=3 data.max_bad=0.07");
    expect_text(errors, "warning: 3 pictures could not be used");
    static const char *const names[] = {"train/red_bar/00.png", "train/red_ring/01.png", "val/blue_bar/01.png"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        const char *first = strstr(errors, names[i]);
        if (!first || strstr(first + 1, names[i])) fail_msg("%s is not said once: %s", names[i], errors);
    }
    EXPECT(0, "eval $T/bad-run --data $T/bad data.max_bad=0.07 --json");
    cJSON *json = json_line(output);
    assert_int_equal((int)number_of(json, "images"), 15);
    assert_int_equal((int)number_of(json, "bad_images"), 1);
    cJSON_Delete(json);
    EXPECT(0, "eval $T/bad-run --data $T/bad data.max_bad=0.07");
    expect_text(output, "15 pictures: ");
    expect_text(output, ", 1 unreadable\n");
    char good[200];
    shell("cp -r bad good && rm good/val/blue_bar/01.png");
    EXPECT(0, "eval $T/bad-run --data $T/good");
    snprintf(good, sizeof good, "%.*s", (int)strcspn(output, "\n"), output);
    EXPECT(0, "eval $T/bad-run --data $T/bad data.max_bad=0.07 -b 4"); /* of which the first has three */
    assert_int_equal(strncmp(output, good, strlen(good)), 0);
    EXPECT(0, "eval $T/bad-run --data $T/bad data.max_bad=0.06"); /* 1 of 16 is more, but one may be bad */
    EXPECT(3, "eval $T/bad-run --data $T/bad data.max_bad=0");
    expect_text(errors, "more than data.max_bad=0 allows");
    EXPECT(3, RUN "data.path=$T/bad output=$T/none sched.epochs=3 data.max_bad=0.06"); /* 2 of 32 */
    expect_text(errors, "(bad picture number 2 of 32, more than data.max_bad=0.06 allows)");
    const char *told = strstr(errors, "red_ring/01.png"), *or_told = strstr(errors, "red_bar/00.png");
    assert_true(told && or_told && !strstr(told + 1, "red_ring/01.png") && !strstr(or_told + 1, "red_bar/00.png"));
    EXPECT(3, RUN "data.path=$T/bad output=$T/none data.on_bad_image=error data.max_bad=1");
    shell("cp -r good one-bad && rm one-bad/train/red_ring/01.png");
    EXPECT(0, RUN SHORT "data.path=$T/one-bad output=$T/one-bad-run");
    expect_text(errors, "warning: 1 picture could not be used (");
    EXPECT(3, RUN "data.path=$T/bad output=$T/none data.on_bad_image=error train.batch_size=32 --dry-run");
}

/* Fewer pictures than a batch: the batch is what there is, and so is what the learning rate is scaled by. */
static void test_a_batch_of_all_there_is(void **state) {
    (void)state;
    EXPECT(0, RUN "output=$T/whole train.batch_size=100 optim.lr_base_size=64 sched.epochs=2 sched.warmup_epochs=0");
    expect_text(errors, "32 pictures are fewer than a batch of 100: training with batches of 32");
    expect_text(errors, "2 epochs of 1 step of 32 pictures\n");
    static char text[1 << 12];
    read_text(text, sizeof text, file_in("whole/metrics.jsonl"));
    cJSON *json = json_line(text);
    assert_float_equal(number_of(json, "lr/pg0"), 5e-3, 1e-8); /* 1e-2 of 64 */
    cJSON_Delete(json);
    shell("mkdir -p single && cp -r data/train data/val single/ && rm -r single/*/red* single/*/blue_[crs]*");
    EXPECT(3, RUN "data.path=$T/single output=$T/none");
    expect_text(errors, "holds 1 class, at least 2 are needed - ");
}

/* Where memory is short, pictures that are kept take at most half of what the run leaves, both splits together. */
static void test_caches_give_way(void **state) {
    (void)state;
    char line[400];
    setenv("MALA_MEMORY", "500M", 1);
    EXPECT(0, RUN "output=$T/short --dry-run data.cache_mb=512");
    expect_text(output, "dry run: ");
    const char *said = strstr(errors, "memory is short: at most ");
    assert_non_null(said);
    const int most = atoi(said + 25);
    assert_true(most > 80 && most < 125);
    for (int more = 0; more < 2; more++) {
        snprintf(line, sizeof line, RUN "output=$T/short --dry-run data.cache_mb=%d", most + more);
        EXPECT(0, line);
        assert_int_equal(strstr(errors, "memory is short") != NULL, more);
    }
    unsetenv("MALA_MEMORY");
    shell("test ! -e short");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_run_at_a_time_in_a_folder),
        cmocka_unit_test(test_a_closed_folder_is_free),
        cmocka_unit_test(test_what_takes_a_folder),
        cmocka_unit_test(test_the_number_follows_the_name),
        cmocka_unit_test(test_weights_are_named_where_they_lie),
        cmocka_unit_test(test_a_start_takes_the_weights_over),
        cmocka_unit_test(test_a_start_from_another_network),
        cmocka_unit_test(test_a_head_of_other_names_starts_anew),
        cmocka_unit_test(test_the_table_is_the_results),
        cmocka_unit_test(test_the_first_epoch_is_kept_whatever_it_is),
        cmocka_unit_test(test_rows_of_metrics),
        cmocka_unit_test(test_bad_pictures_are_counted),
        cmocka_unit_test(test_a_batch_of_all_there_is),
        cmocka_unit_test(test_caches_give_way),
    };
    return cmocka_run_group_tests_name("runs", tests, make_run, remove_run);
}
