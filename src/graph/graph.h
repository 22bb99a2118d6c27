/* graph.h - the intermediate representation everything works on. Start reading here.
 *
 * A Graph is a straight-line program in static single assignment form: Values (tensors) and Nodes (operations), both
 * addressed by dense ids. A node may only name values that exist, so the order of appending is a valid order of
 * execution, and every pass is a loop over an array that keeps its own side arrays indexed by id.
 *
 *     model code  ->  Graph  ->  autodiff, fuse  ->  plan (run/)  ->  a loop over bound steps
 *
 * A graph is built for one input shape; another shape is another graph. Tensors are contiguous, row-major and, for
 * pictures, channels-last (N, H, W, C). Convolution weights keep the layout of the files: (out, in, kh, kw).
 *
 * Never hold a Value* or Node* across a call that appends: the arrays move. */
#ifndef MALA_GRAPH_H
#define MALA_GRAPH_H

#include "base/base.h"

typedef int32_t Val; /* index of a Value */
#define NO_VAL (-1)  /* an absent optional operand */

typedef enum { DT_F32, DT_U8, DT_I32, DT_U64, DT_BF16, DT_F16 } DType;
size_t dtype_size(DType dtype);
const char *dtype_name(DType dtype); /* "float32", "bfloat16" ... */
/* What features may be stored in: f32, bf16 or f16. */
static inline bool dtype_is_float(DType dtype) { return dtype == DT_F32 || dtype == DT_BF16 || dtype == DT_F16; }

#define MAX_RANK 6
typedef struct {
    int rank;
    int64_t dim[MAX_RANK];
} Shape;

