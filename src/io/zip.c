/* zip.c - reads the directory of a zip archive. Room io: every number is a stranger's until it is compared. */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/zip_format.h"

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | (uint32_t)u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

static bool fail(const Zip *z, size_t at, const char *what, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: byte %zu: %s", z->path, at, what);
}

static bool fail_entry(const Zip *z, const ZipEntry *e, const char *what, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: byte %zu: entry \"%.120s\" %s", z->path, e->begin, e->name, what);
}

/* ---- CRC: eight bytes a step, since every byte of a checkpoint passes through here ---- */

void zip_crc_init(ZipCrc *crc) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
        crc->table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) {
            uint32_t c = crc->table[k - 1][i];
            crc->table[k][i] = c >> 8 ^ crc->table[0][c & 255];
        }
}

uint32_t zip_crc(const ZipCrc *crc, const void *bytes, size_t count) {
    const uint32_t (*t)[256] = crc->table;
    const uint8_t *p = bytes;
    uint32_t c = 0xffffffffu;
    for (; count >= 8; count -= 8, p += 8) {
        uint32_t low = c ^ u32(p), high = u32(p + 4);
        c = t[7][low & 255] ^ t[6][low >> 8 & 255] ^ t[5][low >> 16 & 255] ^ t[4][low >> 24] ^ t[3][high & 255] ^
            t[2][high >> 8 & 255] ^ t[1][high >> 16 & 255] ^ t[0][high >> 24];
    }
    for (; count > 0; count--, p++) c = c >> 8 ^ t[0][(c ^ *p) & 255];
    return ~c;
}

/* ---- the end: where the directory is ---- */

typedef struct {
    uint64_t count, bytes, begin;
    size_t end; /* where it must end */
} Directory;

/* The record for archives beyond 4 GiB or 65535 entries, which torch always writes. */
static bool read_end64(const Zip *z, Directory *d, Err *err) {
    size_t locator_at = z->file_bytes - ZIP_END_BYTES - ZIP_LOCATOR_BYTES, at = locator_at - ZIP_END64_BYTES;
    const uint8_t *locator = z->file + locator_at, *end = z->file + at;
    if (u32(locator + 4) != 0 || u64(locator + 8) != at || u32(locator + 16) != 1)
        return fail(z, locator_at, "the zip64 locator does not point to the record before it", err);
    if (u32(end) != ZIP_END64 || u64(end + 4) != ZIP_END64_BYTES - 12)
        return fail(z, at, "not a zip64 end record", err);
    if (u32(end + 16) != 0 || u32(end + 20) != 0 || u64(end + 24) != u64(end + 32))
        return fail(z, at, "an archive on several disks", err);
    const Directory small = *d;
    *d = (Directory){.count = u64(end + 32), .bytes = u64(end + 40), .begin = u64(end + 48), .end = at};
    if ((small.count != UINT16_MAX && small.count != d->count) || (small.bytes != UINT32_MAX && small.bytes != d->bytes) ||
        (small.begin != UINT32_MAX && small.begin != d->begin))
        return fail(z, at, "the two end records of the archive disagree", err);
    return true;
}

static bool read_end(const Zip *z, Directory *d, Err *err) {
    if (z->file_bytes < ZIP_END_BYTES) return fail(z, 0, "too short for a zip archive - fetch it again", err);
    size_t at = z->file_bytes - ZIP_END_BYTES;
    const uint8_t *end = z->file + at;
    if (u32(end) != ZIP_END || u16(end + 20) != 0)
        return fail(z, at, "no end record of a zip archive - cut off or something was appended, fetch it again", err);
    if (u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 8) != u16(end + 10))
        return fail(z, at, "an archive on several disks", err);
    *d = (Directory){.count = u16(end + 10), .bytes = u32(end + 12), .begin = u32(end + 16), .end = at};
    bool has64 = at >= ZIP_LOCATOR_BYTES + ZIP_END64_BYTES && u32(end - ZIP_LOCATOR_BYTES) == ZIP_LOCATOR;
    if (has64 && !read_end64(z, d, err)) return false;
    if (d->bytes > d->end || d->begin != d->end - d->bytes)
        return fail(z, at, "the directory does not end where the end record begins", err);
    if (d->count == 0 || d->count > ZIP_MAX_ENTRIES || d->count > d->bytes / ZIP_CENTRAL_BYTES)
        return err_set(err, EXIT_INPUT, "%s: byte %zu: %ju entries in a directory of %ju bytes, at most %d", z->path, at,
                       (uintmax_t)d->count, (uintmax_t)d->bytes, ZIP_MAX_ENTRIES);
    return true;
}

/* ---- the directory ---- */

