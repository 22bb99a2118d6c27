/* loader.c - a ring of batches. Threads draw tickets, one sample each, in order, and put the pixels where the ticket
 * says; the caller takes whole batches in order. Anything that could differ from run to run is settled when a batch is
 * handed out: what was bad in it is entered in the list there, in order, so that list, limit and error do not depend
 * on timing either. Memory is the ring plus one picture per thread. */
#include "data/loader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/thread.h"

/* A file that could not be used for one place of a batch. */
typedef struct Failure {
    struct Failure *next;
    uint32_t sample;
    Err err;
} Failure;

typedef struct {
    Batch batch;
    bool *good;         /* [batch size] */
    Failure **failures; /* [batch size] in the order met */
    int wanted;         /* samples that this batch asks for */
    int missing;        /* tickets not finished yet; under the lock */
} Slot;

struct Loader {
    LoaderOptions options;
    const Dataset *data;
    size_t sample_bytes; /* pixels of one sample */
    size_t bad_allowed;
    uint32_t *order; /* [data->count] of this epoch */
    uint32_t epoch;
    int64_t batches;
    Slot *ring; /* [options.ahead] batch b is in ring[b % ahead] */
    uint8_t *ring_pixels;

    BadSample *bad;
    size_t bad_count, bad_room;
    _Atomic(Image *) *kept; /* [data->count] decoded pictures, NULL where there is none */
    atomic_size_t kept_bytes;
    _Atomic uint8_t *known_bad; /* [data->count] set when a batch is handed out, never by a worker */

    pthread_t *threads;
    int thread_count;
    pid_t process; /* in a child of fork() the threads are missing, and the lock may be theirs */
    Resizer own_resizer; /* of the thread that takes the batches */

    pthread_mutex_t lock;
    pthread_cond_t work, done;        /* tickets to draw, or stop; a ticket was finished */
    int64_t next_ticket, last_ticket; /* samples from the epoch's begin; last: one past the last of the epoch */
    int64_t handed;                   /* batches before this one are free again */
    int busy;                         /* threads at work on a ticket */
    bool stop, holding;               /* holding: batch `handed` is with the caller */
    LoaderStats stats;
};

/* A damaged picture is bad, and one that was cut short meanwhile. What the system says of it (no permission, gone, a
 * link to nothing, a disk that fails) says nothing about the picture, and to go on without it would train another
 * network than was asked for. */
static bool is_bad(const Err *err) { return (err->code == EXIT_INPUT || err->code == EXIT_IO) && !err->system; }

/* Hands the picture over to the loader where its room allows; true: it is the loader's now. Two threads may meet over
 * one sample (it stands in for a bad one): the first keeps it. */
static bool keep_image(Loader *l, uint32_t sample, const Image *image) {
    size_t bytes = 3 * (size_t)image->width * (size_t)image->height + sizeof *image;
    if (atomic_fetch_add(&l->kept_bytes, bytes) + bytes > l->options.keep_bytes) {
        atomic_fetch_sub(&l->kept_bytes, bytes);
        return false;
    }
    Image *copy = mem_zalloc(1, sizeof *copy), *none = NULL;
    *copy = *image;
    if (atomic_compare_exchange_strong(&l->kept[sample], &none, copy)) return true;
    atomic_fetch_sub(&l->kept_bytes, bytes);
    free(copy);
    return false;
}

/* What evaluation keeps of a picture is its result, since nothing in it is drawn: *image becomes that, or stays. */
static bool replace_by_result(const Loader *l, Image *image, const uint8_t *pixels) {
    Image result;
    Err err = {0};
    if (!image_new(&result, l->options.eval_transform.width, l->options.eval_transform.height, &err)) return false;
    memcpy(result.pixels, pixels, l->sample_bytes);
    image_free(image);
    *image = result;
    return true;
}

/* One file to pixels. who: the sample whose random draws are used. */
static bool load_sample(Loader *l, uint8_t *pixels, uint32_t sample, uint32_t who, Resizer *resizer, Err *err) {
    const Image *kept = l->kept ? atomic_load(&l->kept[sample]) : NULL;
    bool train = l->options.train, ok = true;
    Image image;
    if (kept) {
        image = *kept;
    } else {
        char path[DATASET_PATH_MAX];
        dataset_path(l->data, sample, path);
        if (!image_load(&image, path, err)) return false;
    }
    if (train) {
        Rng rng = rng_make(l->options.seed, RNG_AUGMENT, who, l->epoch);
        ok = transform_train(resizer, pixels, &image, &l->options.train_transform, &rng, err);
    } else if (kept) {
        memcpy(pixels, image.pixels, l->sample_bytes);
    } else {
        ok = transform_eval(resizer, pixels, &image, &l->options.eval_transform, err);
    }
    if (kept) return ok;
    bool keep = ok && l->kept && (train || replace_by_result(l, &image, pixels));
    if (!keep || !keep_image(l, sample, &image)) image_free(&image);
    return ok;
}

