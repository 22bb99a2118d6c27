#include "app/commands.h"

#include <stdio.h>

#include "base/cpus.h"
#include "base/strings.h"
#include "data/synth.h"

static const CliFlag flags[] = {
    {"train", 0, "N", "training pictures a kind (500)", NULL, NULL, NULL},
    {"val", 0, "N", "validation pictures a kind (50)", NULL, NULL, NULL},
    {"scenes", 0, "N", "training pictures of several objects (240); a quarter as many for validation", NULL, NULL,
     NULL},
    {"size", 0, "N", "shorter side of the pictures (72)", "img-size imgsz", NULL, NULL},
    {"seed", 0, "N", "the same seed gives the same bytes (0)", NULL, NULL, NULL},
    {"threads", 't', "N", "threads; all usable CPUs without it", NULL, NULL, NULL},
};

static void show_progress(void *arg, int done, int total) {
    (void)total;
    progress_update(arg, done, NULL);
}

static bool run(const Cli *cli, Log *log, Err *err) {
    if (cli->argument_count != 1)
        return err_set(err, EXIT_USAGE, "command line: synth takes one directory to write to - mala synth DIR");
    SynthOptions o = synth_defaults();
    o.dir = cli->arguments[0];
    o.threads = cpus_usable();
    int64_t train = o.train_per_class, val = o.val_per_class, scenes = o.train_scenes, size = o.size;
    int64_t threads = o.threads, seed = (int64_t)o.seed;
    if (!cli_flag_int(cli, "train", &train, 0, 99999, err) || !cli_flag_int(cli, "val", &val, 0, 99999, err) ||
        !cli_flag_int(cli, "scenes", &scenes, 0, 99999, err) || !cli_flag_int(cli, "size", &size, 32, 1024, err) ||
        !cli_flag_int(cli, "seed", &seed, 0, INT64_MAX, err) || !cli_flag_int(cli, "threads", &threads, 1, 1024, err))
        return false;
    if (cli_flag(cli, "scenes")) o.val_scenes = (int)(scenes / 4);
    o.train_per_class = (int)train, o.val_per_class = (int)val, o.train_scenes = (int)scenes, o.size = (int)size;
    o.seed = (uint64_t)seed, o.threads = (int)threads;
    int total = (o.train_per_class + o.val_per_class) * synth_class_count() + o.train_scenes + o.val_scenes;
    double start = time_now();
    progress_begin(log, "rendering", total, "pictures");
    bool ok = synth_write(&o, show_progress, log, err);
    progress_end(log);
    if (ok)
        log_info(log, "%s: %d picture%s of %d kinds in %.1f s", o.dir, total, text_plural(total),
                 synth_class_count(), time_now() - start);
    return ok;
}

const CliCommand command_synth = {.name = "synth",
                                  .arguments = "DIR",
                                  .summary = "make a data set of rendered photographs to try everything on",
                                  .flags = flags,
                                  .flag_count = COUNTOF(flags),
                                  .run = run};
