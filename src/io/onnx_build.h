/* onnx_build.h - inside the ONNX writer: the file being put together, as the rows of onnx_ops.c see it. */
#ifndef MALA_ONNX_BUILD_H
#define MALA_ONNX_BUILD_H

#include "graph/op.h"
#include "io/protobuf.h"

typedef const char *Tensor; /* the name of a tensor in the file; owned by the builder */

enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT64 = 7 }; /* TensorProto.DataType */

/* A constant of the file: a parameter of the graph, or `data`. */
typedef struct {
    Tensor name;
    int32_t type;
    Shape shape;
    int32_t param; /* index into Graph.params; -1: data */
    void *data;    /* little-endian, malloc'd */
} OnnxInitializer;

/* What attention needs of a map's size: tables for the pairs of a head, cos and sin (d/2, 1, H*W), and, for the linear
 * kinds, scale = d^-1/2 / (H*W), NULL until one asks. */
typedef struct {
    int64_t height, width, head;
    Tensor cos, sin, scale;
} OnnxRope;

typedef struct {
    const Graph *graph;
    bool dynamic_size;
    Protobuf proto; /* fields of the GraphProto so far: nodes in order */
    Tensor *tensor; /* [n_values]; NULL: not emitted (yet) */
    OnnxInitializer *initializers;
    int32_t initializer_count;
    OnnxRope *ropes;
    int32_t rope_count;
    char **strings;
    int32_t string_count;
    const char *scope; /* of the graph node being emitted: its ONNX nodes are named below it */
    int32_t serial;
} OnnxBuilder;

void onnx_builder_free(OnnxBuilder *b);

/* ---- operands ---- */

/* The tensor of a graph value: a map (B,H,W,C) stands in the file as (B,C,H,W). A parameter becomes an initializer. */
Tensor onnx_operand(OnnxBuilder *b, Val v);
/* A parameter in another shape of as many elements. */
Tensor onnx_parameter(OnnxBuilder *b, Val v, Shape shape);
/* Constants; the same name or value twice is one. onnx_floats takes data over. */
Tensor onnx_scalar(OnnxBuilder *b, float value);
Tensor onnx_ints(OnnxBuilder *b, const int64_t *values, int count);
Tensor onnx_floats(OnnxBuilder *b, Tensor name, Shape shape, float *data);
/* A name of its own, formatted. */
Tensor onnx_name(OnnxBuilder *b, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- nodes ---- */

#define ONNX_MAX_INTS 4
typedef enum { ATTR_FLOAT = 1, ATTR_INT = 2, ATTR_INTS = 7 } OnnxAttrType; /* AttributeProto.AttributeType */
typedef struct {
    const char *name;
    OnnxAttrType type;
    float number;
    int count;
    int64_t ints[ONNX_MAX_INTS];
} OnnxAttr;

/* A node of the standard operator `type`; returns its output, or fills out[n_out]. */
Tensor onnx_node(OnnxBuilder *b, const char *type, const Tensor *in, int n_in, const OnnxAttr *attr, int n_attr);
void onnx_nodes(OnnxBuilder *b, const char *type, const Tensor *in, int n_in, const OnnxAttr *attr, int n_attr,
                Tensor *out, int n_out);

/* ---- the table ---- */

/* Emits one graph node and sets b->tensor of those outputs that have a use in inference. NULL: an op that exists in
 * training alone, or after fusion alone. */
typedef void (*OnnxEmitter)(OnnxBuilder *b, const Node *n);
extern const OnnxEmitter onnx_emitter[OP_COUNT];
void onnx_emit_attention(OnnxBuilder *b, const Node *n); /* onnx_attention.c */

/* Shorthands for the rows: onnx_node(b, "Conv", IN(x, w), ATTR(INT("group", 1))) */
#define IN(...) (const Tensor[]){__VA_ARGS__}, (int)(sizeof((const Tensor[]){__VA_ARGS__}) / sizeof(Tensor))
#define ATTR(...) (const OnnxAttr[]){__VA_ARGS__}, (int)(sizeof((const OnnxAttr[]){__VA_ARGS__}) / sizeof(OnnxAttr))
#define NO_ATTR NULL, 0
/* clang-format off */
#define INT(text, value) {.name = (text), .type = ATTR_INT, .count = 1, .ints = {value}}
#define INTS(text, ...) \
    {.name = (text), .type = ATTR_INTS, .count = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
     .ints = {__VA_ARGS__}}
#define FLOAT(text, value) {.name = (text), .type = ATTR_FLOAT, .number = (value)}
/* clang-format on */
#define INT64S(b, ...) onnx_ints(b, (int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

static inline Tensor binary(OnnxBuilder *b, const char *type, Tensor x, Tensor y) {
    return onnx_node(b, type, IN(x, y), NO_ATTR);
}

#endif
