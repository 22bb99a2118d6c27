#include "onnx_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint64_t read_varint(Bytes *b) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->at < b->end && shift < 64);
        uint8_t byte = *b->at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
}

bool next_field(Bytes *b, Field *f) {
    if (b->at == b->end) return false;
    uint64_t tag = read_varint(b);
    *f = (Field){.number = (int)(tag >> 3), .wire = (int)(tag & 7)};
    assert_true(f->wire == 0 || f->wire == 2 || f->wire == 5);
    if (f->wire == 0) {
        f->value = read_varint(b);
        return true;
    }
    uint64_t count = f->wire == 5 ? 4 : read_varint(b);
    assert_true(count <= (uint64_t)(b->end - b->at));
    f->bytes = (Bytes){b->at, b->at + count};
    b->at += count;
    for (int i = 0; f->wire == 5 && i < 4; i++) f->value |= (uint64_t)f->bytes.at[i] << 8 * i;
    return true;
}

size_t size_of(Bytes b) { return (size_t)(b.end - b.at); }

bool same_text(Bytes b, const char *text) {
    return size_of(b) == strlen(text) && memcmp(b.at, text, strlen(text)) == 0;
}

bool same_bytes(Bytes a, Bytes b) { return size_of(a) == size_of(b) && memcmp(a.at, b.at, size_of(a)) == 0; }

Field only(Bytes message, int number) {
    Field f, found = {0};
    int count = 0;
    while (next_field(&message, &f))
        if (f.number == number) found = f, count++;
    assert_int_equal(count, 1);
    return found;
}
