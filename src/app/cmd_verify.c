/* cmd_verify.c - mala verify MODEL: are these the bits that were written, and do they still compute here what they did
 * there? The former is known by the file's seal (io/seal.h), the latter by its golden logits (lib/golden.h). */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/golden.h"
#include "io/seal.h"
#include "base/strings.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print the result as one JSON object", NULL, NULL, NULL},
    {"limit", 0, "X", "largest difference of a logit, in parts of the largest logit (1e-4)", NULL, NULL, NULL},
};

typedef struct {
    bool sealed, computed; /* what the file carries, and what was thus compared */
    size_t tensors;
    GoldenResult golden;
} Verdict;

static void print_text(const Verdict *v, const char *path, double limit) {
    const GoldenResult *g = &v->golden;
    char *name = text_printable_new(path);
    printf("%s: %s\n", name, !v->computed || g->agree ? "verified" : "DIFFERS");
    free(name);
    if (v->sealed)
        printf("  %zu tensors and the metadata are those that were written\n", v->tensors);
    else
        puts("  carries no SHA-256 of its tensors: small changes go unseen (import writes one)");
    if (v->computed)
        printf("  %d golden inputs, %d logits each: largest difference %.2g, allowed %.2g\n", g->inputs, g->classes,
               g->difference, limit * g->magnitude);
    else
        puts("  carries no golden logits to compute");
}

static void print_json(const Verdict *v, const char *path, double limit) {
    const GoldenResult *r = &v->golden;
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_path(&w, "model", path);
    json_write_key(&w, "sealed"), json_write_bool(&w, v->sealed);
    json_write_key(&w, "tensors"), json_write_uint(&w, v->tensors);
    json_write_key(&w, "inputs"), json_write_int(&w, r->inputs);
    json_write_key(&w, "classes"), json_write_int(&w, r->classes);
    json_write_key(&w, "difference"), json_write_double(&w, r->difference);
    json_write_key(&w, "largest_logit"), json_write_double(&w, r->magnitude);
    json_write_key(&w, "limit"), json_write_double(&w, limit);
    json_write_key(&w, "verified"), json_write_bool(&w, !v->computed || r->agree);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

/* A file with neither seal nor golden logits is refused by golden_check. */
static bool verify(Verdict *out, ModelFile *m, double limit, Err *err) {
    *out = (Verdict){.sealed = seal_present(&m->file), .tensors = m->file.tensor_count};
    out->computed = !out->sealed || tensor_file_metadata(&m->file, GOLDEN_KEY);
    return config_check_tensors(&m->file, &m->config, err) &&
           (!out->computed || golden_check(&out->golden, m, limit, err));
}

static bool run(const Cli *cli, Log *log, Err *err) {
    double limit = GOLDEN_LIMIT;
    const char *path;
    if (!cli_weights(cli, &path, 1, err) || !cli_flag_double(cli, "limit", &limit, 0, 1, err)) return false;
    ModelFile model;
    if (!model_file_open(&model, path, cli->config, cli->overrides, cli->override_count, log, err)) return false;
    Verdict verdict;
    bool ok = verify(&verdict, &model, limit, err);
    if (ok) {
        (cli_flag(cli, "json") ? print_json : print_text)(&verdict, model.file.path, limit);
        if (verdict.computed && !verdict.golden.agree)
            ok = err_set(err, EXIT_INPUT, "%s: its golden logits come out differently here - %s", model.file.path,
                         verdict.sealed ? "its bits are those that were written, so it is this machine, or a setting"
                                        : "the file was changed, or this machine does not compute as it should");
    }
    model_file_close(&model);
    return ok;
}

const CliCommand command_verify = {.name = "verify",
                                   .arguments = "[WEIGHTS]",
                                   .summary = "check that a file is as it was written, and computes what it did",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .uses = USES_NETWORK "," USES_WEIGHTS "," USES_DEVICE ",input.mean,input.std",
                                   .run = run};
