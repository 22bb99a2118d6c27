/* test_settings.c - every option at the ends of its range and at random: a setting ends in a run that can begin, or in
 * one line that says why not. What two places check must not differ; no CHECK can be reached from settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/trainer.h"
#include "base/rng.h"
#include "lib/memory.h"
#include "lib/model_file.h"
#include "program.h"

#define LINES 24

static int make_data(void **state) {
    (void)state;
    folder_make();
    shell("mkdir set");
    EXPECT(0, "synth $T/set/data --train 2 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* What a child does with settings: all that comes before the first step, or a plan of it. */
static int begin(char *const *settings, int count, bool train_it) {
    Config c;
    Err err = {0};
    bool ok = config_load(&c, NULL, settings, count, &err);
    if (ok && train_it) {
        TrainResult result;
        ok = config_check_training(&c, &err) && train(&result, &c, 0, NULL, true, NULL, &err);
    } else if (ok) {
        Backend b = {0};
        MemoryNeeds needs;
        ok = config_open_measuring(&b, &c, &err) && config_set_precision(&b, &c, true, &err) &&
             memory_predict(&needs, &c, 1000, c.train.batch_size, true, &b, &err);
    }
    if (!ok && !strstr(err.text, ": ")) return EXIT_BUG;
    return ok ? 0 : (int)err.code;
}

/* In a child, so that an abort is seen and its memory gone. A machine may lack memory, threads or the device. */
static void expect_sound(char *const *settings, int count) {
    for (int train_it = 0; train_it < 2; train_it++) {
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(60);
            _exit(begin(settings, count, train_it));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (code == 0 || code == EXIT_USAGE || code == EXIT_MEMORY || code == EXIT_DEVICE) continue;
        for (int i = 0; i < count; i++) print_message("%s\n", settings[i]);
        fail_msg("exit %d", code);
    }
}

static char lines[LINES][512];

static void add_line(char *const *out, int i, const char *text) { snprintf(out[i], sizeof lines[0], "%s", text); }

/* A network and data of a second; the settings under test come after. */
static int small_settings(char **out) {
    static const char *const small[] = {
        "model.name=custom",   "model.dims=8,8,16,16", "model.depths=1,1,1,1", "model.heads=1,1,2,2",
        "model.projection=16", "input.size=32",        "train.batch_size=8",   "sched.epochs=2",
        "train.threads=1",     "data.workers=1"};
    char path[512];
    int n = 0;
    for (int i = 0; i < LINES; i++) out[i] = lines[i];
    for (size_t i = 0; i < COUNTOF(small); i++) add_line(out, n++, small[i]);
    snprintf(path, sizeof path, "data.path=%s/set/data", folder);
    add_line(out, n++, path);
    snprintf(path, sizeof path, "output=%s/runs", folder);
    add_line(out, n++, path);
    return n;
}

/* A value of an option: 0 its least, 1 its most, else drawn; false: it has none to choose. */
static bool value_text(char *out, size_t size, const Option *o, int which, Rng *rng) {
    double at = which == 0 ? 0 : which == 1 ? 1 : (double)rng_uniform(rng);
    if (o->type == OPTION_BOOL) {
        snprintf(out, size, "%s=%s", o->name, at < 0.5 ? "false" : "true");
    } else if (o->type == OPTION_ENUM) {
        char word[64];
        int count = 0;
        while (option_word(word, sizeof word, o->words, count), word[0]) count++;
        option_word(word, sizeof word, o->words, MIN((int)(at * count), count - 1));
        snprintf(out, size, "%s=%s", o->name, word);
    } else if (o->type != OPTION_STRING) {
        /* small numbers are met as often as large ones */
        double span = o->max - o->min, value = which < 2 ? o->min + at * span : o->min + at * at * at * at * span;
        if (o->type != OPTION_FLOAT) value = (double)(int64_t)value;
        if (!strcmp(o->name, "input.size")) value = (double)((int64_t)value / 32 * 32);
        /* one deep stage: to plan four of them takes half a minute */
        bool deep = !strcmp(o->name, "model.depths");
        int n = snprintf(out, size, deep ? "%s=1,1,1" : "%s=%.17g", o->name, value);
        if (deep) n += snprintf(out + n, size - (size_t)n, ",%.17g", value);
        for (int i = 1; i < o->length && !deep; i++) n += snprintf(out + n, size - (size_t)n, ",%.17g", value);
    } else {
        return false;
    }
    return true;
}

static void test_ends_of_every_range(void **state) {
    (void)state;
    char *settings[LINES];
    Rng rng = rng_make(1, RNG_TEST, 0, 0);
    for (int i = 0; i < config_table_count; i++)
        for (int end = 0; end < 2; end++) {
            int n = small_settings(settings);
            if (!value_text(settings[n], sizeof lines[0], &config_table[i], end, &rng)) continue;
            expect_sound(settings, n + 1);
            add_line(settings, n + 1, "aug.crop=pad");
            if (!strncmp(config_table[i].name, "aug.", 4)) expect_sound(settings, n + 2);
        }
}

static void test_settings_at_random(void **state) {
    (void)state;
    char *settings[LINES];
    Rng rng = rng_make(2, RNG_TEST, 0, 0);
    for (int round = 0; round < 60; round++) {
        int n = small_settings(settings), more = 1 + (int)rng_below(&rng, 6);
        for (int i = 0; i < more; i++) {
            const Option *o = &config_table[rng_below(&rng, (uint32_t)config_table_count)];
            n += value_text(settings[n], sizeof lines[0], o, (int)rng_below(&rng, 4), &rng);
        }
        expect_sound(settings, n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends_of_every_range),
                                       cmocka_unit_test(test_settings_at_random)};
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
