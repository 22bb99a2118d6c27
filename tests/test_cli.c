/* test_cli.c - the command line: flags in every spelling, what they become, every refusal, and the shape of help. */
#include "app/commands.h"
#include "lib/config.h"
#include "base/file.h"
#include "base/strings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "scratch.h"

static const CliFlag infer_flags[] = {
    {"topk", 'k', "N", "classes to print", NULL, NULL, NULL},
    {"json", 0, NULL, "one JSON object per line", NULL, NULL, NULL},
};

static const CliCommand commands[] = {
    {"train", NULL, NULL, "Trains a classifier.", NULL, 0,
     "model.*,data.*,input.size,optim.*,sched.*,train.*,output,exist_ok,device", NULL},
    {"infer", "predict", "IMAGE...", "Classifies images.", infer_flags, COUNTOF(infer_flags),
     "model.weights,optim.lr", NULL},
    {"doctor", "checks env", NULL, "Says what this machine has.", NULL, 0, NULL, NULL},
};

/* Parses words apart by spaces; the words live until the next call. */
static bool parse(Cli *cli, const char *line, Err *err) {
    static char text[400];
    static char *words[40];
    int count = 1;
    snprintf(text, sizeof text, "%s", line);
    words[0] = "mala";
    for (char *rest = text, *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word) words[count++] = word;
    *err = (Err){0};
    return cli_parse(cli, commands, COUNTOF(commands), count, words, err);
}

static const char *error_of(const char *line) {
    static Err err;
    Cli cli;
    bool ok = parse(&cli, line, &err);
    cli_free(&cli);
    if (ok) return "accepted";
    assert_int_equal(err.code, EXIT_USAGE);
    return err.text;
}

#define FAILS(line, message) assert_string_equal(error_of(line), "command line: " message)

/* Does the line give exactly these overrides, apart by spaces? */
static void assert_overrides(const char *line, const char *expected) {
    Cli cli;
    Err err;
    char text[400] = "";
    assert_true(parse(&cli, line, &err));
    for (int i = 0; i < cli.override_count; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s", i ? " " : "", cli.overrides[i]);
    }
    assert_string_equal(text, expected);
    cli_free(&cli);
}

static void test_spellings(void **state) {
    (void)state;
    assert_overrides("train --lr 1e-3", "optim.lr=1e-3");
    assert_overrides("train --lr=1e-3", "optim.lr=1e-3");
    assert_overrides("train --batch-size 4 --batch_size=5 -b 6 -b7 -b=8",
                     "train.batch_size=4 train.batch_size=5 train.batch_size=6 train.batch_size=7 train.batch_size=8");
    assert_overrides("train optim.lr=1 --lr 2 optim.lr=3", "optim.lr=1 optim.lr=2 optim.lr=3");
    assert_overrides("train --set optim.lr=1 --set=optim.eps=2", "optim.lr=1 optim.eps=2");
    assert_overrides("train --model-ema --no-model-ema", "train.ema=true train.ema=false");
    assert_overrides("train --wd -1", "optim.weight_decay=-1");
    assert_overrides("train --lr -.5", "optim.lr=-.5");
    assert_overrides("train --data a=b", "data.path=a=b");
    assert_overrides("train --exist_ok", "exist_ok=true");
    assert_overrides("train --imgsz 64 --output_dir x --data-path d --pretrained w",
                     "input.size=64 output=x data.path=d "
                     "model.weights=w");
    assert_overrides("train --allow-missing head.* --lr 1 --allow-missing=a,b",
                     "model.allow_missing=head.*,a,b optim.lr=1");
    assert_overrides("train --precision bf16", "train.precision=bf16");
    assert_overrides("train -j 2 -t 1 --seed 3 --device cpu", "data.workers=2 train.threads=1 train.seed=3 device=cpu");
}

