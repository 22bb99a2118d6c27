/* synth_shape.h - solids of the picture maker as signed distances: six shapes, from which every object is put
 * together (synth_objects.c). A distance answers all the renderer asks: where a ray hits, which way a surface faces,
 * how deep a shadow is. Distances follow I. Quilez, "Distance functions" (iquilezles.org). */
#ifndef MALA_SYNTH_SHAPE_H
#define MALA_SYNTH_SHAPE_H

#include "data/synth_math.h"

typedef enum {
    SHAPE_BOX,       /* half extents size[0..2], edges rounded by round */
    SHAPE_ELLIPSOID, /* half axes size[0..2] */
    SHAPE_ROD,       /* cylinder along y: radius size[0], half length size[1], edges rounded by round */
    SHAPE_ARC,       /* bent tube in the xy plane: ring radius size[0], tube radius size[1], size[2] turns to either
                        side of +y; 0.5: a torus */
    SHAPE_LATHE,     /* outline (radius, height) turned about y */
    SHAPE_PRISM      /* outline in the xy plane, half depth size[0] along z; grown by round */
} ShapeKind;

enum { OUTLINE_MAX = 12, MATERIALS_PER_BODY = 3 };

typedef struct {
    ShapeKind shape;
    int material; /* 0 the body's main one, 1 second, 2 accents; made absolute when a body joins a scene */
    Vec centre;
    Mat axes;
    float size[3], round;
    float arc_sin, arc_cos; /* of size[2], for SHAPE_ARC */
    Vec2 outline[OUTLINE_MAX];
    int points;
    float bound; /* radius of a sphere around centre that holds the part */
} Part;

/* A growing list of parts; the first `count` are filled. Adding to a full list is a bug of the caller. */
enum { PARTS_MAX = 512 };
typedef struct {
    Part part[PARTS_MAX];
    int count;
} Parts;

/* Each adds one part and returns it, so that the caller may turn its axes. */
Part *parts_box(Parts *parts, int material, Vec centre, Vec half, float round);
Part *parts_ellipsoid(Parts *parts, int material, Vec centre, Vec half);
Part *parts_rod(Parts *parts, int material, Vec from, Vec to, float radius, float round);
Part *parts_arc(Parts *parts, int material, Vec centre, float ring, float tube, float half_turns);
/* outline: points (n, at most OUTLINE_MAX), closed by the last to the first */
Part *parts_lathe(Parts *parts, int material, const Vec2 *outline, int n, float round);
Part *parts_prism(Parts *parts, int material, float z, float half_depth, const Vec2 *outline, int n, float round);

/* turns, scales and moves a part about the origin */
void part_place(Part *part, const Mat *turn, float scale, Vec shift);
/* signed distance from p, outer coordinates; never more than the true one (ellipsoids: by a safety factor) */
float part_distance(const Part *part, Vec p);
Vec part_normal(const Part *part, Vec p);
/* how far the part reaches along the unit direction, measured from the origin: max over its points of dot(p, d) */
float part_reach(const Part *part, Vec direction);

#endif
