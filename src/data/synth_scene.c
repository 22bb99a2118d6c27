/* synth_scene.c - room data: draws what a picture shows. Everything but the build of the object itself - colours,
 * patterns, ground, wall, sky, light, clutter, camera - comes from one distribution whatever the kind, so that
 * nothing but shape tells the kinds apart. y is up, the camera looks towards -z. */
#include "data/synth_scene.h"

/* Hues go from red over green to blue; few things are magenta. */
static Vec draw_colour(Rng *rng) {
    float hue = draw(rng, -0.2f, 4.5f), vivid = rng_uniform(rng), level = draw(rng, 0.2f, 0.9f);
    Vec pure = {unitf(fabsf(hue - 3) - 1), unitf(2 - fabsf(hue - 2)), unitf(2 - fabsf(hue - 4))};
    Vec colour = vec_mix((Vec){1, 1, 1}, pure, 0.75f * vivid * vivid);
    return vec_scale(colour, level * level / MAX(vec_luma(colour), 0.3f) * 0.8f);
}

/* Perceived brightness, 0 to about 1. */
static float brightness(const Material *m) { return sqrtf((vec_luma(m->colour[0]) + vec_luma(m->colour[1])) / 2); }

static Material draw_material(Rng *rng) {
    Material m = {.pattern = PATTERN_PLAIN};
    m.colour[0] = m.colour[1] = draw_colour(rng);
    if (draw_chance(rng, 0.6f)) {
        m.pattern = (Pattern)draw_int(rng, PATTERN_STRIPES, PATTERN_SPECKS);
        Vec other = draw_colour(rng);
        m.colour[1] = vec_mix(m.colour[0], other, draw(rng, 0.2f, 0.6f));
    }
    m.frequency = draw(rng, 2, 9);
    m.turn = mat_turn(0, rng_uniform(rng));
    for (int axis = 1; axis < 3; axis++) m.turn = mat_after(m.turn, mat_turn(axis, rng_uniform(rng)));
    m.seed = rng_u32(rng);
    m.gloss = draw_chance(rng, 0.6f) ? draw(rng, 0.1f, 1) : 0;
    m.sharpness = draw_int(rng, 3, 7);
    return m;
}

/* A body's main colour must stand off from ground and wall, to either side: a person needs that much as well. */
static void add_materials(Scene *scene, Rng *rng, bool stand_off) {
    CHECK(scene->material_count + MATERIALS_PER_BODY <= MATERIALS_MAX, "a scene of too many materials");
    for (int i = 0; i < MATERIALS_PER_BODY; i++) {
        Material *m = &scene->material[scene->material_count++];
        for (int attempt = 0; attempt < 12; attempt++) {
            *m = draw_material(rng);
            float b = brightness(m);
            float off = MIN(fabsf(b - brightness(&scene->material[0])), fabsf(b - brightness(&scene->material[1])));
            if (!stand_off || i == 2 || off > 0.24f) break;
        }
    }
}

typedef struct {
    Vec low, high;
} Extent;

/* how far the parts from first on reach along the three axes */
static Extent extent(const Scene *scene, int first, int end, const Mat *axes) {
    float low[3], high[3];
    for (int i = 0; i < 3; i++) {
        low[i] = 1e30f, high[i] = -1e30f;
        for (int k = first; k < end; k++) {
            high[i] = MAX(high[i], part_reach(&scene->parts.part[k], axes->row[i]));
            low[i] = MIN(low[i], -part_reach(&scene->parts.part[k], vec_scale(axes->row[i], -1)));
        }
    }
    return (Extent){{low[0], low[1], low[2]}, {high[0], high[1], high[2]}};
}

static const Mat WORLD = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};

static void place_parts(Scene *scene, int first, const Mat *turn, float scale, Vec shift) {
    for (int i = first; i < scene->parts.count; i++) part_place(&scene->parts.part[i], turn, scale, shift);
}

/* Makes the parts from first on a body: turned, size units across, standing on the ground at (x, z). materials: where
 * the body's own begin. */
static void add_body(Scene *scene, int first, Mat turn, float size, float x, float z, int id, int materials) {
    CHECK(scene->body_count < BODIES_MAX, "a scene of more than %d bodies", BODIES_MAX);
    place_parts(scene, first, &turn, 1, (Vec){0, 0, 0});
    Extent e = extent(scene, first, scene->parts.count, &WORLD);
    Vec span = vec_sub(e.high, e.low);
    float scale = size / MAX(span.x, MAX(span.y, span.z));
    Vec shift = {x - scale * (e.low.x + e.high.x) / 2, -scale * e.low.y, z - scale * (e.low.z + e.high.z) / 2};
    place_parts(scene, first, &WORLD, scale, shift);
    Body *body = &scene->body[scene->body_count++];
    *body = (Body){.first = first, .count = scene->parts.count - first, .id = id};
    body->centre = (Vec){x, scale * span.y / 2, z};
    for (int i = first; i < scene->parts.count; i++) {
        Part *part = &scene->parts.part[i];
        part->material += materials;
        body->radius = MAX(body->radius, vec_length(vec_sub(part->centre, body->centre)) + part->bound);
    }
}

