/* synth.c - room data: writes a rendered data set. Pictures are numbered jobs, each a function of the seed and its
 * number alone, so any thread may make any of them. Refuses to write into a directory that holds anything. */
#include "data/synth.h"

#include <png.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/parallel.h"
#include "data/synth_coco.h"
#include "data/synth_render.h"

enum { NAME_SIZE = 96, PROGRESS_EVERY = 50 };

/* The four parts of a data set, split by split. The order numbers the random streams. */
typedef enum { TRAIN, TRAIN_SCENES, VAL, VAL_SCENES, GROUPS } Group;
static const char *const split_name[GROUPS] = {"train", "train", "val", "val"};

static bool holds_scenes(Group group) { return group == TRAIN_SCENES || group == VAL_SCENES; }

typedef struct {
    const SynthOptions *options;
    SynthProgress progress;
    void *progress_arg;
    int count[GROUPS], total;
    SynthPicture *pictures; /* (total) what they hold, group by group */
    atomic_int next, done;
    atomic_bool failed;
    pthread_mutex_t lock; /* err, progress */
    Err err;
} Job;

SynthOptions synth_defaults(void) {
    return (SynthOptions){.train_per_class = 500,
                          .val_per_class = 50,
                          .train_scenes = 240,
                          .val_scenes = 60,
                          .size = 72,
                          .scene_size = 128,
                          .jpeg_quality_min = 70,
                          .jpeg_quality_max = 95,
                          .threads = 1};
}

int synth_class_count(void) { return SYNTH_KINDS; }
const char *synth_class_name(int index) { return synth_kinds[index].name; }

static bool write_jpeg(const char *path, const Image *image, int quality, Err *err) {
    uint8_t *bytes;
    size_t count;
    if (!image_encode_jpeg(&bytes, &count, image, quality, err)) return false;
    bool ok = file_write_quickly(path, bytes, count, err);
    free(bytes);
    return ok;
}

/* labels: rows of 8-bit grey. Unfiltered and lightly compressed: flat areas gain nothing from more. */
static bool write_labels(const char *path, const uint8_t *labels, int width, int height, Err *err) {
    png_image png = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_GRAY, .flags = PNG_IMAGE_FLAG_FAST};
    png.width = (png_uint_32)width, png.height = (png_uint_32)height;
    png_alloc_size_t count = 2 * (size_t)(width + 1) * (size_t)height + 4096; /* deflate adds an eighth at most */
    uint8_t *bytes = mem_zalloc(count, 1);
    bool ok = png_image_write_to_memory(&png, bytes, &count, 0, labels, 0, NULL);
    if (!ok) mem_exhausted("a label map"); /* nothing else can be wrong with one */
    ok = file_write_quickly(path, bytes, count, err);
    free(bytes);
    return ok;
}

static char *path_in(const Job *job, const char *name) { return path_join(job->options->dir, name); }

/* The picture's path in the data set, without extension; the label map's below labels/ is the same. */
static void picture_name(char out[NAME_SIZE], Group group, int index) {
    const char *kind = synth_kinds[index % SYNTH_KINDS].name;
    if (holds_scenes(group))
        snprintf(out, NAME_SIZE, "scenes/%s/%06d", split_name[group], index + 1);
    else
        snprintf(out, NAME_SIZE, "%s/%s/%s_%05d", split_name[group], kind, kind, index / SYNTH_KINDS + 1);
}

/* Photograph and label map; the film's ids become labels. */
static bool write_picture(const Job *job, SynthPicture *picture, const char *name, const Image *image, Film *film,
                          const Scene *scene, int quality, Err *err) {
    char file[NAME_SIZE + 16];
    snprintf(file, sizeof file, "%s.jpg", name);
    picture_annotate(picture, file, film->ids, film->width, film->height, scene->object, scene->object_count);
    char *path = path_in(job, file);
    bool ok = write_jpeg(path, image, quality, err);
    free(path);
    snprintf(file, sizeof file, "labels/%s.png", name);
    path = path_in(job, file);
    ok = ok && write_labels(path, film->ids, film->width, film->height, err);
    free(path);
    return ok;
}

static bool make_picture(const Job *job, SynthPicture *picture, Scene *scene, Group group, int index, Err *err) {
    const SynthOptions *o = job->options;
    Rng rng = rng_make(o->seed, RNG_SYNTH, (uint64_t)group << 40 | (uint64_t)index, 0);
    int shorter = holds_scenes(group) ? o->scene_size : o->size, width = shorter, height = shorter;
    int longer = shorter + (int)((float)shorter * 0.25f * rng_uniform(&rng));
    *(draw_chance(&rng, 0.7f) ? &width : &height) = longer;
    int quality = draw_int(&rng, o->jpeg_quality_min, o->jpeg_quality_max);
    scene_draw(scene, holds_scenes(group) ? -1 : index % SYNTH_KINDS, &rng);

    Film film;
    Image image;
    if (!film_new(&film, width, height, err)) return false;
    bool ok = image_new(&image, width, height, err);
    if (ok) {
        film_render(&film, scene);
        film_develop(&image, &film, &scene->camera, &rng);
        char name[NAME_SIZE];
        picture_name(name, group, index);
        ok = write_picture(job, picture, name, &image, &film, scene, quality, err);
        image_free(&image);
    }
    film_free(&film);
    return ok;
}

static void report(Job *job, const Err *err) {
    int done = atomic_fetch_add(&job->done, 1) + 1;
    bool due = job->progress && (done % PROGRESS_EVERY == 0 || done == job->total);
    if (!err->code && !due) return;
    pthread_mutex_lock(&job->lock);
    if (err->code && !job->err.code) job->err = *err;
    if (due) job->progress(job->progress_arg, done, job->total);
    pthread_mutex_unlock(&job->lock);
    if (err->code) atomic_store(&job->failed, true);
}