/* Every flag that stands for an option must name one, and take a value that it can hold. */
static void test_flags_fit_options(void **state) {
    (void)state;
    for (int i = 0; i < cli_config_flag_count; i++) {
        const CliFlag *f = &cli_config_flags[i];
        if (!f->key) continue;
        assert_non_null(option_find(config_table, config_table_count, f->key));
        assert_true(!f->argument == !!f->value);
        if (!f->value) continue;
        char override[80], *list[] = {override};
        Config c;
        Err err = {0};
        snprintf(override, sizeof override, "%s=%s", f->key, f->value);
        assert_true(config_load(&c, NULL, list, 1, &err));
        config_free(&c);
    }
}

static void test_arguments(void **state) {
    (void)state;
    Cli cli;
    Err err;
    assert_true(parse(&cli, "predict a.jpg -qk 3 - ./b=c.jpg --json optim.lr=1 -- --d x=y", &err));
    assert_string_equal(cli.command->name, "infer");
    assert_int_equal(cli.argument_count, 5);
    static const char *const expected[] = {"a.jpg", "-", "./b=c.jpg", "--d", "x=y"};
    for (int i = 0; i < 5; i++) assert_string_equal(cli.arguments[i], expected[i]);
    assert_int_equal(cli.override_count, 1);
    assert_string_equal(cli_flag(&cli, "topk"), "3");
    assert_string_equal(cli_flag(&cli, "json"), "");
    assert_int_equal(cli.level, LOG_ERROR);
    int64_t k = 5, other = 7;
    assert_true(cli_flag_int(&cli, "topk", &k, 1, 10, &err));
    assert_int_equal(k, 3);
    assert_true(cli_flag_int(&cli, "other", &other, 1, 10, &err));
    assert_int_equal(other, 7);
    assert_false(cli_flag_int(&cli, "topk", &k, 4, 10, &err));
    assert_string_equal(err.text, "command line: --topk: 3 is out of range - allowed: 4 to 10");
    cli_free(&cli);

    assert_true(parse(&cli, "infer --topk 3x", &err));
    assert_null(cli_flag(&cli, "json"));
    assert_false(cli_flag_int(&cli, "topk", &k, 1, 10, &err));
    assert_string_equal(err.text, "command line: --topk: expected a whole number, found \"3x\"");
    cli_free(&cli);
}

static void test_common_flags(void **state) {
    (void)state;
    Cli cli;
    Err err;
    assert_true(parse(&cli, "train --config a.json -v --color always", &err));
    assert_string_equal(cli.config, "a.json");
    assert_int_equal(cli.level, LOG_DEBUG);
    assert_int_equal(cli.color, COLOR_ALWAYS);
    assert_int_equal(cli.action, CLI_RUN);
    cli_free(&cli);
    assert_true(parse(&cli, "doctor --no_color --help", &err));
    assert_int_equal(cli.color, COLOR_NEVER);
    assert_int_equal(cli.action, CLI_HELP);
    cli_free(&cli);
    assert_true(parse(&cli, "--version", &err));
    assert_int_equal(cli.action, CLI_VERSION);
    cli_free(&cli);
    static const char *const lists[] = {"help help", "help version", "help -h", "-h --help", "version --help"};
    for (size_t i = 0; i < COUNTOF(lists); i++) { /* the two that are no commands of a table are in its list */
        assert_true(parse(&cli, lists[i], &err));
        assert_int_equal(cli.action, CLI_HELP);
        assert_null(cli.command);
        assert_false(cli.help_config);
        cli_free(&cli);
    }
    assert_true(parse(&cli, "help env", &err));
    assert_int_equal(cli.action, CLI_HELP);
    assert_string_equal(cli.command->name, "doctor");
    cli_free(&cli);
}