/* elevation: of the camera, in turns */
static Mat draw_pose(const SynthKind *kind, float elevation, Rng *rng) {
    float yaw = draw(rng, -kind->yaw, kind->yaw), roll = draw(rng, -kind->roll, kind->roll);
    float lean = draw(rng, -0.01f, 0.01f);
    lean += kind->lean * (elevation + draw(rng, -0.06f, 0.06f));
    if (kind->both_sides && draw_chance(rng, 0.5f)) yaw += 0.5f;
    return mat_after(mat_after(mat_turn(1, yaw), mat_turn(2, roll)), mat_turn(0, -lean));
}

static void add_object(Scene *scene, int kind, float elevation, float size, float x, float z, int id, Rng *rng) {
    int first = scene->parts.count, materials = scene->material_count;
    add_materials(scene, rng, true);
    synth_kinds[kind].build(&scene->parts, rng);
    add_body(scene, first, draw_pose(&synth_kinds[kind], elevation, rng), size, x, z, id, materials);
}

/* Boxes, sticks, blobs and wedges: none of the kinds. */
static void build_clutter(Parts *parts, Rng *rng) {
    switch (draw_int(rng, 0, 3)) {
    case 0: {
        Vec half = draw_vec(rng, 0.15f, 0.5f);
        parts_box(parts, 0, (Vec){0, 0, 0}, half, draw(rng, 0, 0.08f));
        break;
    }
    case 1:
        parts_rod(parts, 0, (Vec){-0.5f, 0, 0}, (Vec){0.5f, 0, 0}, draw(rng, 0.04f, 0.12f), 0.02f);
        break;
    case 2:
        for (int i = draw_int(rng, 2, 3); i > 0; i--) {
            Vec at = draw_vec(rng, -0.2f, 0.2f);
            parts_ellipsoid(parts, 0, at, draw_vec(rng, 0.15f, 0.3f));
        }
        break;
    default: {
        float right = draw(rng, 0.2f, 0.5f), left = draw(rng, 0.1f, 0.6f), in = draw(rng, 0, 0.4f);
        Vec2 wedge[4] = {{-0.5f, 0}, {0.5f, 0}, {0.5f - in, right}, {in - 0.5f, left}};
        parts_prism(parts, 0, 0, draw(rng, 0.1f, 0.4f), wedge, COUNTOF(wedge), 0.01f);
    }
    }
}

/* Clutter around the objects (parts up to end), mostly beside and behind; what is in front stays small and low. */
static void add_clutter(Scene *scene, int count, Rng *rng) {
    Extent e = extent(scene, 0, scene->parts.count, &WORLD);
    for (int i = 0; i < count; i++) {
        float around = rng_uniform(rng), size = draw(rng, 0.12f, 0.5f);
        if (cos_turns(around) > 0.3f) size = MIN(size, 0.22f);
        float away = draw(rng, 0.1f, 0.6f) + size / 2;
        float x = (e.low.x + e.high.x) / 2 + ((e.high.x - e.low.x) / 2 + away) * sin_turns(around);
        float z = (e.low.z + e.high.z) / 2 + ((e.high.z - e.low.z) / 2 + away) * cos_turns(around);
        if (scene->has_wall && vec_dot((Vec){x, 0, z}, scene->wall_normal) < scene->wall_offset + size / 2) continue;
        int first = scene->parts.count, materials = scene->material_count;
        add_materials(scene, rng, false);
        build_clutter(&scene->parts, rng);
        Mat tilt = mat_turn(2, draw(rng, -0.04f, 0.04f));
        Mat turn = mat_after(tilt, mat_turn(1, rng_uniform(rng)));
        add_body(scene, first, turn, size, x, z, 0, materials);
    }
}

/* Ground, wall and sky are drawn before the objects, whose colours are chosen against them. */
static void draw_surroundings(Scene *scene, Rng *rng) {
    scene->material_count = 2;
    for (int i = 0; i < 2; i++) {
        Material *m = &scene->material[i];
        *m = draw_material(rng);
        m->frequency = draw(rng, 0.8f, 4);
        m->gloss *= 0.4f;
        m->turn = mat_turn(1, rng_uniform(rng)); /* boards and tiles lie in the plane */
    }
    scene->has_wall = draw_chance(rng, 0.65f);
    if (!scene->has_wall) scene->material[1] = scene->material[0];
    for (int i = 0; i < 2; i++) scene->sky[i] = vec_mix(draw_colour(rng), (Vec){0.5f, 0.5f, 0.5f}, 0.4f);
    scene->sky_seed = rng_u32(rng);
}

static void draw_light(Scene *scene, Rng *rng) {
    float around = draw(rng, -0.36f, 0.36f), up = draw(rng, 0.08f, 0.2f), warm = draw(rng, -0.15f, 0.25f);
    scene->light = (Vec){cos_turns(up) * sin_turns(around), sin_turns(up), cos_turns(up) * cos_turns(around)};
    scene->light_colour = vec_scale((Vec){1 + warm, 1, 1 - warm}, draw(rng, 0.6f, 1.3f));
    scene->bounce = vec_scale(scene->material[0].colour[0], draw(rng, 0.2f, 0.5f));
    scene->softness = draw(rng, 0.05f, 0.25f);
}

