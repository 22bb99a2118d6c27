/* synth.h - `mala synth DIR`: a data set of rendered photographs, for trying everything without downloading anything.
 *
 *   classes.txt                                   names of the kinds, line k is category id k; written last
 *   train/KIND/KIND_00001.jpg, val/KIND/...       one object each (image folders)
 *   scenes/train/000001.jpg, scenes/val/...       two to four objects, now and then a crowd of small ones
 *   annotations/instances_{train,val}.json        COCO, of all pictures of a split, file_name relative to DIR: boxes,
 *                                                 polygons, areas; crowds as run lengths
 *   labels/train/KIND/KIND_00001.png,             of every picture, 8-bit grey: 0 background, k category id k, 255
 *   labels/scenes/train/000001.png, ...           ignore
 *
 * The kinds differ in shape alone. The same options give the same bytes, for any number of threads. */
#ifndef MALA_SYNTH_H
#define MALA_SYNTH_H

#include "base/base.h"

typedef struct {
    const char *dir;                        /* made when missing; must be empty */
    int train_per_class, val_per_class;     /* 0 .. 99999 */
    int train_scenes, val_scenes;           /* 0 .. 99999 */
    int size, scene_size;                   /* shorter side, 32 .. 1024 pixels; the longer is up to a quarter longer */
    int jpeg_quality_min, jpeg_quality_max; /* 1 .. 100 */
    int threads;                            /* at least 1 */
    uint64_t seed;
} SynthOptions;

SynthOptions synth_defaults(void); /* dir is NULL */

int synth_class_count(void);
const char *synth_class_name(int index); /* sorted, as image folders number them */

/* Called now and then, never by two threads at once. */
typedef void (*SynthProgress)(void *arg, int done, int total);

/* False: EXIT_USAGE (an option out of range, a directory that is not empty), EXIT_IO, EXIT_MEMORY. progress may be
 * NULL. What was written before a failure stays; without classes.txt it is not a data set. */
bool synth_write(const SynthOptions *options, SynthProgress progress, void *arg, Err *err);

#endif
