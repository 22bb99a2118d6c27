/* memory.h - for a test that is linked with memory.c: from a call of memory_fail on its allocations are counted, and
 * the number-th fails, alone or with all that follow. */
#ifndef MALA_TEST_MEMORY_H
#define MALA_TEST_MEMORY_H

#include <stdbool.h>

void memory_fail(long number, bool ever_after);
/* Ends that. How many there were. */
long memory_stop(void);
/* What this library asks for by itself is neither counted nor refused; operator new for it is. NULL: none. */
void memory_spare(const char *library);
/* False under a sanitizer. */
bool memory_can_fail(void);

#endif