static uint32_t sample_of(const Loader *l, int64_t ticket) {
    return l->options.train ? l->order[(size_t)ticket % l->data->count] : (uint32_t)ticket;
}

/* Fills one place of a batch. A bad sample is followed, in training, by the next ones in the data set's order. */
static void fill(Loader *l, Slot *slot, int place, int64_t ticket, Resizer *resizer) {
    size_t n = l->data->count;
    uint32_t first = sample_of(l, ticket);
    Failure **tail = &slot->failures[place];
    size_t failed = 0;
    slot->good[place] = false;
    for (size_t step = 0; step < (l->options.train ? n : 1) && failed <= l->bad_allowed; step++) {
        uint32_t sample = (uint32_t)((first + step) % n);
        if (atomic_load_explicit(&l->known_bad[sample], memory_order_relaxed)) continue;
        Err err = {0};
        if (load_sample(l, slot->batch.pixels + (size_t)place * l->sample_bytes, sample, first, resizer, &err)) {
            slot->batch.samples[place] = sample;
            slot->batch.labels[place] = dataset_label(l->data, sample);
            slot->good[place] = true;
            return;
        }
        Failure *failure = mem_zalloc(1, sizeof *failure);
        *failure = (Failure){.sample = sample, .err = err};
        *tail = failure;
        tail = &failure->next;
        failed++;
        if (!is_bad(&err) || l->options.on_bad == BAD_ERROR) return;
    }
}

/* Draws the next ticket when there is room for its batch. Under the lock. */
static bool draw_ticket(Loader *l, int64_t *ticket) {
    int batch = l->options.batch;
    if (l->next_ticket >= l->last_ticket || l->next_ticket / batch >= l->handed + l->options.ahead) return false;
    *ticket = l->next_ticket++;
    if (*ticket % batch == 0) {
        Slot *slot = &l->ring[*ticket / batch % l->options.ahead];
        slot->batch.index = *ticket / batch;
        slot->wanted = slot->missing = (int)MIN(l->last_ticket - *ticket, batch);
    }
    return true;
}

/* Does one ticket. Called and returns with the lock held, drops it while working. */
static void do_ticket(Loader *l, int64_t ticket, Resizer *resizer) {
    Slot *slot = &l->ring[ticket / l->options.batch % l->options.ahead];
    l->busy++;
    pthread_mutex_unlock(&l->lock);
    double begin = time_now();
    fill(l, slot, (int)(ticket % l->options.batch), ticket, resizer);
    double seconds = time_now() - begin;
    pthread_mutex_lock(&l->lock);
    l->stats.decode_seconds += seconds;
    slot->missing--;
    l->busy--;
    if (slot->missing == 0 || l->busy == 0) pthread_cond_signal(&l->done);
}

/* Decoding gives way to computing: where both want a core, an op that waits for its last tile costs more than a batch
 * that is ready later. When batches do run out, whoever waits for them leaves the cores free. */
#define LOADER_NICE 10

