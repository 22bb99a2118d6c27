/* cmd_export.c - mala export [WEIGHTS] OUT: a model file for other programs. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/export_weights.h"
#include "base/file.h"
#include "base/strings.h"
#include "lib/hub.h"
#include "lib/model_file.h"

static const CliFlag flags[] = {
    {"to", 0, "FORMAT", "onnx, safetensors, pth or hf, a folder for a model hub (by OUT's name)", "format", NULL, NULL},
    {"as", 0, "FORM", "classifier (default), or backbone: the four stage outputs, through extra_norms", NULL, NULL,
     NULL},
    {"dtype", 0, "TYPE", "of the weights, but not in ONNX: float32 (default), bfloat16 or float16", "precision", NULL,
     NULL},
    {"verify", 0, "DIR", "compare export and original on the pictures of DIR; not for ONNX", NULL, NULL, NULL},
    {"limit", 0, "X",
     "of --verify: largest difference, in parts of the largest logit (1e-5; bfloat16 0.1, float16 0.01)", NULL, NULL,
     NULL},
    {"size", 0, "HxW", "picture height and width, multiples of 32 (the model's own)", NULL, NULL, NULL},
    {"dynamic", 0, NULL, "ONNX: leave height and width free, too", NULL, NULL, NULL},
    {"preprocess", 0, NULL, "ONNX: take pixels u8 (batch,H,W,3), and normalise them inside", NULL, NULL, NULL},
    {"license", 0, "TEXT", "what to say of the licence of the weights", "licence", NULL, NULL},
    CLI_FORCE,
};

typedef enum { TO_SAFETENSORS = WEIGHTS_SAFETENSORS, TO_PTH = WEIGHTS_PTH, TO_HUB = WEIGHTS_HUB, TO_ONNX } Format;
#define FORMATS "safetensors pth|pt hf|hub|huggingface onnx" /* in that order */

/* In the order of `types`. */
#define DTYPES "float32|fp32|f32 bfloat16|bf16 float16|fp16|f16|half"
static const struct {
    StoredType type;
    double limit;
} types[] = {{STORED_F32, 1e-5}, {STORED_BF16, 0.1}, {STORED_F16, 0.01}};

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
    const char *path;
    int count = cli->override_count;
    if (!cli_weights(cli, &path, 2, err)) return false;
    if (!cli_flag(cli, "size")) return model_file_open(out, path, cli->config, cli->overrides, count, log, err);
    if (!size_override(size, sizeof size, cli, err)) return false;
    char **overrides = mem_zalloc((size_t)count + 1, sizeof *overrides);
    for (int i = 0; i < count; i++) overrides[i] = cli->overrides[i];
    overrides[count] = size;
    bool ok = model_file_open(out, path, cli->config, overrides, count + 1, log, err);
    free(overrides);
    return ok;
}

/* The format that OUT's name tells. */
static bool guess_format(int *out, const char *path, Err *err) {
    static const struct {
        const char *end;
        Format format;
    } ends[] = {{".onnx", TO_ONNX}, {".safetensors", TO_SAFETENSORS}, {".pth", TO_PTH}, {".pt", TO_PTH}, {"/", TO_HUB}};
    size_t length = strlen(path);
    for (size_t i = 0; i < COUNTOF(ends); i++) {
        size_t n = strlen(ends[i].end);
        if (length <= n || strcmp(path + length - n, ends[i].end) != 0) continue;
        *out = ends[i].format;
        return true;
    }
    if (path_is_dir(path)) {
        *out = TO_HUB;
        return true;
    }
    return err_set(err, EXIT_USAGE, "%s: this name tells no format - add --to onnx, safetensors, pth or hf", path);
}

typedef struct {
    const char *path;
    int format, form, dtype; /* Format, ExportForm, index in types */
    double limit;            /* of --verify */
} Export;

static bool read_flags(Export *e, const Cli *cli, Err *err) {
    *e = (Export){.path = cli->arguments[cli->argument_count - 1], .form = EXPORT_CLASSIFIER};
    bool ok = cli_flag(cli, "to") ? choose(&e->format, cli, "to", FORMATS, err)
                                  : guess_format(&e->format, e->path, err);
    ok = ok && choose(&e->form, cli, "as", "classifier backbone", err) && choose(&e->dtype, cli, "dtype", DTYPES, err);
    if (!ok) return false;
    e->limit = types[e->dtype].limit;
    if (!cli_flag_double(cli, "limit", &e->limit, 0, 1, err)) return false;
    if (cli_flag(cli, "limit") && !cli_flag(cli, "verify"))
        return err_set(err, EXIT_USAGE, "command line: --limit is for --verify - leave it out");
    if (e->format == TO_ONNX && e->dtype != 0)
        return err_set(err, EXIT_USAGE, "command line: --dtype: ONNX is written in float32 - leave it out");
    if (e->format == TO_ONNX && cli_flag(cli, "verify"))
        return err_set(err, EXIT_USAGE, "command line: --verify: mala runs no ONNX - scripts/verify_onnx.py compares");
    if (e->form == EXPORT_BACKBONE && cli_flag(cli, "verify"))
        return err_set(err, EXIT_USAGE, "command line: --verify: a backbone has no logits to compare - leave it out");
    if (e->format != TO_ONNX && (cli_flag(cli, "dynamic") || cli_flag(cli, "preprocess")))
        return err_set(err, EXIT_USAGE, "command line: --dynamic and --preprocess are for ONNX - leave them out");
    const char *license = cli_flag(cli, "license");
    if (license && !json_utf8_valid(license, strlen(license)))
        return err_set(err, EXIT_USAGE, "command line: --license: the text is not UTF-8 - type it as such");
    return true;
}

