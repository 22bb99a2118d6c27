/* rundir.h - the directory of one training run, and who owns it.
 *     config.json  classes.txt  command.json (what was typed)  results.csv  metrics.jsonl  log.txt
 *     weights/{best,last}.safetensors
 *     earlier-N/ (with exist_ok: all of these, of the run that was there before) */
#ifndef MALA_RUNDIR_H
#define MALA_RUNDIR_H

#include "base/log.h"

typedef struct {
    char *path;
    char *earlier; /* where the run that was there is now; NULL: there was none */
    int lock; /* descriptor that holds the lock for the life of the process; -1: the file system knows no locks */
} RunDir;

/* Takes `wanted`, or wanted-2, wanted-3 ... when it is there (whatever slashes and dots it ends with), holds anything
 * and reuse is false. With reuse, the files of a run that is there go to earlier-N/, so that no file of it stands
 * beside those of this one, and what a killed run was writing is removed. A file system without locks is warned of.
 * False: EXIT_IO, or EXIT_LOCKED when another process trains there. */
bool rundir_open(RunDir *out, const char *wanted, bool reuse, Log *log, Err *err);
void rundir_close(RunDir *r);

/* Where a path that led into the earlier run leads to now, malloc'd; NULL: where it did. */
char *rundir_moved(const RunDir *r, const char *path);
/* Path of a file in it, malloc'd. */
char *rundir_file(const RunDir *r, const char *name);
/* A whole small file, atomically. */
bool rundir_write(const RunDir *r, const char *name, const char *text, Err *err);

#endif
