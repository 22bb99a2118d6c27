/* descriptors.h - standard input, output and error are there. */
#ifndef MALA_DESCRIPTORS_H
#define MALA_DESCRIPTORS_H

#include "base/base.h"

/* Call first in main. Of descriptors 0, 1 and 2, those that whoever started us has closed become /dev/null; otherwise
 * the first files that are opened would be standard input and take what is printed. False: EXIT_IO. */
bool descriptors_secure(Err *err);

/* Hands over what standard output still holds, and then the text (NULL, 0: none). False: EXIT_IO, also where an earlier
 * write failed. */
bool standard_output_write(const char *text, size_t count, Err *err);

#endif