#define SHAPE(...) \
    ((Shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
int64_t shape_count(const Shape *s); /* elements; 1 for rank 0 */
bool shape_equal(const Shape *a, const Shape *b);
int64_t shape_last(const Shape *s); /* size of the last dimension: channels */
int64_t shape_rows(const Shape *s); /* elements / last dimension */
/* "2x7x7x512" into text */
const char *shape_print(char *text, size_t capacity, const Shape *s);

/* Where a value lives, hence who owns its memory and for how long. */
typedef enum {
    V_INPUT, /* written by the host before each run */
    V_STATE, /* a slot of the flat state buffers: survives runs */
    V_ACT,   /* produced by a node, placed in the plan's arena */
} ValueKind;

/* The flat state buffers. ROLE_WEIGHT..ROLE_CAST share one layout, so one offset serves all six, and an optimizer
 * step, a checkpoint, an all-reduce or a cast is one pass over one buffer. All are float32 but ROLE_CAST: the weights
 * in a 16-bit compute type, written anew by every step that reads them (pass/precision.h). Running statistics have a
 * layout of their own. */
typedef enum {
    ROLE_WEIGHT,
    ROLE_GRAD,
    ROLE_MOMENT1,
    ROLE_MOMENT2,
    ROLE_EMA,
    ROLE_CAST,
    ROLE_BUFFER,
    ROLE_COUNT
} StateRole;

typedef enum { INIT_ZERO, INIT_ONE, INIT_CONST, INIT_TRUNC_NORMAL } InitKind;

/* A named parameter or buffer. Weight decay is a property of the parameter (the released recipe: two or more
 * dimensions in the file's layout), and the flat layout keeps decayed parameters in front of the others. */
typedef struct {
    const char *name; /* the released checkpoints' key, e.g. "layers.0.blocks.1.attn.qkvo.weight" */
    Shape shape;      /* as in files; the element order is the file's */
    bool buffer;      /* running statistics: no gradient, no decay */
    bool decay;
    InitKind init;
    float init_value; /* INIT_CONST: the value; INIT_TRUNC_NORMAL: the standard deviation (cut at +-2) */
} ParamSpec;

typedef struct {
    Shape shape;
    DType dtype;
    ValueKind kind;
    const char *name;
    int32_t def;       /* node that produces it; -1 for inputs and plain state */
    StateRole role;    /* V_STATE only */
    int32_t param;     /* V_STATE: index into Graph.params, or -1 for a whole group of parameters: */
    int32_t group;     /* PARAMS_DECAYED or PARAMS_OTHER, when param is -1 */
} Value;

enum { PARAMS_DECAYED, PARAMS_OTHER, PARAMS_ALL };

typedef enum {
#define OP(name, summary) OP_##name,
#include "graph/ops.def"
#undef OP
    OP_COUNT
} OpId;

typedef enum { ATTN_MALA, ATTN_SOFTMAX, ATTN_LINEAR, ATTN_INLINE } AttentionKind;

/* What an op needs to know beside its operands: one small named struct per family. */
typedef union {
    struct { int32_t kernel, stride, pad; int32_t in_height, in_width; bool gelu; } conv; /* in_*: conv2d_dx alone */
    struct { int32_t kernel; bool residual, gelu; } dwconv;
    struct { float eps, momentum; bool gelu; } norm;
    struct { AttentionKind kind; int32_t heads; } attention;
    struct { float mean[3], std[3]; DType dtype; } normalize; /* dtype: of the output; 0 is f32 */
    struct { DType dtype; } cast;
    struct { int32_t height, width; } pool; /* mean_pool_bwd: size of the pooled map */
    struct { float smoothing; } loss;
    struct { float rate; int32_t streams, batch; } drop_path; /* rate: of the last stream */
    struct { int32_t stream; } residual;                      /* its row of keep */
    struct { bool decay; } adamw;
    struct { bool gelu; } linear;
} Attr;

typedef struct {
    OpId op;
    int32_t n_in, n_out;
    int32_t first; /* operands: Graph.operand[first .. first + n_in) are inputs, then n_out outputs */
    Attr attr;
    const char *name; /* the scope it was emitted in */
} Node;

typedef struct {
    Value *values;
    Node *nodes;
    Val *operand;
    ParamSpec *params;
    int32_t n_values, n_nodes, n_operands, n_params;
    int32_t cap_values, cap_nodes, cap_operands, cap_params;
    char scope[256];
    int32_t scope_mark[16], scope_depth; /* length of scope before each push */
    char **strings; /* every name, owned by the graph */
    int32_t n_strings, cap_strings;
} Graph;

Graph *graph_new(void);
void graph_free(Graph *g);

/* Names: graph_push(g, "blocks.%d", i) ... graph_pop(g) prefix what is declared between them with "blocks.3." */
void graph_push(Graph *g, const char *format, ...) PRINTF_LIKE(2, 3);
void graph_pop(Graph *g);

/* An input tensor, named without scope. */
Val graph_input(Graph *g, const char *name, DType dtype, Shape shape);
/* A parameter (or running statistic: spec.buffer) named scope + spec.name; the same name twice is one parameter. */
Val graph_param(Graph *g, ParamSpec spec);
/* The slot of parameter `param` in another role (its gradient, its moving average ...). */
Val graph_state(Graph *g, StateRole role, int32_t param);
/* A whole group (PARAMS_DECAYED, PARAMS_OTHER, PARAMS_ALL) of a role as one rank-1 tensor. All parameters must be
 * declared before. Its length is that of the flat buffer, padding included. */
Val graph_state_group(Graph *g, StateRole role, int32_t group);

/* Where each parameter lies in the flat buffers, in elements: every one starts on a multiple of 16; decayed ones first,
 * then the others, then (in a buffer of their own) running statistics. */
typedef struct {
    int64_t *offset;      /* [n_params] */
    int64_t decayed;      /* length of PARAMS_DECAYED */
    int64_t total;        /* length of PARAMS_ALL */
    int64_t buffers;      /* length of the ROLE_BUFFER layout */
} FlatLayout;
FlatLayout graph_flat_layout(const Graph *g); /* free(offset) */

/* Appends a node: infers its outputs' shapes (aborting, with the node's name, on operands that do not fit) and
 * creates them as V_ACT. in[n_in] may hold NO_VAL, or end early, where the op allows it: a node always has its op's
 * max_in operands. out receives the op's n_out values. */
void graph_emit(Graph *g, OpId op, Attr attr, const Val *in, int n_in, Val *out);

static inline const Value *graph_value(const Graph *g, Val v) {
    CHECK(v >= 0 && v < g->n_values, "value %d of %d", v, g->n_values);
    return &g->values[v];
}
static inline Val node_in(const Graph *g, const Node *n, int i) { return g->operand[n->first + i]; }
static inline Val node_out(const Graph *g, const Node *n, int i) { return g->operand[n->first + n->n_in + i]; }
/* shape of input or output i; NULL for an absent operand */
static inline const Shape *in_shape(const Graph *g, const Node *n, int i) {
    Val v = node_in(g, n, i);
    return v == NO_VAL ? NULL : &g->values[v].shape;
}
static inline const Shape *out_shape(const Graph *g, const Node *n, int i) {
    return &g->values[node_out(g, n, i)].shape;
}

#endif
