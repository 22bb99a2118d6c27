/* pth_write.c - writes tensors as torch.save would. Room io; refuses names and types that torch could not load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/pth.h"
#include "io/zip.h"

#define NAME "\"%.120s\""
#define ORDERED_DICT "ccollections\nOrderedDict\n)R" /* an empty one, made */

/* NULL: torch has no storage of this type */
static const char *storage_class(StoredType type) {
    switch (type) {
    case STORED_F32: return "Float";
    case STORED_F64: return "Double";
    case STORED_F16: return "Half";
    case STORED_BF16: return "BFloat16";
    case STORED_U8: return "Byte";
    case STORED_I8: return "Char";
    case STORED_I16: return "Short";
    case STORED_I32: return "Int";
    case STORED_I64: return "Long";
    case STORED_BOOL: return "Bool";
    case STORED_C64: return "ComplexFloat";
    default: return NULL;
    }
}

/* ---- the pickle ---- */

typedef struct {
    uint8_t *bytes;
    size_t count, capacity;
} Bytes;

static void put(Bytes *b, const void *bytes, size_t count) {
    if (b->capacity - b->count < count) {
        b->capacity = MAX(2 * b->capacity, b->count + count);
        b->bytes = mem_resize(b->bytes, b->capacity, 1);
    }
    memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
}

static void put_opcodes(Bytes *b, const char *opcodes) { put(b, opcodes, strlen(opcodes)); }

static void put_text(Bytes *b, const char *text) {
    uint32_t count = (uint32_t)strlen(text);
    put(b, "X", 1);
    put(b, &count, 4);
    put(b, text, count);
}

static void put_integer(Bytes *b, int64_t value) {
    put(b, value <= INT32_MAX ? "J" : "\x8a\x08", value <= INT32_MAX ? 1 : 2); /* BININT, LONG1 */
    put(b, &value, value <= INT32_MAX ? 4 : 8);
}

/* _rebuild_tensor_v2(("storage", torch.<class>Storage, record, "cpu", count), 0, shape, strides, False, {}) */
static void put_tensor(Bytes *b, const StoredTensor *t, size_t record) {
    char number[24], type[48];
    snprintf(number, sizeof number, "%zu", record);
    snprintf(type, sizeof type, "ctorch\n%sStorage\n", storage_class(t->dtype));
    put_opcodes(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(b, "storage");
    put_opcodes(b, type);
    put_text(b, number);
    put_text(b, "cpu");
    put_integer(b, (int64_t)t->count);
    put_opcodes(b, "tQ");
    put_integer(b, 0);
    put_opcodes(b, "(");
    for (int i = 0; i < t->rank; i++) put_integer(b, t->shape[i]);
    put_opcodes(b, "t(");
    for (int i = 0; i < t->rank; i++) {
        int64_t stride = 1;
        for (int k = i + 1; k < t->rank; k++) stride *= MAX(t->shape[k], 1);
        put_integer(b, stride);
    }
    put_opcodes(b, "t\x89" ORDERED_DICT "tR");
}

static void put_metadata(Bytes *b, const StoredPair *metadata, size_t count) {
    put_text(b, PTH_METADATA);
    put_opcodes(b, "}(");
    for (size_t i = 0; i < count; i++) put_text(b, metadata[i].key), put_text(b, metadata[i].value);
    put_opcodes(b, "us");
}

static void put_pickle(Bytes *b, const char *key, const StoredTensor *tensors, size_t count, const StoredPair *metadata,
                       size_t metadata_count) {
    put_opcodes(b, "\x80\x02");
    if (key) put_opcodes(b, "}"), put_text(b, key);
    put_opcodes(b, ORDERED_DICT "(");
    for (size_t i = 0; i < count; i++) {
        put_text(b, tensors[i].name);
        put_tensor(b, &tensors[i], i);
    }
    put_opcodes(b, key ? "us" : "u");
    if (metadata_count > 0) put_metadata(b, metadata, metadata_count);
    put_opcodes(b, ".");
}

/* ---- the archive ---- */

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* What both the archive's reader and that of the tensors take: each has an entry, and three are beside them. */
enum { WRITTEN_MOST = MIN(PTH_MAX_TENSORS, ZIP_MAX_ENTRIES - 3) };

/* Copies of the tensors with their sizes set. */
static bool check_all(StoredTensor *out, const char *path, const StoredTensor *tensors, size_t count, Err *err) {
    const char **names = mem_zalloc(count, sizeof *names);
    bool ok = count <= WRITTEN_MOST ||
              err_set(err, EXIT_INPUT, "%s: not written: more than %d tensors", path, WRITTEN_MOST);
    for (size_t i = 0; ok && i < count; i++) {
        out[i] = tensors[i];
        names[i] = out[i].name;
        const char *problem = stored_tensor_measure(&out[i]);
        if (!problem && !storage_class(out[i].dtype)) problem = "a type that torch cannot load";
        if (!problem && (!names[i][0] || !json_utf8_valid(names[i], strlen(names[i]))))
            problem = "a name that is no text";
        ok = !problem || err_set(err, EXIT_INPUT, "%s: not written: tensor " NAME " has %s", path, names[i], problem);
    }
    if (ok && count > 1) qsort(names, count, sizeof *names, by_text);
    for (size_t i = 1; ok && i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            ok = err_set(err, EXIT_INPUT, "%s: not written: two are named " NAME, path, names[i]);
    free(names);
    return ok;
}

static bool write_archive(const char *path, const Bytes *pickle, const StoredTensor *tensors, size_t count, Err *err) {
    enum { ROOM = 40 };
    ZipWriter zip;
    char(*names)[ROOM] = mem_zalloc(count, sizeof *names); /* the archive keeps them by reference */
    bool ok = zip_writer_open(&zip, path, err);
    if (ok) {
        ok = zip_writer_add(&zip, "archive/data.pkl", pickle->bytes, pickle->count, err) &&
             zip_writer_add(&zip, "archive/byteorder", "little", 6, err);
        for (size_t i = 0; ok && i < count; i++) {
            snprintf(names[i], ROOM, "archive/data/%zu", i);
            const void *data;
            void *owned;
            ok = stored_tensor_load(&data, &owned, &tensors[i], err) &&
                 zip_writer_add(&zip, names[i], data, tensors[i].bytes, err);
            free(owned);
        }
        ok = ok && zip_writer_add(&zip, "archive/version", "3\n", 2, err);
        if (ok)
            ok = zip_writer_finish(&zip, err);
        else
            zip_writer_discard(&zip);
    }
    free(names);
    return ok;
}

bool pth_write(const char *path, const char *key, const StoredTensor *tensors, size_t count, const StoredPair *metadata,
               size_t metadata_count, Err *err) {
    CHECK(metadata_count == 0 || (key && strcmp(key, PTH_METADATA) != 0), "there is no place for metadata");
    CHECK(metadata_count <= PTH_MAX_METADATA, "%zu pairs", metadata_count);
    Bytes pickle = {0};
    StoredTensor *checked = mem_zalloc(count, sizeof *checked);
    bool ok = check_all(checked, path, tensors, count, err);
    if (ok) {
        put_pickle(&pickle, key, checked, count, metadata, metadata_count);
        ok = write_archive(path, &pickle, checked, count, err);
    }
    free(pickle.bytes);
    free(checked);
    return ok;
}
