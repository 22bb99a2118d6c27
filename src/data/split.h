/* split.h - which folders of a data set are trained on and which one judges, and whether the two share pictures. */
#ifndef MALA_SPLIT_H
#define MALA_SPLIT_H

#include "base/log.h"
#include "data/dataset.h"

/* The folder of a split below root, malloc'd; NULL when there is none. "train" is also found as "training", "val" as
 * "valid" or "validation", in this order; any other name, "test" too, is taken only when it is asked for. split NULL:
 * root itself. False: EXIT_INPUT, EXIT_IO, where one of them is there but could not be looked at. */
bool split_find(char **folder, const char *root, const char *split, Err *err);
/* EXIT_INPUT: there is no such split; names the folders that there are. Returns false. */
bool split_missing(const char *root, const char *split, Err *err);

/* What an evaluation takes of root: *split becomes `val`, or NULL where root itself holds the class folders. Where it
 * has neither, but a training folder: EXIT_INPUT, since training pictures judge nothing. */
bool split_to_judge(const char **split, const char *root, const char *val, const char *train,
                    const char *const *classes, int class_count, Err *err);

/* Says which folder serves as what, which of its other names lie beside it unused, of which classes it holds nothing,
 * and what was passed over in it. */
void split_announce(const Dataset *d, const char *what, Log *log);

/* Pictures that judge and were trained on: the same file under two names, or the same bytes. */
typedef struct {
    size_t looked, shared;  /* of the validation pictures */
    size_t train, val;      /* the first pair: sample numbers */
} SplitShared;
/* Looks at all of small data sets and evenly spread pictures of large ones, and reads few files: those of the same
 * length as another. Files that cannot be read are left to the loader to report. */
SplitShared split_shared(const Dataset *train, const Dataset *val);
/* A warning where there are any. */
void split_warn_of_shared(const Dataset *train, const Dataset *val, Log *log);

#endif
