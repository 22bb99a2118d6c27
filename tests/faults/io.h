/* io.h - for a test that is linked with io.c: what MALA_FAULT says there, from now on. NULL: nothing fails. */
#ifndef MALA_TEST_IO_H
#define MALA_TEST_IO_H

void io_fail(const char *rules);
/* From now on nobody waits between tries. */
void io_hurry(void);
/* How often the calls of a rule were met since, failing or not. */
int io_met(int rule);

#endif
