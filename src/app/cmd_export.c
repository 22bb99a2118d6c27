/* cmd_export.c - mala export [WEIGHTS] OUT: a model file for other programs. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/export.h"

static const CliFlag flags[] = {
    {"to", 0, "FORMAT", "onnx", "format", NULL, NULL},
    {"as", 0, "FORM", "classifier (default), or backbone: the four stage outputs, through extra_norms", NULL, NULL,
     NULL},
    {"size", 0, "HxW", "picture height and width, multiples of 32 (the model's own)", NULL, NULL, NULL},
    {"dynamic", 0, NULL, "ONNX: leave height and width free, too", NULL, NULL, NULL},
    {"preprocess", 0, NULL, "ONNX: take pixels u8 (batch,H,W,3), and normalise them inside", NULL, NULL, NULL},
    {"license", 0, "TEXT", "what to say of the licence of the weights", "licence", NULL, NULL},
};

static bool choose(int *out, const Cli *cli, const char *flag, const char *words, Err *err) {
    const char *given = cli_flag(cli, flag);
    if (!given) return true;
    int index = option_word_index(words, given);
    if (index < 0) return err_set(err, EXIT_USAGE, "command line: --%s: \"%s\" is none of: %s", flag, given, words);
    *out = index;
    return true;
}

/* "192x256" or "224" as an override of input.size, which checks the numbers. */
static bool size_override(char *out, size_t capacity, const Cli *cli, Err *err) {
    const char *given = cli_flag(cli, "size");
    size_t height = strspn(given, "0123456789");
    bool square = height > 0 && given[height] == '\0';
    const char *second = square ? given : given + height + 1;
    size_t width = given[height] == 'x' ? strspn(second, "0123456789") : square ? height : 0;
    if (height == 0 || width == 0 || second[width] != '\0' || height > 6 || width > 6)
        return err_set(err, EXIT_USAGE, "command line: --size: \"%s\" is no HxW - for example 224x224", given);
    snprintf(out, capacity, "input.size=[%.*s,%.*s]", (int)height, given, (int)width, second);
    return true;
}

static bool open_file(ModelFile *out, const Cli *cli, Log *log, Err *err) {
    char size[64];
    const char *path = cli->argument_count > 1 ? cli->arguments[0] : NULL;
    int count = cli->override_count;
    if (!cli_flag(cli, "size")) return model_file_open(out, path, cli->config, cli->overrides, count, log, err);
    if (!size_override(size, sizeof size, cli, err)) return false;
    char **overrides = mem_zalloc((size_t)count + 1, sizeof *overrides);
    for (int i = 0; i < count; i++) overrides[i] = cli->overrides[i];
    overrides[count] = size;
    bool ok = model_file_open(out, path, cli->config, overrides, count + 1, log, err);
    free(overrides);
    return ok;
}

static bool run_model(const ModelFile *file, const Cli *cli, Err *err) {
    const char *path = cli->arguments[cli->argument_count - 1];
    int form = EXPORT_CLASSIFIER, format = 0;
    if (!choose(&format, cli, "to", "onnx", err) || !choose(&form, cli, "as", "classifier backbone", err)) return false;
    ExportModel model;
    Backend backend = {0};
    ExportOptions options = {.form = (ExportForm)form, .preprocess = cli_flag(cli, "preprocess") != NULL};
    if (!backend_open_cpu(&backend, 1, err)) return false;
    bool ok = export_open(&model, file, &backend, options, err);
    if (ok) {
        ok = export_onnx(path, &model, file, cli_flag(cli, "dynamic") != NULL, cli_flag(cli, "license"), err);
        export_close(&model);
    }
    if (backend.close) backend.close(&backend);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count < 1 || cli->argument_count > 2)
        return err_set(err, EXIT_USAGE,
                       "command line: export takes [WEIGHTS] and the file to write - mala export best.safetensors "
                       "model.onnx");
    ModelFile file;
    if (!open_file(&file, cli, log, err)) return false;
    bool ok = run_model(&file, cli, err);
    model_file_close(&file);
    return ok;
}

const CliCommand command_export = {.name = "export",
                                   .arguments = "[WEIGHTS] OUT",
                                   .summary = "write a network for other programs",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .config = true,
                                   .run = run};