/* An archive that would write outside its folder is an attack on somebody, even though nothing is extracted here. */
static bool name_is_fine(const char *name, size_t bytes) {
    if (!json_utf8_valid(name, bytes) || name[0] == '/') return false;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '\\') return false;
    for (const char *part = name; *part;) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n <= 2 && strncmp(part, "..", n) == 0)) return false;
        part += n + (part[n] == '/');
    }
    return !(bytes >= 2 && name[1] == ':');
}

/* Replaces *values[i] that are all ones by what the zip64 extra field has for them, in their order. */
static bool read_extra64(uint64_t *const *values, const uint8_t *extra, size_t bytes) {
    const uint8_t *field = NULL;
    size_t left = 0;
    for (size_t at = 0; at < bytes;) {
        if (bytes - at < 4 || u16(extra + at + 2) > bytes - at - 4) return false;
        if (u16(extra + at) == ZIP_EXTRA_64) {
            if (field) return false;
            field = extra + at + 4, left = u16(extra + at + 2);
        }
        at += 4 + (size_t)u16(extra + at + 2);
    }
    for (int i = 0; i < 3; i++) {
        if (*values[i] != UINT32_MAX) continue;
        if (left < 8) return false;
        *values[i] = u64(field);
        field += 8, left -= 8;
    }
    return true;
}

/* Reads the central header at *at, which moves behind it. names: room for this and all later names. */
static bool read_central(Zip *z, size_t *at, size_t end, char *names, Err *err) {
    const uint8_t *h = z->file + *at;
    if (end - *at < ZIP_CENTRAL_BYTES || u32(h) != ZIP_CENTRAL) return fail(z, *at, "no entry of the directory", err);
    size_t name_bytes = u16(h + 28), extra_bytes = u16(h + 30);
    if (name_bytes == 0 || name_bytes > ZIP_MAX_NAME) return fail(z, *at, "an entry's name is not 1..512 bytes long", err);
    if (name_bytes + extra_bytes > end - *at - ZIP_CENTRAL_BYTES) return fail(z, *at, "an entry beyond the directory", err);
    memcpy(names, h + ZIP_CENTRAL_BYTES, name_bytes); /* mem_zalloc'd: the '\0' is there */
    uint64_t stored = u32(h + 20), bytes = u32(h + 24), begin = u32(h + 42);
    ZipEntry *e = &z->entries[z->count];
    *e = (ZipEntry){.name = names, .crc = u32(h + 16), .begin = *at, .described = u16(h + 8) & ZIP_FLAG_DESCRIBED};
    if (!name_is_fine(names, name_bytes)) return fail_entry(z, e, "has a name that is a path out of the archive or no text", err);
    if (u16(h + 8) & 1) return fail_entry(z, e, "is encrypted", err);
    if (u16(h + 10) != 0) return fail_entry(z, e, "is compressed, torch.save stores - save the checkpoint again", err);
    if (u16(h + 8) & ~(ZIP_FLAG_DESCRIBED | ZIP_FLAG_UTF8)) return fail_entry(z, e, "has unknown flags", err);
    if (u16(h + 32) != 0) return fail_entry(z, e, "has a comment", err);
    if (u16(h + 34) != 0) return fail_entry(z, e, "is on another disk", err);
    if (!read_extra64((uint64_t *const[]){&bytes, &stored, &begin}, h + ZIP_CENTRAL_BYTES + name_bytes, extra_bytes))
        return fail_entry(z, e, "has a broken extra field", err);
    if (stored != bytes) return fail_entry(z, e, "is stored in another size than its own", err);
    if (begin >= z->file_bytes || bytes > z->file_bytes) return fail_entry(z, e, "lies beyond the file", err);
    e->begin = (size_t)begin, e->bytes = (size_t)bytes;
    z->count++;
    *at += ZIP_CENTRAL_BYTES + name_bytes + extra_bytes;
    return true;
}

static bool read_directory(Zip *z, const Directory *d, Err *err) {
    size_t at = (size_t)d->begin, used = 0;
    z->entries = mem_zalloc((size_t)d->count, sizeof *z->entries);
    z->names = mem_zalloc((size_t)d->bytes, 1); /* a header is longer than a '\0' */
    for (uint64_t i = 0; i < d->count; i++) {
        if (!read_central(z, &at, d->end, z->names + used, err)) return false;
        used += strlen(z->entries[i].name) + 1;
    }
    return at == d->end || fail(z, at, "more entries in the directory than the end record counts", err);
}

/* ---- the entries ---- */

/* A number of the local header or of a descriptor: the directory's, or one that says "see there". */
static bool same(uint64_t local, uint64_t central, bool elsewhere) {
    return local == central || (elsewhere && (local == 0 || local == UINT32_MAX));
}

