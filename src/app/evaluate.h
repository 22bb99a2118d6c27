/* evaluate.h - a network over a labelled data set. */
#ifndef MALA_EVALUATE_H
#define MALA_EVALUATE_H

#include "lib/predictor.h"
#include "base/log.h"

/* Runs every picture of the loader's epoch through the predictor and adds up metrics (initialised by the caller).
 * complete: false when signals_stop ended it before the last picture; the metrics are of no use then. */
bool evaluate(ClassifyMetrics *m, Predictor *p, Loader *loader, bool *complete, Log *log, Err *err);

/* False: EXIT_INPUT, where answers were not finite: such an evaluation is no result. weights: for the message. */
bool evaluate_finite(const ClassifyMetrics *m, const char *weights, Err *err);

/* Reports each bad picture a loader met, once: warnings from *reported on, which is moved on. */
void report_bad(const Loader *loader, size_t *reported, Log *log);

/* {"images": n, "top1": ..., "top5": ..., "loss": ..., "bad_images": n, "per_class": {name: {"images", "top1"}}};
 * without top5 for less than six classes */
void evaluate_write_json(JsonWriter *w, const ClassifyMetrics *m, char *const *classes, size_t bad);

#endif
