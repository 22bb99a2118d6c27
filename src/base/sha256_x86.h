/* sha256_x86.h - SHA-256 by the instructions that x86 processors have for it since 2016 or so; private to sha256.c. */
#ifndef MALA_SHA256_X86_H
#define MALA_SHA256_X86_H

#include "base/base.h"

bool sha256_x86_here(void);
/* As add_blocks of sha256.c; only where the former says so. */
void sha256_x86_add(uint32_t state[8], const uint8_t *blocks, size_t count);

#endif
