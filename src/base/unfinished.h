/* unfinished.h - names of files that are being written, and of the folders made for them. A program that has to end in
 * the middle of a call, whatever its other threads are doing, removes them; so does a library's call that is given up.
 */
#ifndef MALA_UNFINISHED_H
#define MALA_UNFINISHED_H

#include <stdbool.h>
#include <stddef.h>

/* Room for a name, zeroed, never NULL. */
char *unfinished_new(size_t room);
/* Makes the file, which nobody else has made before, for writing. Until unfinished_free it is removed when the program
 * has to end. Its descriptor; -1: errno. */
int unfinished_create(char *name);
/* The same for what is there already. Allocates nothing, cannot fail. */
void unfinished_begin(char *name);
/* It has its final name, or is gone. Frees the name; NULL does nothing. */
void unfinished_free(char *name);
/* Removes what the calling thread has begun and not finished, the latest first. */
void unfinished_remove(void);
/* Removes everybody's; from here on nobody begins, and who tries waits for the end. */
void unfinished_end(void);

#endif
