/* fuzz_webp.c - libFuzzer: any bytes behind the head of a WebP, whose length field is made right. Seeds: a lossy and a
 * lossless picture, and an animation of the latter. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include <webp/encode.h>

enum { SIDE = 20, HEAD = 12 };

/* "VP8X" and "ANMF" around the chunks of a picture. */
static void animate(int index, const uint8_t *picture, size_t count) {
    static const uint8_t before[] = "RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x1f\0\0\x1f\0\0"
                                    "ANIM\6\0\0\0\0\0\0\0\0\0ANMF";
    static const uint8_t frame[] = "\1\0\0\2\0\0\x13\0\0\x13\0\0\x64\0\0\2";
    size_t length = sizeof frame - 1 + count - HEAD, at = sizeof before - 1;
    uint8_t *file = mem_zalloc(at + 4 + length, 1);
    memcpy(file, before, at);
    for (size_t i = 0; i < 4; i++) file[at + i] = (uint8_t)(length >> 8 * i);
    memcpy(file + at + 4, frame, sizeof frame - 1);
    memcpy(file + at + 4 + sizeof frame - 1, picture + HEAD, count - HEAD);
    fuzz_seed(index, file, at + 4 + length);
    free(file);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    uint8_t pixels[4 * SIDE * SIDE], *bytes;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * i / 30 + i);
    for (int lossless = 0; lossless < 2; lossless++) {
        size_t count = lossless ? WebPEncodeLosslessRGBA(pixels, SIDE, SIDE, 4 * SIDE, &bytes)
                                : WebPEncodeRGBA(pixels, SIDE, SIDE, 4 * SIDE, 70, &bytes);
        CHECK(count > HEAD, "no seed");
        fuzz_seed(lossless, bytes, count);
        if (lossless) animate(2, bytes, count);
        WebPFree(bytes);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t head[HEAD] = "RIFF\0\0\0\0WEBP";
    for (size_t i = 0; i < 4; i++) head[4 + i] = (uint8_t)((size - 8) >> 8 * i);
    fuzz_picture(head, sizeof head, data, size);
    return 0;
}
