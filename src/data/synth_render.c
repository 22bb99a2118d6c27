/* synth_render.c - room data: traces a Scene onto a Film. A ray keeps only the parts whose bounding spheres it meets
 * and walks by their distances; ground and wall are planes and met exactly. */
#include "data/synth_render.h"

#include <stdlib.h>

enum { STEPS_MAX = 128, SHADOW_STEPS_MAX = 28, MET_MAX = 128 };

typedef struct {
    Vec from, way; /* way has length 1 */
} Ray;

/* A part that a ray may meet, with where it enters and leaves the bounding sphere. */
typedef struct {
    const Part *part;
    int body;
    float in, out;
} Met;

typedef enum { SURFACE_SKY, SURFACE_GROUND, SURFACE_WALL, SURFACE_PART } Surface;

typedef struct {
    Surface surface;
    float distance;
    const Part *part;
    int body;
} Hit;

typedef struct {
    Vec light;
    float depth;
    const void *what; /* the part hit, or a sign for ground, wall and sky */
    uint8_t id;
} Sample;

/* Enters [*in, *out] of the ray in the sphere; false when it misses it or has it behind. */
static bool meets_sphere(const Ray *ray, Vec centre, float radius, float *in, float *out) {
    Vec to = vec_sub(centre, ray->from);
    float along = vec_dot(to, ray->way), inside = radius * radius - (vec_dot(to, to) - along * along);
    if (inside < 0) return false;
    float half = sqrtf(inside);
    *in = along - half, *out = along + half;
    return *out > 0;
}

/* cone: by how much spheres count as wider, per unit of distance, so that a shadow's penumbra sees them */
static int gather(Met *met, const Scene *scene, const Ray *ray, float cone) {
    int count = 0;
    for (int b = 0; b < scene->body_count; b++) {
        const Body *body = &scene->body[b];
        float in, out, slack = cone * (vec_length(vec_sub(body->centre, ray->from)) + body->radius);
        if (!meets_sphere(ray, body->centre, body->radius + slack, &in, &out)) continue;
        for (int i = body->first; i < body->first + body->count && count < MET_MAX; i++) {
            const Part *part = &scene->parts.part[i];
            if (meets_sphere(ray, part->centre, part->bound + slack, &in, &out))
                met[count++] = (Met){part, b, MAX(in, 0), out};
        }
    }
    return count;
}

static Hit plane_hit(const Scene *scene, const Ray *ray) {
    Hit hit = {.surface = SURFACE_SKY, .distance = 1e6f, .body = -1};
    if (ray->way.y < -1e-5f) hit.surface = SURFACE_GROUND, hit.distance = -ray->from.y / ray->way.y;
    float facing = scene->has_wall ? vec_dot(ray->way, scene->wall_normal) : 0;
    if (facing < -1e-5f) {
        float t = (scene->wall_offset - vec_dot(ray->from, scene->wall_normal)) / facing;
        if (t > 0 && t < hit.distance) hit.surface = SURFACE_WALL, hit.distance = t;
    }
    return hit;
}

/* Every part is walked along by itself, by its own distance, always the one that is least far: a part that lies apart
 * is asked a few times only, however small the steps past another are. */
static Hit trace(const Scene *scene, const Ray *ray) {
    Hit hit = plane_hit(scene, ray);
    Met met[MET_MAX];
    int count = gather(met, scene, ray, 0);
    for (int step = 0; step < STEPS_MAX && count > 0; step++) {
        Met *m = met;
        for (int i = 1; i < count; i++)
            if (met[i].in < m->in) m = &met[i];
        if (m->in >= hit.distance) break;
        float d = part_distance(m->part, vec_along(ray->from, ray->way, m->in));
        if (d < 6e-4f) return (Hit){.surface = SURFACE_PART, .distance = m->in, .part = m->part, .body = m->body};
        m->in += d;
        if (m->in > m->out) *m = met[--count];
    }
    return hit;
}

/* Share of the light that reaches p, 0..1: the narrowest gap on the way tells how far into the penumbra p lies. */
static float light_reaching(const Scene *scene, Vec p, Vec normal) {
    Ray ray = {vec_along(p, normal, 4e-3f), scene->light};
    Met met[MET_MAX];
    int count = gather(met, scene, &ray, scene->softness);
    float share = 1;
    for (int i = 0; i < count; i++) {
        float t = MAX(met[i].in, 6e-3f);
        for (int step = 0; step < SHADOW_STEPS_MAX && t < met[i].out; step++) {
            float d = part_distance(met[i].part, vec_along(ray.from, ray.way, t));
            if (d < 1e-3f) return 0;
            share = MIN(share, d / (scene->softness * t));
            t += MAX(d, 0.012f);
        }
    }
    return smoothf(unitf(share));
}

