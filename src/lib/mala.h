/* mala.h - the C library: a trained network in your program.
 *
 *     MalaError error;
 *     MalaModel *model = mala_model_open("best.safetensors", NULL, 0, &error);
 *     MalaRunner *runner = mala_runner_new(model, NULL, &error);
 *     MalaImage image;
 *     mala_image_load(&image, "photo.jpg", &error);
 *     mala_run_images(runner, NULL, prob, &image, 1, &error);     prob[classes]
 *
 * Functions that can fail return false or NULL and put one line of text into *error (which may be NULL). Nothing here
 * prints, exits, or keeps anything outside the objects. A model may be shared by threads; a runner belongs to one
 * thread at a time, and runners do not disturb each other.
 *
 * What the process has is as it was after every call, failed ones too: signal handlers and mask, OpenMP's threads,
 * locale, floating-point rounding, traps and flags, descriptors, working directory, environment. Nor do results depend
 * on it: answers are the same with another rounding or with subnormals flushed. A runner has threads, which take no
 * signals and end with mala_runner_free; while there is one, C++'s new-handler is the library's, which passes on what
 * is not its own. A call takes up to 256 KiB of its thread's stack.
 *
 * A child of fork() may use what it has from its parent, unless another thread was in the middle of a call: models, and
 * on the CPU runners, with the same answers from one thread alone. For several threads it makes a runner of its own. */
#ifndef MALA_H
#define MALA_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MALA_API __attribute__((visibility("default")))

typedef struct MalaModel MalaModel;   /* weights, classes, preprocessing */
typedef struct MalaRunner MalaRunner; /* a model on a device, with the memory that running it takes */

typedef struct {
    int code; /* the mala program's exit code: 2 usage, 3 a file's content, 4 I/O, 5 memory, 6 device; all: man mala */
    char text[1024];
} MalaError;

MALA_API const char *mala_version(void);

/* Opens a safetensors file, a PyTorch checkpoint (.pth), a run's directory or a model hub's folder. settings:
 * `count` strings "section.key=value" as on mala's command line, for files that do not say all ("model.name=mavit_t").
 * The file stays open, one descriptor, until the model is closed. */
MALA_API MalaModel *mala_model_open(const char *path, const char *const *settings, int count, MalaError *error);
/* After its runners are freed. */
MALA_API void mala_model_close(MalaModel *model);

typedef struct {
    int classes;
    int height, width;  /* of the network's input, pixels */
    int64_t parameters; /* trainable scalars */
    double macs;        /* multiply-adds a picture */
} MalaInfo;
MALA_API MalaInfo mala_model_info(const MalaModel *model);
/* The name of a class, 0 .. classes - 1, as long as the model is open; NULL beyond. */
MALA_API const char *mala_model_label(const MalaModel *model, int class_index);

typedef struct {
    const char *device; /* "auto", "cpu", "cuda", "cuda:N"; NULL: as the model's settings say */
    int threads;        /* 0: as many as the process may use */
    int batch;          /* most pictures that are run at once, up to 65535; 0: 1 */
    bool tensors;       /* for mala_run_tensors; otherwise for mala_run_images */
} MalaRunnerOptions;
/* options may be NULL. */
MALA_API MalaRunner *mala_runner_new(const MalaModel *model, const MalaRunnerOptions *options, MalaError *error);
MALA_API void mala_runner_free(MalaRunner *runner);

/* 8-bit RGB, rows from top to bottom without gaps. */
typedef struct {
    int width, height;
    uint8_t *pixels;
} MalaImage;
/* Decodes a JPEG, PNG, WebP, BMP or the first frame of a GIF, upright. To be freed; empty where it fails. */
MALA_API bool mala_image_load(MalaImage *out, const char *path, MalaError *error);
MALA_API void mala_image_free(MalaImage *image);

/* Scales and crops each picture as the model was evaluated, and runs them. logits, prob: [count][classes], either may
 * be NULL. Any count. Answers that are not finite are no answers: an error, not a value. */
MALA_API bool mala_run_images(MalaRunner *runner, float *logits, float *prob, const MalaImage *images, int count,
                              MalaError *error);
/* The same for tensors that are ready for the network: [count][3][height][width], normalised (planes of red, green and
 * blue, as PyTorch has them). */
MALA_API bool mala_run_tensors(MalaRunner *runner, float *logits, float *prob, const float *images, int count,
                               MalaError *error);

/* The k best of `classes` scores, best first, into top[k]; with k > classes, the places beyond stay as they were. */
MALA_API void mala_top(int32_t *top, const float *scores, int classes, int k);

#ifdef __cplusplus
}
#endif

#endif
