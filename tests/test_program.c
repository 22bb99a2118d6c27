/* test_program.c - the program as a person meets it: commands, output, exit codes, bad input. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base/file.h"
#include "colours.h"
#include "program.h"
#include "reacts.h"

#define BEST "--weights $T/run/weights/best.safetensors "
#define LAST "--weights $T/run/weights/last.safetensors "

static const char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_data(void **state) {
    (void)state;
    folder_make();
    colours_make(path_of("data"), 6, 3);
    EXPECT(0, "train data.path=$T/data output=$T/run " LEARNS "--json");
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* What the tests below can see: every picture has scores of its own, and the two files have other ones. */
static void test_network_reacts(void **state) {
    (void)state;
    static Scores best, last;
    scores_of(&best, "$T/data/val " BEST);
    scores_of(&last, "$T/data/val " LAST);
    assert_int_equal(best.pictures, 3 * COLOUR_CLASSES);
    assert_int_equal(best.classes, COLOUR_CLASSES);
    expect_reacts(&best, 5e-4, 3);
    for (int i = 0; i < best.pictures; i++) assert_true(scores_apart(&best, i, &last, i) > 5e-4);
    for (int k = 0; k < COLOUR_CLASSES; k++) assert_string_equal(best.label[k], colour_class(k));
}

/* ---- what a run leaves ---- */

typedef struct {
    int epoch;
    double loss, top1, top5, val, rate;
} Row;

/* The rows of a run's results.csv; how many. */
static int read_rows(Row rows[16], const char *name) {
    static char text[1 << 14];
    static const char heading[] = "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0\n";
    int count = 0;
    double time, before = 0;
    read_text(text, sizeof text, path_of(name));
    assert_int_equal(strncmp(text, heading, strlen(heading)), 0);
    for (const char *at = strchr(text, '\n') + 1; *at; at = strchr(at, '\n') + 1, count++) {
        Row *r = &rows[count];
        assert_int_equal(sscanf(at, "%d,%lf,%lf,%lf,%lf,%lf,%lf\n", &r->epoch, &time, &r->loss, &r->top1, &r->top5,
                                &r->val, &r->rate), 7);
        assert_true(time >= before);
        before = time;
    }
    return count;
}

static void expect_judged(const Row *row, const char *weights) {
    static Scores s;
    char arguments[200];
    snprintf(arguments, sizeof arguments, "$T/data/val %s", weights);
    scores_of(&s, arguments);
    const Judged j = scores_judge(&s);
    if (!(fabs(row->top1 - j.top1) < 1e-5 && fabs(row->top5 - j.top5) < 1e-5 && fabs(row->val - j.loss) < 1e-4))
        fail_msg("epoch %d: %g, %g, %g, but its weights give %g, %g, %g", row->epoch, row->top1, row->top5, row->val,
                 j.top1, j.top5, j.loss);
}

/* weights/best answers as the row of the best epoch says, weights/last as the last row. */
static void test_rows_are_of_the_weights_beside_them(void **state) {
    (void)state;
    Row rows[16];
    int best = 0;
    assert_int_equal(read_rows(rows, "run/results.csv"), 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(rows[i].epoch, i + 1);
        if (rows[i].top1 > rows[best].top1) best = i;
    }
    assert_true(best < 7 && rows[7].val < rows[0].val - 0.3); /* it has learned, and best is not last */
    expect_judged(&rows[best], BEST);
    expect_judged(&rows[7], LAST);
    static char text[1 << 16];
    read_text(text, sizeof text, path_of("run/classes.txt"));
    const char *at = text;
    for (int k = 0; k < COLOUR_CLASSES; k++, at = strchr(at, '\n') + 1)
        assert_true(strncmp(at, colour_class(k), strlen(colour_class(k))) == 0);
    assert_int_equal(*at, '\0');
    read_text(text, sizeof text, path_of("run/log.txt"));
    expect_text(text, "epoch 8/8");
    read_text(text, sizeof text, path_of("run/config.json"));
    expect_text(text, "\"pad\": 2");
    shell("test \"$(tail -n 1 run/metrics.jsonl | grep -c '\"step\":48,\"epoch\":8,')\" = 1");
}

