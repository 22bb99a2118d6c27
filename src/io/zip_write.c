/* zip_write.c - writes archives of stored entries, their data aligned as torch.save aligns them, so that a reader can
 * map them. zip64 records appear only where 32 bits do not suffice. */
#include <stdlib.h>
#include <string.h>

#include "io/zip.h"
#include "io/zip_format.h"

#define VERSION_ZIP64 45 /* "version needed to extract": 4.5 knows zip64, which is all that could be new to a reader */

/* Records are built here and written at once. */
typedef struct {
    uint8_t bytes[ZIP_END64_BYTES + ZIP_LOCATOR_BYTES + ZIP_END_BYTES];
    size_t count;
} Record;

static void put(Record *r, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) r->bytes[r->count++] = (uint8_t)(value >> 8 * i);
}

/* What the 32 bits for a size or place say; all ones: it stands in 64 elsewhere. */
static uint64_t or_ones(const ZipWriter *w, uint64_t value) { return value >= w->limit ? UINT32_MAX : value; }

static bool append(ZipWriter *w, const void *bytes, size_t count, Err *err) {
    w->at += count;
    return count == 0 || file_writer_append(&w->file, bytes, count, err);
}

bool zip_writer_open(ZipWriter *w, const char *path, Err *err) {
    *w = (ZipWriter){.limit = UINT32_MAX};
    zip_crc_init(&w->crc);
    return file_writer_open(&w->file, path, err);
}

/* What local and central headers share, from the flags to the sizes. */
static void put_common(const ZipWriter *w, Record *r, const ZipEntry *e) {
    put(r, ZIP_FLAG_UTF8, 2);
    put(r, 0, 2); /* stored */
    put(r, 0, 2), put(r, 0x21, 2); /* 1980-01-01, so that the same weights are the same bytes */
    put(r, e->crc, 4);
    put(r, or_ones(w, e->bytes), 4), put(r, or_ones(w, e->bytes), 4);
    put(r, strlen(e->name), 2);
}

bool zip_writer_add(ZipWriter *w, const char *name, const void *data, size_t bytes, Err *err) {
    static const uint8_t padding[ZIP_ALIGNMENT];
    CHECK(name[0] && strlen(name) <= ZIP_MAX_NAME, "%s", name);
    ZipEntry e = {.name = name, .bytes = bytes, .crc = zip_crc(&w->crc, 0, data, bytes), .begin = w->at};
    Record head = {0}, extra = {0};
    if (bytes >= w->limit)
        put(&extra, ZIP_EXTRA_64, 2), put(&extra, 16, 2), put(&extra, bytes, 8), put(&extra, bytes, 8);
    size_t unpadded = w->at + ZIP_LOCAL_BYTES + strlen(name) + extra.count + 4; /* 4: the padding field's own head */
    size_t pad = ROUND_UP(unpadded, (size_t)ZIP_ALIGNMENT) - unpadded;
    put(&extra, ZIP_EXTRA_PADDING, 2), put(&extra, pad, 2);
    put(&head, ZIP_LOCAL, 4), put(&head, VERSION_ZIP64, 2);
    put_common(w, &head, &e);
    put(&head, extra.count + pad, 2);
    if (w->count == w->capacity) {
        w->capacity = MAX(2 * w->capacity, (size_t)64);
        w->entries = mem_resize(w->entries, w->capacity, sizeof *w->entries);
    }
    w->entries[w->count++] = e;
    return append(w, head.bytes, head.count, err) && append(w, name, strlen(name), err) &&
           append(w, extra.bytes, extra.count, err) && append(w, padding, pad, err) && append(w, data, bytes, err);
}

static bool add_central(ZipWriter *w, const ZipEntry *e, Err *err) {
    Record head = {0}, extra = {0};
    bool large = e->bytes >= w->limit, far = e->begin >= w->limit;
    if (large || far) put(&extra, ZIP_EXTRA_64, 2), put(&extra, 16 * large + 8 * far, 2);
    if (large) put(&extra, e->bytes, 8), put(&extra, e->bytes, 8);
    if (far) put(&extra, e->begin, 8);
    put(&head, ZIP_CENTRAL, 4), put(&head, VERSION_ZIP64, 2), put(&head, VERSION_ZIP64, 2);
    put_common(w, &head, e);
    put(&head, extra.count, 2);
    put(&head, 0, 2), put(&head, 0, 2), put(&head, 0, 2), put(&head, 0, 4); /* comment, disk, attributes */
    put(&head, or_ones(w, e->begin), 4);
    return append(w, head.bytes, head.count, err) && append(w, e->name, strlen(e->name), err) &&
           append(w, extra.bytes, extra.count, err);
}

bool zip_writer_finish(ZipWriter *w, Err *err) {
    size_t begin = w->at;
    bool ok = true;
    for (size_t i = 0; ok && i < w->count; i++) ok = add_central(w, &w->entries[i], err);
    size_t end = w->at, bytes = end - begin;
    Record r = {0};
    if (w->count >= UINT16_MAX || end >= w->limit) {
        put(&r, ZIP_END64, 4), put(&r, ZIP_END64_BYTES - 12, 8);
        put(&r, VERSION_ZIP64, 2), put(&r, VERSION_ZIP64, 2), put(&r, 0, 8);
        put(&r, w->count, 8), put(&r, w->count, 8), put(&r, bytes, 8), put(&r, begin, 8);
        put(&r, ZIP_LOCATOR, 4), put(&r, 0, 4), put(&r, end, 8), put(&r, 1, 4);
    }
    put(&r, ZIP_END, 4), put(&r, 0, 4);
    put(&r, MIN(w->count, UINT16_MAX), 2), put(&r, MIN(w->count, UINT16_MAX), 2);
    put(&r, or_ones(w, bytes), 4), put(&r, or_ones(w, begin), 4), put(&r, 0, 2);
    ok = ok && append(w, r.bytes, r.count, err);
    free(w->entries);
    w->entries = NULL;
    if (ok) return file_writer_commit(&w->file, err);
    file_writer_discard(&w->file);
    return false;
}

void zip_writer_discard(ZipWriter *w) {
    free(w->entries);
    w->entries = NULL;
    file_writer_discard(&w->file);
}
