/* epoch_report.h - a training run's table, a line an epoch, that fits a terminal of 80 columns. */
#ifndef MALA_EPOCH_REPORT_H
#define MALA_EPOCH_REPORT_H

#include "base/log.h"

typedef struct {
    int epoch, epochs; /* from 1 */
    double train_loss, val_loss, top1, top5; /* fractions of 1 */
    double images_per_second, seconds_left;  /* of the run */
    bool has_top5, best;                     /* best: of all so far, marked with a star */
} EpochReport;

void epoch_report_heading(Log *log, int epochs, bool has_top5);
void epoch_report(Log *log, const EpochReport *r);

#endif