/* Threads and workers change no bit of a run; every one of these changes all of it. */
static void test_same_run_same_bytes(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/again --threads 1 data.workers=0 " LEARNS "--quiet");
    shell("cut -d, -f1,3- run/results.csv >a && cut -d, -f1,3- again/results.csv >b && cmp a b");
    EXPECT(0, "train --config $T/run/config.json output=$T/run --quiet"); /* its own; a new directory beside it */
    shell("cut -d, -f1,3- run-2/results.csv >b && cmp a b");
    Row rows[16];
    int best = 0;
    char said[80];
    for (int i = read_rows(rows, "run/results.csv"); i-- > 0;)
        if (rows[i].top1 >= rows[best].top1) best = i;
    snprintf(said, sizeof said, "/run-2: best top-1 %.2f %% (epoch %d of 8) in ", 100 * rows[best].top1, best + 1);
    expect_text(output, said);
    static const char *const others[] = {"train.seed=1", "aug.hflip=0", "train.batch_size=16", "optim.weight_decay=0",
                                         "train.smoothing=0.1", "model.drop_path=0.1", "train.ema=true"};
    EXPECT(0, "train data.path=$T/data output=$T/short " LEARNS "sched.epochs=2 -q");
    shell("cut -d, -f3- short/results.csv | sed -n 3p >a");
    for (size_t i = 0; i < COUNTOF(others); i++) {
        char arguments[800];
        snprintf(arguments, sizeof arguments, "train data.path=$T/data output=$T/other " LEARNS "sched.epochs=2 -q %s",
                 others[i]);
        EXPECT(0, arguments);
        shell("cut -d, -f3- other/results.csv | sed -n 3p >b; rm -r other; ! cmp -s a b");
    }
}

/* ---- eval and infer ---- */

static void expect_eval(const char *arguments, const Judged *want, const Scores *s) {
    EXPECT(0, arguments);
    cJSON *json = json_line(output), *classes = cJSON_GetObjectItemCaseSensitive(json, "per_class");
    assert_int_equal((int)number_of(json, "images"), want->images);
    assert_float_equal(number_of(json, "top1"), want->top1, 1e-9);
    assert_float_equal(number_of(json, "top5"), want->top5, 1e-9);
    assert_float_equal(number_of(json, "loss"), want->loss, 1e-5);
    assert_int_equal((int)number_of(json, "bad_images"), 0);
    assert_int_equal(cJSON_GetArraySize(classes), s->classes);
    for (int k = 0; k < s->classes; k++) {
        const cJSON *class = cJSON_GetObjectItemCaseSensitive(classes, s->label[k]);
        assert_int_equal((int)number_of(class, "images"), want->of_class[k]);
        assert_float_equal(number_of(class, "top1"), (double)want->right[k] / want->of_class[k], 1e-9);
    }
    cJSON_Delete(json);
}

/* Evaluation finds what the answers to the same pictures amount to, whatever the batches, wherever the split lies. */
static void test_eval_is_what_answers_amount_to(void **state) {
    (void)state;
    static Scores s;
    scores_of(&s, "$T/data/val " LAST);
    Judged want = scores_judge(&s);
    assert_true(want.top1 > 0.2 && want.top1 < 0.6);
    expect_eval("eval " LAST "--data $T/data --json", &want, &s);
    expect_eval("eval " LAST "--data $T/data --json -b 5", &want, &s);
    expect_eval("eval " LAST "--data $T/data/val --json", &want, &s); /* the class folders themselves */
    EXPECT(0, "eval " LAST "--data $T/data");
    char text[100];
    snprintf(text, sizeof text, "24 pictures: top-1 %.2f %%, top-5 %.2f %%, loss %.4f\n", 100 * want.top1,
             100 * want.top5, want.loss);
    assert_string_equal(output, text);
    scores_of(&s, "$T/data/train " LAST);
    want = scores_judge(&s);
    assert_int_equal(want.images, 48);
    expect_eval("eval " LAST "--data $T/data data.val=train --json", &want, &s);
    scores_of(&s, "$T/data/val " BEST);
    want = scores_judge(&s);
    expect_eval("eval " BEST "--data $T/data --json", &want, &s);
}

