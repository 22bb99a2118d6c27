/* fuzz_png.c - libFuzzer: any bytes as a PNG. Of inputs of even length every chunk gets the checksum of what it holds,
 * which random changes would never hit. Seeds: what mala writes. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "io/zip.h"

static const uint8_t signature[] = "\x89PNG\r\n\x1a\n";

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < 3; i++) {
        Image image;
        Err err = {0};
        uint8_t *bytes;
        size_t count;
        CHECK(image_new(&image, 1 + 11 * i, 7, &err), "%s", err.text);
        for (int k = 0; k < 21 * image.width; k++) image.pixels[k] = (uint8_t)(k * k + i);
        CHECK(image_encode_png(&bytes, &count, &image, &err), "%s", err.text);
        fuzz_seed(i, bytes, count);
        image_free(&image);
        free(bytes);
    }
    return 0;
}

static void repair(uint8_t *bytes, size_t count) {
    static ZipCrc crc;
    static bool ready;
    if (!ready) zip_crc_init(&crc), ready = true;
    for (size_t at = 8; at + 12 <= count;) {
        const uint8_t *p = bytes + at;
        size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (length > count - at - 12) return;
        uint32_t sum = zip_crc(&crc, 0, p + 4, length + 4);
        for (size_t i = 0; i < 4; i++) bytes[at + 8 + length + i] = (uint8_t)(sum >> (24 - 8 * i));
        at += length + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *file = mem_zalloc(size, 1);
    if (size > 0) memcpy(file, data, size);
    if (size % 2 == 0) repair(file, size);
    fuzz_picture(signature, 8, file, size);
    free(file);
    return 0;
}
