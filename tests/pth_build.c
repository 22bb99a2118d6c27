#include "pth_build.h"

#include <stdlib.h>
#include <string.h>

#include "io/zip.h"
#include "io/zip_format.h"

void buffer_put(Buffer *b, const void *bytes, size_t count) {
    if (b->capacity - b->count < count) {
        b->capacity = MAX(2 * b->capacity, b->count + count);
        b->bytes = mem_resize(b->bytes, b->capacity, 1);
    }
    if (count > 0) memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
}

void buffer_put_uint(Buffer *b, uint64_t value, size_t bytes) {
    CHECK(bytes <= sizeof value, "%zu", bytes);
    buffer_put(b, &value, bytes);
}

void buffer_free(Buffer *b) {
    free(b->bytes);
    *b = (Buffer){0};
}

/* ---- pickle ---- */

static bool starts(const char *word, size_t count, const char *start, uint64_t *number) {
    size_t n = strlen(start);
    if (count <= n || strncmp(word, start, n) != 0) return false;
    char *end;
    *number = strtoull(word + n, &end, 10);
    return end == word + count;
}

static void put_word(Buffer *b, const char *word, size_t count) {
    static const struct {
        const char *word;
        uint8_t opcode;
    } named[] = {{"t1", 0x85}, {"t2", 0x86}, {"t3", 0x87}, {"T", 0x88}, {"F", 0x89}, {"new", 0x81}};
    uint64_t number;
    const char *colon = memchr(word, ':', count);
    for (size_t i = 0; i < COUNTOF(named); i++)
        if (strlen(named[i].word) == count && strncmp(word, named[i].word, count) == 0) {
            buffer_put(b, &named[i].opcode, 1);
            return;
        }
    if (word[0] == '\'') {
        CHECK(count >= 2 && word[count - 1] == '\'', "%s", word);
        buffer_put_uint(b, 'X', 1);
        buffer_put_uint(b, count - 2, 4);
        buffer_put(b, word + 1, count - 2);
    } else if (colon && count > 1) {
        buffer_put_uint(b, 'c', 1);
        buffer_put(b, word, (size_t)(colon - word));
        buffer_put_uint(b, '\n', 1);
        buffer_put(b, colon + 1, count - 1 - (size_t)(colon - word));
        buffer_put_uint(b, '\n', 1);
    } else if (starts(word, count, "put", &number)) {
        buffer_put_uint(b, 'r', 1);
        buffer_put_uint(b, number, 4);
    } else if (starts(word, count, "get", &number)) {
        buffer_put_uint(b, 'j', 1);
        buffer_put_uint(b, number, 4);
    } else if (word[0] == 'x' && count > 1) {
        for (size_t i = 1; i + 1 < count; i += 2) {
            const char hex[3] = {word[i], word[i + 1], '\0'};
            buffer_put_uint(b, strtoul(hex, NULL, 16), 1);
        }
    } else if (count == 1 && (word[0] < '0' || word[0] > '9')) {
        buffer_put(b, word, 1);
    } else {
        int64_t value = strtoll(word, NULL, 10);
        bool small = value >= INT32_MIN && value <= INT32_MAX;
        buffer_put(b, small ? "J" : "\x8a\x08", small ? 1 : 2);
        buffer_put_uint(b, (uint64_t)value, small ? 4 : 8);
    }
}

void buffer_put_pickle(Buffer *b, const char *words) {
    for (const char *at = words; *at;) {
        size_t n = strcspn(at, " ");
        if (n > 0) put_word(b, at, n);
        at += n + (at[n] == ' ');
    }
}

/* ---- zip ---- */

static void put_common(Buffer *b, const Entry *e, uint32_t crc, size_t name_bytes) {
    buffer_put_uint(b, e->flags, 2);
    buffer_put_uint(b, e->method, 2);
    buffer_put_uint(b, 0, 4);
    buffer_put_uint(b, crc, 4);
    buffer_put_uint(b, e->bytes, 4);
    buffer_put_uint(b, e->bytes, 4);
    buffer_put_uint(b, name_bytes, 2);
    buffer_put_uint(b, 0, 2); /* extra */
}

void buffer_put_zip(Buffer *b, Places *places, const Entry *entries, size_t count) {
    static const uint8_t zeros[64];
    Places unused, *p = places ? places : &unused;
    size_t base = b->count;
    ZipCrc crc;
    zip_crc_init(&crc);
    CHECK(count <= COUNTOF(p->local), "%zu", count);
    for (size_t i = 0; i < count; i++) {
        const Entry *e = &entries[i];
        const char *name = e->local_name ? e->local_name : e->name;
        size_t name_bytes = e->name_bytes ? e->name_bytes : strlen(name);
        p->local[i] = b->count;
        buffer_put_uint(b, ZIP_LOCAL, 4);
        buffer_put_uint(b, 20, 2);
        put_common(b, e, zip_crc(&crc, 0, e->data, e->bytes) ^ e->crc_change, name_bytes);
        buffer_put(b, name, name_bytes);
        buffer_put(b, e->data, e->bytes);
        buffer_put(b, zeros, e->padding);
    }
    size_t begin = b->count;
    for (size_t i = 0; i < count; i++) {
        const Entry *e = &entries[i];
        size_t name_bytes = e->name_bytes ? e->name_bytes : strlen(e->name);
        p->central[i] = b->count;
        buffer_put_uint(b, ZIP_CENTRAL, 4);
        buffer_put_uint(b, 20, 2);
        buffer_put_uint(b, 20, 2);
        put_common(b, e, zip_crc(&crc, 0, e->data, e->bytes) ^ e->crc_change, name_bytes);
        for (int k = 0; k < 10; k++) buffer_put_uint(b, 0, 1);
        buffer_put_uint(b, p->local[i] - base, 4);
        buffer_put(b, e->name, name_bytes);
    }
    p->end = b->count;
    buffer_put_uint(b, ZIP_END, 4);
    buffer_put_uint(b, 0, 4);
    buffer_put_uint(b, count, 2);
    buffer_put_uint(b, count, 2);
    buffer_put_uint(b, p->end - begin, 4);
    buffer_put_uint(b, begin - base, 4);
    buffer_put_uint(b, 0, 2);
}

void pth_entries(Entry out[PTH_ENTRIES], const Buffer *pickle) {
    static const float six[] = {0, 1, 2, 3, 4, 5};
    out[0] = (Entry){.name = "archive/data.pkl", .data = pickle->bytes, .bytes = pickle->count};
    out[1] = (Entry){.name = "archive/byteorder", .data = "little", .bytes = 6};
    out[2] = (Entry){.name = "archive/data/0", .data = six, .bytes = sizeof six};
    out[3] = (Entry){.name = "archive/version", .data = "3\n", .bytes = 2};
}

void buffer_put_pth(Buffer *b, const char *words) {
    Buffer pickle = {0};
    Entry entries[PTH_ENTRIES];
    buffer_put(&pickle, "\x80\2", 2);
    buffer_put_pickle(&pickle, words);
    pth_entries(entries, &pickle);
    buffer_put_zip(b, NULL, entries, PTH_ENTRIES);
    buffer_free(&pickle);
}
