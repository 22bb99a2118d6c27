/* cmd_import.c - mala import FILE OUT: the weights of a checkpoint, and what is known about them, in a safetensors file
 * that needs nothing beside it; or, with a name in .pth, the weights for PyTorch. Bits and types stay as they are.
 * Nothing in FILE is run, and only OUT is written. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/golden.h"
#include "lib/model_metadata.h"
#include "lib/predictor.h"
#include "base/file.h"
#include "io/pth.h"
#include "io/safetensors.h"

#define MAX_CLASSES_FILE ((size_t)16 << 20)

static const CliFlag flags[] = {
    {"key", 0, "NAME", "of OUT.pth: what torch.load(OUT)[NAME] is, '' for the weights alone (model)", NULL, NULL, NULL},
    {"classes", 0, "FILE", "names of the classes, one a line", "class-names names", NULL, NULL},
};

typedef struct {
    char *text, **names;
    int count;
} Classes;

static bool read_classes(Classes *c, const char *path, Err *err) {
    uint8_t *bytes;
    size_t count;
    if (!file_read(&bytes, &count, path, MAX_CLASSES_FILE, err)) return false;
    c->text = (char *)bytes;
    if (!json_utf8_valid(c->text, count)) return err_set(err, EXIT_INPUT, "%s: is not UTF-8 text", path);
    for (char *line = c->text; line < c->text + count;) {
        char *end = line + strcspn(line, "\r\n"), *next = end + (end < c->text + count);
        *end = '\0';
        c->names = mem_resize(c->names, (size_t)c->count + 1, sizeof *c->names);
        if (*line) c->names[c->count++] = line; /* what lies between \r and \n is empty */
        line = next;
    }
    return true;
}

/* Names must be as many as the head has outputs, otherwise every answer would be wrong. */
static bool check_classes(const TensorFile *file, const Classes *c, const char *path, Err *err) {
    const StoredTensor *head = tensor_file_find(file, "head.weight");
    if (!head || head->rank == 0 || head->shape[0] == c->count) return true;
    return err_set(err, EXIT_INPUT, "%s: names %d classes, head.weight in %s has %lld", path, c->count, file->path,
                   (long long)head->shape[0]);
}

/* With an architecture named: every tensor has to be one of its own. */
static bool check_model(const ModelFile *model, Err *err) {
    Backend backend = {0};
    Predictor predictor = {0};
    bool ok = config_open_backend(&backend, &model->config, err) &&
              predictor_open(&predictor, model, &backend, 1, false, err);
    if (predictor.graph.graph) predictor_close(&predictor);
    if (backend.close) backend.close(&backend);
    return ok;
}

/* Trainable scalars: running statistics, counters and tables are none. */
static int64_t parameters(const TensorFile *file) {
    static const char *const buffers[] = {"running_mean", "running_var", "num_batches_tracked", "RoPE.angle"};
    int64_t total = 0;
    for (size_t i = 0; i < file->tensor_count; i++) {
        bool buffer = false;
        for (size_t k = 0; k < COUNTOF(buffers); k++) buffer = buffer || strstr(file->tensors[i].name, buffers[k]);
        if (!buffer) total += (int64_t)file->tensors[i].count;
    }
    return total;
}

static bool write_any(const TensorFile *file, const Config *config, const Classes *classes, const Cli *cli, Err *err) {
    const char *out = cli->arguments[1], *key = cli_flag(cli, "key"), *dot = strrchr(out, '.');
    if (dot && (strcmp(dot, ".pth") == 0 || strcmp(dot, ".pt") == 0))
        return pth_write(out, !key ? "model" : key[0] ? key : NULL, file->tensors, file->tensor_count, err);
    ModelMetadata metadata;
    model_metadata_init(&metadata, config, classes->names, classes->count,
                        &(ModelFacts){.ema = file->averaged, .license = tensor_file_metadata(file, "license")});
    bool ok = safetensors_write(out, file->tensors, file->tensor_count, metadata.pairs, metadata.count, err);
    model_metadata_free(&metadata);
    bool whole = config && !config->model.allow_missing && tensor_file_find(file, "head.weight");
    return ok && (!whole || golden_add(out, err));
}

static bool write_file(const TensorFile *file, const Config *config, const Classes *classes, const Cli *cli, Log *log,
                       Err *err) {
    if (!write_any(file, config, classes, cli, err)) return false;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const StoredTensor *t = &file->tensors[i];
        char shape[STORED_MAX_RANK * 21 + 1] = "";
        for (int k = 0, used = 0; k < t->rank; k++)
            used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%lld", k ? "x" : "", (long long)t->shape[k]);
        log_debug(log, "%s %s %s", t->name, stored_type_name(t->dtype), shape);
    }
    printf("%s: %zu tensors, %lld parameters\n", cli->arguments[1], file->tensor_count, (long long)parameters(file));
    return true;
}

static bool import(const Cli *cli, const Config *config, const Classes *classes, Log *log, Err *err) {
    const char *in = cli->arguments[0], *names = cli_flag(cli, "classes");
    if (cli->config || options_given(&config->options, "model.name") || options_given(&config->options, "model.dims")) {
        ModelFile model;
        if (!model_file_open(&model, in, cli->config, cli->overrides, cli->override_count, log, err)) return false;
        bool ok = (!names || check_classes(&model.file, classes, names, err)) && check_model(&model, err) &&
                  write_file(&model.file, &model.config, classes, cli, log, err);
        model_file_close(&model);
        return ok;
    }
    TensorFile file;
    if (!config_open_weights(&file, in, config, log, err)) return false;
    bool ok = (!names || check_classes(&file, classes, names, err)) && write_file(&file, NULL, classes, cli, log, err);
    tensor_file_close(&file);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count != 2)
        return err_set(err, EXIT_USAGE, "command line: import takes a file of weights and one to write - mala import "
                       "FILE.pth OUT.safetensors");
    Classes classes = {0};
    Config config;
    const char *names = cli_flag(cli, "classes");
    bool ok = config_load(&config, cli->config, cli->overrides, cli->override_count, err) &&
              (!names || read_classes(&classes, names, err)) && import(cli, &config, &classes, log, err);
    config_free(&config);
    free(classes.names);
    free(classes.text);
    return ok;
}

const CliCommand command_import = {.name = "import",
                                   .also = "convert",
                                   .arguments = "FILE OUT",
                                   .summary =
                                       "turn a PyTorch checkpoint into a safetensors file, or either into a .pth",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .config = true,
                                   .run = run};
