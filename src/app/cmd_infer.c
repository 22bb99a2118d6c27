/* cmd_infer.c - mala infer IMAGE|DIR|LIST|-: pictures in, classes out, in the order given. Pictures go in groups: all
 * threads decode one while a GPU computes the one before. */
#include "app/answers.h"
#include "app/commands.h"
#include "app/piped.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/parallel.h"
#include "data/list.h"
#include "lib/hub.h"
#include "lib/runner.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "one JSON object a picture", NULL, NULL, NULL},
    {"csv", 0, NULL, "a heading, and a row for each class of a picture", NULL, NULL, NULL},
    {"out", 0, "FILE", "write the answers there, all of them or none", NULL, NULL, NULL},
    {"topk", 'k', "K", "classes a picture, best first (5; as many as fit a terminal's line)", "top-k top", NULL, NULL},
    {"precision", 0, "NAME", NULL, "dtype amp-dtype", "eval.precision", NULL},
    CLI_FORCE,
};

/* Pictures that are decoded side by side. */
typedef struct {
    uint8_t *pixels; /* [room] pictures of the network's size; of a bad one whatever was there */
    char (*path)[DATASET_PATH_MAX];
    Err *bad; /* [room] of pictures that could not be read */
    int count, good;
    bool queued; /* given to the device, waiting to be printed */
} Group;

typedef struct {
    const ModelFile *model;
    Runner runner;
    Resizer *resizer; /* [threads] */
    int64_t topk;
    Answers answers;
    Piped piped; /* the picture that standard input held; no bytes: none */
    Log *log;
    Team *decoders; /* the backend's own on the host */
    int threads;    /* of them */
    int room;       /* pictures of a group: those of a run on a GPU, else whole runs for all threads */
    float *prob;    /* [room * classes] */
    Group group[2]; /* one is filled while the other is computed */
    int at;         /* the one that is filled */
    const char *out; /* of --out */
    struct stat out_is; /* of what lies there before; st_nlink 0: nothing, and no input can be it */
    size_t rejected, total;
    char first_bad[256];
    bool alone;  /* there is one argument */
    bool disk_failed; /* for one of them */
    bool single; /* one picture was asked for: its error is the command's */
    Err reason;
} Infer;

static void count_rejected(Infer *in, const char *path) {
    if (in->rejected++ == 0) snprintf(in->first_bad, sizeof in->first_bad, "%s", path);
}

/* Scores that are no numbers are no answer. */
static void reject_wrong(Infer *in, Group *g) {
    for (int i = 0; i < g->count; i++) {
        if (g->bad[i].code || classify_finite(in->prob + (int64_t)i * in->model->class_count, in->model->class_count))
            continue;
        err_set(&g->bad[i], EXIT_INPUT, "%s: the scores are not finite - the weights of %s do not compute", g->path[i],
                in->model->file.path);
        count_rejected(in, g->path[i]);
    }
}

/* Prints a group that has been computed, good and bad in their order. */
static bool print_group(Infer *in, Group *g, Err *err) {
    reject_wrong(in, g);
    int32_t *top = mem_zalloc((size_t)in->topk, sizeof *top);
    for (int i = 0; i < g->count; i++) {
        const float *prob = in->prob + (int64_t)i * in->model->class_count;
        if (g->bad[i].code && in->single)
            in->reason = g->bad[i];
        else if (g->bad[i].code)
            log_error(in->log, &g->bad[i]);
        else
            classify_top(top, prob, in->model->class_count, (int)in->topk);
        answers_add(&in->answers, g->path[i], &g->bad[i], top, prob);
    }
    free(top);
    g->count = 0;
    return answers_flush(&in->answers, err);
}

/* Waits for a group on the device, and prints it. */
static bool finish_group(Infer *in, Group *g, Err *err) {
    if (!g->queued) return true;
    if (g->good && !predictor_read(&in->runner.predictor, NULL, in->prob, err)) return false;
    g->queued = false;
    return print_group(in, g, err);
}

static void decode_one(void *arg, int index, int thread) {
    Infer *in = arg;
    Group *g = &in->group[in->at];
    Image image;
    g->bad[index] = (Err){0};
    bool ok = in->piped.count ? image_decode(&image, in->piped.bytes, in->piped.count, PIPED_NAME, &g->bad[index])
                              : image_load(&image, g->path[index], &g->bad[index]);
    if (!ok) return;
    uint8_t *pixels = g->pixels + (size_t)index * in->runner.predictor.image_bytes;
    (void)transform_eval(&in->resizer[thread], pixels, &image, &in->runner.transform, &g->bad[index]);
    image_free(&image);
}

/* All threads decode the group that was filled. A bad picture is kept with its reason; only memory ends the program. */
static bool decode_group(Infer *in, Group *g, Err *err) {
    Team *before = team_use(in->decoders);
    parallel_for(g->count, decode_one, in);
    team_use(before);
    g->good = 0;
    for (int i = 0; i < g->count; i++) {
        if (g->bad[i].code == EXIT_MEMORY) return err_set(err, EXIT_MEMORY, "%s", g->bad[i].text);
        in->disk_failed = in->disk_failed || g->bad[i].code == EXIT_IO;
        if (!g->bad[i].code)
            g->good++;
        else
            count_rejected(in, g->path[i]);
    }
    return true;
}