/* Share of the sky that p sees: one distance out along the normal tells how crowded it is there. */
static float sky_seen(const Scene *scene, Vec p, Vec normal, const Part *own) {
    float seen = 1;
    for (int k = 1; k <= 2; k++) {
        float away = 0.07f * (float)k;
        Vec q = vec_along(p, normal, away);
        float nearest = own ? MIN(away, q.y) : away;
        for (int b = 0; b < scene->body_count; b++) {
            const Body *body = &scene->body[b];
            if (vec_length(vec_sub(body->centre, q)) > body->radius + away) continue;
            for (int i = body->first; i < body->first + body->count; i++) {
                const Part *part = &scene->parts.part[i];
                if (part == own || vec_length(vec_sub(part->centre, q)) > part->bound + nearest) continue;
                nearest = MIN(nearest, MAX(part_distance(part, q), 0));
            }
        }
        seen -= (1 - nearest / away) * 0.4f;
    }
    return MAX(seen, 0.15f);
}

static Vec sky_light(const Scene *scene, Vec way) {
    float up = unitf(way.y * 1.5f + 0.3f);
    float cloud = noise(vec_scale(way, 4), scene->sky_seed) * 0.6f + noise(vec_scale(way, 9), scene->sky_seed) * 0.4f;
    return vec_scale(vec_mix(scene->sky[0], scene->sky[1], unitf(up * 0.5f + cloud * 0.7f)), 0.6f + 0.6f * cloud);
}

/* Which of the two colours shows at p, 0..1. */
static float pattern_at(const Material *m, Vec p) {
    Vec q = vec_scale(mat_in(&m->turn, p), m->frequency);
    switch (m->pattern) {
    case PATTERN_PLAIN:
        return 0;
    case PATTERN_STRIPES:
        return (float)(floor_int(q.x) & 1);
    case PATTERN_CHECKS:
        return (float)((floor_int(q.x) + floor_int(q.y + 0.37f) + floor_int(q.z)) & 1);
    case PATTERN_MARBLE: {
        float n =
            noise(q, m->seed) + 0.5f * noise(vec_scale(q, 2.1f), m->seed) + 0.25f * noise(vec_scale(q, 4.3f), m->seed);
        return smoothf(unitf(n * 1.6f - 0.9f));
    }
    case PATTERN_WOOD: {
        float r = sqrtf(q.x * q.x + 0.05f * q.y * q.y) * 1.5f + noise(vec_scale(q, 0.7f), m->seed) * 2;
        return smoothf(r - (float)floor_int(r));
    }
    case PATTERN_SPECKS:
        return smoothf(unitf(noise(vec_scale(q, 2), m->seed) * 6 - 3.6f));
    }
    return 0;
}

/* footprint: width of a pixel on the surface; patterns finer than that show as their mean */
static Vec reflectance(const Material *m, Vec p, float footprint) {
    float grain = 0.94f + 0.12f * noise(vec_scale(p, 23), m->seed);
    float fade = unitf(footprint * m->frequency * 2 - 0.4f);
    float share = pattern_at(m, p);
    return vec_scale(vec_mix(m->colour[0], m->colour[1], share + (0.4f - share) * fade), grain);
}

static float power(float x, int doublings) {
    for (int i = 0; i < doublings; i++) x *= x;
    return x;
}

static Vec shade(const Scene *scene, const Material *m, Vec p, Vec normal, Vec way, const Part *own, float footprint) {
    Vec colour = reflectance(m, p, footprint);
    float facing = vec_dot(normal, scene->light);
    float lit = facing > 0 ? light_reaching(scene, p, normal) : 0, seen = sky_seen(scene, p, normal, own);
    Vec sky = vec_scale(vec_add(scene->sky[0], (Vec){0.5f, 0.5f, 0.5f}), 0.45f);
    Vec ambient = vec_scale(vec_mix(scene->bounce, sky, 0.5f + 0.5f * normal.y), 0.55f * seen);
    Vec sum = vec_mul(colour, vec_along(ambient, scene->light_colour, MAX(facing, 0) * lit));
    if (m->gloss > 0) {
        Vec mirror = vec_along(way, normal, -2 * vec_dot(way, normal));
        float shine = power(unitf(vec_dot(mirror, scene->light)), m->sharpness) * lit;
        float edge = power(1 - unitf(-vec_dot(way, normal)), 2);
        sum = vec_along(sum, scene->light_colour, 0.7f * m->gloss * shine);
        sum = vec_along(sum, sky_light(scene, mirror), m->gloss * (0.04f + 0.3f * edge) * seen);
    }
    return sum;
}

