/* pickle.h - reads the pickles that torch.save writes, as data.
 *
 * A pickle is a program for a machine with a stack, and Python runs whatever function it names. Here nothing is ever
 * called, imported or opened. Opcodes are an allow-list (protocol 2 as torch writes it), and so are global names. Those
 * that carry weights map to a kind of value; those that real checkpoints have beside them (pickle_inert.c) become an
 * inert PICKLE_OPAQUE, with what it is called, built with and filled with dropped: an argparse.Namespace is stepped
 * over. Every other name, os.system or a class of somebody's program, is refused where it stands, whether or not a
 * weight depends on it.
 *
 * Memory is linear in the pickle and bounded; nothing recurses; values are never walked as a tree, so that shared and
 * cyclic values cost nothing. Strings stay in the pickle. */
#ifndef MALA_PICKLE_H
#define MALA_PICKLE_H

#include "base/base.h"
#include "io/tensor_file.h"

#define PICKLE_MAX_BYTES ((size_t)64 << 20)
#define PICKLE_MAX_VALUES 4000000 /* also items, memo entries and values on the stack */
#define PICKLE_MAX_DEPTH 1000 /* of values in values, and of open marks */
#define PICKLE_MAX_LINE 255 /* bytes of a module's or a class's name */

typedef enum {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_STRING,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,    /* OrderedDict too */
    PICKLE_GLOBAL,  /* a name that means something to us */
    PICKLE_STORAGE, /* elements in a record of their own */
    PICKLE_TENSOR,  /* a view of a storage; parameters too */
    PICKLE_OPAQUE   /* a listed name, or an object of it: stepped over */
} PickleKind;
const char *pickle_kind_name(PickleKind kind); /* "a list" */

/* A value is its index; 0 stands for none. */
typedef uint32_t PickleId;

typedef struct {
    const char *text; /* in the pickle, without '\0'; any bytes */
    size_t count;
} PickleText;

/* Items of tuples, lists and dicts, chained. */
typedef struct {
    PickleId key; /* dicts */
    PickleId value;
    uint32_t next; /* 0 ends */
} PickleItem;

typedef struct {
    PickleKind kind;
    uint16_t depth; /* of tuples, lists and dicts in it, as far as known when an item came in */
    size_t at; /* byte of the opcode that made it, in the pickle */
    union {
        int64_t integer; /* BOOL, INT */
        double number;   /* FLOAT */
        PickleText text; /* STRING; GLOBAL, OPAQUE: "module\nname", or empty */
        struct {
            uint32_t first, last, count;
        } items; /* TUPLE, LIST, DICT */
        struct {
            PickleId type; /* GLOBAL or OPAQUE: torch.FloatStorage, ... */
            uint32_t record; /* "data/<record>" */
            int64_t elements;
        } storage;
        struct {
            PickleId storage, size, stride; /* tuples of INT */
            PickleId type;                  /* GLOBAL or OPAQUE: torch.uint16, ...; 0: the storage's */
            int64_t offset;                 /* in elements */
        } tensor;
    };
} PickleValue;

typedef struct {
    const char *path;  /* how messages name the file */
    size_t first_byte; /* where in the file the pickle begins */
    PickleValue *values;
    uint32_t value_count, value_capacity;
    PickleItem *items;
    uint32_t item_count, item_capacity;
    PickleId root;
} Pickle;

/* Reads one whole pickle, of at most PICKLE_MAX_BYTES, which must stay in memory. Followed by pickle_free, also when it
 * fails. False: EXIT_INPUT with the byte, and by name the global if one is at fault. */
bool pickle_read(Pickle *out, const char *path, size_t first_byte, const uint8_t *bytes, size_t count, Err *err);
void pickle_free(Pickle *p);

/* "FILE: byte N: what" about a value. Returns false. */
bool pickle_fail(const Pickle *p, PickleId about, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);
bool pickle_text_is(PickleText text, const char *wanted);
/* "module.name" of a GLOBAL or OPAQUE, "an object" when it has no name; shortened to fit. Returns out. */
const char *pickle_global_name(char *out, size_t room, const Pickle *p, PickleId value);
/* The element type that a torch.FloatStorage or a torch.float32 stands for. *untyped: bytes, torch.UntypedStorage. */
bool pickle_stored_type(StoredType *out, bool *untyped, const Pickle *p, PickleId value);

#endif