/* Decodes the group that was filled. The host computes and prints it; a GPU is given it, and the one before, which it
 * has computed meanwhile, is printed and filled next. */
static bool run_group(Infer *in, Err *err) {
    Group *g = &in->group[in->at];
    if (!decode_group(in, g, err)) return false;
    Predictor *p = &in->runner.predictor;
    if (!p->state.backend->host_memory) {
        if (g->good && !predictor_queue(p, g->pixels, g->count, err)) return false;
        g->queued = true;
        in->at ^= 1;
        return finish_group(in, &in->group[in->at], err);
    }
    for (int i = 0; g->good && i < g->count; i += p->batch)
        if (!predictor_run(p, NULL, in->prob + (int64_t)i * p->classes, g->pixels + (size_t)i * p->image_bytes,
                           MIN(p->batch, g->count - i), err))
            return false;
    return print_group(in, g, err);
}

/* Runs and prints all there is. */
static bool flush(Infer *in, Err *err) {
    if (in->group[in->at].count && !run_group(in, err)) return false;
    return finish_group(in, &in->group[in->at ^ 1], err);
}

/* Answers never replace what they are about, --force or not: a picture, a list, the weights. */
static bool keeps_input(const Infer *in, const char *path, Err *err) {
    struct stat st;
    bool is_out = in->out_is.st_nlink && stat(path, &st) == 0 && st.st_dev == in->out_is.st_dev &&
                  st.st_ino == in->out_is.st_ino;
    return !is_out || err_set(err, EXIT_USAGE, "command line: --out %s: is read, too (%s) - give another name",
                              in->out, path);
}

static bool add(Infer *in, const char *path, Err *err) {
    if (!keeps_input(in, path, err)) return false;
    Group *g = &in->group[in->at];
    snprintf(g->path[g->count], sizeof g->path[0], "%s", path);
    in->total++;
    return ++g->count < in->room || run_group(in, err);
}

/* Paths that come at once go in groups; whoever types them gets each answer before the next path. */
static bool add_paths(Infer *in, ListReader *list, Err *err) {
    const char *path;
    const size_t before = in->total;
    bool ok;
    while ((ok = list_next(list, &path, err)) && path)
        if (!add(in, path, err) || (!piped_more(stdin) && !flush(in, err))) return false;
    return ok && (in->total > before || err_set(err, EXIT_INPUT, "%s: " DATASET_NO_PICTURE, list->name));
}

/* Standard input: a picture, or paths. */
static bool add_piped(Infer *in, Err *err) {
    uint8_t head[IMAGE_MAGIC];
    size_t count;
    if (!flush(in, err)) return false;
    setvbuf(stdin, NULL, _IONBF, 0);
    if (!piped_is_picture(head, &count, stdin)) {
        ListReader list = list_reader(PIPED_NAME, head, count, stdin);
        return add_paths(in, &list, err);
    }
    in->single = in->alone;
    bool ok = piped_read(&in->piped, head, count, stdin, err) && add(in, "-", err) && flush(in, err);
    piped_free(&in->piped);
    return ok;
}

/* By its name, unless its content is a picture. */
static bool is_list(const char *path) {
    const char *dot = strrchr(path, '.');
    if (!dot || (strcasecmp(dot, ".txt") && strcasecmp(dot, ".list") && strcasecmp(dot, ".lst"))) return false;
    uint8_t start[IMAGE_MAGIC];
    size_t count;
    bool readable;
    Err err = {0};
    return !file_read_start(start, sizeof start, &count, path, &err) || !image_format(start, count, &readable) ||
           !readable;
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
    if (strcmp(argument, "-") == 0) return keeps_input(in, "/dev/stdin", err) && add_piped(in, err);
    if (!keeps_input(in, argument, err)) return false;
    bool directory = path_is_dir(argument);
    if (!directory && !is_list(argument)) return add(in, argument, err);
    Dataset data;
    if (!(directory ? dataset_open_pictures(&data, argument, err) : dataset_open_list(&data, argument, err)))
        return false;
    passed_report(&data.passed, argument, in->log);
    bool ok = add_dataset(in, &data, err);
    dataset_close(&data);
    return ok;
}

static bool run_on(Infer *in, const Cli *cli, Err *err) {
    bool ok = true;
    for (int i = 0; ok && i < cli->argument_count; i++) ok = add_argument(in, cli->arguments[i], err);
    ok = ok && flush(in, err);
    bool any = in->total > in->rejected; /* a file without an answer is none */
    ok = ok && ((in->out && !any) || answers_commit(&in->answers, err));
    answers_discard(&in->answers);
    if (!ok) return false;
    if (in->out && any)
        log_info(in->log, "%s: answers for %zu of %zu pictures", in->out, in->total - in->rejected, in->total);
    if (in->rejected == 0) return true;
    if (in->single) return err_set(err, in->reason.code, "%s", in->reason.text);
    return err_set(err, in->disk_failed ? EXIT_IO : EXIT_INPUT,
                   "%zu of %zu pictures have no answer, first %s - they are named above",
                   in->rejected, in->total, in->first_bad);
}

