/* sha256.h - SHA-256 (FIPS 180-4), for telling what was used from what is there. */
#ifndef MALA_SHA256_H
#define MALA_SHA256_H

#include "base/base.h"

typedef struct {
    uint32_t state[8];
    uint64_t count; /* bytes so far */
    uint8_t block[64];
} Sha256;

#define SHA256_TEXT_SIZE 65

void sha256_init(Sha256 *s);
void sha256_add(Sha256 *s, const void *bytes, size_t count);
/* 64 lower-case hexadecimal digits. */
void sha256_text(Sha256 *s, char out[SHA256_TEXT_SIZE]);

/* What sha256_add does with whole blocks of 64 bytes where the processor has no instructions for it: for tests. */
void sha256_portable_add(uint32_t state[8], const uint8_t *blocks, size_t count);

#endif