static void *work(void *arg) {
    Loader *l = arg;
    Resizer resizer = {0};
#if defined(__linux__)
    (void)setpriority(PRIO_PROCESS, 0, LOADER_NICE); /* on Linux of this thread alone */
#endif
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        int64_t ticket;
        if (draw_ticket(l, &ticket))
            do_ticket(l, ticket, &resizer);
        else
            pthread_cond_wait(&l->work, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    resizer_free(&resizer);
    return NULL;
}

static void free_failures(Slot *slot, int places) {
    for (int i = 0; i < places; i++)
        while (slot->failures[i]) {
            Failure *failure = slot->failures[i];
            slot->failures[i] = failure->next;
            free(failure);
        }
}

/* Enters a failure in the list of bad samples, once. False when it ends the run: then the error tells it, not the
 * list. */
static bool enter_failure(Loader *l, const Failure *failure, Err *err) {
    if (!is_bad(&failure->err) || l->options.on_bad == BAD_ERROR)
        return err_set(err, failure->err.code, "%s", failure->err.text);
    if (atomic_exchange_explicit(&l->known_bad[failure->sample], 1, memory_order_relaxed)) return true;
    if (l->bad_count == l->bad_allowed)
        return err_set(err, EXIT_INPUT, "%.600s (bad picture number %zu of %zu, more than data.max_bad=%g allows)",
                       failure->err.text, l->bad_count + 1, l->data->count, l->options.max_bad);
    if (l->bad_count == l->bad_room) {
        l->bad_room = l->bad_room ? 2 * l->bad_room : 16;
        l->bad = mem_resize(l->bad, l->bad_room, sizeof *l->bad);
    }
    l->bad[l->bad_count++] = (BadSample){.sample = failure->sample, .reason = mem_strdup(failure->err.text)};
    return true;
}

/* Settles a finished batch: enters what was bad, closes the gaps that evaluation leaves. */
static bool settle(Loader *l, Slot *slot, Err *err) {
    Batch *b = &slot->batch;
    bool ok = true;
    b->count = 0;
    for (int i = 0; i < slot->wanted && ok; i++) {
        for (const Failure *f = slot->failures[i]; f && ok; f = f->next) ok = enter_failure(l, f, err);
        if (!ok) break;
        if (slot->good[i]) {
            int to = b->count++;
            if (to == i) continue;
            memcpy(b->pixels + (size_t)to * l->sample_bytes, b->pixels + (size_t)i * l->sample_bytes, l->sample_bytes);
            b->labels[to] = b->labels[i], b->samples[to] = b->samples[i];
        } else if (l->options.train) {
            /* all of them are entered by now */
            ok =
                err_set(err, EXIT_INPUT, "%s: none of its %zu pictures can be used (the last: %.500s) - check the data",
                        l->data->root, l->data->count, l->bad[l->bad_count - 1].reason);
        }
    }
    free_failures(slot, l->options.batch);
    return ok;
}

static bool orphaned(const Loader *l) { return l->thread_count > 0 && l->process != getpid(); }

bool loader_next(Loader *l, const Batch **out, Err *err) {
    double begin = time_now();
    bool ok = true;
    *out = NULL;
    if (orphaned(l)) return err_set(err, EXIT_BUG, "loader: a forked process does not have its threads - open it anew");
    pthread_mutex_lock(&l->lock);
    while (ok && !*out) {
        if (l->holding) l->handed++;
        l->holding = false;
        pthread_cond_broadcast(&l->work);
        if (l->handed >= l->batches) break;
        Slot *slot = &l->ring[l->handed % l->options.ahead];
        /* who waits for a batch decodes its samples, too; those of later ones are the threads' alone */
        while (slot->batch.index != l->handed || slot->missing > 0) {
            int64_t ticket;
            if (l->next_ticket < (l->handed + 1) * l->options.batch && draw_ticket(l, &ticket))
                do_ticket(l, ticket, &l->own_resizer);
            else
                pthread_cond_wait(&l->done, &l->lock);
        }
        l->holding = true;
        pthread_mutex_unlock(&l->lock);
        ok = settle(l, slot, err);
        pthread_mutex_lock(&l->lock);
        if (ok && slot->batch.count > 0) *out = &slot->batch;
    }
    if (*out) l->stats.samples += (uint64_t)(*out)->count;
    l->stats.wait_seconds += time_now() - begin;
    pthread_mutex_unlock(&l->lock);
    return ok;
}

void loader_start_epoch(Loader *l, uint32_t epoch, int64_t first) {
    CHECK(first >= 0 && first <= l->batches, "batch %lld of %lld", (long long)first, (long long)l->batches);
    if (orphaned(l)) return; /* loader_next says it */
    pthread_mutex_lock(&l->lock);
    l->last_ticket = 0; /* no more of the epoch before */
    while (l->busy > 0) pthread_cond_wait(&l->done, &l->lock);
    for (int i = 0; i < l->options.ahead; i++) {
        free_failures(&l->ring[i], l->options.batch);
        l->ring[i].batch.index = -1;
    }
    l->epoch = epoch;
    size_t n = l->data->count;
    if (l->options.train) {
        Rng rng = rng_make(l->options.seed, RNG_ORDER, 0, epoch);
        for (size_t i = 0; i < n; i++) l->order[i] = (uint32_t)i;
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = rng_below(&rng, (uint32_t)(i + 1));
            uint32_t keep = l->order[i];
            l->order[i] = l->order[j], l->order[j] = keep;
        }
    }
    l->handed = first;
    l->holding = false;
    l->next_ticket = first * l->options.batch;
    l->last_ticket = l->options.last == LAST_SHORT ? (int64_t)n : l->batches * l->options.batch;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
}

LoaderOptions loader_defaults(int batch, int width, int height, bool train) {
    return (LoaderOptions){.batch = batch,
                           .train = train,
                           .last = train ? LAST_DROP : LAST_SHORT,
                           .max_bad = 0.01,
                           .train_transform = train_transform_defaults(width, height),
                           .eval_transform = {.width = width, .height = height, .filter = FILTER_BICUBIC}};
}

