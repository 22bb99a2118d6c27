/* file.h - whole files in, whole files out. Readers take regular files only (a FIFO or a device is refused at once);
 * writers leave either the old file or the complete new one. */
#ifndef MALA_FILE_H
#define MALA_FILE_H

#include "base/base.h"

/* The whole regular file, malloc'd, with a '\0' after its count bytes. False: EXIT_INPUT (missing, not a regular
 * file, over limit bytes) or EXIT_IO (reading failed). */
bool file_read(uint8_t **out, size_t *count, const char *path, size_t limit, Err *err);

/* Writes bytes to path so that a crash at any moment leaves the old file or the new one: temporary file in the same
 * directory, write, fsync, rename, fsync of the directory. False: EXIT_IO, the old file untouched. */
bool file_write(const char *path, const void *bytes, size_t count, Err *err);

/* The same in pieces: open, any number of appends, then commit or discard. */
typedef struct {
    int fd;
    char *path, *temporary;
} FileWriter;
bool file_writer_open(FileWriter *w, const char *path, Err *err);
bool file_writer_append(FileWriter *w, const void *bytes, size_t count, Err *err);
bool file_writer_commit(FileWriter *w, Err *err); /* closes w, also on failure */
void file_writer_discard(FileWriter *w);

/* A read-only private mapping of a whole regular file; unmap with file_unmap. */
bool file_map(const uint8_t **out, size_t *count, const char *path, Err *err);
void file_unmap(const uint8_t *bytes, size_t count);

/* mkdir -p; false: EXIT_IO */
bool dir_make(const char *path, Err *err);

/* Names in a directory, sorted by byte value, hidden names left out. Free with dir_list_free. */
typedef struct {
    char **names;
    size_t count;
} DirList;
bool dir_list(DirList *out, const char *path, Err *err);
void dir_list_free(DirList *list);
bool path_is_dir(const char *path);

/* "a/b" from parts, malloc'd, never NULL; no doubled slash */
char *path_join(const char *a, const char *b);

#endif