/* The first classes of the whole answer, as many as are asked for and as there are; five without a wish. */
static void test_infer_says_so_many(void **state) {
    (void)state;
    static Scores all;
    scores_of(&all, "$T/data/val " BEST);
    static const struct {
        const char *flag;
        int count;
    } wishes[] = {{"", 5}, {"--topk 1", 1}, {"--topk 3", 3}, {"--topk 8", 8}, {"--topk 9", 8}, {"--topk 1000000", 8}};
    for (size_t w = 0; w < COUNTOF(wishes); w++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "infer $T/data/val " BEST "--json %s", wishes[w].flag);
        EXPECT(0, arguments);
        int picture = 0;
        for (const char *line = output; *line; line = strchr(line, '\n') + 1, picture++) {
            cJSON *json = json_line(line), *list = cJSON_GetObjectItemCaseSensitive(json, "predictions");
            assert_int_equal(cJSON_GetArraySize(list), wishes[w].count);
            double least = 1;
            for (const cJSON *p = list->child; p; p = p->next) {
                least = number_of(p, "score");
                assert_float_equal(least, all.score[picture][(int)number_of(p, "class")], 1e-9);
            }
            int before = 0;
            for (int k = 0; k < all.classes; k++) before += all.score[picture][k] > least;
            assert_int_equal(before, wishes[w].count - 1);
            cJSON_Delete(json);
        }
        assert_int_equal(picture, all.pictures);
    }
    EXPECT(2, "infer $T/data/val " BEST "--topk 0");
}

/* The three formats say the same. */
static void test_infer_formats_agree(void **state) {
    (void)state;
    static Scores all;
    scores_of(&all, "$T/data/val/red_bar " BEST);
    EXPECT(0, "infer $T/data/val/red_bar " BEST "--topk 8");
    char *text = mem_strdup(output);
    EXPECT(0, "infer $T/data/val/red_bar " BEST "--topk 8 --csv");
    const char *row = strchr(output, '\n') + 1;
    for (int i = 0; i < all.pictures; i++)
        for (int rank = 1; rank <= 8; rank++, row = strchr(row, '\n') + 1) {
            int got, class, used = (int)strlen(all.path[i]);
            char label[64], part[128];
            double score;
            assert_int_equal(strncmp(row, all.path[i], (size_t)used), 0);
            assert_int_equal(sscanf(row + used, ",%d,%d,%63[^,],%lf,", &got, &class, label, &score), 4);
            assert_int_equal(got, rank);
            assert_string_equal(label, colour_class(class));
            assert_float_equal(score, all.score[i][class], 1e-9);
            int before = 0;
            for (int k = 0; k < 8; k++) before += all.score[i][k] > score;
            assert_int_equal(before, rank - 1);
            snprintf(part, sizeof part, "%s %.1f %%", label, 100 * score);
            expect_text(strstr(text, all.path[i]), part);
        }
    assert_int_equal(*row, '\0');
    free(text);
}

/* A picture's scores do not depend on what else is in its batch, on how it is named to the command, nor on how many
 * threads decode; pictures that cannot be read are named in their place. */
static void test_infer_ways_agree(void **state) {
    (void)state;
    static char all[1 << 20];
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json");
    memcpy(all, output, sizeof all);
    char command[512];
    snprintf(command, sizeof command, "find %s/data/val -name '*.png' | sort -r > %s/list.txt", folder, folder);
    assert_int_equal(system(command), 0);
    EXPECT(0, "infer - --weights $T/run/weights/best.safetensors --json < $T/list.txt");
    const char *line = output;
    for (int i = 0; i < 5 && *line; i++, line = strchr(line, '\n') + 1) {
        char one[4096];
        size_t n = strcspn(line, "\n");
        assert_true(n < sizeof one);
        memcpy(one, line, n);
        one[n] = '\0';
        expect_text(all, strstr(one, "\"predictions\""));
    }
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json train.threads=5");
    assert_string_equal(all, output);
    static char named[1 << 16];
    shell("(echo missing_a.jpg; cat list.txt; echo missing_b.jpg; head -n 3 list.txt) >holes.txt");
    for (int threads = 1; threads <= 5; threads += 2) {
        snprintf(command, sizeof command, "infer $T/holes.txt --weights $T/run/weights/best.safetensors train.threads=%d",
                 threads);
        EXPECT(3, command);
        if (threads == 1) memcpy(all, output, sizeof all), snprintf(named, sizeof named, "%s", strstr(errors, "mala: "));
        assert_string_equal(all, output);
        assert_string_equal(named, strstr(errors, "mala: "));
    }
    expect_text(named, "missing_a.jpg");
    char summary[300];
    snprintf(summary, sizeof summary, "error: 2 of 29 pictures have no answer, first %s/missing_a.jpg - ", folder);
    expect_text(named, summary);
    expect_text(strstr(named, "missing_a.jpg"), "missing_b.jpg");
}

