/* synth_scene.h - what stands before the camera: bodies made of parts, their materials, ground, wall, sky, light. */
#ifndef MALA_SYNTH_SCENE_H
#define MALA_SYNTH_SCENE_H

#include "data/synth_shape.h"

/* A kind of object. It is built upright on y = 0, about one unit tall, its front towards +z, then turned about its own
 * axis (yaw), in the picture's plane (roll) and backwards (lean). Ranges in turns. */
typedef struct {
    const char *name;
    void (*build)(Parts *parts, Rng *rng);
    float yaw, roll; /* drawn from -range .. range */
    float lean;      /* share of the camera's elevation to lean back by: 1 shows the front as from level ground */
    bool both_sides; /* half the time turned by half a turn */
} SynthKind;

enum { SYNTH_KINDS = 12 };
/* sorted by name, as image folders number classes */
extern const SynthKind synth_kinds[SYNTH_KINDS];

typedef enum { PATTERN_PLAIN, PATTERN_STRIPES, PATTERN_CHECKS, PATTERN_MARBLE, PATTERN_WOOD, PATTERN_SPECKS } Pattern;

typedef struct {
    Pattern pattern;
    Vec colour[2];   /* linear RGB reflectance */
    float frequency; /* features per unit */
    Mat turn;
    uint32_t seed;
    float gloss;   /* 0 matt .. 1 lacquer */
    int sharpness; /* the highlight is a cosine to the power 2^sharpness */
} Material;

/* id: 0 clutter, k object number k of the picture. Objects of one crowd share an id. */
typedef struct {
    int first, count; /* parts */
    int id;
    Vec centre; /* a sphere that holds the body */
    float radius;
} Body;

typedef struct {
    int kind;
    bool crowd;
} SynthObject;

enum { BODIES_MAX = 64, OBJECTS_MAX = 8, MATERIALS_MAX = 3 * BODIES_MAX + 2 };

typedef struct {
    Vec eye;
    Mat axes;    /* right, up, forward */
    float focal; /* in units of half the shorter side */
    float shift_x, shift_y;
    float focus, aperture; /* distance in focus; blur in half shorter sides per relative distance */
} Camera;

typedef struct {
    Parts parts;
    Body body[BODIES_MAX];
    int body_count;
    Material material[MATERIALS_MAX]; /* 0 the ground, 1 the wall */
    int material_count;
    SynthObject object[OBJECTS_MAX];
    int object_count;
    Camera camera;
    bool has_wall;
    Vec wall_normal;
    float wall_offset; /* the wall: dot(p, normal) = offset */
    Vec light, light_colour, sky[2], bounce;
    float softness; /* penumbra: width over distance */
    uint32_t sky_seed;
} Scene;

/* Draws one picture's scene. kind: the only object's, or -1 for two to four of any kind, now and then with a crowd. */
void scene_draw(Scene *scene, int kind, Rng *rng);

#endif
