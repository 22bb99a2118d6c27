/* races.h - finds accesses to shared and device memory by threads of a kernel that nothing orders, whatever the order in
 * which they happened here. The kernels are compiled with the instrumentation of -fsanitize=thread, whose calls are
 * answered by races.cpp instead of that sanitizer's library: each two bytes know who wrote and who read them last.
 *
 * What orders two accesses of a launch, at least one of them a write: that one thread makes both; a barrier() of their
 * block between them; a warp_barrier() of their warp. Threads of two blocks are never ordered, and no warp_*() but
 * warp_barrier() orders memory. Launches follow each other. For a team of one thread (base/parallel.h). */
#ifndef MALA_RACES_H
#define MALA_RACES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A barrier in the text of a kernel. */
typedef struct {
    const char *file;
    int line;
    bool of_warp;
} RaceBarrier;

/* Looks on from now until races_end; no device is open. Device memory is known that is taken meanwhile. */
void races_begin(void);
void races_end(void);

/* Races since the last call, and of the first of them a line for people; NULL: none. */
int races_found(const char **first);

/* The barriers that were met since races_begin, each once. */
int races_barriers(const RaceBarrier **out);
/* Leaves one out from now on; NULL: none. */
void races_leave_out(const RaceBarrier *barrier);

#ifdef __cplusplus
}
#endif

#endif