static void test_errors(void **state) {
    (void)state;
    EXPECT(2, "");
    EXPECT(2, "tarin");
    expect_text(errors, "train");
    EXPECT(2, "train optim.lrr=1");
    expect_text(errors, "did you mean \"optim.lr\"");
    EXPECT(2, "train --epoch 3");
    expect_text(errors, "--epochs");
    EXPECT(2, "train");
    expect_text(errors, "data.path");
    EXPECT(2, "infer");
    EXPECT(2, "infer x.jpg");
    expect_text(errors, "--weights");
    EXPECT(6, "train data.path=$T/data --device cuda:99 output=$T/gpu"); /* in any build, on any machine */
    expect_text(errors, "error: device: ");
    EXPECT(2, "train data.path=$T/data --device cpu --precision bfloat16 output=$T/half");
    expect_text(errors, "train.precision: bfloat16 needs a GPU");
    EXPECT(2, "infer $T/data/val --weights $T/run/weights/best.safetensors --device cpu --precision fp16");
    expect_text(errors, "eval.precision: float16 needs a GPU");
    EXPECT(3, "infer x.jpg --weights $T/missing.safetensors");
    expect_text(errors, "missing.safetensors");
    EXPECT(3, "infer $T/missing.jpg --weights $T/run/weights/best.safetensors");
    expect_text(errors, "missing.jpg");
    EXPECT(3, "infer $T/data/val --weights $T/data/classes.txt");
    EXPECT(3, "eval $T/run/weights/best.safetensors --data $T/run");
    EXPECT(2, "train data.path=$T/nowhere");
    EXPECT(2, "train data.path=$T/data input.size=100");
    expect_text(errors, "96 or 128");
    EXPECT(3, "infer $T/data/val --config configs/cifar10_small.json --weights $T/run/weights/best.safetensors");
    expect_text(errors, "does not fit the model");
}

static void test_help(void **state) {
    (void)state;
    static const char *const commands[] = {"train", "eval", "infer", "info", "synth", "bench", "export"};
    EXPECT(0, "help");
    for (size_t i = 0; i < COUNTOF(commands); i++) expect_text(output, commands[i]);
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        char arguments[32];
        snprintf(arguments, sizeof arguments, "help %s", commands[i]);
        EXPECT(0, arguments);
        expect_text(output, commands[i]);
    }
    EXPECT(0, "version");
    expect_text(output, "mala ");
}

static void test_info(void **state) {
    (void)state;
    EXPECT(0, "info --model mavit_t --json");
    cJSON *json = json_line(output);
    assert_int_equal((int)number_of(json, "parameters"), 16449128);
    double macs = number_of(json, "macs");
    assert_true(macs > 2.63e9 && macs < 2.65e9);
    cJSON_Delete(json);
    EXPECT(0, "info $T/run/weights/best.safetensors");
    expect_text(output, "layers.3.blocks.0");
}

static void expect_bytes(const char *name, const char *part) {
    char path[256];
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_read(&bytes, &count, path, 1 << 26, &err)) fail_msg("%s", err.text);
    if (!memmem(bytes, count, part, strlen(part))) fail_msg("'%s' is not in %s", part, name);
    free(bytes);
}

static void test_export(void **state) {
    (void)state;
    EXPECT(0, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x96 --license CC0");
    expect_bytes("m.onnx", "[\"blue_bar\",");
    expect_bytes("m.onnx", "[64,96]");
    expect_bytes("m.onnx", "CC0");
    EXPECT(0, "export --weights $T/run/weights/best.safetensors $T/b.onnx --as backbone --dynamic --preprocess");
    expect_text(errors, "has no extra_norms: ones and zeros");
    expect_bytes("b.onnx", "extra_norms.3.norm.weight");
    EXPECT(2, "export");
    EXPECT(2, "export $T/m.onnx");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x100 --force");
    expect_text(errors, "96 or 128");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x --force");
    expect_text(errors, "no HxW");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --as detector");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --to caffe");
    EXPECT(4, "export $T/run/weights/best.safetensors $T/nowhere/m.onnx");
}

