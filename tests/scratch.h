/* scratch.h - a folder of a test's own, below TMPDIR. */
#ifndef MALA_TEST_SCRATCH_H
#define MALA_TEST_SCRATCH_H

enum { SCRATCH_PATH = 128 };

/* Aborts when it cannot be made. */
void scratch_make(char path[SCRATCH_PATH]);
/* With all that is in it. */
void scratch_remove(const char *path);

/* Fixtures of a group of tests that needs one folder. */
extern char scratch_folder[SCRATCH_PATH];
int scratch_set_up(void **state);
int scratch_tear_down(void **state);

#endif
