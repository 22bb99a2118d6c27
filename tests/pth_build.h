/* pth_build.h - makes PyTorch checkpoints, good and bad ones, in memory. */
#ifndef MALA_PTH_BUILD_H
#define MALA_PTH_BUILD_H

#include "base/base.h"

typedef struct {
    uint8_t *bytes;
    size_t count, capacity;
} Buffer;
void buffer_put(Buffer *b, const void *bytes, size_t count);
void buffer_put_uint(Buffer *b, uint64_t value, size_t bytes); /* little-endian */
void buffer_free(Buffer *b);

/* A pickle from words apart by spaces, PROTO 2 not included:
 *   'text'  BINUNICODE (no spaces in it)     -5  BININT             module:name  GLOBAL
 *   t1 t2 t3  TUPLE1..3    T F  true, false  new  NEWOBJ            put7 get7    memo
 *   x8aff  these bytes     any one character: the opcode of that byte */
void buffer_put_pickle(Buffer *b, const char *words);

/* An entry of an archive, and how the archive lies about it. */
typedef struct {
    const char *name;
    const void *data;
    size_t bytes;
    const char *local_name; /* NULL: name */
    size_t name_bytes;      /* 0: strlen(name) */
    uint16_t flags, method;
    uint32_t crc_change; /* 0: the right one */
    size_t padding;      /* bytes between this entry and the next */
} Entry;

typedef struct {
    size_t local[16], central[16]; /* of each entry's headers */
    size_t end;                    /* of the end record */
} Places;

/* places may be NULL */
void buffer_put_zip(Buffer *b, Places *places, const Entry *entries, size_t count);

/* "archive/data.pkl" from words, data/0 with 24 bytes: 0..5 as float32, byteorder, version, and more entries. */
#define PTH_ENTRIES 4
void pth_entries(Entry out[PTH_ENTRIES], const Buffer *pickle);
void buffer_put_pth(Buffer *b, const char *words);

#define STORAGE(type, key, elements) " ( 'storage' torch:" type "Storage '" key "' 'cpu' " elements " t Q "
#define REBUILT(function, storage, offset, size, stride, rest) \
    " torch._utils:" function " ( " storage offset " ( " size " t ( " stride " t F collections:OrderedDict ) R " rest " t R "
#define TENSOR(storage, offset, size, stride) REBUILT("_rebuild_tensor_v2", storage, offset, size, stride, "")
#define SIX STORAGE("Float", "0", "6")
#define MATRIX TENSOR(SIX, "0", "2 3", "3 1")

#endif
