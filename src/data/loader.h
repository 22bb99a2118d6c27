/* loader.h - batches of pictures, decoded ahead by threads. What a batch holds depends on the data, the options and
 * (seed, epoch, batch) alone: not on how many threads there are, nor on which was faster. */
#ifndef MALA_LOADER_H
#define MALA_LOADER_H

#include "data/dataset.h"
#include "data/transform.h"

typedef enum {
    BAD_SKIP, /* go on without it; training takes the next good sample in the data set's order instead */
    BAD_ERROR /* stop, naming the file */
} BadPolicy;

typedef enum {
    LAST_SHORT, /* the last batch of an epoch holds what is left */
    LAST_DROP,  /* what is left is dropped (an epoch has at least one batch: a small data set wraps) */
    LAST_WRAP   /* the last batch is filled up from the beginning of the epoch's order */
} LastBatch;

#define LOADER_AHEAD 3

typedef struct {
    int batch;      /* samples, at least 1 */
    int workers;    /* threads beside the caller's, which decodes while it would wait for a batch */
    int ahead;      /* batches in memory, the one handed out included; 0: LOADER_AHEAD, or 1 without workers */
    bool train;     /* shuffled order and train_transform; else the data set's order and eval_transform */
    LastBatch last; /* evaluation: LAST_SHORT only */
    uint64_t seed;
    size_t keep_bytes; /* decoded pictures (of evaluation: transformed) kept for later epochs, the first that fit */
    BadPolicy on_bad;
    double max_bad; /* BAD_SKIP: share of the data set that may be bad before the loader stops; above 0, one may */
    TrainTransform train_transform;
    EvalTransform eval_transform;
} LoaderOptions;

/* decoding in the caller, nothing kept, BAD_SKIP with 1 %, seed 0; training drops an incomplete last batch */
LoaderOptions loader_defaults(int batch, int width, int height, bool train);

typedef struct {
    uint8_t *pixels;   /* [count, height, width, 3] R G B */
    int32_t *labels;   /* [count]; -1 without labels */
    uint32_t *samples; /* [count] which samples of the data set these are */
    int count;         /* evaluation: below the batch size when files were bad, never 0 */
    int64_t index;     /* of the batch within the epoch */
} Batch;

typedef struct {
    uint32_t sample;
    char *reason; /* "path: what is wrong - what to do" */
} BadSample;

typedef struct {
    uint64_t samples;      /* handed out since the loader was opened */
    double wait_seconds;   /* that loader_next waited or decoded */
    double decode_seconds; /* that all threads spent reading, decoding and transforming */
} LoaderStats;

typedef struct Loader Loader;

/* data stays the caller's and must outlive the loader. Starts the threads and takes all the memory that pictures in
 * flight do not need. False: EXIT_MEMORY. */
bool loader_open(Loader **out, const LoaderOptions *options, const Dataset *data, Err *err);
void loader_close(Loader *l); /* NULL is nothing to do */

int64_t loader_batches(const Loader *l); /* of an epoch */
int64_t loader_samples(const Loader *l); /* of an epoch, bad ones included */

/* Begins an epoch at batch `first` (0 .. loader_batches), dropping what was decoded ahead. Before the first call there
 * is nothing to hand out. */
void loader_start_epoch(Loader *l, uint32_t epoch, int64_t first);

/* The next batch, valid until the following call on this loader; *out is NULL at the end of the epoch.
 * False: a sample was bad under BAD_ERROR, more than max_bad were, all were (EXIT_INPUT, EXIT_IO); a disk failed, also
 * when asked again (EXIT_IO); EXIT_MEMORY. After that, loader_start_epoch or loader_close. A loader with threads that a
 * child of fork() has from its parent gives EXIT_BUG. */
bool loader_next(Loader *l, const Batch **out, Err *err);

/* The bad samples met so far, each once, in the order in which batches met them. Valid until the next call. */
const BadSample *loader_bad(const Loader *l, size_t *count);
LoaderStats loader_stats(Loader *l);

#endif
