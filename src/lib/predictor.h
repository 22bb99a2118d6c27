/* predictor.h - a network ready to run: its evaluation graph planned on a backend, pixels in, classes out. */
#ifndef MALA_PREDICTOR_H
#define MALA_PREDICTOR_H

#include "lib/model_file.h"

typedef struct {
    ClassifyGraph graph;
    State state;
    Plan *plan;
    int batch, classes;
    size_t image_bytes;
    int queued, counts[2]; /* batches queued and not read, oldest first */
} Predictor;

/* The model on a backend, for batches of `batch` pictures: u8, or float_images: f32 and normalised. The file must stay
 * open as long. */
bool predictor_open(Predictor *p, const ModelFile *m, Backend *backend, int batch, bool float_images, Err *err);
/* An untrained network of this config. on_demand: its weights come and go as those of a file do, so that memory is
 * that of inference; otherwise they stay, to be written over. */
bool predictor_open_random(Predictor *p, const Config *c, int classes, Backend *backend, int batch, bool on_demand,
                           Err *err);
void predictor_close(Predictor *p);
/* pixels [count, H, W, 3], count <= batch; logits and prob f32 [count, classes], either may be NULL. */
bool predictor_queue(Predictor *p, const void *pixels, int count, Err *err); /* pixels are free when it returns */
/* Results of the oldest batch queued, of which there may be two: one is computed while the host reads the other. */
bool predictor_read(Predictor *p, float *logits, float *prob, Err *err);
/* Both at once. */
bool predictor_run(Predictor *p, float *logits, float *prob, const void *pixels, int count, Err *err);

#endif
