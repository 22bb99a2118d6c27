/* fuzz_bitmap.c - libFuzzer: any bytes as a GIF or, where the first is even, a BMP. Seeds: of every kind of both. */
#include "fuzz.h"

#include "bitmaps.h"

enum { WIDTH = 11, HEIGHT = 9 };

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    static const int depths[] = {1, 4, 8, 16, 24, 32};
    static const uint32_t masks[] = {0xff, 0xff00, 0xff0000};
    uint8_t colours[WIDTH * HEIGHT];
    uint32_t values[WIDTH * HEIGHT];
    for (int i = 0; i < WIDTH * HEIGHT; i++) values[i] = colours[i] = i * i / 9 & 1;
    for (int i = 0; i < 4; i++) {
        Buffer b = gif_make(&(GifSpec){WIDTH + i, HEIGHT, i, i, WIDTH, HEIGHT, 1 + 2 * i, i & 1, i & 2, i, colours});
        fuzz_seed(i, b.bytes, b.count);
        buffer_free(&b);
    }
    for (int i = 0; i < 6; i++) {
        Buffer b = bmp_make(&(BmpSpec){WIDTH, HEIGHT, depths[i], i ? 52 : 12, i & 1, i == 5 ? masks : NULL, values});
        fuzz_seed(4 + i, b.bytes, b.count);
        buffer_free(&b);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0 && data[0] % 2)
        fuzz_picture("GIF89a", 6, data, size);
    else
        fuzz_picture("BM", 2, data, size);
    return 0;
}
