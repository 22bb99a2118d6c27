/* host_memory.h - how much memory this process may still take before the kernel kills something for it. */
#ifndef MALA_HOST_MEMORY_H
#define MALA_HOST_MEMORY_H

#include "base/base.h"

/* The least of what the machine has available and what every control group around this process (version 1 and 2)
 * leaves; pages that only cache files count as free, swap does not. *limited_by says whose limit it is, for messages.
 * MALA_MEMORY=BYTES (or 512M, 4G) stands instead of all that. SIZE_MAX: nothing is known. root: "" but in tests. */
size_t host_memory_left(const char *root, const char **limited_by);

#endif
