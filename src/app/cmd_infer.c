/* cmd_infer.c - mala infer IMAGE|DIR|LIST|-: pictures in, classes out, in the order given. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/predictor.h"
#include "base/file.h"
#include "data/imagenet_names.h"

/* Pictures a run. On the host: enough to share the weights' way through the caches, few enough to stay in them. On a
 * GPU: enough to fill it; the next ones are decoded meanwhile. */
enum { HOST_BATCH = 2, GPU_BATCH = 32 };

static const CliFlag flags[] = {
    {"json", 0, NULL, "one JSON object a picture", NULL, NULL, NULL},
    {"topk", 'k', "K", "classes a picture, best first (5)", "top-k top", NULL, NULL},
    {"precision", 0, "NAME", NULL, "dtype amp-dtype", "eval.precision", NULL},
};

/* Pictures of one run. */
typedef struct {
    uint8_t *pixels; /* [batch] pictures of the network's size: the good ones */
    char (*path)[DATASET_PATH_MAX];
    Err *bad; /* [batch] of pictures that could not be read */
    int count, good;
    bool queued; /* waiting to be printed */
} Group;

typedef struct {
    const ModelFile *model;
    Predictor predictor;
    EvalTransform transform;
    Resizer resizer;
    int64_t topk;
    bool json;
    Log *log;
    int batch;
    float *prob;                 /* [batch * classes] */
    Group group[2];              /* one is filled while the other is computed */
    int at;                      /* the one that is filled */
    size_t rejected, total;
    char first_bad[256];
} Infer;

static void print_json(const Infer *in, const Group *group, int i, const int32_t *top, const float *prob) {
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "image");
    json_write_string_n(&w, group->path[i], strlen(group->path[i]));
    if (group->bad[i].code) {
        json_write_key(&w, "error");
        json_write_string(&w, group->bad[i].text);
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

static void print_text(const Infer *in, const Group *group, int i, const int32_t *top, const float *prob) {
    if (group->bad[i].code) return;
    printf("%s:", group->path[i]);
    for (int64_t k = 0; k < in->topk; k++)
        printf("%s %s %.1f %%", k ? "," : "", imagenet_label(in->model->classes[top[k]]), 100 * (double)prob[top[k]]);
    putchar('\n');
}

/* Prints a group that was queued, good and bad in their order. */
static bool print_group(Infer *in, Group *g, Err *err) {
    int good = 0, classes = in->model->class_count;
    if (g->good && !predictor_read(&in->predictor, NULL, in->prob, err)) return false;
    int32_t *top = mem_zalloc((size_t)in->topk, sizeof *top);
    for (int i = 0; i < g->count; i++) {
        const float *prob = in->prob + (int64_t)good * classes;
        if (g->bad[i].code)
            log_error(in->log, &g->bad[i]);
        else
            classify_top(top, prob, classes, (int)in->topk), good++;
        if (in->json)
            print_json(in, g, i, top, prob);
        else
            print_text(in, g, i, top, prob);
    }
    fflush(stdout);
    free(top);
    g->count = g->good = 0;
    g->queued = false;
    return true;
}

/* Queues the group that was filled; prints the one before, which is filled next. */
static bool queue_group(Infer *in, Err *err) {
    Group *g = &in->group[in->at], *before = &in->group[in->at ^ 1];
    if (g->good && !predictor_queue(&in->predictor, g->pixels, g->good, err)) return false;
    g->queued = true;
    in->at ^= 1;
    return !before->queued || print_group(in, before, err);
}

/* Runs and prints all there is. */
static bool flush(Infer *in, Err *err) {
    if (in->group[in->at].count && !queue_group(in, err)) return false;
    Group *last = &in->group[in->at ^ 1];
    return !last->queued || print_group(in, last, err);
}

/* Reads one picture into the next good place of the group. A bad one is kept with its reason. */
static bool add(Infer *in, const char *path, Err *err) {
    Group *g = &in->group[in->at];
    int i = g->count;
    snprintf(g->path[i], sizeof g->path[i], "%s", path);
    g->bad[i] = (Err){0};
    in->total++;
    Image image;
    if (image_load(&image, path, &g->bad[i])) {
        bool ok = transform_eval(&in->resizer, g->pixels + (size_t)g->good * in->predictor.image_bytes, &image,
                                 &in->transform, &g->bad[i]);
        image_free(&image);
        if (!ok && g->bad[i].code == EXIT_MEMORY) return err_set(err, EXIT_MEMORY, "%s", g->bad[i].text);
    }
    if (g->bad[i].code && in->rejected++ == 0) snprintf(in->first_bad, sizeof in->first_bad, "%s", path);
    g->good += !g->bad[i].code;
    return ++g->count < in->batch || queue_group(in, err);
}

static bool add_lines(Infer *in, FILE *list, Err *err) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool ok = true;
    while (ok && (n = getline(&line, &room, list)) > 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n > 0) ok = add(in, line, err) && flush(in, err);
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
    if (!(directory ? dataset_open_pictures(&data, argument, err) : dataset_open_list(&data, argument, err)))
        return false;
    bool ok = add_dataset(in, &data, err);
    dataset_close(&data);
    return ok;
}

