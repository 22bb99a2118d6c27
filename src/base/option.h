/* option.h - a table of options: one row gives an option's name, type, place in a struct, default, range and help;
 * reading configs, "key=value", messages, help text and dumps all come from it (the idea of FFmpeg's AVOption).
 * Names have at most one dot, "section.key", and the rows of a section stand together. */
#ifndef MALA_OPTION_H
#define MALA_OPTION_H

#include "base/base.h"
#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

typedef enum {
    OPTION_INT,    /* int */
    OPTION_INT64,  /* int64_t, within +-2^53: what a JSON number carries exactly */
    OPTION_FLOAT,  /* double */
    OPTION_BOOL,   /* bool */
    OPTION_STRING, /* char *, owned by the struct */
    OPTION_ENUM    /* int: index in words */
} OptionType;

enum {
    OPTION_AUTO = 1,   /* the word "auto" is a value; numbers and enums only */
    OPTION_NULL = 2,   /* null is a value; strings only: NULL */
    OPTION_SPREAD = 4, /* of a list: one value stands for all of them */
    OPTION_UNSAVED = 8 /* no part of a dump */
};

/* What "auto" is in the struct; of a list, in every place. */
#define AUTO_INT INT_MIN /* also enums */
#define AUTO_INT64 INT64_MIN
#define AUTO_FLOAT ((double)NAN)

typedef struct {
    const char *name;
    OptionType type;
    int length; /* 0: one value; n: a list of exactly n */
    unsigned flags;
    size_t offset;       /* in the struct */
    const char *initial; /* the default, as on the command line */
    double min, max;     /* inclusive; numbers only */
    const char *words; /* enums: "red|rouge green": values apart by spaces, spellings of one by '|'; the first counts */
    const char *also;  /* names people type instead, apart by spaces: for suggestions only */
    const char *help;
} Option;

/* A table, the struct it fills, and for each row where its value came from ("c.json:3:9", "command line"). */
typedef struct {
    const Option *table;
    int count;
    void *target;
    char **where; /* [count], NULL: the default */
} OptionSet;

/* Fills target with the defaults. Strings in target are taken over as garbage, not freed. */
void options_init(OptionSet *set, const Option *table, int count, void *target);
void options_free(OptionSet *set); /* with target's strings */

/* Sets what a config says: an object of sections. False: EXIT_USAGE, the first error as "name:line:column: what"; what
 * was set before it stays set. */
bool options_read_json(OptionSet *set, const char *text, size_t count, const char *name, Err *err);
/* "key=value" from a command line: value is JSON where it is, a bare word otherwise; lists may leave out brackets and
 * quotes. where names the source in messages. */
bool options_assign(OptionSet *set, const char *assignment, const char *where, Err *err);
/* The same with key and value apart. */
bool options_set(OptionSet *set, const char *key, const char *value, const char *where, Err *err);

/* Back to the default, as if it had not been given. */
void options_reset(OptionSet *set, const char *name);

/* An error about an option's value, placed where the value came from: "c.json:3:9: input.size: what". Returns false. */
bool options_fail(const OptionSet *set, const char *name, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);
/* Has anything but the default been given? */
bool options_given(const OptionSet *set, const char *name);
/* Where it was given; NULL: it was not. */
const char *options_where(const OptionSet *set, const char *name);
/* The row of this name; NULL: none. */
const Option *option_find(const Option *table, int count, const char *name);
/* The row that somebody who typed this may have meant; NULL: none is near. */
const Option *option_nearest(const Option *table, int count, const char *name);

/* The whole struct as one JSON object, in the order of the table; reading it gives the same struct. */
void options_dump(const OptionSet *set, JsonWriter *w);
/* "0.0005, 1e-09 to 100": default and range of a row, for help. */
void option_describe(char *out, size_t size, const Option *option);
/* The index of a spelling in words; -1: none. Case and '-' against '_' do not matter. */
int option_word_index(const char *words, const char *word);
/* The first spelling of the index'th value; empty when there is none. */
void option_word(char *out, size_t size, const char *words, int index);

#endif