/* To PyTorch's format and back: the same answers, and the same bytes where nothing but the weights counts. */
static void test_import(void **state) {
    (void)state;
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json");
    char *before = mem_strdup(output);
    EXPECT(0, "import $T/run/weights/best.safetensors $T/m.pth --key model_ema");
    EXPECT(0, "infer $T/data/val --weights $T/m.pth --json"); /* needs nothing beside it */
    expect_text(errors, "m.pth: takes \"model_ema\", averaged weights");
    assert_string_equal(output, before);
    EXPECT(0, "verify $T/m.pth");
    EXPECT(0, "import $T/m.pth $T/back.safetensors");
    EXPECT(0, "verify $T/back.safetensors");
    EXPECT(0, "infer $T/data/val --weights $T/back.safetensors --json");
    assert_string_equal(output, before);
    /* from nothing but tensors, as others write them */
    EXPECT(0, "import $T/run/weights/best.safetensors $T/bare.pth --key ''");
    EXPECT(2, "infer $T/data/val --weights $T/bare.pth");
    expect_text(errors, "does not say its architecture");
    shell("printf '\\2\\0\\0\\0\\0\\0\\0\\0{}' >empty.safetensors");
    EXPECT(3, "infer $T/data/val --weights $T/empty.safetensors");
    expect_text(errors, "/empty.safetensors: is no MAViT: \"patch_embed.proj.0.weight\" is not among its 0 tensors - ");
    EXPECT(0, "import $T/bare.pth $T/bare.safetensors");
    EXPECT(2, "verify $T/bare.safetensors");
    EXPECT(0, "import $T/bare.pth $T/back.safetensors --force --config $T/run/config.json --classes $T/run/classes.txt");
    expect_text(output, " parameters");
    EXPECT(0, "verify $T/back.safetensors");
    EXPECT(0, "infer $T/data/val --weights $T/back.safetensors --json");
    assert_string_equal(output, before);
    free(before);
    EXPECT(3, "import $T/m.pth $T/x.safetensors --no-ema");
    expect_text(errors, "where a tensor belongs");
    EXPECT(3, "import $T/bare.pth $T/x.safetensors --model mavit_t");
    EXPECT(3, "import $T/m.pth $T/x.safetensors --classes $T/run/results.csv");
    expect_text(errors, "results.csv: names");
    EXPECT(2, "import $T/m.pth");
    EXPECT(2, "import $T/m.pth $T/x.pth --key metadata");
    EXPECT(4, "import $T/m.pth $T/nowhere/x.safetensors");
}

/* Every picture of the pack bad_images that must be rejected is named, nothing crashes, memory stays bounded. */
static void test_bad_images(void **state) {
    (void)state;
    const char *packs = getenv("MALA_DATA");
    if (!packs) {
        print_message("skipped: MALA_DATA names no folder of data packs\n");
        skip();
    }
    char command[512], path[256];
    snprintf(command, sizeof command, "cd %s && tar xzf \"%s/bad_images.tar.gz\"", folder, packs);
    assert_int_equal(system(command), 0);
    EXPECT(3, "infer $T/bad_images/files --weights $T/run/weights/best.safetensors --json");
    snprintf(path, sizeof path, "%s/bad_images/splits/must_be_rejected.txt", folder);
    static char list[1 << 16];
    read_text(list, sizeof list, path);
    int named = 0;
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        const char *name = strrchr(line, '/'), *dot = strrchr(line, '.');
        /* names without a picture's extension are not picked up from a folder */
        if (!dot || (strcasecmp(dot, ".jpg") != 0 && strcasecmp(dot, ".jpeg") != 0 && strcasecmp(dot, ".png") != 0)) continue;
        expect_text(errors, name ? name + 1 : line);
        named++;
    }
    assert_true(named >= 50);
    /* the same files as training pictures: skipped, named, counted; the good ones train */
    snprintf(command, sizeof command,
             "cd %s && mkdir -p bad/train/good bad/val && cp -r bad_images/files bad/train/odd && "
             "cp data/train/red_bar/*.png bad/train/good/ && cp -r bad/train/good bad/val/", folder);
    assert_int_equal(system(command), 0);
    EXPECT(0, "train data.path=$T/bad output=$T/badrun data.max_bad=1 " SMALL);
    expect_text(errors, "pictures could not be used");
    EXPECT(3, "train data.path=$T/bad output=$T/badrun2 data.on_bad_image=error " SMALL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_reacts),
        cmocka_unit_test(test_rows_are_of_the_weights_beside_them),
        cmocka_unit_test(test_same_run_same_bytes),
        cmocka_unit_test(test_eval_is_what_answers_amount_to),
        cmocka_unit_test(test_infer_says_so_many),
        cmocka_unit_test(test_infer_formats_agree),
        cmocka_unit_test(test_infer_ways_agree),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_bad_images),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
