/* fuzz_pth.c - libFuzzer: bytes that begin like an archive are one; others are the pickle of an archive whose CRCs are
 * right, which random changes of a whole archive never reach. Seeds: the known attacks of pth_cases.h. */
#include "fuzz.h"

#include <string.h>

#include "pth_cases.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Buffer pickle = {0};
        buffer_put(&pickle, "\x80\2", 2);
        buffer_put_pickle(&pickle, cases[i].words);
        fuzz_seed((int)i, pickle.bytes, pickle.count);
        buffer_free(&pickle);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 2 && memcmp(data, "PK", 2) == 0) {
        fuzz_tensor_file("fuzz.pth", data, size, EMA_AUTO);
        return 0;
    }
    Buffer archive = {0};
    const Buffer pickle = {.bytes = (uint8_t *)(uintptr_t)data, .count = size};
    Entry entries[PTH_ENTRIES];
    pth_entries(entries, &pickle);
    buffer_put_zip(&archive, NULL, entries, PTH_ENTRIES);
    fuzz_tensor_file("fuzz.pth", archive.bytes, archive.count, size % 2 ? EMA_AUTO : EMA_NO);
    buffer_free(&archive);
    return 0;
}
