/* fuzz_list.c - libFuzzer: any bytes as a list of paths, from memory and cut somewhere between memory and a stream: the
 * same entries, none empty or too long, and nothing but ends, marks and empty entries left out. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "data/list.h"

/* The entries, each with its '\0', and how the list ended. */
static size_t read_list(char *out, ListReader r, Err *err) {
    size_t used = 0;
    const char *entry;
    while (list_next(&r, &entry, err) && entry) {
        size_t length = strlen(entry);
        CHECK(length > 0 && length < DATASET_PATH_MAX, "an entry of %zu bytes", length);
        memcpy(out + used, entry, length + 1);
        used += length + 1;
    }
    if (err->code) fuzz_check_error(err, "fuzz");
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *one = mem_zalloc(size + 1, 1), *two = mem_zalloc(size + 1, 1);
    Err err = {0}, err2 = {0};
    size_t cut = size ? data[0] % size : 0;
    FILE *rest = size ? fmemopen((void *)(uintptr_t)(data + cut), size - cut, "r") : NULL;
    size_t count = read_list(one, list_reader("fuzz", data, size, NULL), &err);
    size_t count2 = read_list(two, list_reader("fuzz", data, cut, rest), &err2);
    CHECK(count == count2 && memcmp(one, two, count) == 0 && err.code == err2.code, "%zu and %zu bytes", count, count2);
    if (rest) fclose(rest);
    free(one), free(two);
    return 0;
}
