#include "io/protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_COUNTED = 2, WIRE_FIXED32 = 5 };
#define MAX_VARINT 10

void protobuf_free(Protobuf *p) {
    free(p->bytes);
    *p = (Protobuf){0};
}

void protobuf_append(Protobuf *p, const void *bytes, size_t count) {
    if (p->capacity - p->count < count) {
        size_t wanted;
        CHECK(size_add(p->count, count, &wanted), "a message of more than all memory");
        p->capacity = MAX(wanted, 2 * p->capacity);
        p->bytes = mem_resize(p->bytes, p->capacity, 1);
    }
    if (count) memcpy(p->bytes + p->count, bytes, count);
    p->count += count;
}

/* Seven bits a byte, the lowest first; the top bit says that more follow. */
static size_t encode_varint(uint8_t out[MAX_VARINT], uint64_t value) {
    size_t n = 0;
    for (; value > 127; value >>= 7) out[n++] = (uint8_t)(value | 128);
    out[n++] = (uint8_t)value;
    return n;
}

static void append_varint(Protobuf *p, uint64_t value) {
    uint8_t text[MAX_VARINT];
    protobuf_append(p, text, encode_varint(text, value));
}

static void append_tag(Protobuf *p, int field, int wire) { append_varint(p, (uint64_t)field << 3 | (uint64_t)wire); }

void protobuf_int(Protobuf *p, int field, int64_t value) {
    append_tag(p, field, WIRE_VARINT);
    append_varint(p, (uint64_t)value);
}

void protobuf_float(Protobuf *p, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    append_tag(p, field, WIRE_FIXED32);
    protobuf_append(p, (uint8_t[]){(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16), (uint8_t)(bits >> 24)},
                    4);
}

void protobuf_announce(Protobuf *p, int field, uint64_t count) {
    append_tag(p, field, WIRE_COUNTED);
    append_varint(p, count);
}

void protobuf_bytes(Protobuf *p, int field, const void *bytes, size_t count) {
    protobuf_announce(p, field, count);
    protobuf_append(p, bytes, count);
}

void protobuf_string(Protobuf *p, int field, const char *text) { protobuf_bytes(p, field, text, strlen(text)); }

size_t protobuf_begin(Protobuf *p, int field) {
    append_tag(p, field, WIRE_COUNTED);
    return p->count;
}

void protobuf_end(Protobuf *p, size_t begin) {
    uint8_t length[MAX_VARINT];
    size_t count = p->count - begin, n = encode_varint(length, count);
    protobuf_append(p, length, n); /* makes room; the message then moves up to let its length in front */
    memmove(p->bytes + begin + n, p->bytes + begin, count);
    memcpy(p->bytes + begin, length, n);
}
