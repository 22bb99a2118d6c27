#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_AT_MOST ((size_t)1 << 16) /* elements of one tensor */

void fuzz_check_error(const Err *err, const char *name) {
    size_t n = strlen(name);
    CHECK(err->code == EXIT_INPUT && strncmp(err->text, name, n) == 0 && err->text[n] == ':', "%s", err->text);
}

void fuzz_tensor_file(const char *name, const uint8_t *bytes, size_t count, EmaChoice ema) {
    TensorFile f;
    Err err = {0};
    if (!tensor_file_open_memory(&f, name, bytes, count, &(TensorFileOptions){.ema = ema}, &err)) {
        fuzz_check_error(&err, name);
        return;
    }
    for (size_t i = 0; i < f.tensor_count; i++) {
        const StoredTensor *t = &f.tensors[i];
        CHECK(tensor_file_find(&f, t->name) == t, "%s", t->name);
        if (t->count > READ_AT_MOST) continue;
        float *values = mem_zalloc(t->count, sizeof *values);
        if (!tensor_file_read_f32(values, &f, t, &err)) fuzz_check_error(&err, name);
        free(values);
    }
    tensor_file_close(&f);
}

void fuzz_seed(int index, const void *bytes, size_t count) {
    const char *folder = getenv("FUZZ_SEEDS");
    if (!folder) return;
    char path[4096];
    Err err = {0};
    snprintf(path, sizeof path, "%s/case-%d", folder, index);
    CHECK(file_write(path, bytes, count, &err), "%s", err.text);
}