static Sample sample(const Scene *scene, const Film *film, float x, float y) {
    const Camera *camera = &scene->camera;
    float half = 0.5f * (float)MIN(film->width, film->height);
    float u = (x - 0.5f * (float)film->width) / half - camera->shift_x;
    float v = (0.5f * (float)film->height - y) / half - camera->shift_y;
    Ray ray = {camera->eye, vec_unit(mat_out(&camera->axes, (Vec){u, v, camera->focal}))};
    Hit hit = trace(scene, &ray);
    float straight = vec_dot(ray.way, camera->axes.row[2]);
    Sample s = {.depth = MIN(hit.distance, 100) * straight, .what = &scene->material[hit.surface]};
    if (hit.surface == SURFACE_SKY) {
        s.light = sky_light(scene, ray.way);
        return s;
    }
    Vec p = vec_along(ray.from, ray.way, hit.distance);
    Vec normal = hit.surface == SURFACE_GROUND ? (Vec){0, 1, 0} : scene->wall_normal;
    const Material *m = &scene->material[hit.surface == SURFACE_WALL];
    if (hit.surface == SURFACE_PART) {
        normal = part_normal(hit.part, p);
        m = &scene->material[hit.part->material];
        s.what = hit.part;
        s.id = (uint8_t)scene->body[hit.body].id;
        if (hit.part->shape == SHAPE_LATHE && vec_dot(normal, ray.way) > 0) normal = vec_scale(normal, -1);
    }
    float footprint = hit.distance / (camera->focal * half) / MAX(-vec_dot(normal, ray.way), 0.05f);
    s.light = shade(scene, m, p, normal, ray.way, hit.part, footprint);
    if (hit.surface == SURFACE_GROUND && !scene->has_wall) {
        float haze = unitf((hit.distance - 8) / 25);
        s.light = vec_mix(s.light, sky_light(scene, (Vec){ray.way.x, 0, ray.way.z}), haze);
    }
    return s;
}

static bool differ(const Sample *a, const Sample *b) {
    if (a->what != b->what) return true;
    Vec d = vec_sub(a->light, b->light);
    return vec_dot(d, d) > 0.01f;
}

/* Four samples on a rotated grid about the pixel's middle. */
static Vec refine(const Scene *scene, const Film *film, int x, int y) {
    static const Vec2 offset[4] = {{0.375f, 0.125f}, {0.875f, 0.375f}, {0.625f, 0.875f}, {0.125f, 0.625f}};
    Vec sum = {0, 0, 0};
    for (int i = 0; i < 4; i++)
        sum = vec_along(sum, sample(scene, film, (float)x + offset[i].x, (float)y + offset[i].y).light, 0.25f);
    return sum;
}

bool film_new(Film *film, int width, int height, Err *err) {
    size_t count = (size_t)width * (size_t)height;
    *film = (Film){.width = width, .height = height};
    void *light, *depth, *ids;
    if (!mem_try(&light, count * sizeof(Vec), err)) return false;
    film->light = light;
    if (mem_try(&depth, count * sizeof(float), err)) {
        film->depth = depth;
        if (mem_try(&ids, count, err)) {
            film->ids = ids;
            return true;
        }
    }
    film_free(film);
    return false;
}

void film_free(Film *film) {
    free(film->light);
    free(film->depth);
    free(film->ids);
    *film = (Film){0};
}

void film_render(Film *film, const Scene *scene) {
    int w = film->width, h = film->height;
    Sample *row[2] = {mem_zalloc((size_t)w, sizeof(Sample)), mem_zalloc((size_t)w, sizeof(Sample))};
    bool *rough = mem_zalloc((size_t)w * (size_t)h, sizeof(bool));
    for (int y = 0; y < h; y++) {
        Sample *now = row[y & 1], *above = row[~y & 1];
        for (int x = 0; x < w; x++) {
            int at = y * w + x;
            now[x] = sample(scene, film, (float)x + 0.5f, (float)y + 0.5f);
            film->light[at] = now[x].light, film->depth[at] = now[x].depth, film->ids[at] = now[x].id;
            if (x > 0 && differ(&now[x], &now[x - 1])) rough[at] = rough[at - 1] = true;
            if (y > 0 && differ(&now[x], &above[x])) rough[at] = rough[at - w] = true;
        }
    }
    for (int at = 0; at < w * h; at++)
        if (rough[at]) film->light[at] = refine(scene, film, at % w, at / w);
    free(rough);
    free(row[0]);
    free(row[1]);
}
