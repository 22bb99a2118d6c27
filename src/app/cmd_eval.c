#include "app/commands.h"

#include <stdio.h>

#include "app/evaluate.h"
#include "base/strings.h"
#include "data/split.h"
#include "lib/runner.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print the result as one JSON object", NULL, NULL, NULL},
    {"batch-size", 'b', "N", "pictures at a time", "batch", "eval.batch_size", NULL},
    {"precision", 0, "NAME", NULL, "dtype amp-dtype", "eval.precision", NULL},
};

static void print_result(const ClassifyMetrics *m, char *const *classes, size_t bad, bool json) {
    if (json) {
        JsonWriter w = {0};
        evaluate_write_json(&w, m, classes, bad);
        puts(json_writer_text(&w));
        json_writer_free(&w);
        return;
    }
    double images = (double)m->images;
    printf("%lld picture%s: top-1 %.2f %%, ", (long long)m->images, text_plural(m->images),
           100 * (double)m->top1 / images);
    if (classify_has_top5(m->classes)) printf("top-5 %.2f %%, ", 100 * (double)m->top5 / images);
    printf("loss %.4f", m->loss / images);
    printf(bad ? ", %zu unreadable\n" : "\n", bad);
}

static bool run_on(const ModelFile *model, const Cli *cli, Log *log, Err *err) {
    const Config *c = &model->config;
    Dataset data = {0};
    Loader *loader = NULL;
    Runner runner = {0};
    ClassifyMetrics metrics = {0};
    const char *split, *const *classes = (const char *const *)model->classes;
    bool ok = split_to_judge(&split, c->data.path, c->data.val, c->data.train, classes, model->class_count, err) &&
              dataset_open_folder(&data, c->data.path, split, classes, model->class_count, err);
    if (ok) {
        split_announce(&data, "validation", log);
        LoaderOptions options = config_loader(c, (int)MIN((size_t)config_eval_batch(c), data.count), false);
        options.keep_bytes = 0; /* each is used once */
        classify_metrics_init(&metrics, model->class_count);
        ok = runner_open(&runner, model, (RunnerOptions){.batch = options.batch}, err) &&
             loader_open(&loader, &options, &data, err);
    }
    if (ok) {
        size_t bad = 0;
        bool complete; /* always: a signal ends this command */
        device_announce(&runner.backend, log);
        ok = evaluate(&metrics, &runner.predictor, loader, &complete, log, err);
        report_bad(loader, &bad, log);
        ok = ok && evaluate_finite(&metrics, model->file.path, err);
        if (ok) print_result(&metrics, model->classes, bad, cli_flag(cli, "json") != NULL);
    }
    if (metrics.classes) classify_metrics_free(&metrics);
    runner_close(&runner);
    loader_close(loader);
    dataset_close(&data);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    ModelFile model;
    const char *path;
    if (!cli_weights(cli, &path, 1, err) ||
        !model_file_open(&model, path, cli->config, cli->overrides, cli->override_count, log, err)) return false;
    bool ok = model_file_has_classifier(&model, err) && config_check_data(&model.config, err) &&
              config_check_tensors(&model.file, &model.config, err) && run_on(&model, cli, log, err);
    model_file_close(&model);
    return ok;
}

const CliCommand command_eval = {.name = "eval",
                                 .also = "val validate test",
                                 .arguments = "[WEIGHTS]",
                                 .summary = "measure a network on the validation pictures of a data set",
                                 .flags = flags,
                                 .flag_count = COUNTOF(flags),
                                 .uses = USES_NETWORK "," USES_WEIGHTS "," USES_DEVICE
                                         ",input.*,data.path,data.val,data.workers,data.on_bad_image,data.max_bad,"
                                         "eval.*,train.batch_size",
                                 .run = run};
