/* list.h - lists of paths, from a file, a pipe or memory. */
#ifndef MALA_LIST_H
#define MALA_LIST_H

#include <stdio.h>

#include "data/dataset.h"

/* Entries end with a line end or, as `find -print0` writes them, with a NUL: the first end that is met decides for the
 * whole list, so that names with line ends in them can be given. Lines may end with CR LF. A byte order mark at the
 * start and empty entries are passed over. */
typedef struct {
    const char *name;             /* for messages */
    const unsigned char *bytes;   /* [count] come first; NULL: none */
    size_t count, at;
    FILE *file;                   /* what follows them; NULL: nothing */
    int end;                      /* what ends an entry: '\n' or '\0'; -1: not met yet */
    size_t entries;               /* met so far, empty ones included */
    char entry[DATASET_PATH_MAX]; /* the last one */
} ListReader;

/* name, bytes and file stay the caller's, and are needed as long as the reader; nothing has to be freed. Bytes that
 * were read from file to see what it is are given as bytes, and the rest follows. */
ListReader list_reader(const char *name, const void *bytes, size_t count, FILE *file);

/* The next entry, valid until the following call; *out is NULL at the end. Takes no more from the file than that, so
 * entries that somebody is still typing are answered one by one. False: EXIT_INPUT (UTF-16, an entry that is too long
 * for a path, a NUL inside a line), EXIT_IO. */
bool list_next(ListReader *r, const char **out, Err *err);

#endif
