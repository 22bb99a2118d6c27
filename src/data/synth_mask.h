/* synth_mask.h - from a map of object ids to what annotations hold: bounds, polygons, run lengths. */
#ifndef MALA_SYNTH_MASK_H
#define MALA_SYNTH_MASK_H

#include "base/base.h"

/* Corners on the pixel grid, closed by the last to the first: (0, 0) is the picture's upper left corner. */
typedef struct {
    int *xy; /* (points, 2) */
    int points;
} Polygon;

typedef struct {
    int x, y, width, height; /* bounds, pixels */
    int area;                /* pixels */
    Polygon *polygons;       /* their union is the mask, to an IoU of at least 0.97 */
    int polygon_count;
} MaskTrace;

/* Traces the pixels of ids (height, width) that equal id. COCO polygons know no holes: a piece with a hole is cut
 * through it in two. False when there is no such pixel; *out is empty then. Free with mask_trace_free. */
bool mask_trace(MaskTrace *out, const uint8_t *ids, int width, int height, int id);
void mask_trace_free(MaskTrace *trace);

/* Uncompressed COCO run lengths: down the columns, from left to right, first the run of pixels outside.
 * Returns how many; *counts is the caller's to free. */
int mask_runs(uint32_t **counts, const uint8_t *ids, int width, int height, int id);

#endif
