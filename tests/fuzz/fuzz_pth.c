/* fuzz_pth.c - libFuzzer: bytes that begin like an archive are one; others are the pickle of an archive whose CRCs are
 * right, which random changes of a whole archive never reach. */
#include <stdlib.h>
#include <string.h>

#include "io/tensor_file.h"
#include "pth_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_archive(const uint8_t *bytes, size_t count, EmaChoice ema) {
    TensorFile f;
    Err err = {0};
    if (!tensor_file_open_memory(&f, "fuzz.pth", bytes, count, &(TensorFileOptions){.ema = ema}, &err)) {
        CHECK(err.code == EXIT_INPUT && strncmp(err.text, "fuzz.pth: ", 10) == 0, "%s", err.text);
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
    if (size >= 2 && memcmp(data, "PK", 2) == 0) {
        try_archive(data, size, EMA_AUTO);
        return 0;
    }
    Buffer archive = {0};
    const Buffer pickle = {.bytes = (uint8_t *)(uintptr_t)data, .count = size};
    Entry entries[PTH_ENTRIES];
    pth_entries(entries, &pickle);
    buffer_put_zip(&archive, NULL, entries, PTH_ENTRIES);
    try_archive(archive.bytes, archive.count, size % 2 ? EMA_AUTO : EMA_NO);
    buffer_free(&archive);
    return 0;
}
