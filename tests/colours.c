#include "colours.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/rng.h"
#include "data/image.h"

enum { WIDTH = 40, HEIGHT = 36 };

const char *colour_class(int index) {
    static const char *const names[COLOUR_CLASSES] = {"blue_bar", "blue_cross", "blue_ring", "blue_square",
                                                      "red_bar",  "red_cross",  "red_ring",  "red_square"};
    CHECK(index >= 0 && index < COLOUR_CLASSES, "class %d", index);
    return names[index];
}

/* Is the point (x, y), from the shape's middle, on a shape of half the side r? */
static bool on_shape(int shape, int x, int y, int r) {
    const int d = x * x + y * y, third = r / 3;
    if (abs(x) > r || abs(y) > r) return false;
    if (shape == 0) return abs(y) <= third;
    if (shape == 1) return abs(y) <= third || abs(x) <= third;
    return shape == 3 || (d <= r * r && d >= r * r / 3);
}

static int below(Rng *rng, int most) { return (int)rng_below(rng, (uint32_t)most); }

static void draw(Image *image, int class_index, Rng *rng) {
    const int r = below(rng, 5) + 8, ground = below(rng, 80) + 60, shade = below(rng, 60) + 30;
    const int left = below(rng, WIDTH - 2 * r) + r, top = below(rng, HEIGHT - 2 * r) + r;
    const bool red = class_index >= COLOUR_CLASSES / 2;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            const bool on = on_shape(class_index % 4, x - left, y - top, r);
            uint8_t *p = image->pixels + 3 * (y * WIDTH + x);
            for (int c = 0; c < 3; c++) {
                const bool bright = c == (red ? 0 : 2);
                p[c] = (uint8_t)((on ? bright ? 255 - shade : shade : ground) + below(rng, 12));
            }
        }
}

static void write_picture(const char *folder, int class_index, int number, Rng *rng) {
    Image image;
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    char path[512];
    bool ok = image_new(&image, WIDTH, HEIGHT, &err);
    if (ok) draw(&image, class_index, rng);
    snprintf(path, sizeof path, "%s/%02d.png", folder, number);
    ok = ok && image_encode_png(&bytes, &count, &image, &err) && file_write(path, bytes, count, &err);
    CHECK(ok, "%s", err.text);
    free(bytes);
    image_free(&image);
}

void colours_make(const char *dir, int train, int val) {
    for (int part = 0; part < 2; part++)
        for (int k = 0; k < COLOUR_CLASSES; k++) {
            char folder[400];
            Err err = {0};
            Rng rng = rng_make(1, RNG_TEST, (uint32_t)k, (uint64_t)part);
            snprintf(folder, sizeof folder, "%s/%s/%s", dir, part ? "val" : "train", colour_class(k));
            CHECK(dir_make(folder, &err), "%s", err.text);
            for (int i = 0; i < (part ? val : train); i++) write_picture(folder, k, i, &rng);
        }
}
