/* protobuf.h - writes messages in Protocol Buffers' wire format: five kinds of field and nested messages, into a buffer
 * that grows. No reader, no schema: field numbers come from whoever writes. Zero-initialise a Protobuf. */
#ifndef MALA_PROTOBUF_H
#define MALA_PROTOBUF_H

#include "base/base.h"

typedef struct {
    uint8_t *bytes;
    size_t count, capacity;
} Protobuf;

void protobuf_free(Protobuf *p);

/* int32, int64, uint64, bool, enum; negative numbers take ten bytes, as the format has it */
void protobuf_int(Protobuf *p, int field, int64_t value);
void protobuf_float(Protobuf *p, int field, float value);
void protobuf_bytes(Protobuf *p, int field, const void *bytes, size_t count);
void protobuf_string(Protobuf *p, int field, const char *text);

/* A nested message: everything written between begin and end. Ends pair with begins, the innermost first. */
size_t protobuf_begin(Protobuf *p, int field);
void protobuf_end(Protobuf *p, size_t begin);

/* A message or bytes in pieces: tag and length first; the caller lets count bytes follow, here or in the file. */
void protobuf_announce(Protobuf *p, int field, uint64_t count);
void protobuf_append(Protobuf *p, const void *bytes, size_t count);

#endif
