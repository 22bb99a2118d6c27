/* unfinished.h - names of files that are being written, and of the folders made for them. A program that has to end in the middle of a call, whatever its
 * other threads are doing, removes them; so does a library's call that is given up. */
#ifndef MALA_UNFINISHED_H
#define MALA_UNFINISHED_H

#include <stdbool.h>
#include <stddef.h>

/* Room for a name, zeroed, never NULL. */
char *unfinished_new(size_t room);
/* The file is there: from now on it is removed when the program has to end. Allocates nothing, cannot fail. */
void unfinished_begin(char *name);
/* It has its final name, or is gone. Frees the name; NULL does nothing. */
void unfinished_free(char *name);
/* Removes what this process has begun and not finished, the last first, folders if they are empty: the calling thread's
 * own, or everybody's. */
void unfinished_remove(bool own);

#endif
