/* transform.c - crops. Rounding follows the libraries whose results networks are compared with: sizes are cut off,
 * offsets rounded half to even, the cuttings of training drawn as torchvision draws them (area and ratio until they
 * fit, ten times at most, then the largest centred cutting of an allowed ratio). */
#include "data/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CROP_TRIES 10

TrainTransform train_transform_defaults(int width, int height) {
    return (TrainTransform){.width = width,
                            .height = height,
                            .crop = CROP_RESIZED,
                            .scale_min = 0.08,
                            .scale_max = 1,
                            .ratio_min = 3.0 / 4,
                            .ratio_max = 4.0 / 3,
                            .flip = 0.5,
                            .filter = FILTER_BICUBIC};
}

/* half of n >= 0, rounded half to even */
static int half_of(int n) { return n / 2 + (n % 2 ? n / 2 % 2 : 0); }

static int scaled_size(int size, double crop_pct) {
    if (crop_pct > 0) return MAX(size, (int)(size / crop_pct));
    return size <= 224 ? (int)(256.0 / 224.0 * size) : size;
}

void transform_eval_geometry(int *width, int *height, Box *window, int image_width, int image_height,
                             const EvalTransform *t) {
    int64_t w = image_width, h = image_height, short_side = scaled_size(t->width, t->crop_pct);
    if (t->width == t->height) {
        *width = (int)MIN(w <= h ? short_side : short_side * w / h, INT32_MAX);
        *height = (int)MIN(w <= h ? short_side * h / w : short_side, INT32_MAX);
    } else {
        double scale =
            MAX(scaled_size(t->width, t->crop_pct) / (double)w, scaled_size(t->height, t->crop_pct) / (double)h);
        *width = MAX((int)fmin(rint((double)w * scale), INT32_MAX), t->width);
        *height = MAX((int)fmin(rint((double)h * scale), INT32_MAX), t->height);
    }
    *window = (Box){half_of(*width - t->width), half_of(*height - t->height), t->width, t->height};
}

bool transform_eval(Resizer *r, uint8_t *out, const Image *image, const EvalTransform *t, Err *err) {
    int width, height;
    Box window;
    transform_eval_geometry(&width, &height, &window, image->width, image->height, t);
    return resize(r, out, image, (Box){0, 0, image->width, image->height}, width, height, window, t->filter, err);
}

static double draw_between(Rng *rng, double low, double high) { return low + (high - low) * (double)rng_uniform(rng); }

static Box draw_cutting(Rng *rng, int width, int height, const TrainTransform *t) {
    double area = (double)width * height;
    for (int try = 0; try < CROP_TRIES; try++) {
        double target = area * draw_between(rng, t->scale_min, t->scale_max);
        double ratio = exp(draw_between(rng, log(t->ratio_min), log(t->ratio_max)));
        double w = rint(sqrt(target * ratio)), h = rint(sqrt(target / ratio));
        if (w < 1 || h < 1 || w > width || h > height) continue;
        Box box = {.width = (int)w, .height = (int)h};
        box.y = (int)rng_below(rng, (uint32_t)(height - box.height + 1));
        box.x = (int)rng_below(rng, (uint32_t)(width - box.width + 1));
        return box;
    }
    double ratio = (double)width / height;
    Box box = {.width = width, .height = height};
    if (ratio < t->ratio_min) box.height = MAX(1, MIN(height, (int)rint(width / t->ratio_min)));
    if (ratio > t->ratio_max) box.width = MAX(1, MIN(width, (int)rint(height * t->ratio_max)));
    box.x = (width - box.width) / 2, box.y = (height - box.height) / 2;
    return box;
}

static void mirror(uint8_t *pixels, int width, int height) {
    for (int y = 0; y < height; y++) {
        uint8_t *a = pixels + (size_t)3 * (size_t)width * (size_t)y, *b = a + 3 * (size_t)(width - 1);
        for (; a < b; a += 3, b -= 3)
            for (int c = 0; c < 3; c++) {
                uint8_t keep = a[c];
                a[c] = b[c], b[c] = keep;
            }
    }
}

/* Where a coordinate outside 0 .. size - 1 is mirrored to, without repeating the border; any distance. */
static int reflected(int at, int size) {
    if (size == 1) return 0;
    int period = 2 * (size - 1);
    at = abs(at) % period;
    return at < size ? at : period - at;
}

/* out[y][x] = in[y + dy][x + dx], both [height, width, 3] */
static void move_picture(uint8_t *out, const uint8_t *in, int width, int height, int dx, int dy, bool reflect) {
    for (int y = 0; y < height; y++) {
        bool inside_y = y + dy >= 0 && y + dy < height;
        const uint8_t *row = in + (size_t)3 * (size_t)width * (size_t)(reflected(y + dy, height));
        for (int x = 0; x < width; x++, out += 3) {
            bool inside = inside_y && x + dx >= 0 && x + dx < width;
            if (inside || reflect)
                memcpy(out, row + 3 * (size_t)(inside ? x + dx : reflected(x + dx, width)), 3);
            else
                memset(out, 0, 3);
        }
    }
}

static bool crop_padded(Resizer *r, uint8_t *out, const Image *image, const TrainTransform *t, ResizeFilter filter,
                        Rng *rng, Err *err) {
    CHECK(t->pad >= 0 && t->pad <= TRANSFORM_PAD_MAX, "pad %d", t->pad);
    int dy = (int)rng_below(rng, (uint32_t)(2 * t->pad + 1)) - t->pad;
    int dx = (int)rng_below(rng, (uint32_t)(2 * t->pad + 1)) - t->pad;
    if (image->width == t->width && image->height == t->height) {
        move_picture(out, image->pixels, t->width, t->height, dx, dy, t->pad_reflect);
        return true;
    }
    EvalTransform fit = {.width = t->width, .height = t->height, .filter = filter, .crop_pct = 1};
    Image fitted;
    if (!image_new(&fitted, t->width, t->height, err)) return false;
    bool ok = transform_eval(r, fitted.pixels, image, &fit, err);
    if (ok) move_picture(out, fitted.pixels, t->width, t->height, dx, dy, t->pad_reflect);
    image_free(&fitted);
    return ok;
}

bool transform_train(Resizer *r, uint8_t *out, const Image *image, const TrainTransform *t, Rng *rng, Err *err) {
    bool flip = (double)rng_uniform(rng) < t->flip;
    ResizeFilter filter = t->filter;
    if (t->random_filter) filter = rng_below(rng, 2) ? FILTER_BICUBIC : FILTER_BILINEAR;
    if (t->crop == CROP_PADDED) {
        if (!crop_padded(r, out, image, t, filter, rng, err)) return false;
    } else {
        Box from = draw_cutting(rng, image->width, image->height, t), all = {0, 0, t->width, t->height};
        if (!resize(r, out, image, from, t->width, t->height, all, filter, err)) return false;
    }
    if (flip) mirror(out, t->width, t->height);
    return true;
}
