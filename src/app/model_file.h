/* model_file.h - a weights file with what it takes to use it: architecture, preprocessing, class names. */
#ifndef MALA_MODEL_FILE_H
#define MALA_MODEL_FILE_H

#include "app/config.h"
#include "app/device.h"
#include "data/loader.h"
#include "io/weights.h"
#include "task/classify.h"

typedef struct {
    TensorFile file;
    Config config;
    char **classes; /* [class_count] names; where the file has none: ImageNet's ids for 1000, else indices as text */
    int class_count;
    Log *log; /* hears what is loaded, and the table of what does not fit */
} ModelFile;

/* Opens config.model.weights (or `path`, when not NULL): a file, or a folder as hub.h has it. What the file's metadata
 * say holds, or else the folder's config.json; or `config_file`, when not NULL, instead; then overrides. False:
 * EXIT_USAGE (no file given, or one that does not say its architecture and no --model), EXIT_INPUT. */
bool model_file_open(ModelFile *out, const char *path, const char *config_file, char *const *overrides, int count,
                     Log *log, Err *err);
void model_file_close(ModelFile *m);

/* Opens a file of weights, averaged or raw as the config says, and logs which of a checkpoint's it took. Errors:
 * tensor_file_open's. */
bool config_open_weights(TensorFile *out, const char *path, const Config *c, Log *log, Err *err);

/* The class names that a file carries; none is no error: count 0. Free them in any case. False: EXIT_INPUT. */
bool model_classes_read(char ***names, int *count, const TensorFile *file, Err *err);
void model_classes_free(char **names, int count);

/* The network and preprocessing that a config asks for. */
ClassifySpec config_classify(const Config *c, int classes);
EvalTransform config_eval_transform(const Config *c);
/* Options of a loader over training (shuffled, augmented) or evaluation pictures. */
LoaderOptions config_loader(const Config *c, int batch, bool train);

/* How a file's weights are loaded by this config. */
WeightsPolicy config_weights_policy(const Config *c, HeadPolicy head, Log *log);

/* Sets what networks on the backend compute in, as train.precision or eval.precision says, and says so in its
 * description; float32 without this call. False: EXIT_USAGE where the device cannot. */
bool config_set_precision(Backend *b, const Config *c, bool training, Err *err);

/* Writes weights of a role with metadata: config, class names, and `metrics` (a JSON object). */
bool model_file_save(const char *path, const State *s, StateRole role, const Config *config, char *const *classes,
                     int class_count, const char *metrics, Err *err);

/* ---- a network ready to run ---- */

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