static bool run_on(Infer *in, const Cli *cli, Err *err) {
    for (int i = 0; i < cli->argument_count; i++)
        if (!add_argument(in, cli->arguments[i], err)) return false;
    if (!flush(in, err)) return false;
    if (in->rejected == 0) return true;
    return err_set(err, EXIT_INPUT, "%zu of %zu pictures could not be read, first %s - they are named above",
                   in->rejected, in->total, in->first_bad);
}

/* One picture on the command line is a batch of one; anything else may be many. */
static int batch_for(const Cli *cli, const Backend *b) {
    bool single = cli->argument_count == 1 && !path_is_dir(cli->arguments[0]) && !is_list(cli->arguments[0]) &&
                  strcmp(cli->arguments[0], "-") != 0;
    return single ? 1 : b->host_memory ? HOST_BATCH : GPU_BATCH;
}

static bool run_model(const ModelFile *model, const Cli *cli, Log *log, Err *err) {
    Infer in = {.model = model, .log = log, .transform = config_eval_transform(&model->config),
                .topk = MIN(5, model->class_count), .json = cli_flag(cli, "json") != NULL};
    if (!cli_flag_int(cli, "topk", &in.topk, 1, 1000000, err)) return false;
    in.topk = MIN(in.topk, model->class_count);
    Backend backend = {0};
    bool ok = config_open_backend(&backend, &model->config, err) &&
              config_set_precision(&backend, &model->config, false, err);
    in.batch = ok ? batch_for(cli, &backend) : 0;
    if (ok && (ok = predictor_open(&in.predictor, model, &backend, in.batch, false, err))) {
        device_announce(&backend, log);
        size_t batch = (size_t)in.batch;
        for (int i = 0; i < 2; i++)
            in.group[i] = (Group){.pixels = mem_zalloc(batch, in.predictor.image_bytes),
                                  .path = mem_zalloc(batch, sizeof *in.group[i].path),
                                  .bad = mem_zalloc(batch, sizeof(Err))};
        in.prob = mem_zalloc(batch * (size_t)model->class_count, sizeof(float));
        ok = run_on(&in, cli, err);
        predictor_close(&in.predictor);
    }
    if (backend.close) backend.close(&backend);
    resizer_free(&in.resizer);
    for (int i = 0; i < 2; i++) {
        free(in.group[i].pixels);
        free(in.group[i].path);
        free(in.group[i].bad);
    }
    free(in.prob);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count == 0)
        return err_set(err, EXIT_USAGE,
                       "command line: no picture given - mala infer IMAGE|DIR|LIST.txt|- --weights FILE");
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
