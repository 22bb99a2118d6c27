/* zip.c - reads the directory of a zip archive. Room io: every number is a stranger's until it is compared. */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/zip_format.h"

#define PIECE ((size_t)64 << 10) /* bytes that a CRC is taken of at once */

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | (uint32_t)u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

static bool fail(const Zip *z, size_t at, const char *what, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: byte %zu: %s", z->file->path, at, what);
}

static bool fail_entry(const Zip *z, const ZipEntry *e, const char *what, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: byte %zu: entry \"%.120s\" %s", z->file->path, e->begin, e->name, what);
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

uint32_t zip_crc(const ZipCrc *crc, uint32_t before, const void *bytes, size_t count) {
    const uint32_t (*t)[256] = crc->table;
    const uint8_t *p = bytes;
    uint32_t c = ~before;
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

/* The record for archives beyond 4 GiB or 65535 entries, which torch always writes; it and its locator lie before the
 * end record. */
static bool read_end64(const Zip *z, Directory *d, const uint8_t *end, Err *err) {
    const uint8_t *locator = end + ZIP_END64_BYTES;
    size_t at = d->end - ZIP_LOCATOR_BYTES - ZIP_END64_BYTES, locator_at = at + ZIP_END64_BYTES;
    if (u32(locator + 4) != 0 || u64(locator + 8) != at || u32(locator + 16) != 1)
        return fail(z, locator_at, "the zip64 locator does not point to the record before it", err);
    if (u32(end) != ZIP_END64 || u64(end + 4) != ZIP_END64_BYTES - 12)
        return fail(z, at, "not a zip64 end record", err);
    if (u32(end + 16) != 0 || u32(end + 20) != 0 || u64(end + 24) != u64(end + 32))
        return fail(z, at, "an archive on several disks", err);
    const Directory small = *d;
    *d = (Directory){.count = u64(end + 32), .bytes = u64(end + 40), .begin = u64(end + 48), .end = at};
    if ((small.count != UINT16_MAX && small.count != d->count) ||
        (small.bytes != UINT32_MAX && small.bytes != d->bytes) ||
        (small.begin != UINT32_MAX && small.begin != d->begin))
        return fail(z, at, "the two end records of the archive disagree", err);
    return true;
}

static bool read_end(const Zip *z, Directory *d, Err *err) {
    uint8_t last[ZIP_END64_BYTES + ZIP_LOCATOR_BYTES + ZIP_END_BYTES] = {0}; /* bytes of the file */
    const size_t bytes = z->file->count, held = MIN(bytes, sizeof last);
    if (bytes < ZIP_END_BYTES) return fail(z, 0, "too short for a zip archive - fetch it again", err);
    if (!file_reader_read(z->file, last + sizeof last - held, bytes - held, held, err)) return false;
    const size_t at = bytes - ZIP_END_BYTES;
    const uint8_t *end = last + sizeof last - ZIP_END_BYTES;
    if (u32(end) != ZIP_END || u16(end + 20) != 0)
        return fail(z, at, "no end record of a zip archive - cut off or something was appended, fetch it again", err);
    if (u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 8) != u16(end + 10))
        return fail(z, at, "an archive on several disks", err);
    *d = (Directory){.count = u16(end + 10), .bytes = u32(end + 12), .begin = u32(end + 16), .end = at};
    bool has64 = held == sizeof last && u32(end - ZIP_LOCATOR_BYTES) == ZIP_LOCATOR;
    if (has64 && !read_end64(z, d, last, err)) return false;
    if (d->bytes > d->end || d->begin != d->end - d->bytes)
        return fail(z, at, "the directory does not end where the end record begins", err);
    if (d->count == 0 || d->count > ZIP_MAX_ENTRIES || d->count > d->bytes / ZIP_CENTRAL_BYTES ||
        d->bytes > ZIP_MAX_DIRECTORY)
        return err_set(err, EXIT_INPUT, "%s: byte %zu: %ju entries in a directory of %ju bytes, at most %d in %zu",
                       z->file->path, at, (uintmax_t)d->count, (uintmax_t)d->bytes, ZIP_MAX_ENTRIES, ZIP_MAX_DIRECTORY);
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

/* A padding field holds one byte over and over (torch's 'Z', zeros): no place to hide anything, or to be damaged
 * unseen. */
static bool is_uniform(const uint8_t *bytes, size_t count) {
    return count < 2 || memcmp(bytes, bytes + 1, count - 1) == 0;
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
        if (u16(extra + at) == ZIP_EXTRA_PADDING && !is_uniform(extra + at + 4, u16(extra + at + 2))) return false;
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

/* Reads the central header h, at byte *at, which moves behind it; `left` bytes of the directory are left. names: room
 * for this and all later names. */
static bool read_central(Zip *z, const uint8_t *h, size_t left, size_t *at, char *names, Err *err) {
    if (left < ZIP_CENTRAL_BYTES || u32(h) != ZIP_CENTRAL) return fail(z, *at, "no entry of the directory", err);
    size_t name_bytes = u16(h + 28), extra_bytes = u16(h + 30);
    if (name_bytes == 0 || name_bytes > ZIP_MAX_NAME)
        return fail(z, *at, "an entry's name is not 1..512 bytes long", err);
    if (name_bytes + extra_bytes > left - ZIP_CENTRAL_BYTES) return fail(z, *at, "an entry beyond the directory", err);
    memcpy(names, h + ZIP_CENTRAL_BYTES, name_bytes); /* mem_zalloc'd: the '\0' is there */
    uint64_t stored = u32(h + 20), bytes = u32(h + 24), begin = u32(h + 42);
    ZipEntry *e = &z->entries[z->count];
    *e = (ZipEntry){.name = names, .crc = u32(h + 16), .begin = *at, .described = u16(h + 8) & ZIP_FLAG_DESCRIBED};
    if (!name_is_fine(names, name_bytes))
        return fail_entry(z, e, "has a name that is a path out of the archive or no text", err);
    if (u16(h + 8) & 1) return fail_entry(z, e, "is encrypted", err);
    if (u16(h + 10) != 0) return fail_entry(z, e, "is compressed, torch.save stores - save the checkpoint again", err);
    if (u16(h + 8) & ~(ZIP_FLAG_DESCRIBED | ZIP_FLAG_UTF8)) return fail_entry(z, e, "has unknown flags", err);
    if (u16(h + 32) != 0) return fail_entry(z, e, "has a comment", err);
    if (u16(h + 34) != 0) return fail_entry(z, e, "is on another disk", err);
    if (!read_extra64((uint64_t *const[]){&bytes, &stored, &begin}, h + ZIP_CENTRAL_BYTES + name_bytes, extra_bytes))
        return fail_entry(z, e, "has a broken extra field", err);
    if (stored != bytes) return fail_entry(z, e, "is stored in another size than its own", err);
    if (begin >= z->file->count || bytes > z->file->count) return fail_entry(z, e, "lies beyond the file", err);
    e->begin = (size_t)begin, e->bytes = (size_t)bytes;
    z->count++;
    *at += ZIP_CENTRAL_BYTES + name_bytes + extra_bytes;
    return true;
}

static bool read_directory(Zip *z, const Directory *d, Err *err) {
    const size_t begin = (size_t)d->begin;
    size_t at = begin, used = 0;
    void *directory;
    if (!mem_try(&directory, (size_t)d->bytes, err)) return false;
    z->entries = mem_zalloc((size_t)d->count, sizeof *z->entries);
    z->names = mem_zalloc((size_t)d->bytes, 1); /* a header is longer than a '\0' */
    bool ok = file_reader_read(z->file, directory, begin, (size_t)d->bytes, err);
    for (uint64_t i = 0; ok && i < d->count; i++) {
        ok = read_central(z, (const uint8_t *)directory + (at - begin), d->end - at, &at, z->names + used, err);
        if (ok) used += strlen(z->entries[i].name) + 1;
    }
    free(directory);
    return ok && (at == d->end || fail(z, at, "more entries in the directory than the end record counts", err));
}

/* ---- the entries ---- */

/* A number of the local header or of a descriptor: the directory's, or one that says "see there". */
static bool same(uint64_t local, uint64_t central, bool elsewhere) {
    return local == central || (elsewhere && (local == 0 || local == UINT32_MAX));
}

/* What lies between an entry's data and the next entry: a descriptor that repeats the directory, or nothing. */
static bool check_rest(const Zip *z, const ZipEntry *e, size_t bytes, Err *err) {
    static const char message[] = "does not end where the next one begins";
    uint8_t p[24];
    if (!e->described) return bytes == 0 || fail_entry(z, e, message, err);
    if (bytes != 16 && bytes != 24) return fail_entry(z, e, message, err);
    if (!file_reader_read(z->file, p, e->end - bytes, bytes, err)) return false;
    bool fine = u32(p) == ZIP_DESCRIPTOR && u32(p + 4) == e->crc;
    fine = fine && (bytes == 16 ? u32(p + 8) == e->bytes && u32(p + 12) == e->bytes
                                : u64(p + 8) == e->bytes && u64(p + 16) == e->bytes);
    return fine || fail_entry(z, e, message, err);
}

/* The local header must repeat the directory, and the entry must fill the file up to the next one. */
static bool check_local(const Zip *z, ZipEntry *e, size_t end, Err *err) {
    uint8_t h[ZIP_LOCAL_BYTES + ZIP_MAX_NAME + UINT16_MAX];
    size_t name_bytes = strlen(e->name), room = end - e->begin;
    if (!file_reader_read(z->file, h, e->begin, MIN(room, ZIP_LOCAL_BYTES), err)) return false;
    if (room < ZIP_LOCAL_BYTES || u32(h) != ZIP_LOCAL) return fail_entry(z, e, "has no local header", err);
    const size_t tail = name_bytes + u16(h + 28), head = ZIP_LOCAL_BYTES + tail;
    bool fits = u16(h + 26) == name_bytes && head <= room;
    if (fits && !file_reader_read(z->file, h + ZIP_LOCAL_BYTES, e->begin + ZIP_LOCAL_BYTES, tail, err)) return false;
    if (!fits || memcmp(h + ZIP_LOCAL_BYTES, e->name, name_bytes) != 0)
        return fail_entry(z, e, "has another name in its local header", err);
    bool described = u16(h + 6) & ZIP_FLAG_DESCRIBED;
    uint64_t stored = u32(h + 18), bytes = u32(h + 22), none = 0;
    if (!described && !read_extra64((uint64_t *const[]){&bytes, &stored, &none}, h + ZIP_LOCAL_BYTES + name_bytes,
                                    u16(h + 28)))
        return fail_entry(z, e, "has a broken extra field", err);
    if (described != e->described || u16(h + 8) != 0 || (u16(h + 6) & ~(ZIP_FLAG_DESCRIBED | ZIP_FLAG_UTF8)) != 0 ||
        !same(u32(h + 14), e->crc, described) || !same(stored, e->bytes, described) ||
        !same(bytes, e->bytes, described))
        return fail_entry(z, e, "has another method, size or CRC in its local header", err);
    if (e->bytes > room - head) return fail_entry(z, e, "overlaps what follows it", err);
    e->data = e->begin + head;
    e->end = end;
    return check_rest(z, e, room - head - e->bytes, err);
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

bool zip_open(Zip *out, const FileReader *file, Err *err) {
    *out = (Zip){.file = file};
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

static bool fail_crc(const Zip *z, const ZipEntry *e, Err *err) {
    return fail_entry(z, e, "is damaged: its CRC is not the one stated - fetch it again", err);
}

bool zip_check(const Zip *z, const ZipEntry *e, Err *err) {
    uint8_t piece[PIECE];
    uint32_t crc = 0;
    for (size_t done = 0; done < e->bytes;) {
        size_t count = MIN(e->bytes - done, PIECE);
        if (!file_reader_read(z->file, piece, e->data + done, count, err)) return false;
        crc = zip_crc(&z->crc, crc, piece, count);
        done += count;
    }
    return crc == e->crc || fail_crc(z, e, err);
}

bool zip_read(const Zip *z, const ZipEntry *e, void *out, Err *err) {
    return file_reader_read(z->file, out, e->data, e->bytes, err) &&
           (zip_crc(&z->crc, 0, out, e->bytes) == e->crc || fail_crc(z, e, err));
}
