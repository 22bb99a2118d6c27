#include "damage.h"

#include <string.h>

uint64_t odd_number(Rng *r, size_t size) {
    static const uint64_t numbers[] = {0, 1, 2, 255, 256, INT32_MAX, 1ull << 31, UINT32_MAX, 1ull << 32, 1ull << 40,
                                       INT64_MAX, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    uint32_t i = rng_below(r, COUNTOF(numbers) + 4);
    return i < COUNTOF(numbers) ? numbers[i] : size + i - COUNTOF(numbers) - 2;
}

void splice(Buffer *b, size_t at, size_t cut, const void *piece, size_t count) {
    Buffer out = {0};
    buffer_put(&out, b->bytes, at);
    buffer_put(&out, piece, count);
    buffer_put(&out, b->bytes + at + cut, b->count - at - cut);
    buffer_free(b);
    *b = out;
}

void damage_bytes(Buffer *b, Rng *r) {
    if (b->count == 0) return;
    const size_t at = rng_below(r, (uint32_t)b->count), width = (size_t)1 << rng_below(r, 4), length = rng_below(r, 64);
    uint64_t number = odd_number(r, b->count);
    Buffer piece = {0};
    switch (rng_below(r, 6)) {
    case 0: b->bytes[at] ^= (uint8_t)(1u << rng_below(r, 8)); break;
    case 1: b->bytes[at] = (uint8_t)rng_below(r, 256); break;
    case 2: memcpy(b->bytes + at, &number, MIN(b->count - at, width)); break;
    case 3: b->count = at; break;
    case 4: splice(b, at, MIN(b->count - at, length), NULL, 0); break;
    default: /* a piece of itself somewhere */
        buffer_put(&piece, b->bytes + at, MIN(b->count - at, length));
        splice(b, rng_below(r, (uint32_t)b->count), 0, piece.bytes, piece.count);
        buffer_free(&piece);
    }
}

Buffer copy_of(const Buffer *b) {
    Buffer copy = {0};
    buffer_put(&copy, b->bytes, b->count);
    return copy;
}
