/* rundir.h - the directory of one training run: who owns it, and the lines that grow in it.
 *     config.json  classes.txt  command.json (the overrides typed)  results.csv  metrics.jsonl  log.txt
 *     weights/{best,last}.safetensors */
#ifndef MALA_RUNDIR_H
#define MALA_RUNDIR_H

#include "base/base.h"

typedef struct {
    char *path;
    int lock; /* descriptor that holds the lock for the life of the process */
} RunDir;

/* Takes `wanted`, or wanted-2, wanted-3 ... when it holds a run already and reuse is false. False: EXIT_IO, or
 * EXIT_LOCKED when another process trains there. */
bool rundir_open(RunDir *out, const char *wanted, bool reuse, Err *err);
void rundir_close(RunDir *r);

/* Path of a file in it, malloc'd. */
char *rundir_file(const RunDir *r, const char *name);
/* A whole small file, atomically. */
bool rundir_write(const RunDir *r, const char *name, const char *text, Err *err);
/* Appends one line (text without '\n') and hands it to the system before returning. */
bool rundir_append(const RunDir *r, const char *name, const char *line, Err *err);

#endif
