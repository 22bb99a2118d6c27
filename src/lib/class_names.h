/* class_names.h - what names of classes have to be: a name means one class, or every answer that holds it is false. */
#ifndef MALA_CLASS_NAMES_H
#define MALA_CLASS_NAMES_H

#include "base/base.h"

/* None empty, no two the same; what they mean in words (ImageNet's) may be. where: names the source in messages.
 * False: EXIT_INPUT with the first at fault, counted from 0. */
bool class_names_check(char *const *names, int count, const char *where, Err *err);

#endif
