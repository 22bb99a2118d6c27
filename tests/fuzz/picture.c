#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "data/image.h"

static volatile uint8_t sink;

void fuzz_picture(const void *magic, size_t magic_count, const uint8_t *bytes, size_t count) {
    uint8_t *file = mem_zalloc(count, 1); /* of this size, so that reading on is noticed */
    if (count > 0) memcpy(file, bytes, count);
    memcpy(file, magic, MIN(magic_count, count));
    Image image;
    Err err = {0};
    if (image_decode(&image, file, count, "fuzz", &err)) {
        size_t total = 3 * (size_t)image.width * (size_t)image.height;
        CHECK(image.width > 0 && image.height > 0 && total <= 3 * (size_t)IMAGE_MAX_PIXELS, "%d x %d", image.width,
              image.height);
        for (size_t i = 0; i < total; i++) sink = image.pixels[i];
        image_free(&image);
    } else {
        fuzz_check_error(&err, "fuzz");
        CHECK(!image.pixels, "pixels of a picture that was refused");
    }
    free(file);
}
