/* answers.h - what `mala infer` found, as text for people, JSON lines or CSV; to standard output as it comes, or to a
 * file that appears when it is whole. */
#ifndef MALA_ANSWERS_H
#define MALA_ANSWERS_H

#include "base/base.h"
#include "base/file.h"

typedef enum { ANSWERS_TEXT, ANSWERS_JSON, ANSWERS_CSV } AnswersFormat;

typedef struct {
    AnswersFormat format;
    char *const *classes; /* names, by class index */
    int topk;             /* classes a picture */
    int columns;          /* text: a line this wide leaves further classes out; 0: any width */
    bool to_file;
    FileWriter file;
    char *text; /* not written yet */
    size_t used, room;
} Answers;

/* out: NULL: standard output. False: EXIT_IO, nothing needs closing then. */
bool answers_open(Answers *a, AnswersFormat format, const char *out, char *const *classes, int topk, Err *err);

/* One picture: top[topk] with prob by class index, or why it could not be read (bad->code). Control characters of names
 * are escaped as in base/strings.h, so that a text or CSV row is one line; fields of CSV are quoted by RFC 4180.
 *     text   photo.jpg: cat 97.1 %, dog 2.0 %        a bad picture has no line
 *     JSON   {"image": ..., "predictions": [{"class": 3, "label": "cat", "score": 0.971}, ...]}, or "error"
 *     CSV    image,rank,class,label,score,error      a row a class, best first; a heading comes first */
void answers_add(Answers *a, const char *image, const Err *bad, const int32_t *top, const float *prob);

/* Hands over what was added. False: EXIT_IO. */
bool answers_flush(Answers *a, Err *err);
/* Ends: commit gives the file its name; discard leaves what was there before. */
bool answers_commit(Answers *a, Err *err);
void answers_discard(Answers *a);

#endif
