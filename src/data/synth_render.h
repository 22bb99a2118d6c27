/* synth_render.h - from a scene to a photograph: light as floats, then the lens and the sensor. */
#ifndef MALA_SYNTH_RENDER_H
#define MALA_SYNTH_RENDER_H

#include "data/image.h"
#include "data/synth_scene.h"

/* All rows from top to bottom, width * height entries; ids hold what the middle of a pixel shows: 0 or an object. */
typedef struct {
    int width, height;
    Vec *light;   /* linear RGB */
    float *depth; /* distance along the view */
    uint8_t *ids;
} Film;

bool film_new(Film *film, int width, int height, Err *err);
void film_free(Film *film);

/* One ray through each pixel's middle, four more where neighbours differ. */
void film_render(Film *film, const Scene *scene);
/* Depth of field, shake, exposure, white balance and noise, into image (of the film's size, already allocated). */
void film_develop(Image *image, const Film *film, const Camera *camera, Rng *rng);

#endif