static void test_refusals(void **state) {
    (void)state;
    FAILS("", "no command - 'mala help' lists them");
    FAILS("trian", "unknown command \"trian\" - did you mean \"train\"?");
    FAILS("zebra", "unknown command \"zebra\" - 'mala help' lists them");
    FAILS("help trian", "unknown command \"trian\" - did you mean \"train\"?");
    FAILS("verson", "unknown command \"verson\" - did you mean \"version\"?");
    FAILS("help train eval", "unexpected \"eval\" - 'mala help' lists the commands");
    FAILS("help config x", "unexpected \"x\" - 'mala help' lists the commands");
    FAILS("version x", "unexpected \"x\" - 'mala help' lists the commands");
    FAILS("--version --help x", "unexpected \"x\" - 'mala help' lists the commands");
    FAILS("--lr 1 train", "\"--lr\" where a command belongs - 'mala help' lists them");
    FAILS("train --epoch 3", "unknown flag \"--epoch\" - did you mean \"--epochs\"?");
    FAILS("train --epoch=3", "unknown flag \"--epoch\" - did you mean \"--epochs\"?");
    FAILS("train --zebra-stripes", "unknown flag \"--zebra-stripes\" - 'mala help train' lists what there is");
    FAILS("train --optim.lr 3", "unknown flag \"--optim.lr\" - config options have no dashes: optim.lr=VALUE");
    FAILS("train -z", "unknown flag \"-z\" - 'mala help train' lists what there is");
    FAILS("train --lr", "--lr needs a value: --lr X");
    FAILS("train --lr=", "--lr needs a value: --lr X");
    FAILS("train --lr --epochs 3", "--lr needs a value: --lr X");
    FAILS("train -b", "--batch-size needs a value: --batch-size N");
    FAILS("train --model-ema=1", "--model-ema takes no value");
    FAILS("train --config a --config b", "--config given twice - a config may name another as its \"base\"");
    FAILS("train --color pink", "--color: \"pink\" is none of auto, always, never");
    FAILS("train --set lr", "--set: \"lr\" is no KEY=VALUE");
    FAILS("train photo.jpg", "unexpected \"photo.jpg\" - 'mala help train' shows what it takes");
    FAILS("doctor optim.lr=1", "unexpected \"optim.lr=1\" - 'mala help doctor' shows what it takes");
    FAILS("doctor --lr 1", "unknown flag \"--lr\" - 'mala help doctor' lists what there is");
}

static char *help_of(const char *line, int columns) {
    Cli cli;
    Err err;
    char *text = NULL;
    size_t size = 0;
    assert_true(parse(&cli, line, &err));
    FILE *out = open_memstream(&text, &size);
    cli_help(out, &cli, commands, COUNTOF(commands), columns);
    fclose(out);
    cli_free(&cli);
    return text;
}

static void test_help(void **state) {
    (void)state;
    static const char *const lines[] = {"help", "help train", "infer --help", "help config", "help doctor"};
    static const int widths[] = {300, 100, 80, 70};
    for (size_t i = 0; i < COUNTOF(lines); i++)
        for (size_t k = 0; k < COUNTOF(widths); k++) {
            char *text = help_of(lines[i], widths[k]);
            for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
                assert_true((int)strlen(line) <= MIN(widths[k], 100));
            }
            free(text);
        }
    char *text = help_of("help infer", 100);
    assert_non_null(strstr(text, "usage: mala infer [--config FILE] [key=value ...] [flags] IMAGE...\n"));
    assert_non_null(strstr(text, "  -k, --topk N                classes to print\n"));
    assert_non_null(strstr(text, "  optim.lr               learning rate after warm-up (5e-4; 1e-09 to 100)\n"));
    assert_null(strstr(text, "epochs")); /* it does not use */
    free(text);
    text = help_of("help train", 100);
    assert_non_null(strstr(text, "  -b, --batch-size N          images per step (train.batch_size)\n"));
    assert_non_null(strstr(text, "  train.ema              keep a moving average of the weights (false)\n"));
    free(text);
    text = help_of("help config", 100);
    for (int i = 0; i < config_table_count; i++) assert_non_null(strstr(text, config_table[i].name));
    free(text);
}

/* What a command does not use is refused where it is typed, and the message says where it belongs. */
static void test_unused(void **state) {
    (void)state;
    FAILS("infer --epochs 5", "infer does not use --epochs - it is for train");
    FAILS("infer --lr 1 --output=p.json", "infer does not use --output - it is for train");
    FAILS("infer a.jpg sched.epochs=5", "infer does not use sched.epochs - it is for train");
    FAILS("infer --set sched.epochs=5", "infer does not use sched.epochs - it is for train");
    FAILS("infer --epoch 5", "unknown flag \"--epoch\" - 'mala help infer' lists what there is"); /* not "--epochs" */
    FAILS("train base=a.json", "train does not use base - it is for config files");
}

