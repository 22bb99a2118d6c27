/* cmd_import.c - mala import FILE OUT: the weights of a checkpoint, and what is known about them, in a safetensors file
 * that needs nothing beside it; or, with a name in .pth, the weights for PyTorch. Bits and types stay as they are.
 * Nothing in FILE is run, and only OUT is written. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/export.h"
#include "base/file.h"
#include "base/strings.h"
#include "data/list.h"
#include "io/pth.h"
#include "lib/class_names.h"
#include "lib/model_write.h"

#define MAX_CLASSES_FILE ((size_t)16 << 20)

static const CliFlag flags[] = {
    {"key", 0, "NAME", "of OUT.pth: its weights are torch.load(OUT)[NAME]: model (default), state_dict, model_ema, "
     "state_dict_ema, or '' for the weights alone", NULL, NULL, NULL},
    {"classes", 0, "FILE", "names of the classes, one a line", "class-names names", NULL, NULL},
    CLI_FORCE,
};

/* The lines of a text, but for empty ones, become the names of the classes: those of a run's classes.txt, too. */
static bool read_classes(ModelFile *m, const char *path, Err *err) {
    uint8_t *bytes;
    size_t count;
    if (!file_read(&bytes, &count, path, MAX_CLASSES_FILE, err)) return false;
    bool ok = json_utf8_valid((const char *)bytes, count) || err_set(err, EXIT_INPUT, "%s: is not UTF-8 text", path);
    ListReader lines = list_reader(path, bytes, count, NULL);
    const char *line;
    model_classes_free(m->classes, m->class_count);
    m->classes = NULL, m->class_count = 0, m->named = true;
    while (ok && (ok = list_next(&lines, &line, err)) && line) {
        m->classes = mem_resize(m->classes, (size_t)m->class_count + 1, sizeof *m->classes);
        m->classes[m->class_count] = mem_strdup(line);
        text_unprintable(m->classes[m->class_count++]);
    }
    free(bytes);
    return ok && class_names_check(m->classes, m->class_count, path, err);
}

/* Names must be as many as the head has outputs, otherwise every answer would be wrong. */
static bool name_classes(ModelFile *m, const char *path, Err *err) {
    const StoredTensor *head = tensor_file_find(&m->file, "head.weight");
    if ((m->described && !model_file_has_classifier(m, err)) || !read_classes(m, path, err)) return false;
    if (!head || head->rank == 0 || head->shape[0] == m->class_count) return true;
    return err_set(err, EXIT_INPUT, "%s: names %d classes, head.weight in %s has %lld", path, m->class_count,
                   m->file.path, (long long)head->shape[0]);
}

/* With an architecture known: every tensor has to be one of its own. */
static bool check_model(const ModelFile *model, Err *err) {
    ExportOptions form = {.form = model->class_count ? EXPORT_CLASSIFIER : EXPORT_BACKBONE};
    Backend backend = {0};
    ExportModel checked = {0};
    bool ok = backend_open_cpu(&backend, 1, err) && export_open(&checked, model, &backend, form, err);
    if (ok) export_close(&checked);
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

/* A name promises what is in the file. */
static bool format_of(ModelFormat *out, const char *path, Err *err) {
    const char *dot = strrchr(path, '.');
    const bool pth = dot && (strcmp(dot, ".pth") == 0 || strcmp(dot, ".pt") == 0);
    *out = pth ? MODEL_PTH : MODEL_SAFETENSORS;
    return pth || (dot && strcmp(dot, ".safetensors") == 0) ||
           err_set(err, EXIT_USAGE, "%s: import writes .safetensors or .pth - name it so (ONNX and hubs: mala export)",
                   path);
}

/* Where the weights go in a .pth: where they are found again. */
static bool check_key(const char *key, ModelFormat format, Err *err) {
    if (!key) return true;
    if (format != MODEL_PTH) return err_set(err, EXIT_USAGE, "command line: --key is for OUT.pth - leave it out");
    return !key[0] || pth_is_part(key) ||
           err_set(err, EXIT_USAGE, "command line: --key: \"%s\" is none of model, state_dict, model_ema, "
                   "state_dict_ema or '', where weights are looked for", key);
}

static bool write_file(const ModelFile *model, ModelFormat format, const Cli *cli, Log *log, Err *err) {
    const TensorFile *file = &model->file;
    const char *out = cli->arguments[1];
    ModelWriteOptions options = {.format = format, .key = cli_flag(cli, "key"),
                                 .only_new = !cli_flag(cli, "force")};
    if (!model_write(out, file->tensors, file->tensor_count, model, &options, err)) return false;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const StoredTensor *t = &file->tensors[i];
        char shape[STORED_MAX_RANK * 21 + 1] = "";
        for (int k = 0, used = 0; k < t->rank; k++)
            used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%lld", k ? "x" : "", (long long)t->shape[k]);
        log_debug(log, "%s %s %s", t->name, stored_type_name(t->dtype), shape);
    }
    char *name = text_printable_new(out);
    printf("%s: %zu tensors, %lld parameters\n", name, file->tensor_count, (long long)parameters(file));
    free(name);
    return true;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    const char *names = cli_flag(cli, "classes"), *key = cli_flag(cli, "key");
    if (cli->argument_count != 2)
        return err_set(err, EXIT_USAGE, "command line: import takes a file of weights and one to write - mala import "
                       "FILE.pth OUT.safetensors");
    ModelFormat format;
    ModelFile model;
    if (!format_of(&format, cli->arguments[1], err) || !check_key(key, format, err)) return false;
    if (!cli_may_write(cli, cli->arguments[1], err)) return false;
    if (!model_file_open_any(&model, cli->arguments[0], cli->config, cli->overrides, cli->override_count, log, err))
        return false;
    bool ok = config_check_tensors(&model.file, &model.config, err) && (!names || name_classes(&model, names, err)) &&
              (!model.described || check_model(&model, err)) && write_file(&model, format, cli, log, err);
    model_file_close(&model);
    return ok;
}

const CliCommand command_import = {.name = "import",
                                   .also = "convert",
                                   .arguments = "FILE OUT",
                                   .summary = "turn a checkpoint into a safetensors file, or either into a .pth",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .uses = USES_NETWORK ",model.weights_ema,model.allow_missing,input.*",
                                   .run = run};
