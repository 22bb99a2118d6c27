/* fuzz_safetensors.c - libFuzzer: any bytes as a safetensors file. The length field is set to what the bytes are worth
 * when the first of them is '{', so that the header's own grammar is reached at once. */
#include <stdlib.h>
#include <string.h>

#include "io/tensor_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_file(const uint8_t *bytes, size_t count) {
    TensorFile f;
    Err err = {0};
    if (!tensor_file_open_memory(&f, "fuzz", bytes, count, NULL, &err)) {
        CHECK(err.code == EXIT_INPUT && strncmp(err.text, "fuzz: ", 6) == 0, "%s", err.text);
        return;
    }
    for (size_t i = 0; i < f.tensor_count; i++) {
        const StoredTensor *t = &f.tensors[i];
        CHECK(tensor_file_find(&f, t->name) == t, "%s", t->name);
        if (t->count > 1 << 16) continue;
        float *values = mem_zalloc(t->count, sizeof *values);
        tensor_file_read_f32(values, &f, t, &err);
        free(values);
    }
    tensor_file_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || data[0] != '{') {
        try_file(data, size);
        return 0;
    }
    const uint8_t *end = memrchr(data, '}', size);
    const uint64_t header = end ? (uint64_t)(end - data) + 1 : size;
    uint8_t *file = mem_zalloc(size + 8, 1);
    memcpy(file, &header, 8);
    memcpy(file + 8, data, size);
    try_file(file, size + 8);
    free(file);
    return 0;
}
