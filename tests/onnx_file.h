/* onnx_file.h - protobuf read back by a reader of the tests' own, and ONNX graphs run in double precision, operator by
 * operator as the standard (opset 17) says: what a runtime makes of a file, and with it what the file means. Whatever
 * does not hold fails the test that runs. */
#ifndef MALA_ONNX_FILE_H
#define MALA_ONNX_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- protobuf ---- */

typedef struct {
    const uint8_t *at, *end;
} Bytes;

typedef struct {
    int number, wire;
    uint64_t value; /* of a varint, or the bits of a fixed32 */
    Bytes bytes;
} Field;

/* The next field of a message, which becomes the rest of it; false at its end. */
bool next_field(Bytes *message, Field *f);
/* The only field of this number in a message. */
Field only(Bytes message, int number);
size_t size_of(Bytes b);
bool same_text(Bytes b, const char *text);
bool same_bytes(Bytes a, Bytes b);

/* ---- running ---- */

enum { ONNX_RANK = 8 };

typedef struct {
    Bytes name;
    int rank;
    int64_t dim[ONNX_RANK];
    double *x;
} OnnxTensor;

typedef struct {
    OnnxTensor *tensors; /* [count] in order of definition */
    int count;
} OnnxRun;

/* Runs a GraphProto on its one input, in double precision throughout: Cast rounds nothing. */
OnnxRun onnx_run(Bytes graph, int rank, const int64_t *dim, const double *x);
void onnx_run_free(OnnxRun *run);
const OnnxTensor *onnx_run_find(const OnnxRun *run, const char *name);
int64_t onnx_count(const OnnxTensor *t); /* elements */

#endif