static bool take_memory(Loader *l, Err *err) {
    const LoaderOptions *o = &l->options;
    size_t n = l->data->count, batch = (size_t)o->batch, ahead = (size_t)o->ahead, all = 0;
    int width = o->train ? o->train_transform.width : o->eval_transform.width;
    int height = o->train ? o->train_transform.height : o->eval_transform.height;
    void *memory;
    if (!size_mul((size_t)width * 3, (size_t)height, &l->sample_bytes) || !size_mul(l->sample_bytes, batch, &all) ||
        !size_mul(all, ahead, &all))
        return err_set(err, EXIT_MEMORY, "memory: no room for batches of %d pictures of %d x %d - use smaller ones",
                       o->batch, width, height);
    if (!mem_try(&memory, all, err)) return false;
    l->ring_pixels = memory;
    if (o->train && !mem_try(&memory, n * sizeof *l->order, err)) return false;
    if (o->train) l->order = memory;
    if (!mem_try(&memory, n, err)) return false;
    l->known_bad = memory;
    if (l->options.keep_bytes) l->kept = mem_zalloc(n, sizeof *l->kept);
    l->ring = mem_zalloc(ahead, sizeof *l->ring);
    for (size_t i = 0; i < ahead; i++) {
        Slot *slot = &l->ring[i];
        slot->batch = (Batch){.pixels = l->ring_pixels + i * batch * l->sample_bytes,
                              .labels = mem_zalloc(batch, sizeof(int32_t)),
                              .samples = mem_zalloc(batch, sizeof(uint32_t)),
                              .index = -1};
        slot->good = mem_zalloc(batch, sizeof *slot->good);
        slot->failures = mem_zalloc(batch, sizeof(Failure *));
    }
    return true;
}

static bool start_threads(Loader *l, Err *err) {
    int code = 0;
    l->threads = mem_zalloc((size_t)l->options.workers, sizeof *l->threads);
    while (code == 0 && l->thread_count < l->options.workers) {
        code = thread_start(&l->threads[l->thread_count], work, l);
        if (code == 0) l->thread_count++;
    }
    return code == 0 || err_set(err, EXIT_MEMORY, "loader: cannot start thread %d of %d: %s - use fewer workers",
                                l->thread_count + 1, l->options.workers, strerror(code));
}

bool loader_open(Loader **out, const LoaderOptions *options, const Dataset *data, Err *err) {
    CHECK(options->batch >= 1 && options->workers >= 0 && options->ahead >= 0, "loader of batch %d, %d workers",
          options->batch, options->workers);
    CHECK(options->train || options->last == LAST_SHORT, "evaluation takes every sample once");
    CHECK(data->count > 0, "no samples");
    Loader *l = mem_zalloc(1, sizeof *l);
    l->options = *options;
    l->data = data;
    l->process = getpid();
    if (l->options.ahead == 0) l->options.ahead = l->options.workers > 0 ? LOADER_AHEAD : 1;
    l->bad_allowed = (size_t)(options->max_bad * (double)data->count);
    if (options->max_bad > 0) l->bad_allowed = MAX(l->bad_allowed, 1); /* of few pictures, one is a large share */
    int64_t n = (int64_t)data->count, batch = options->batch;
    l->batches = options->last == LAST_DROP ? MAX(n / batch, 1) : CEIL_DIV(n, batch);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    l->handed = l->batches; /* nothing to hand out before an epoch starts */
    if (take_memory(l, err) && start_threads(l, err)) {
        *out = l;
        return true;
    }
    loader_close(l);
    *out = NULL;
    return false;
}

/* Waits for the threads' end. */
static void dismiss(Loader *l) {
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->thread_count; i++) pthread_join(l->threads[i], NULL);
    pthread_cond_destroy(&l->work), pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
}

void loader_close(Loader *l) {
    if (!l) return;
    if (!orphaned(l)) dismiss(l);
    for (int i = 0; l->ring && i < l->options.ahead; i++) {
        Slot *slot = &l->ring[i];
        free_failures(slot, l->options.batch);
        free(slot->batch.labels), free(slot->batch.samples), free(slot->good), free(slot->failures);
    }
    for (size_t i = 0; i < l->bad_count; i++) free(l->bad[i].reason);
    resizer_free(&l->own_resizer);
    for (size_t i = 0; l->kept && i < l->data->count; i++) {
        Image *image = atomic_load(&l->kept[i]);
        if (image) image_free(image);
        free(image);
    }
    free((void *)l->kept);
    free(l->ring), free(l->ring_pixels), free(l->order), free(l->known_bad), free(l->bad), free(l->threads);
    free(l);
}

int64_t loader_batches(const Loader *l) { return l->batches; }

int64_t loader_samples(const Loader *l) {
    return l->options.last == LAST_SHORT ? (int64_t)l->data->count : l->batches * l->options.batch;
}

const BadSample *loader_bad(const Loader *l, size_t *count) {
    *count = l->bad_count;
    return l->bad;
}

LoaderStats loader_stats(Loader *l) {
    if (orphaned(l)) return l->stats;
    pthread_mutex_lock(&l->lock);
    LoaderStats stats = l->stats;
    pthread_mutex_unlock(&l->lock);
    return stats;
}
