/* config.h - everything a run can be told, with its defaults: the struct, and one table (config_table.c) that reads it
 * from JSON and from the command line, documents it and writes it back. What is "auto" stays "auto" in the struct, so
 * that a written config can be loaded with another model or size; the functions at the end resolve it. */
#ifndef MALA_CONFIG_H
#define MALA_CONFIG_H

#include "base/log.h"
#include "base/option.h"
#include "model/mavit.h"

enum { MODEL_T, MODEL_S, MODEL_B, MODEL_L, MODEL_CUSTOM };
enum { BAD_IMAGE_SKIP, BAD_IMAGE_ERROR };
enum { INTERPOLATION_BICUBIC, INTERPOLATION_BILINEAR };
enum { CROP_RRC, CROP_PAD, CROP_NONE };
enum { PRECISION_AUTO, PRECISION_FLOAT32, PRECISION_TF32, PRECISION_BFLOAT16, PRECISION_FLOAT16 };
enum { RECOMPUTE_AUTO, RECOMPUTE_NONE, RECOMPUTE_CHEAP };
typedef enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA, DEVICE_UNKNOWN } DeviceKind;

/* "or auto" on an int: AUTO_INT; on a double: NaN (AUTO_FLOAT). A list is auto as a whole. */
typedef struct {
    struct {
        int name;                         /* MODEL_* */
        int dims[4], depths[4], heads[4]; /* or auto: the model's own */
        double mlp_ratio;
        int projection;                   /* or auto */
        int attention[4];                 /* AttentionKind */
        double drop_path, layer_scale[4]; /* or auto */
        int num_classes;                  /* or auto: from the data or the weights */
        char *weights;                    /* or NULL */
        int weights_ema;                  /* EmaChoice */
        char *allow_missing;              /* patterns of tensor names, or NULL */
    } model;
    struct {
        char *path, *train, *val; /* path or NULL */
        int workers;              /* or auto */
        int on_bad_image;         /* BAD_IMAGE_* */
        double max_bad;           /* share of the images */
        int cache_mb;             /* decoded images kept in memory, for each split */
    } data;
    struct {
        int size[2];       /* height, width: multiples of 32 */
        double crop_pct;   /* or auto */
        int interpolation; /* INTERPOLATION_* */
        double mean[3], std[3];
    } input;
    struct {
        int crop; /* CROP_* */
        double scale[2], ratio[2];
        int pad;
        double hflip;
    } aug;
    struct {
        double lr;
        int lr_base_size; /* 0: lr is taken as it is */
        double weight_decay, betas[2], eps;
        double clip_grad; /* 0: off */
    } optim;
    struct {
        int epochs;
        double warmup_epochs; /* or auto */
        double warmup_lr, min_lr; /* or auto */
    } sched;
    struct {
        int batch_size;
        double smoothing;
        bool ema;
        double ema_decay;
        bool ema_ramp;
        int64_t seed;
        int threads;   /* or auto */
        int precision; /* PRECISION_* */
        int recompute; /* RECOMPUTE_* */
        bool deterministic;
    } train;
    struct {
        int batch_size; /* or auto */
        int precision;  /* PRECISION_* */
    } eval;
    struct {
        int interval; /* steps */
    } log;
    char *output;
    bool exist_ok;
    char *device; /* auto, cpu, cuda, cuda:N */
    char *base; /* only while loading */

    OptionSet options; /* where each value came from: options_fail(&config.options, "input.size", ...) */
} Config;

#define BATCH_MOST 65535 /* a picture takes a block of a CUDA grid's third dimension */

extern const Option config_table[];
extern const int config_table_count;

/* "key=value" texts, and what messages call the place where they stand: COMMAND_LINE, or "settings" where a program
 * gives them to the library. */
#define COMMAND_LINE "command line"
typedef struct {
    char *const *texts;
    int count;
    const char *place;
} Settings;

/* Defaults, then file (and the file its "base" names, first), then overrides "key=value", then the checks that need
 * nothing but the values. file may be NULL. False: EXIT_USAGE, or EXIT_IO when reading failed. Always followed by
 * config_free. */
bool config_load(Config *c, const char *file, char *const *overrides, int override_count, Err *err);
/* The same from a text in memory, such as the config inside a weights file; it may not name a base. What is wrong with
 * the text itself is EXIT_INPUT: nobody typed it. */
bool config_load_text(Config *c, const char *text, size_t count, const char *name, char *const *overrides,
                      int override_count, Err *err);
/* The same with settings from elsewhere than the command line. */
bool config_load_settings(Config *c, const char *file, Settings settings, Err *err);
bool config_load_text_settings(Config *c, const char *text, size_t count, const char *name, Settings settings,
                               Err *err);
/* The same of what a file of weights carries: what belongs to the machine that wrote it is forgotten - the device,
 * threads and decoding threads. */
bool config_load_embedded(Config *c, const char *text, size_t count, const char *name, Settings settings, Err *err);
/* The same from single values of a file. */
typedef struct {
    char *key, *value; /* as in "key=value" */
    char *where;       /* "hub/config.json:12:20" */
} ConfigValue;
bool config_load_values(Config *c, const ConfigValue *values, int count, Settings settings, Err *err);
void config_free(Config *c);
/* JSON that loads back to the same config; malloc'd. */
char *config_dump(const Config *c);
/* c with paths that hold in any working directory, as what is written down has to have them. The rest is c's own, which
 * must outlive it; free with config_absolute_free. */
void config_absolute(Config *out, const Config *c);
void config_absolute_free(Config *out);

/* What training asks beyond: data.path given and a directory, output not inside the data, no rates or epochs typed that
 * do not go together. */
bool config_check_training(const Config *c, Err *err);

/* Learning rates and warm-up of a run, resolved for the batch it trains with. */
typedef struct {
    double peak_lr; /* optim.lr * batch / lr_base_size */
    double warmup_lr, min_lr, warmup_epochs;
} Schedule;
/* What a config file or a smaller batch leaves above the peak, or beyond the last epoch, is brought down to where auto
 * has it and told to log, which may be NULL: any batch and any number of epochs train. */
Schedule config_schedule(const Config *c, int batch, Log *log);

/* data.path is given and a directory. EXIT_INPUT, EXIT_IO: it could not be looked at. */
bool config_check_data(const Config *c, Err *err);

/* ---- auto, resolved ---- */

/* The architecture. classes: used where model.num_classes is auto. */
MavitConfig config_mavit(const Config *c, int classes);
/* The released size (MODEL_T ..) with these dims and depths; false when none has them. */
bool config_find_size(int *name, const int dims[MAVIT_STAGES], const int depths[MAVIT_STAGES]);
double config_crop_pct(const Config *c);      /* up to 224 pixels 0.875, beyond 1 */
int config_eval_batch(const Config *c);       /* train.batch_size */
DeviceKind config_device(const Config *c, int *index); /* index: of the GPU, 0 when none is named */
int config_threads(const Config *c);          /* the usable CPUs */
int config_workers(const Config *c);          /* half of them, 1 to 16 */

#endif