static bool write_onnx(const Export *e, ExportModel *model, const ModelFile *file, const Cli *cli, Err *err) {
    FileWriter out;
    if (!file_writer_open(&out, e->path, err)) return false;
    out.only_new = !cli_flag(cli, "force");
    bool ok = export_onnx(out.temporary, model, file, cli_flag(cli, "dynamic") != NULL, cli_flag(cli, "license"), err);
    return ok ? file_writer_commit(&out, err) : file_writer_fail(&out, err);
}

/* ---- --verify ---- */

typedef struct {
    const Export *export;
    const ModelFile *original;
    const char *folder;
    Log *log;
    ExportComparison result; /* no pictures: there was none */
} Verification;

/* Asked before anything is written. */
static bool check_pictures(const char *folder, Err *err) {
    Dataset pictures;
    if (!dataset_open_pictures(&pictures, folder, err)) return false;
    dataset_close(&pictures);
    return true;
}

/* What differs never replaces what is there. */
static bool judge(void *arg, const char *path, Err *err) {
    Verification *v = arg;
    const Export *e = v->export;
    ExportComparison c;
    if (!export_compare(&c, path, v->original, v->folder, v->log, err)) return false;
    v->result = c;
    return c.difference <= e->limit * c.magnitude || /* never with a NaN */
           err_set(err, EXIT_INPUT, "%s: differs from the original by more than --limit allows, and was not "
                   "written - take another --dtype", e->path);
}

static void print_comparison(const Verification *v) {
    const ExportComparison *c = &v->result;
    if (c->pictures == 0) return;
    printf("%lld picture%s: largest difference of a logit %.3g, allowed %.3g\ntop-1 the same in %.2f %%\n",
           (long long)c->pictures, text_plural(c->pictures), c->difference, v->export->limit * c->magnitude,
           100 * (double)c->same_top1 / (double)c->pictures);
}

/* ---- writing ---- */

static bool write_export(const Export *e, const ModelFile *file, Verification *v, const Cli *cli, Err *err) {
    ExportModel model;
    Backend backend = {0};
    ExportOptions options = {.form = (ExportForm)e->form, .preprocess = cli_flag(cli, "preprocess") != NULL};
    if (!backend_open_cpu(&backend, 1, err)) return false;
    bool golden = e->format != TO_ONNX && e->form == EXPORT_CLASSIFIER;
    bool ok = (golden || export_check_computes(file, &backend, options.form, err)) &&
              export_open(&model, file, &backend, options, err);
    if (ok) {
        WeightsExport weights = {.format = (WeightsFormat)e->format,
                                 .dtype = types[e->dtype].type,
                                 .license = cli_flag(cli, "license"),
                                 .only_new = !cli_flag(cli, "force"),
                                 .judge = v->folder ? judge : NULL,
                                 .judge_arg = v};
        ok = e->format == TO_ONNX ? write_onnx(e, &model, file, cli, err)
                                  : export_weights(e->path, &model, file, &weights, err);
        export_close(&model);
    }
    if (backend.close) backend.close(&backend);
    return ok;
}

static bool holds(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* A folder's files are those of hub.h. Its config.json would take the place of a run's, without which the run cannot be
 * told or trained again: --force is not meant for that. */
static bool may_write(const Export *e, const Cli *cli, Err *err) {
    if (e->format != TO_HUB) return cli_may_write(cli, e->path, err);
    if (holds(e->path, RUN_BEST) || holds(e->path, RUN_LAST))
        return err_set(err, EXIT_USAGE, "%s: is a run's folder, whose config.json would be lost - name another folder",
                       e->path);
    char *weights = path_join(e->path, HUB_WEIGHTS), *config = path_join(e->path, "config.json");
    bool ok = cli_may_write(cli, weights, err) && cli_may_write(cli, config, err);
    free(weights), free(config);
    return ok;
}

static bool print_written(const Export *e, const ModelFile *file, Err *err) {
    static const char *const formats[] = {"safetensors", "PyTorch weights", "hub folder", "ONNX"};
    FileReader written;
    char *name = text_printable_new(e->path), *inside = path_join(e->path, HUB_WEIGHTS), what[40], dtype[16];
    const int *size = file->config.input.size;
    bool ok = file_reader_open(&written, e->format == TO_HUB ? inside : e->path, err);
    snprintf(what, sizeof what, e->form == EXPORT_BACKBONE ? "backbone" : "%d classes", file->class_count);
    option_word(dtype, sizeof dtype, DTYPES, e->dtype);
    if (ok)
        printf("%s: %s, %s, %dx%d, %s, %.1f MB\n", name, formats[e->format], what, size[0], size[1], dtype,
               (double)written.count / 1e6);
    if (ok) file_reader_close(&written);
    free(name), free(inside);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count < 1 || cli->argument_count > 2)
        return err_set(err, EXIT_USAGE,
                       "command line: export takes [WEIGHTS] and the file to write - mala export best.safetensors "
                       "model.onnx");
    Export e;
    ModelFile file;
    Verification v = {.export = &e, .original = &file, .folder = cli_flag(cli, "verify"), .log = log};
    if (!read_flags(&e, cli, err) || !may_write(&e, cli, err) || (v.folder && !check_pictures(v.folder, err)) ||
        !open_file(&file, cli, log, err))
        return false;
    bool ok = config_check_tensors(&file.file, &file.config, err) && write_export(&e, &file, &v, cli, err);
    ok = ok && print_written(&e, &file, err);
    print_comparison(&v);
    model_file_close(&file);
    return ok;
}

const CliCommand command_export = {.name = "export",
                                   .arguments = "[WEIGHTS] OUT",
                                   .summary = "write a network for other programs",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .uses = USES_NETWORK "," USES_WEIGHTS "," USES_DEVICE ",input.*",
                                   .run = run};
