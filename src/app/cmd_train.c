#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/trainer.h"
#include "base/strings.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print the result as one JSON object", NULL, NULL, NULL},
    {"dry-run", 'n', NULL, "check settings, data and memory, and stop before the first step", NULL, NULL, NULL},
};

static void print_result(const TrainResult *r, bool json) {
    if (!json) {
        char *name = text_printable_new(r->run);
        printf("%s: best top-1 %.2f %% (epoch %d of %d) in %.0f s\n", name, 100 * r->best_top1, r->best_epoch,
               r->epochs, r->seconds);
        free(name);
        return;
    }
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "run"), json_write_string(&w, r->run);
    json_write_key(&w, "epochs"), json_write_int(&w, r->epochs);
    json_write_key(&w, "best_top1"), json_write_double(&w, r->best_top1);
    json_write_key(&w, "best_epoch"), json_write_int(&w, r->best_epoch);
    json_write_key(&w, "top1"), json_write_double(&w, r->last_top1);
    json_write_key(&w, "loss"), json_write_double(&w, r->last_loss);
    json_write_key(&w, "seconds"), json_write_double(&w, r->seconds);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

/* command.json could not hold the command otherwise; options are checked where they are read. */
static bool check_text(const Cli *cli, Err *err) {
    return !cli->config || json_utf8_valid(cli->config, strlen(cli->config)) ||
           err_set(err, EXIT_USAGE,
                   "command line: --config: %s: the name is not UTF-8 - rename it, or give a link to it", cli->config);
}

static bool run(const Cli *cli, Log *log, Err *err) {
    Config config;
    bool ok = check_text(cli, err) &&
              config_load(&config, cli->config, cli->overrides, cli->override_count, err) &&
              config_check_training(&config, err);
    if (ok) {
        TrainResult result;
        const bool dry = cli_flag(cli, "dry-run") != NULL, json = cli_flag(cli, "json") != NULL;
        ok = train(&result, &config, cli->argc, cli->argv, dry, log, err);
        if (ok && dry)
            puts(json ? "{\"dry_run\":true}" : "dry run: settings, data and memory will do; nothing was written");
        else if (ok)
            print_result(&result, json);
        free(result.run);
    }
    config_free(&config);
    return ok;
}

const CliCommand command_train = {.name = "train",
                                  .summary = "train or fine-tune a network on folders of pictures",
                                  .flags = flags,
                                  .flag_count = COUNTOF(flags),
                                  .uses = "model.*,data.*,input.*,aug.*,optim.*,sched.*,train.*,eval.batch_size,log.*,"
                                          "output,exist_ok,device",
                                  .run = run};
