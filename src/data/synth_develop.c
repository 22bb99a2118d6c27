/* synth_develop.c - room data: what lens and sensor make of the light on a Film. */
#include "data/synth_render.h"

#include <stdlib.h>

enum { BLUR_MAX = 12 };

/* Radius in pixels of the disc that the lens spreads a point at depth over. */
static float spread(const Camera *camera, float depth, float half) {
    return clampf(camera->aperture * fabsf(depth - camera->focus) / depth * half, 0.5f, (float)BLUR_MAX);
}

/* Every pixel gathers the neighbours whose discs reach it, each by its disc's density. */
static void defocus(Vec *out, const Film *film, const Camera *camera) {
    int w = film->width, h = film->height;
    float half = 0.5f * (float)MIN(w, h), widest = 0.5f;
    for (int i = 0; i < w * h; i++) widest = MAX(widest, spread(camera, film->depth[i], half));
    int reach = (int)widest;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            Vec sum = {0, 0, 0};
            float weight = 0;
            for (int v = MAX(y - reach, 0); v <= MIN(y + reach, h - 1); v++)
                for (int u = MAX(x - reach, 0); u <= MIN(x + reach, w - 1); u++) {
                    float r = spread(camera, film->depth[v * w + u], half);
                    float dx = (float)(u - x), dy = (float)(v - y);
                    if (dx * dx + dy * dy > r * r) continue;
                    sum = vec_along(sum, film->light[v * w + u], 1 / (r * r));
                    weight += 1 / (r * r);
                }
            out[y * w + x] = vec_scale(sum, 1 / weight);
        }
}

/* Motion of the whole picture along (dx, dy) pixels while the shutter was open. */
static void shake(Vec *out, const Vec *in, int w, int h, float dx, float dy) {
    enum { TAPS = 5 };
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            Vec sum = {0, 0, 0};
            for (int k = 0; k < TAPS; k++) {
                float s = (float)k / (TAPS - 1) - 0.5f;
                float fx = clampf((float)x + dx * s, 0, (float)(w - 1)),
                      fy = clampf((float)y + dy * s, 0, (float)(h - 1));
                int x0 = (int)fx, y0 = (int)fy, x1 = MIN(x0 + 1, w - 1), y1 = MIN(y0 + 1, h - 1);
                Vec top = vec_mix(in[y0 * w + x0], in[y0 * w + x1], fx - (float)x0);
                Vec low = vec_mix(in[y1 * w + x0], in[y1 * w + x1], fx - (float)x0);
                sum = vec_along(sum, vec_mix(top, low, fy - (float)y0), 1.f / TAPS);
            }
            out[y * w + x] = sum;
        }
}

/* Near enough to a normal draw: sum of four uniform ones, mean 0, variance 1. */
static float bell(Rng *rng) {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += rng_uniform(rng);
    return (sum - 2) * 1.7320508f;
}

/* Shoulder of a film's curve, then display gamma 2. */
static uint8_t print(float x) {
    float v = sqrtf(MAX(x, 0) * (1 + 0.2f * MAX(x, 0)) / (1 + MAX(x, 0)) * 1.6f);
    return (uint8_t)(unitf(v) * 255 + 0.5f);
}

void film_develop(Image *image, const Film *film, const Camera *camera, Rng *rng) {
    int w = film->width, h = film->height, count = w * h;
    Vec *a = mem_zalloc((size_t)count, sizeof *a), *b = mem_zalloc((size_t)count, sizeof *b);
    if (camera->aperture > 0)
        defocus(a, film, camera);
    else
        for (int i = 0; i < count; i++) a[i] = film->light[i];
    float half = 0.5f * (float)MIN(w, h), length = draw_chance(rng, 0.3f) ? draw(rng, 0.01f, 0.05f) * half : 0;
    float turns = rng_uniform(rng);
    shake(b, a, w, h, length * cos_turns(turns), length * sin_turns(turns));
    float mean = 0;
    for (int i = 0; i < count; i++) mean += vec_luma(b[i]);
    float exposure = draw(rng, 0.16f, 0.45f) * (float)count / MAX(mean, 1e-3f);
    float tint = draw(rng, -0.12f, 0.12f), green = draw(rng, -0.05f, 0.05f);
    Vec balance = vec_scale((Vec){1 + tint, 1 + green, 1 - tint}, exposure);
    float grain = draw(rng, 0.002f, 0.025f), vignette = draw(rng, 0, 0.12f);
    for (int i = 0; i < count; i++) {
        float dx = ((float)(i % w) + 0.5f) / half - (float)w / (2 * half),
              dy = ((float)(i / w) + 0.5f) / half - (float)h / (2 * half);
        Vec c = vec_scale(vec_mul(b[i], balance), 1 - vignette * (dx * dx + dy * dy));
        float shot = grain * sqrtf(0.02f + vec_luma(c)), common = bell(rng);
        float r = bell(rng), g = bell(rng), b_ = bell(rng);
        c = vec_along(c, (Vec){common + 0.5f * r, common + 0.5f * g, common + 0.5f * b_}, shot);
        image->pixels[3 * i] = print(c.x), image->pixels[3 * i + 1] = print(c.y), image->pixels[3 * i + 2] = print(c.z);
    }
    free(a);
    free(b);
}
