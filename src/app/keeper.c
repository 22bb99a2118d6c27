#include "app/keeper.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/strings.h"
#include "lib/golden.h"

static const char *const weight_files[KEPT_COUNT] = {RUN_BEST, RUN_LAST};

/* ---- what was asked of it ---- */

static bool write_command(const Keeper *k, int argc, char **argv, Err *err) {
    JsonWriter w = {0};
    json_write_array(&w);
    for (int i = 0; i < argc; i++) json_write_string(&w, argv[i]);
    json_write_end(&w);
    bool ok = rundir_write(&k->dir, "command.json", json_writer_text(&w), err);
    json_writer_free(&w);
    return ok;
}

/* A class a line, whatever the folders are called. */
static bool write_classes(const Keeper *k, Err *err) {
    const Dataset *d = k->data;
    size_t room = 1, used = 0;
    for (int i = 0; i < d->class_count; i++) room += 4 * strlen(d->classes[i]) + 1; /* \xNN */
    char *text = mem_zalloc(room, 1);
    for (int i = 0; i < d->class_count; i++) {
        text_printable(text + used, room - used, d->classes[i]);
        used += strlen(text + used);
        text[used++] = '\n';
    }
    bool ok = rundir_write(&k->dir, "classes.txt", text, err);
    free(text);
    return ok;
}

static bool write_config(const Keeper *k, Err *err) {
    char *text = config_dump(&k->config);
    bool ok = rundir_write(&k->dir, "config.json", text, err);
    free(text);
    return ok;
}

static void open_rows(LineFile *f, const RunDir *dir, const char *name) {
    char *path = rundir_file(dir, name);
    line_file_open(f, path);
    free(path);
}

/* Weights that training began with may have been those of the run that has just been moved. */
static void follow_weights(Keeper *k) {
    char **weights = &k->config.model.weights, *now = *weights ? rundir_moved(&k->dir, *weights) : NULL;
    if (!now) return;
    free(*weights);
    *weights = path_absolute(now);
    free(now);
}

bool keeper_open(Keeper *k, const Config *config, const Dataset *data, int argc, char **argv, Log *log, Err *err) {
    *k = (Keeper){.data = data, .log = log};
    config_absolute(&k->config, config);
    if (!rundir_open(&k->dir, config->output, config->exist_ok, log, err)) return false;
    follow_weights(k);
    open_rows(&k->metrics, &k->dir, "metrics.jsonl");
    open_rows(&k->results, &k->dir, "results.csv");
    char *log_path = rundir_file(&k->dir, "log.txt");
    bool ok = write_config(k, err) && write_command(k, argc, argv, err) && write_classes(k, err) &&
              line_file_add(&k->results,
                            "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0", err) &&
              log_copy_to(log, log_path, err);
    free(log_path);
    return ok;
}

void keeper_close(Keeper *k) {
    line_file_close(&k->metrics);
    line_file_close(&k->results);
    if (k->dir.path) rundir_close(&k->dir);
    config_absolute_free(&k->config);
}

/* ---- rows ---- */

static void add_row(Keeper *k, LineFile *f, const char *row) {
    Err err = {0};
    bool failed = !line_file_add(f, row, &err);
    if (failed && !k->rows_wait) log_warning(k->log, "%s; rows wait in memory until it can be written", err.text);
    k->rows_wait = k->metrics.count + k->results.count > 0;
}

void keeper_metrics(Keeper *k, const char *json) { add_row(k, &k->metrics, json); }
void keeper_results(Keeper *k, const char *row) { add_row(k, &k->results, row); }

/* ---- weights ---- */

static bool save_once(Keeper *k, Kept which, const State *s, StateRole role, const char *metrics, Err *err) {
    char *path = rundir_file(&k->dir, weight_files[which]), sha256[SHA256_TEXT_SIZE];
    dataset_sha256(k->data, sha256);
    ModelFacts facts = {.ema = role == ROLE_EMA, .metrics = metrics, .dataset_sha256 = sha256};
    bool ok = model_file_save(path, s, role, &k->config, k->data->classes, k->data->class_count, &facts, err);
    free(path);
    return ok;
}

bool keeper_save(Keeper *k, Kept which, const State *s, StateRole role, const char *metrics, bool patient, Err *err) {
    static const long pauses_ms[] = {200, 800, 2000};
    Err why = {0};
    for (size_t i = 0;; i++) {
        why = (Err){0};
        if (save_once(k, which, s, role, metrics, &why)) return k->saved[which] = true;
        if (!patient || why.code != EXIT_IO || i == COUNTOF(pauses_ms)) break;
        nanosleep(&(struct timespec){pauses_ms[i] / 1000, pauses_ms[i] % 1000 * 1000000}, NULL);
    }
    return err_set(err, why.code, "%s", why.text);
}

bool keeper_finish(Keeper *k, Err *err) {
    bool ok = true;
    for (int i = 0; i < KEPT_COUNT; i++) {
        if (!k->saved[i]) continue;
        Err why = {0};
        char *path = rundir_file(&k->dir, weight_files[i]);
        if (!golden_add(path, &k->config, &why))
            log_warning(k->log, "%s; %s cannot be verified", why.text, weight_files[i]);
        if (why.code == EXIT_MEMORY) ok = err_set(err, EXIT_MEMORY, "%s", why.text);
        free(path);
    }
    LineFile *rows[] = {&k->metrics, &k->results};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Err why = {0};
        if (!line_file_flush(rows[i], &why)) log_warning(k->log, "%s; its last rows are lost", why.text);
    }
    return ok;
}
