/* fuzz_safetensors.c - libFuzzer: any bytes as a safetensors file. The length field is set to what the bytes are worth
 * when the first of them is '{', so that the header's own grammar is reached at once. Seeds: the known attacks of
 * safetensors_cases.h. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "safetensors_cases.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        const Case *c = &cases[i];
        const uint64_t header = c->header_bytes;
        uint8_t *file = mem_zalloc(8 + c->header_bytes + c->data_bytes, 1);
        memcpy(file, &header, 8);
        memcpy(file + 8, c->header, c->header_bytes);
        const size_t from = c->header[0] == '{' ? 8 : 0;
        fuzz_seed((int)i, file + from, 8 - from + c->header_bytes + c->data_bytes);
        free(file);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || data[0] != '{') {
        fuzz_tensor_file("fuzz.safetensors", data, size, EMA_AUTO);
        return 0;
    }
    const uint8_t *end = memrchr(data, '}', size);
    const uint64_t header = end ? (uint64_t)(end - data) + 1 : size;
    uint8_t *file = mem_zalloc(size + 8, 1);
    memcpy(file, &header, 8);
    memcpy(file + 8, data, size);
    fuzz_tensor_file("fuzz.safetensors", file, size + 8, EMA_AUTO);
    free(file);
    return 0;
}