/* In a folder with files of such names. */
static void test_files_with_equals_signs(void **state) {
    (void)state;
    char here[4096];
    Cli cli;
    Err err = {0};
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(scratch_folder), 0);
    assert_true(file_write("a=b.jpg", "", 0, &err) && file_write("optim.lr=1", "", 0, &err));
    assert_true(parse(&cli, "infer a=b.jpg optim.lr=1 optim.lr=2e-3 epoch=3-step=1.ckpt lr=0.1/new.pth a-b=c", &err));
    assert_int_equal(chdir(here), 0);
    static const char *const files[] = {"a=b.jpg", "optim.lr=1", "epoch=3-step=1.ckpt", "lr=0.1/new.pth", "a-b=c"};
    assert_int_equal(cli.argument_count, COUNTOF(files));
    for (size_t i = 0; i < COUNTOF(files); i++) assert_string_equal(cli.arguments[i], files[i]);
    assert_int_equal(cli.override_count, 1);
    assert_string_equal(cli.overrides[0], "optim.lr=2e-3");
    cli_free(&cli);
    FAILS("infer lr=3", "unknown option \"lr\" - did you mean \"optim.lr\"? A file: ./lr=3");
    FAILS("infer zzz=b.jpg", "unknown option \"zzz\" - 'mala help config' lists them. A file: ./zzz=b.jpg");
    assert_overrides("train zzz=a/b", "zzz=a/b"); /* takes no files: the config refuses it */
}

static void test_weights_once(void **state) {
    (void)state;
    Cli cli;
    Err err;
    const char *path;
    assert_true(parse(&cli, "infer a.safetensors --weights b", &err));
    assert_false(cli_weights(&cli, &path, 1, &err));
    assert_string_equal(err.text, "command line: weights are given twice, as a.safetensors and by --weights - leave "
                        "one out");
    assert_true(cli_weights(&cli, &path, 2, &err)); /* of two arguments the first would be */
    assert_null(path);
    cli_free(&cli);
    assert_true(parse(&cli, "infer a b", &err));
    assert_false(cli_weights(&cli, &path, 1, &err));
    assert_true(cli_weights(&cli, &path, 2, &err));
    assert_string_equal(path, "a");
    cli_free(&cli);
}

/* The program's own tables: every pattern of `uses` names an option, every option is some command's, and so is every
 * flag that stands for one. */
static void test_uses(void **state) {
    (void)state;
    const CliCommand all[] = {command_train, command_eval,   command_infer,  command_info,  command_synth,
                              command_bench, command_export, command_import, command_verify, command_plan};
    for (size_t i = 0; i < COUNTOF(all); i++) {
        char *patterns = mem_strdup(all[i].uses ? all[i].uses : ""), *rest = patterns;
        for (char *pattern; (pattern = strsep(&rest, ",")) && *pattern;) {
            int named = 0;
            for (int k = 0; k < config_table_count; k++) named += text_matches(pattern, config_table[k].name);
            if (named == 0) fail_msg("%s uses \"%s\", which is no option", all[i].name, pattern);
        }
        free(patterns);
        for (int k = 0; k < all[i].flag_count; k++)
            if (all[i].flags[k].key) assert_true(cli_uses(&all[i], all[i].flags[k].key));
    }
    for (int k = 0; k < config_table_count; k++) {
        int users = 0;
        for (size_t i = 0; i < COUNTOF(all); i++) users += cli_uses(&all[i], config_table[k].name);
        if (users == 0 && strcmp(config_table[k].name, "base") != 0)
            fail_msg("no command uses %s", config_table[k].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),    cmocka_unit_test(test_flags_fit_options), cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_common_flags), cmocka_unit_test(test_refusals),          cmocka_unit_test(test_help),
        cmocka_unit_test(test_unused),       cmocka_unit_test(test_weights_once),      cmocka_unit_test(test_uses),
        cmocka_unit_test(test_files_with_equals_signs),
    };
    return cmocka_run_group_tests_name("cli", tests, scratch_set_up, scratch_tear_down);
}