/* One picture on the command line; anything else may be many. */
static bool is_single(const Cli *cli) {
    const char *first = cli->arguments[0];
    return cli->argument_count == 1 && !path_is_dir(first) && !is_list(first) && strcmp(first, "-") != 0;
}

/* Threads and memory for groups; on the host the team that computes decodes, too. */
static void open_groups(Infer *in) {
    Backend *backend = &in->runner.backend;
    const int batch = in->runner.predictor.batch;
    if (backend->host_memory) {
        backend->enter(backend);
        in->decoders = team_use(NULL);
        team_use(in->decoders);
    } else {
        in->decoders = team_new(MIN(config_threads(&in->model->config), batch));
    }
    in->threads = team_size(in->decoders);
    in->room = batch > 1 && backend->host_memory ? (int)ROUND_UP(in->threads, batch) : batch;
    size_t room = (size_t)in->room;
    for (int i = 0; i < 2; i++)
        in->group[i] = (Group){.pixels = mem_zalloc(room, in->runner.predictor.image_bytes),
                               .path = mem_zalloc(room, sizeof *in->group[i].path),
                               .bad = mem_zalloc(room, sizeof(Err))};
    in->prob = mem_zalloc(room * (size_t)in->model->class_count, sizeof(float));
    in->resizer = mem_zalloc((size_t)in->threads, sizeof *in->resizer);
}

static void close_groups(Infer *in) {
    if (!in->runner.backend.host_memory) team_free(in->decoders);
    for (int i = 0; i < in->threads; i++) resizer_free(&in->resizer[i]);
    free(in->resizer);
    for (int i = 0; i < 2; i++) {
        free(in->group[i].pixels);
        free(in->group[i].path);
        free(in->group[i].bad);
    }
    free(in->prob);
}

/* The config.json beside a hub's weights says what they are. */
static bool keeps_hub_config(const Infer *in, const char *weights, Err *err) {
    const char *slash = strrchr(weights, '/');
    if (!slash || strcmp(slash + 1, HUB_WEIGHTS) != 0) return true;
    char *folder = mem_strdup(weights);
    folder[slash - weights + 1] = '\0';
    char *config = path_join(folder, "config.json");
    bool ok = keeps_input(in, config, err);
    free(config), free(folder);
    return ok;
}

static bool run_model(const ModelFile *model, const Cli *cli, Log *log, Err *err) {
    Infer in = {.model = model, .log = log, .topk = MIN(5, model->class_count), .single = is_single(cli),
                .out = cli_flag(cli, "out")};
    if (in.out && stat(in.out, &in.out_is) != 0) in.out_is.st_nlink = 0;
    if (!keeps_input(&in, model->file.path, err) || !keeps_hub_config(&in, model->file.path, err)) return false;
    in.alone = cli->argument_count == 1;
    AnswersFormat format = cli_flag(cli, "json") ? ANSWERS_JSON : cli_flag(cli, "csv") ? ANSWERS_CSV : ANSWERS_TEXT;
    if (!cli_flag_int(cli, "topk", &in.topk, 1, 1000000, err)) return false;
    in.topk = MIN(in.topk, model->class_count);
    if (!runner_open(&in.runner, model, (RunnerOptions){.batch = in.single ? 1 : 0}, err)) return false;
    device_announce(&in.runner.backend, log);
    bool ok = answers_open(&in.answers, format, in.out, model->classes, (int)in.topk, err);
    if (ok) {
        in.answers.file.only_new = in.out && !cli_flag(cli, "force");
        bool shortened = !cli_flag(cli, "topk") && !in.out && isatty(STDOUT_FILENO);
        in.answers.columns = shortened ? terminal_columns(stdout) : 0;
        open_groups(&in);
        ok = run_on(&in, cli, err);
        close_groups(&in);
    }
    runner_close(&in.runner);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count == 0)
        return err_set(err, EXIT_USAGE,
                       "command line: no picture given - mala infer IMAGE|DIR|LIST.txt|- --weights FILE");
    if (cli_flag(cli, "json") && cli_flag(cli, "csv"))
        return err_set(err, EXIT_USAGE, "command line: --json and --csv are two formats - take one");
    ModelFile model;
    if (cli_flag(cli, "out") && !cli_may_write(cli, cli_flag(cli, "out"), err)) return false;
    if (!model_file_open(&model, NULL, cli->config, cli->overrides, cli->override_count, log, err)) return false;
    bool ok = run_model(&model, cli, log, err);
    model_file_close(&model);
    return ok;
}

const CliCommand command_infer = {.name = "infer",
                                  .also = "predict",
                                  .arguments = "IMAGE|DIR|LIST.txt|-...",
                                  .summary = "classify pictures; - is standard input: a picture, or paths",
                                  .flags = flags,
                                  .flag_count = COUNTOF(flags),
                                  .uses = USES_NETWORK "," USES_WEIGHTS "," USES_DEVICE ",input.*,eval.precision",
                                  .run = run};