static bool check_descriptor(const Zip *z, const ZipEntry *e, size_t at, size_t bytes) {
    const uint8_t *p = z->file + at;
    if (bytes < 16 || u32(p) != ZIP_DESCRIPTOR || u32(p + 4) != e->crc) return false;
    if (bytes == 16) return u32(p + 8) == e->bytes && u32(p + 12) == e->bytes;
    return bytes == 24 && u64(p + 8) == e->bytes && u64(p + 16) == e->bytes;
}

/* The local header must repeat the directory, and the entry must fill the file up to the next one. */
static bool check_local(const Zip *z, ZipEntry *e, size_t end, Err *err) {
    const uint8_t *h = z->file + e->begin;
    size_t name_bytes = strlen(e->name), room = end - e->begin;
    if (room < ZIP_LOCAL_BYTES || u32(h) != ZIP_LOCAL) return fail_entry(z, e, "has no local header", err);
    size_t head = ZIP_LOCAL_BYTES + u16(h + 26) + u16(h + 28);
    if (u16(h + 26) != name_bytes || head > room || memcmp(h + ZIP_LOCAL_BYTES, e->name, name_bytes) != 0)
        return fail_entry(z, e, "has another name in its local header", err);
    bool described = u16(h + 6) & ZIP_FLAG_DESCRIBED;
    uint64_t stored = u32(h + 18), bytes = u32(h + 22), none = 0;
    if (!described && !read_extra64((uint64_t *const[]){&bytes, &stored, &none}, h + ZIP_LOCAL_BYTES + name_bytes,
                                    u16(h + 28)))
        return fail_entry(z, e, "has a broken extra field", err);
    if (described != e->described || u16(h + 8) != 0 || (u16(h + 6) & ~(ZIP_FLAG_DESCRIBED | ZIP_FLAG_UTF8)) != 0 ||
        !same(u32(h + 14), e->crc, described) || !same(stored, e->bytes, described) || !same(bytes, e->bytes, described))
        return fail_entry(z, e, "has another method, size or CRC in its local header", err);
    if (e->bytes > room - head) return fail_entry(z, e, "overlaps what follows it", err);
    e->data = h + head;
    e->end = end;
    size_t rest = room - head - e->bytes;
    if (described ? !check_descriptor(z, e, end - rest, rest) : rest != 0)
        return fail_entry(z, e, "does not end where the next one begins", err);
    return true;
}

static int by_begin(const void *a, const void *b) {
    const ZipEntry *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int by_name(const void *a, const void *b) {
    const ZipEntry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static bool check_entries(Zip *z, const Directory *d, Err *err) {
    qsort(z->entries, z->count, sizeof *z->entries, by_begin);
    if (z->entries[0].begin != 0) return fail(z, 0, "the archive does not begin with its first entry", err);
    for (size_t i = 0; i < z->count; i++) {
        size_t end = i + 1 < z->count ? z->entries[i + 1].begin : (size_t)d->begin;
        if (end <= z->entries[i].begin) return fail_entry(z, &z->entries[i], "overlaps another or the directory", err);
        if (!check_local(z, &z->entries[i], end, err)) return false;
    }
    z->by_name = mem_zalloc(z->count, sizeof *z->by_name);
    for (size_t i = 0; i < z->count; i++) z->by_name[i] = &z->entries[i];
    qsort(z->by_name, z->count, sizeof *z->by_name, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (strcmp(z->by_name[i - 1]->name, z->by_name[i]->name) == 0)
            return fail_entry(z, z->by_name[i], "is there twice", err);
    return true;
}

bool zip_open(Zip *out, const char *path, const uint8_t *file, size_t file_bytes, Err *err) {
    *out = (Zip){.path = path, .file = file, .file_bytes = file_bytes};
    zip_crc_init(&out->crc);
    Directory d = {0};
    return read_end(out, &d, err) && read_directory(out, &d, err) && check_entries(out, &d, err);
}

void zip_close(Zip *z) {
    free(z->entries);
    free(z->by_name);
    free(z->names);
    z->entries = NULL, z->by_name = NULL, z->names = NULL, z->count = 0;
}

const ZipEntry *zip_find(const Zip *z, const char *name) {
    ZipEntry wanted = {.name = name};
    const ZipEntry *key = &wanted;
    const ZipEntry **found = bsearch(&key, z->by_name, z->count, sizeof *z->by_name, by_name);
    return found ? *found : NULL;
}

bool zip_check(const Zip *z, const ZipEntry *e, Err *err) {
    return zip_crc(&z->crc, e->data, e->bytes) == e->crc ||
           fail_entry(z, e, "is damaged: its CRC is not the one stated - fetch it again", err);
}