/* One thread's share: whatever number is next. A part of parallel_for's work cut evenly would leave the thread that
 * got the scenes alone at the end. */
static void work(void *arg, int index, int thread) {
    (void)index, (void)thread;
    Job *job = arg;
    Scene *scene = mem_zalloc(1, sizeof *scene);
    for (int i; !atomic_load(&job->failed) && (i = atomic_fetch_add(&job->next, 1)) < job->total;) {
        Group group = TRAIN;
        int first = 0;
        while (i - first >= job->count[group]) first += job->count[group++];
        Err err = {0};
        make_picture(job, &job->pictures[i], scene, group, i - first, &err);
        report(job, &err);
    }
    free(scene);
}

static bool check_range(const char *what, int value, int low, int high, Err *err) {
    if (value >= low && value <= high) return true;
    return err_set(err, EXIT_USAGE, "%s: %d is out of range - give %d to %d", what, value, low, high);
}

static bool check_options(const SynthOptions *o, Err *err) {
    if (!check_range("train pictures per class", o->train_per_class, 0, 99999, err) ||
        !check_range("val pictures per class", o->val_per_class, 0, 99999, err) ||
        !check_range("train scenes", o->train_scenes, 0, 99999, err) ||
        !check_range("val scenes", o->val_scenes, 0, 99999, err) ||
        !check_range("picture size", o->size, 32, 1024, err) ||
        !check_range("scene size", o->scene_size, 32, 1024, err) ||
        !check_range("lowest JPEG quality", o->jpeg_quality_min, 1, 100, err) ||
        !check_range("highest JPEG quality", o->jpeg_quality_max, o->jpeg_quality_min, 100, err) ||
        !check_range("threads", o->threads, 1, 1024, err))
        return false;
    if (!path_is_dir(o->dir)) return true;
    DirList list;
    if (!dir_list(&list, o->dir, err)) return false;
    size_t entries = list.count;
    dir_list_free(&list);
    return entries == 0 ||
           err_set(err, EXIT_USAGE, "%s: is not empty - name a new directory or empty this one", o->dir);
}

/* name below the data set and below its labels */
static bool make_dirs_of(const Job *job, const char *name, Err *err) {
    char *path = path_in(job, name), *labels = path_in(job, "labels"), *map = path_join(labels, name);
    bool ok = dir_make(path, err) && dir_make(map, err);
    free(path);
    free(labels);
    free(map);
    return ok;
}

/* Only what will hold something: an image folder with empty classes would be an error to its readers. */
static bool make_dirs(const Job *job, Err *err) {
    char name[NAME_SIZE];
    char *annotations = path_in(job, "annotations");
    bool ok = dir_make(job->options->dir, err) && (job->total == 0 || dir_make(annotations, err));
    free(annotations);
    for (Group g = TRAIN; ok && g < GROUPS; g++) {
        if (job->count[g] == 0) continue;
        snprintf(name, sizeof name, "scenes/%s", split_name[g]);
        if (holds_scenes(g)) ok = make_dirs_of(job, name, err);
        for (int k = 0; ok && k < SYNTH_KINDS && !holds_scenes(g); k++) {
            snprintf(name, sizeof name, "%s/%s", split_name[g], synth_kinds[k].name);
            ok = make_dirs_of(job, name, err);
        }
    }
    return ok;
}

static bool write_annotations(const Job *job, Err *err) {
    const SynthPicture *pictures = job->pictures;
    for (Group g = TRAIN; g < GROUPS; g += 2) {
        int count = job->count[g] + job->count[g + 1];
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "annotations/instances_%s.json", split_name[g]);
        char *path = path_in(job, name);
        bool ok = count == 0 || coco_write(path, pictures, count, err);
        free(path);
        if (!ok) return false;
        pictures += count;
    }
    return true;
}

static bool write_lists(const Job *job, Err *err) {
    char text[NAME_SIZE * SYNTH_KINDS];
    int count = 0;
    if (!write_annotations(job, err)) return false;
    for (int k = 0; k < SYNTH_KINDS; k++)
        count += snprintf(text + count, sizeof text - (size_t)count, "%s\n", synth_kinds[k].name);
    char *path = path_in(job, "classes.txt");
    bool ok = file_write(path, text, (size_t)count, err);
    free(path);
    return ok;
}

bool synth_write(const SynthOptions *options, SynthProgress progress, void *arg, Err *err) {
    const SynthOptions *o = options;
    CHECK(o->dir, "synth_write needs a directory");
    if (!check_options(o, err)) return false;
    Job job = {
        .options = o,
        .progress = progress,
        .progress_arg = arg,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .count = {o->train_per_class * SYNTH_KINDS, o->train_scenes, o->val_per_class * SYNTH_KINDS, o->val_scenes}};
    for (Group g = TRAIN; g < GROUPS; g++) job.total += job.count[g];
    job.pictures = mem_zalloc((size_t)job.total, sizeof *job.pictures);
    bool ok = make_dirs(&job, err);
    if (ok) {
        Team *team = team_new(o->threads), *before = team_use(team);
        parallel_for(o->threads, work, &job);
        team_use(before);
        team_free(team);
        ok = !job.failed ? write_lists(&job, err) : err_set(err, job.err.code, "%s", job.err.text);
    }
    for (int i = 0; i < job.total; i++) picture_free(&job.pictures[i]);
    free(job.pictures);
    pthread_mutex_destroy(&job.lock);
    return ok;
}
