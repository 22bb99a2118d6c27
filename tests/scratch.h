/* scratch.h - a folder of a test's own, below TMPDIR. */
#ifndef MALA_TEST_SCRATCH_H
#define MALA_TEST_SCRATCH_H

enum { SCRATCH_PATH = 128 };

/* Aborts when it cannot be made. */
void scratch_make(char path[SCRATCH_PATH]);
/* With all that is in it. */
void scratch_remove(const char *path);

#endif
