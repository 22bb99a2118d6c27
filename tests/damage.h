/* damage.h - what can happen to the bytes of a file: the same for the same state of r. */
#ifndef MALA_TEST_DAMAGE_H
#define MALA_TEST_DAMAGE_H

#include "base/rng.h"
#include "pth_build.h"

/* A number that readers get wrong: around 0, the ends of integer types, the size of the file. */
uint64_t odd_number(Rng *r, size_t size);
/* Puts a piece, or nothing, in place of `cut` bytes. */
void splice(Buffer *b, size_t at, size_t cut, const void *piece, size_t count);
/* A bit or byte changed, an odd number written over, the end cut off, a piece taken out or repeated. */
void damage_bytes(Buffer *b, Rng *r);
Buffer copy_of(const Buffer *b);

#endif
