/* host_memory.h - how much memory this process may still take before the kernel kills something for it. */
#ifndef MALA_HOST_MEMORY_H
#define MALA_HOST_MEMORY_H

#include "base/base.h"

/* The least of what the machine has available and what every control group around this process (version 1 and 2)
 * leaves; pages that only cache files count as free, swap does not. *limited_by says whose limit it is, for messages.
 * SIZE_MAX: nothing is known. root: "" but in tests. */
size_t host_memory_left(const char *root, const char **limited_by);

/* The same, but MALA_MEMORY stands instead of all that where it is set: bytes, or with K, M, G or T behind the number
 * ("512M", "1.5g", "4GiB"), powers of 1024. False: EXIT_USAGE, it is no such number. */
bool host_memory_allowed(size_t *out, const char **limited_by, Err *err);

#endif
