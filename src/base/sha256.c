#include "base/sha256.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/sha256_constants.h"
#include "base/sha256_x86.h"

static uint32_t turned(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

static void add_block(uint32_t state[8], const uint8_t block[64]) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) +
               (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    memcpy(v, state, sizeof v);
#pragma GCC unroll 8
    for (int i = 0; i < 64; i++) { /* v turns by one place a round: eight rounds on, no word has moved */
        uint32_t *a = &v[(64 - i) % 8], *b = &v[(65 - i) % 8], *c = &v[(66 - i) % 8], *d = &v[(67 - i) % 8];
        uint32_t *e = &v[(68 - i) % 8], *f = &v[(69 - i) % 8], *g = &v[(70 - i) % 8], *h = &v[(71 - i) % 8];
        uint32_t choice = (*e & *f) ^ (~*e & *g), majority = (*a & *b) ^ (*a & *c) ^ (*b & *c);
        uint32_t one = *h + (turned(*e, 6) ^ turned(*e, 11) ^ turned(*e, 25)) + choice + sha256_constants[i] + w[i];
        *d += one;
        *h = one + (turned(*a, 2) ^ turned(*a, 13) ^ turned(*a, 22)) + majority;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

/* Asked once: the question is slow on virtual machines. */
static bool has_instructions(void) {
    static atomic_int known; /* 0: not yet, 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (!answer) atomic_store_explicit(&known, answer = 1 + sha256_x86_here(), memory_order_relaxed);
    return answer == 2;
}

void sha256_portable_add(uint32_t state[8], const uint8_t *blocks, size_t count) {
    for (size_t i = 0; i < count; i++) add_block(state, blocks + 64 * i);
}

static void add_blocks(uint32_t state[8], const uint8_t *blocks, size_t count) {
    (has_instructions() ? sha256_x86_add : sha256_portable_add)(state, blocks, count);
}

void sha256_init(Sha256 *s) {
    *s = (Sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
                            0x5be0cd19}};
}

void sha256_add(Sha256 *s, const void *bytes, size_t count) {
    const uint8_t *from = bytes;
    size_t held = (size_t)(s->count % 64);
    s->count += count;
    if (held > 0) {
        size_t n = MIN(count, 64 - held);
        memcpy(s->block + held, from, n);
        from += n, count -= n;
        if (held + n < 64) return;
        add_blocks(s->state, s->block, 1);
    }
    add_blocks(s->state, from, count / 64);
    if (count % 64) memcpy(s->block, from + count / 64 * 64, count % 64);
}

void sha256_text(Sha256 *s, char out[SHA256_TEXT_SIZE]) {
    const uint64_t bits = s->count * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(s, "\x80", 1);
    while (s->count % 64 != 56) sha256_add(s, "", 1);
    sha256_add(s, length, sizeof length);
    for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", s->state[i]);
}
