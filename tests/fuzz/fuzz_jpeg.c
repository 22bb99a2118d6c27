/* fuzz_jpeg.c - libFuzzer: any bytes as a JPEG. Seeds: of one colour and three, baseline and in scans, with EXIF. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

enum { SIDE = 24 };

static void make_seed(int index, int components, bool scans, int restarts, bool exif) {
    static const JOCTET tiff[] = "Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0";
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    JSAMPLE row[4 * SIDE];
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &count);
    jpeg.image_width = jpeg.image_height = SIDE;
    jpeg.input_components = components;
    jpeg.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg.restart_interval = (unsigned)restarts;
    if (scans) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    if (exif) jpeg_write_marker(&jpeg, JPEG_APP0 + 1, tiff, sizeof tiff - 1);
    while (jpeg.next_scanline < SIDE) {
        for (size_t i = 0; i < sizeof row; i++) row[i] = (JSAMPLE)(i * i + jpeg.next_scanline * 9);
        jpeg_write_scanlines(&jpeg, &(JSAMPROW){row}, 1);
    }
    jpeg_finish_compress(&jpeg);
    fuzz_seed(index, bytes, count);
    jpeg_destroy_compress(&jpeg);
    free(bytes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    make_seed(0, 3, false, 0, true);
    make_seed(1, 3, true, 0, false);
    make_seed(2, 1, false, 2, false);
    make_seed(3, 4, true, 0, false);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_picture("\xff\xd8", 2, data, size);
    return 0;
}
