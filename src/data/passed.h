/* passed.h - files in a folder of pictures that are none, or none that can be read: never left out in silence. */
#ifndef MALA_PASSED_H
#define MALA_PASSED_H

#include "base/log.h"

/* By what they are or, where that is no picture, by the end of their names. */
#define PASSED_KINDS 12
typedef struct {
    char kind[40];
    bool picture; /* of a format that is not read, by its bytes or its name */
    size_t count;
    char *example; /* a path */
} PassedKind;

typedef struct {
    PassedKind kind[PASSED_KINDS + 1]; /* in the order met; the last one takes all that came after */
    int kinds;
    size_t count;
} Passed;

/* Looks at a file whose name is no picture's. *is_picture: it is one that can be read; else it is counted.
 * False: EXIT_INPUT, EXIT_IO, when it cannot be looked at. */
bool passed_look(Passed *p, bool *is_picture, const char *path, Err *err);
/* Counts a file that lies where no picture is looked for: `where` is said of it. */
bool passed_stray(Passed *p, const char *path, const char *where, Err *err);
/* Counts what is neither file nor folder: a pipe, a socket, a device. where: "", or " " and what is said of it. */
void passed_special(Passed *p, const char *path, const char *where);
/* A line for them all and one for each kind: a warning when there were pictures among them. */
void passed_report(const Passed *p, const char *folder, Log *log);
void passed_free(Passed *p);

#endif
