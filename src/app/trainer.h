/* trainer.h - one training run from a config to its run directory. */
#ifndef MALA_TRAINER_H
#define MALA_TRAINER_H

#include "lib/config.h"
#include "base/log.h"

typedef struct {
    char *run;         /* the run directory, malloc'd */
    int epochs;
    double best_top1;  /* fraction of 1 */
    int best_epoch;    /* from 1 */
    double last_top1, last_loss, seconds;
} TrainResult;

/* Trains, evaluates after every epoch, keeps the best and the last weights. A first SIGINT, SIGTERM, SIGHUP, SIGUSR1 or
 * SIGXCPU ends the run after the step or the evaluation's batch in hand and saves (EXIT_PREEMPTED); before there is a
 * run directory, and the second time, it ends the process (base/signals.h). A step whose gradient is not finite changes
 * nothing and is counted; too many in a row, or no epoch with finite answers, are EXIT_HEALTH. argv: the command, for
 * command.json. dry: everything is opened, checked and said, nothing written and no step done. */
bool train(TrainResult *out, const Config *config, int argc, char **argv, bool dry, Log *log, Err *err);

#endif
