/* file.h - whole files in, whole files out. Readers take regular files only (a FIFO or a device is refused at once);
 * writers leave either the old file or the complete new one. */
#ifndef MALA_FILE_H
#define MALA_FILE_H

#include "base/base.h"

/* What the system answered (errno) about a path: "PATH: WHAT: No space left on device - free some space". EXIT_IO, and
 * EXIT_MEMORY for ENOMEM. Returns false. */
bool file_fail(Err *err, const char *path, const char *what, int code);

/* The whole regular file, malloc'd, with a '\0' after its count bytes. False: EXIT_INPUT (missing, not a regular
 * file, over limit bytes) or EXIT_IO (reading failed). */
bool file_read(uint8_t **out, size_t *count, const char *path, size_t limit, Err *err);
/* Its first bytes, up to room; *count: how many there are. Errors as above. */
bool file_read_start(void *out, size_t room, size_t *count, const char *path, Err *err);

/* Writes bytes to path so that a crash at any moment leaves the old file or the new one: temporary file in the same
 * directory, write, fsync, rename, fsync of the directory. False: EXIT_IO, the old file untouched. */
bool file_write(const char *path, const void *bytes, size_t count, Err *err);

/* The same without waiting for the disk: whole or not there after a failure, but not after a power cut. For files that
 * are many and can be made again. */
bool file_write_quickly(const char *path, const void *bytes, size_t count, Err *err);

/* The same in pieces: open, any number of appends, then commit or discard. What takes several steps to write goes to
 * `temporary` by name in between, as often as it likes, and is seen under its own name when all of it holds. */
typedef struct {
    int fd; /* -1: finished */
    char *path, *target, *temporary; /* as the caller said it, for messages; what is replaced; what is written */
    bool quick;    /* set after opening: does not wait for the disk */
    bool only_new; /* set after opening: what is there by the time of the commit is not replaced */
} FileWriter;
bool file_writer_open(FileWriter *w, const char *path, Err *err);
bool file_writer_append(FileWriter *w, const void *bytes, size_t count, Err *err);
/* The part of a commit that may find the disk full: of several files that belong together, all are finished before one
 * is committed. */
bool file_writer_finish(FileWriter *w, Err *err);
/* Closes w, also on failure. False: EXIT_IO; EXIT_USAGE where only_new finds a file. */
bool file_writer_commit(FileWriter *w, Err *err);
/* Nothing of it stays; nothing happens where w is all zero, or closed. */
void file_writer_discard(FileWriter *w);
/* The same after an error, which is told of the file's own name where it was of the temporary one. Returns false. */
bool file_writer_fail(FileWriter *w, Err *err);
/* Removes what writers of `path` left behind when they were killed. The caller knows that nobody writes it now. */
void file_remove_temporaries(const char *path);

/* A regular file that is read here and there while it stays open, or bytes in memory that stand for one. Not mapped: of
 * a file that another program cuts short a mapping gives a signal, and here it has to be an error. A file that is
 * replaced stays readable as it was; one that is rewritten in place is noticed. Several threads may read at once. */
typedef struct {
    const char *path;      /* for messages; kept by reference */
    const uint8_t *memory; /* NULL: fd */
    int fd;
    size_t count;
    int64_t modified; /* ns */
} FileReader;
/* False: EXIT_INPUT (missing, not a regular file), EXIT_IO. */
bool file_reader_open(FileReader *r, const char *path, Err *err);
FileReader file_reader_of(const char *name, const void *bytes, size_t count);
/* out[count] = the bytes from `at` on, all within the file's size. False: EXIT_IO, also when the file is no longer what
 * was opened. */
bool file_reader_read(const FileReader *r, void *out, size_t at, size_t count, Err *err);
void file_reader_close(FileReader *r);

/* mkdir -p; false: EXIT_IO */
bool dir_make(const char *path, Err *err);

/* Names in a directory, sorted by byte value, hidden names left out. Free with dir_list_free. */
typedef struct {
    char **names;
    size_t count;
} DirList;
bool dir_list(DirList *out, const char *path, Err *err);
/* Whether name i is certainly that of a regular file, and no link: known from the listing, nothing is asked. */
bool dir_list_regular(const DirList *list, size_t i);
void dir_list_free(DirList *list);

/* What a path leads to, links followed. False where that could not be asked, which is neither yes nor no: EXIT_INPUT (a
 * link to nothing, or in circles), EXIT_IO (no permission to search a folder on the way, ...). */
typedef enum { PATH_NOTHING, PATH_FOLDER, PATH_FILE, PATH_OTHER } PathKind;
bool path_kind(PathKind *out, const char *path, Err *err);
/* Whether it is certainly a folder: false also where it could not be asked. */
bool path_is_dir(const char *path);

/* The path without links and dots, malloc'd; NULL: there is none (errno). */
char *path_real(const char *path);
/* The path from the root, malloc'd; links in it stay. */
char *path_absolute(const char *path);
/* "a/b" from parts, malloc'd, never NULL; no doubled slash */
char *path_join(const char *a, const char *b);

#endif
