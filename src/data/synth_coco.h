/* synth_coco.h - annotations: collected picture by picture, written as COCO JSON. */
#ifndef MALA_SYNTH_COCO_H
#define MALA_SYNTH_COCO_H

#include "data/synth_mask.h"
#include "data/synth_scene.h"

typedef struct {
    int kind;
    bool crowd;
    MaskTrace trace; /* polygons are left out of crowds */
    uint32_t *runs;  /* of crowds */
    int run_count;
} SynthAnnotation;

typedef struct {
    char *name; /* file_name */
    int width, height, count;
    SynthAnnotation *annotation; /* (count) */
} SynthPicture;

/* Annotates every object of which a person could see something, and turns ids into the label map: category ids, 255
 * for crowds and for objects too hidden to be annotated. */
void picture_annotate(SynthPicture *picture, const char *name, uint8_t *ids, int width, int height,
                      const SynthObject *objects, int count);
void picture_free(SynthPicture *picture);

bool coco_write(const char *path, const SynthPicture *pictures, int count, Err *err);

#endif
