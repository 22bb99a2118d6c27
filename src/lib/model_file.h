/* model_file.h - a weights file with what it takes to use it: architecture, preprocessing, class names. */
#ifndef MALA_MODEL_FILE_H
#define MALA_MODEL_FILE_H

#include "lib/config.h"
#include "lib/device.h"
#include "lib/model_metadata.h"
#include "data/loader.h"
#include "io/weights.h"
#include "task/classify.h"

typedef struct {
    TensorFile file;
    Config config;
    char **classes;  /* [class_count] names; where the file has none: ImageNet's ids for 1000, else indices as text */
    int class_count; /* 0: a backbone, which has no classifier */
    bool described;  /* the architecture is known; otherwise the config says nothing, and there are no classes */
    bool named;      /* the names are more than indices */
    Log *log;        /* hears what is loaded, and the table of what does not fit */
} ModelFile;

/* In the directory of a training run. */
#define RUN_BEST "weights/best.safetensors"
#define RUN_LAST "weights/last.safetensors"

/* Opens config.model.weights (or `path`, when not NULL): a file, the directory of a run, which stands for its best
 * weights, or a folder as hub.h has it. What the file's metadata say holds, or else the folder's config.json; or
 * `config_file`, when not NULL, instead; then overrides. One that says nothing is told by its shapes, if it is of a
 * released size. False: EXIT_USAGE (no file given, or one that does not say its architecture and no --model),
 * EXIT_INPUT. */
bool model_file_open(ModelFile *out, const char *path, const char *config_file, char *const *overrides, int count,
                     Log *log, Err *err);
/* The same for a file that does not say its architecture, either: out->described tells. */
bool model_file_open_any(ModelFile *out, const char *path, const char *config_file, char *const *overrides, int count,
                         Log *log, Err *err);
/* As model_file_open, in silence and with settings from elsewhere than the command line. */
bool model_file_open_settings(ModelFile *out, const char *path, Settings settings, Err *err);
void model_file_close(ModelFile *m);
/* What runs a network needs one; a backbone can be exported and fine-tuned. False: EXIT_INPUT, saying so. */
bool model_file_has_classifier(const ModelFile *m, Err *err);

/* Opens a file of weights, averaged or raw as the config says, and logs which of a checkpoint's it took. Errors:
 * tensor_file_open's, and EXIT_INPUT where the metadata are not those that were sealed (io/seal.h). */
bool config_open_weights(TensorFile *out, const char *path, const Config *c, Log *log, Err *err);
/* Are the tensors those that were sealed? True for files without a seal. Reads them all: 34 ms for the 58 MB of a
 * mavit_t on one thread whose processor has instructions for SHA-256 (1.9 GB/s), eight times that without. So it is
 * asked where work of seconds begins (train, eval, export, import) and by verify, not where one picture is answered in
 * less (infer, the library). False: EXIT_INPUT, EXIT_IO. */
bool config_check_tensors(const TensorFile *f, const Config *c, Err *err);

/* Warns of what a file, or the hub's folder at `path`, was trained with and a run that starts from it has otherwise,
 * although every tensor fits: kinds of attention, mean and deviation of the input. False: EXIT_INPUT (what it says of
 * itself is broken). */
bool model_file_warn_start(const TensorFile *f, const char *path, const Config *c, Log *log, Err *err);
/* Of tensors that do not fit: where the file, or the hub's folder at `path`, says other channels or blocks of itself
 * than the config, warns of that, with the settings that would make the config's its own. */
void model_file_warn_misfit(const TensorFile *f, const char *path, const Config *c, Log *log);

/* The class names that a file carries, checked (class_names.h); none is no error: count 0. Free them in any case.
 * False: EXIT_INPUT. */
bool model_classes_read(char ***names, int *count, const TensorFile *file, Err *err);
/* The same of what `path` was opened as: where the weights in a hub's folder name none, its config.json does. */
bool model_classes_read_at(char ***names, int *count, const char *path, const TensorFile *file, Err *err);
void model_classes_free(char **names, int count);

/* The network and preprocessing that a config asks for. */
ClassifySpec config_classify(const Config *c, int classes);
/* The same as a backend runs it: its compute type, what auto says of recomputing on it, whether fused for training. */
ClassifySpec config_classify_on(const Config *c, int classes, const Backend *backend);
EvalTransform config_eval_transform(const Config *c);
/* Bytes of a picture as loaders hand it out. */
size_t config_picture_bytes(const Config *c);
/* Options of a loader over training (shuffled, augmented) or evaluation pictures. */
LoaderOptions config_loader(const Config *c, int batch, bool train);

/* How a file's weights are loaded by this config. */
WeightsPolicy config_weights_policy(const Config *c, HeadPolicy head, Log *log);

/* Sets what networks on the backend compute in, as train.precision or eval.precision says, and says so in its
 * description; float32 without this call. False: EXIT_USAGE where the device cannot. */
bool config_set_precision(Backend *b, const Config *c, bool training, Err *err);

/* Writes weights of a role with metadata: config, class names, and what the facts say. */
bool model_file_save(const char *path, const State *s, StateRole role, const Config *config, char *const *classes,
                     int class_count, const ModelFacts *facts, Err *err);
/* Would those who read what model_file_save writes take it? Asked before a training, not found out after it. outputs:
 * of the network's head. False: EXIT_USAGE, saying what they would not. */
bool model_file_check(const Config *config, char *const *classes, int class_count, int outputs, Err *err);

#endif
