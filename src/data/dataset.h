/* dataset.h - which pictures there are and what each is called: image folders, single folders, lists. Pictures are not
 * opened here. Names decide, never positions: a class has the same index in every split and every run. */
#ifndef MALA_DATASET_H
#define MALA_DATASET_H

#include "base/sha256.h"
#include "data/passed.h"

#define DATASET_PATH_MAX 4096 /* bytes of a full path, its '\0' included: what the kernel opens */
/* Ends the message of whoever is given nothing: a folder, a list in a file or in a pipe. */
#define DATASET_NO_PICTURE "holds no picture - give JPEG, PNG, WebP, GIF or BMP files"

typedef struct {
    char *root;      /* paths are relative to this folder, except those that begin with '/' */
    char *text;      /* the paths, each with its '\0' */
    size_t *offset;  /* [count] of a path in text */
    int32_t *labels; /* [count] class index; NULL when nothing is labelled */
    size_t count;    /* below 2^32 */
    char **classes;  /* [class_count] names, in byte order when they were taken from folders */
    int class_count;
    Passed passed;   /* files in the folders that are no pictures, or none that can be read */
    size_t text_bytes, text_room, room; /* growing */
} Dataset;

/* ROOT/SPLIT/CLASS/... with any depth of folders below a class (split: split_find in data/split.h; NULL means that
 * ROOT itself holds the class folders), in byte order. Names that begin with '.' are ignored, links followed. Files
 * with a picture's extension (.jpg .jpeg .jpe .jfif .png .webp in any case) are listed unseen; what they are is seen
 * when they are decoded. The first bytes of all others say whether they are pictures that can be read; those that are
 * not are counted in `passed`, and so is what lies beside the class folders.
 * classes NULL: the folders' names are the classes, and have to be UTF-8, as every file that will hold them is. Else
 * the [class_count] known ones: folders may be fewer, and a folder of another name is an error.
 * False: EXIT_INPUT (also for a class without pictures, and for links to nothing), EXIT_IO. */
bool dataset_open_folder(Dataset *out, const char *root, const char *split, const char *const *classes, int class_count,
                         Err *err);

/* Every picture in and below one folder, told by the same rules, without labels; none is an error. */
bool dataset_open_pictures(Dataset *out, const char *folder, Err *err);

/* A list of paths (data/list.h), without labels; relative ones start at the list's own folder. */
bool dataset_open_list(Dataset *out, const char *list, Err *err);

/* The given paths, as a command line has them: folders stand for the pictures in and below them. */
bool dataset_open_paths(Dataset *out, const char *const *paths, size_t count, Err *err);

void dataset_close(Dataset *d);

/* What it is called whatever machine it lies on: SHA-256 of the pictures' paths below the root, a line each. It tells
 * which pictures there were, not what is in them: reading them all would take longer than many a training. */
void dataset_sha256(const Dataset *d, char out[SHA256_TEXT_SIZE]);

/* The path to open sample `index` by, into DATASET_PATH_MAX bytes. Samples keep their index for good. */
void dataset_path(const Dataset *d, size_t index, char out[DATASET_PATH_MAX]);
static inline int32_t dataset_label(const Dataset *d, size_t index) { return d->labels ? d->labels[index] : -1; }

#endif
