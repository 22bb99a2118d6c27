/* cmd_infer.c - mala infer IMAGE|DIR|LIST|-: pictures in, classes out, in the order given. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/model_file.h"
#include "base/file.h"
#include "data/imagenet_names.h"

#define BATCH 2 /* pictures a run: enough to share the weights' way through the caches, few enough to stay in them */

static const CliFlag flags[] = {
    {"json", 0, NULL, "one JSON object a picture", NULL, NULL, NULL},
    {"topk", 'k', "K", "classes a picture, best first (5)", "top-k top", NULL, NULL},
    {"precision", 0, "NAME", NULL, "dtype amp-dtype", "eval.precision", NULL},
};

typedef struct {
    const ModelFile *model;
    Predictor predictor;
    EvalTransform transform;
    Resizer resizer;
    int64_t topk;
    bool json;
    Log *log;
    uint8_t *pixels;             /* [BATCH] pictures of the network's size */
    float *prob;                 /* [BATCH * classes] */
    char path[BATCH][DATASET_PATH_MAX];
    Err bad[BATCH];              /* of pictures that could not be read */
    int count;                   /* pictures waiting */
    size_t rejected, total;
    char first_bad[256];
} Infer;

static void print_json(const Infer *in, int i, const int32_t *top, const float *prob) {
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "image");
    json_write_string_n(&w, in->path[i], strlen(in->path[i]));
    if (in->bad[i].code) {
        json_write_key(&w, "error");
        json_write_string(&w, in->bad[i].text);
    } else {
        json_write_key(&w, "predictions");
        json_write_array(&w);
        for (int64_t k = 0; k < in->topk; k++) {
            json_write_object(&w);
            json_write_key(&w, "class"), json_write_int(&w, top[k]);
            json_write_key(&w, "label"), json_write_string(&w, imagenet_label(in->model->classes[top[k]]));
            json_write_key(&w, "score"), json_write_float(&w, prob[top[k]]);
            json_write_end(&w);
        }
        json_write_end(&w);
    }
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

static void print_text(const Infer *in, int i, const int32_t *top, const float *prob) {
    if (in->bad[i].code) return;
    printf("%s:", in->path[i]);
    for (int64_t k = 0; k < in->topk; k++)
        printf("%s %s %.1f %%", k ? "," : "", imagenet_label(in->model->classes[top[k]]), 100 * (double)prob[top[k]]);
    putchar('\n');
}

/* Runs what is waiting and prints it, good and bad in their order. */
static bool flush(Infer *in, Err *err) {
    int good = 0, classes = in->model->class_count;
    for (int i = 0; i < in->count; i++) good += !in->bad[i].code;
    if (good && !predictor_run(&in->predictor, NULL, in->prob, in->pixels, good, err)) return false;
    int32_t *top = mem_zalloc((size_t)in->topk, sizeof *top);
    good = 0;
    for (int i = 0; i < in->count; i++) {
        const float *prob = in->prob + (int64_t)good * classes;
        if (in->bad[i].code)
            log_error(in->log, &in->bad[i]);
        else
            classify_top(top, prob, classes, (int)in->topk), good++;
        if (in->json)
            print_json(in, i, top, prob);
        else
            print_text(in, i, top, prob);
    }
    fflush(stdout);
    free(top);
    in->count = 0;
    return true;
}

/* Reads one picture into the next good place of the batch. A bad one is kept with its reason. */
static bool add(Infer *in, const char *path, Err *err) {
    int good = 0, i = in->count;
    for (int k = 0; k < i; k++) good += !in->bad[k].code;
    snprintf(in->path[i], sizeof in->path[i], "%s", path);
    in->bad[i] = (Err){0};
    in->total++;
    Image image;
    if (image_load(&image, path, &in->bad[i])) {
        bool ok = transform_eval(&in->resizer, in->pixels + (size_t)good * in->predictor.image_bytes, &image, &in->transform,
                                 &in->bad[i]);
        image_free(&image);
        if (!ok && in->bad[i].code == EXIT_MEMORY) return err_set(err, EXIT_MEMORY, "%s", in->bad[i].text);
    }
    if (in->bad[i].code && in->rejected++ == 0) snprintf(in->first_bad, sizeof in->first_bad, "%s", path);
    in->count++;
    return in->count < BATCH || flush(in, err);
}

