/* keeper.h - what a training run leaves behind: what was asked of it, its rows of results, its weights. A disk that is
 * full for a while costs nothing: rows wait, weights are saved again after the next epoch, and only a run whose weights
 * cannot be written at its end fails. */
#ifndef MALA_KEEPER_H
#define MALA_KEEPER_H

#include "app/rundir.h"
#include "base/line_file.h"
#include "data/dataset.h"
#include "lib/model_file.h"

typedef enum { KEPT_BEST, KEPT_LAST, KEPT_COUNT } Kept;

typedef struct {
    RunDir dir;
    Config config; /* with paths that hold from anywhere */
    const Dataset *data; /* names the classes */
    Log *log;
    LineFile metrics, results;
    bool rows_wait;        /* said once, until they are written */
    bool saved[KEPT_COUNT]; /* by this run */
} Keeper;

/* Opens the run directory and writes config.json, command.json, classes.txt and the head of results.csv. config and
 * data stay the caller's. False: as rundir_open, EXIT_IO; keeper_close in any case. */
bool keeper_open(Keeper *k, const Config *config, const Dataset *data, int argc, char **argv, Log *log, Err *err);
void keeper_close(Keeper *k);

/* A line of metrics.jsonl, a row of results.csv. Rows that cannot be written wait, which is warned of. */
void keeper_metrics(Keeper *k, const char *json);
void keeper_results(Keeper *k, const char *row);

/* Saves the weights `role` of a state as weights/best or weights/last. patient: where writing fails, tries again for a
 * few seconds. False: EXIT_IO, EXIT_MEMORY; the file of before is as it was. */
bool keeper_save(Keeper *k, Kept which, const State *s, StateRole role, const char *metrics, bool patient, Err *err);

/* The run is over, whatever ended it: the weights it saved get their golden logits, rows that wait a last chance. What
 * fails here is warned of; false: EXIT_MEMORY, the rest is done. */
bool keeper_finish(Keeper *k, Err *err);

#endif
