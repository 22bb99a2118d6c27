/* cmd_verify.c - mala verify MODEL: does this file still compute here what it did where it was written? */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/golden.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print the result as one JSON object", NULL, NULL, NULL},
    {"limit", 0, "X", "largest difference of a logit, in parts of the largest logit (1e-4)", NULL, NULL, NULL},
};

static void print_result(const GoldenResult *r, const char *path, double limit, bool json) {
    if (!json) {
        printf("%s: %d golden inputs, %d logits each: largest difference %.3g, allowed %.3g: %s\n", path, r->inputs,
               r->classes, r->difference, limit * r->magnitude, r->agree ? "verified" : "DIFFERS");
        return;
    }
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "model"), json_write_string(&w, path);
    json_write_key(&w, "inputs"), json_write_int(&w, r->inputs);
    json_write_key(&w, "classes"), json_write_int(&w, r->classes);
    json_write_key(&w, "difference"), json_write_double(&w, r->difference);
    json_write_key(&w, "largest_logit"), json_write_double(&w, r->magnitude);
    json_write_key(&w, "limit"), json_write_double(&w, limit);
    json_write_key(&w, "verified"), json_write_bool(&w, r->agree);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

static bool run(const Cli *cli, Log *log, Err *err) {
    double limit = GOLDEN_LIMIT;
    const char *path;
    if (!cli_weights(cli, &path, 1, err) || !cli_flag_double(cli, "limit", &limit, 0, 1, err)) return false;
    ModelFile model;
    if (!model_file_open(&model, path, cli->config, cli->overrides, cli->override_count, log, err)) return false;
    GoldenResult result;
    bool ok = golden_check(&result, &model, limit, err);
    if (ok) {
        print_result(&result, model.file.path, limit, cli_flag(cli, "json") != NULL);
        if (!result.agree)
            ok = err_set(err, EXIT_INPUT, "%s: its golden logits come out differently here - the file was changed, or "
                         "this machine does not compute as it should", model.file.path);
    }
    model_file_close(&model);
    return ok;
}

const CliCommand command_verify = {.name = "verify",
                                   .arguments = "[WEIGHTS]",
                                   .summary = "check that a network computes here what it did where it was written",
                                   .flags = flags,
                                   .flag_count = COUNTOF(flags),
                                   .uses = USES_NETWORK "," USES_WEIGHTS "," USES_DEVICE ",input.mean,input.std",
                                   .run = run};