static bool add_lines(Infer *in, FILE *list, Err *err) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool ok = true;
    while (ok && (n = getline(&line, &room, list)) > 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n > 0) ok = add(in, line, err) && (in->count == 0 || flush(in, err));
    }
    free(line);
    return ok;
}

static bool is_list(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && (strcmp(dot, ".txt") == 0 || strcmp(dot, ".list") == 0 || strcmp(dot, ".lst") == 0);
}

static bool add_dataset(Infer *in, const Dataset *d, Err *err) {
    for (size_t i = 0; i < d->count; i++) {
        char path[DATASET_PATH_MAX];
        dataset_path(d, i, path);
        if (!add(in, path, err)) return false;
    }
    return true;
}

static bool add_argument(Infer *in, const char *argument, Err *err) {
    if (strcmp(argument, "-") == 0) return add_lines(in, stdin, err);
    bool directory = path_is_dir(argument);
    if (!directory && !is_list(argument)) return add(in, argument, err);
    Dataset data;
    if (!(directory ? dataset_open_pictures(&data, argument, err) : dataset_open_list(&data, argument, err))) return false;
    bool ok = add_dataset(in, &data, err);
    dataset_close(&data);
    return ok;
}

static bool run_on(Infer *in, const Cli *cli, Err *err) {
    for (int i = 0; i < cli->argument_count; i++)
        if (!add_argument(in, cli->arguments[i], err)) return false;
    if (in->count && !flush(in, err)) return false;
    if (in->rejected == 0) return true;
    return err_set(err, EXIT_INPUT, "%zu of %zu pictures could not be read, first %s - they are named above", in->rejected,
                   in->total, in->first_bad);
}

/* One picture on the command line is a batch of one; anything else may be many. */
static int batch_for(const Cli *cli) {
    bool single = cli->argument_count == 1 && !path_is_dir(cli->arguments[0]) && !is_list(cli->arguments[0]) &&
                  strcmp(cli->arguments[0], "-") != 0;
    return single ? 1 : BATCH;
}

static bool run_model(const ModelFile *model, const Cli *cli, Log *log, Err *err) {
    Infer in = {.model = model, .log = log, .transform = config_eval_transform(&model->config),
                .topk = MIN(5, model->class_count), .json = cli_flag(cli, "json") != NULL};
    if (!cli_flag_int(cli, "topk", &in.topk, 1, 1000000, err)) return false;
    in.topk = MIN(in.topk, model->class_count);
    Backend backend = {0};
    bool ok = config_open_backend(&backend, &model->config, err) &&
              config_set_precision(&backend, &model->config, false, err) &&
              predictor_open(&in.predictor, model, &backend, batch_for(cli), false, err);
    if (ok) {
        device_announce(&backend, log);
        in.pixels = mem_zalloc(BATCH, in.predictor.image_bytes);
        in.prob = mem_zalloc(BATCH * (size_t)model->class_count, sizeof(float));
        ok = run_on(&in, cli, err);
        predictor_close(&in.predictor);
    }
    if (backend.close) backend.close(&backend);
    resizer_free(&in.resizer);
    free(in.pixels);
    free(in.prob);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count == 0)
        return err_set(err, EXIT_USAGE, "command line: no picture given - mala infer IMAGE|DIR|LIST.txt|- --weights FILE");
    ModelFile model;
    if (!model_file_open(&model, NULL, cli->config, cli->overrides, cli->override_count, log, err)) return false;
    bool ok = run_model(&model, cli, log, err);
    model_file_close(&model);
    return ok;
}

const CliCommand command_infer = {.name = "infer",
                                  .also = "predict",
                                  .arguments = "IMAGE|DIR|LIST.txt|-...",
                                  .summary = "classify pictures; - reads paths from standard input",
                                  .flags = flags,
                                  .flag_count = COUNTOF(flags),
                                  .config = true,
                                  .run = run};
