/* runner.h - a model at work: its device, its network planned there, and the way from a picture to the network's input.
 * The commands and mala.h run models through it. */
#ifndef MALA_RUNNER_H
#define MALA_RUNNER_H

#include "lib/predictor.h"

typedef struct {
    const Config *config; /* says device, threads and precision; NULL: the model's own */
    int batch;            /* most pictures at once; 0: as many as suit the device */
    bool tensors;         /* f32 and normalised instead of u8 */
    bool exact;           /* float32, whatever eval.precision says */
} RunnerOptions;

typedef struct {
    Backend backend;
    Predictor predictor;
    EvalTransform transform; /* from a picture to the network's input, as the model was evaluated */
} Runner;

/* The model file must stay open as long. False: EXIT_INPUT (a backbone, or weights that do not fit), EXIT_DEVICE,
 * EXIT_USAGE, EXIT_MEMORY; nothing needs closing then. */
bool runner_open(Runner *r, const ModelFile *m, RunnerOptions options, Err *err);
void runner_close(Runner *r);

#endif