static void draw_wall(Scene *scene, float gap, Rng *rng) {
    float yaw = draw(rng, -0.07f, 0.07f);
    scene->wall_normal = (Vec){sin_turns(yaw), 0, cos_turns(yaw)};
    Vec back = vec_scale(scene->wall_normal, -1);
    float reach = -1e30f;
    for (int i = 0; i < scene->parts.count; i++) reach = MAX(reach, part_reach(&scene->parts.part[i], back));
    scene->wall_offset = -reach - gap;
}

/* Points the camera at all objects so that they span fill of the shorter side, somewhere in the frame. */
static void draw_camera(Scene *scene, float elevation, float fill, Rng *rng) {
    Camera *camera = &scene->camera;
    float roll = draw(rng, -0.03f, 0.03f);
    float s = sin_turns(elevation), c = cos_turns(elevation);
    Mat level = {{{1, 0, 0}, {0, c, -s}, {0, -s, -c}}};
    camera->axes = mat_after(mat_turn(2, roll), level);
    camera->focal = draw(rng, 2.2f, 4.5f);
    Extent e = extent(scene, 0, scene->parts.count, &camera->axes);
    Vec half = vec_scale(vec_sub(e.high, e.low), 0.5f), middle = vec_scale(vec_add(e.high, e.low), 0.5f);
    float widest = MAX(half.x, half.y), distance = camera->focal * widest / fill + 0.5f * half.z;
    camera->eye = mat_out(&camera->axes, (Vec){middle.x, middle.y, middle.z - distance});
    camera->shift_x = draw(rng, -1, 1) * MAX(1 - fill * half.x / widest, 0) * 0.6f;
    camera->shift_y = draw(rng, -1, 1) * MAX(1 - fill * half.y / widest, 0) * 0.6f;
    camera->focus = distance;
    camera->aperture = draw_chance(rng, 0.6f) ? draw(rng, 0.02f, 0.16f) / (float)scene->object_count : 0;
}

/* Two to four objects side by side, none through another; false when no free place was found. */
static bool place_beside(const Scene *scene, float radius, float *x, float *z, Rng *rng) {
    for (int attempt = 0; attempt < 40; attempt++) {
        float spread = 0.3f + 0.03f * (float)attempt;
        *x = draw(rng, -1.4f, 1.4f) * spread;
        *z = draw(rng, -1.4f, 1.2f) * spread;
        bool free = true;
        for (int i = 0; i < scene->body_count; i++) {
            const Body *other = &scene->body[i];
            float dx = *x - other->centre.x, dz = *z - other->centre.z, apart = 0.8f * (radius + other->radius);
            free = free && dx * dx + dz * dz > apart * apart;
        }
        if (free) return true;
    }
    return false;
}

static void add_crowd(Scene *scene, float elevation, Rng *rng) {
    int kind = draw_int(rng, 0, SYNTH_KINDS - 1), id = scene->object_count + 1, count = draw_int(rng, 6, 10);
    float x, z, size = draw(rng, 0.28f, 0.36f);
    if (!place_beside(scene, 0.55f, &x, &z, rng)) return;
    scene->object[scene->object_count++] = (SynthObject){.kind = kind, .crowd = true};
    for (int i = 0; i < count; i++) {
        float around = (float)i / (float)count, away = i % 2 ? 0.22f : 0.46f;
        add_object(scene, kind, elevation, size, x + away * sin_turns(around), z + away * cos_turns(around), id, rng);
    }
}

void scene_draw(Scene *scene, int kind, Rng *rng) {
    scene->parts.count = scene->body_count = scene->object_count = 0;
    draw_surroundings(scene, rng);
    float elevation = draw(rng, kind < 0 ? 0.06f : 0.03f, 0.13f), gap = draw(rng, 0.1f, 2);
    if (kind >= 0) {
        scene->object[scene->object_count++] = (SynthObject){.kind = kind};
        add_object(scene, kind, elevation, 1, 0, 0, 1, rng);
    } else {
        bool crowd = draw_chance(rng, 0.2f);
        int wanted = crowd ? draw_int(rng, 1, 3) : draw_int(rng, 2, 4);
        for (int i = 0; i < wanted; i++) {
            float x, z, size = draw(rng, 0.65f, 1.1f);
            if (!place_beside(scene, size * 0.6f, &x, &z, rng)) continue;
            int which = draw_int(rng, 0, SYNTH_KINDS - 1), id = scene->object_count + 1;
            scene->object[scene->object_count++] = (SynthObject){.kind = which};
            add_object(scene, which, elevation, size, x, z, id, rng);
        }
        if (crowd) add_crowd(scene, elevation, rng);
    }
    draw_light(scene, rng);
    draw_wall(scene, gap, rng);
    draw_camera(scene, elevation, kind >= 0 ? draw(rng, 0.72f, 0.95f) : draw(rng, 0.85f, 1), rng);
    add_clutter(scene, draw_int(rng, 0, 5), rng);
}
