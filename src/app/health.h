/* health.h - does a training run still learn? The update kernels leave everything as it was where a gradient is not
 * finite; here such steps are counted, and a run that gets nowhere is ended. */
#ifndef MALA_HEALTH_H
#define MALA_HEALTH_H

#include "base/log.h"
#include "task/optimizer.h"

typedef struct {
    bool scaled;     /* losses are: features are float16 */
    LossScale scale; /* 1 and never changed without */
    int bad_steps;   /* in a row */
} Health;

/* The outcome of a step, from 0, that ran with loss scale `used`. A step that changed nothing is said. False:
 * EXIT_HEALTH, after too many of them in a row. */
bool health_step(Health *h, int64_t step, float used, float loss, float norm, Log *log, Err *err);

#endif
