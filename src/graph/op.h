/* op.h - the op catalogue: one row per op, and a builder per op for model code.
 *
 * A row knows shapes, cost and gradient, never backends or file formats: kernels and exporters are tables of their
 * own on the same index. To add an op: a line in ops.def, a row in graph/op_<family>.c, a reference and a kernel in
 * backend/, cases in tests/cases/. */
#ifndef MALA_OP_H
#define MALA_OP_H

#include "graph/graph.h"

#define MAX_OUT 3
#define MAX_IN 8
#define ATTENTION_MAX_HEAD 512 /* channels of a head: kernels keep tiles of it in fixed scratch memory */

enum {
    OPF_NO_GRAD = 1,  /* has no gradient by nature; autodiff stops here */
    OPF_INPLACE0 = 2, /* output 0 may take the memory of input 0, element for element */
    OPF_RANDOM = 4,   /* not a function of its operands' values alone in the sense of folding; never merged */
    OPF_CHEAP = 8,    /* a pass or two over input 0, which its gradient keeps anyway: better computed again than kept,
                       * where memory is short */
};

typedef struct {
    Shape shape;
    DType dtype;
} Type;

typedef struct {
    const char *name;
    int8_t min_in, max_in, n_out;
    uint8_t flags;
    uint8_t mutates; /* bit i: input i (state) is updated in place */
    uint8_t features;     /* bit i: input i has the compute type, see the typing rule below */
    uint8_t features_out; /* bit i: output i has it */
    uint8_t untyped;      /* bit i: the rule does not hold for input i; infer sees to its type */
    /* Shapes of the outputs, and f32 as their type. Returns NULL, or what does not fit, as text. */
    const char *(*infer)(const Graph *g, const Node *n, Type out[MAX_OUT]);
    /* multiply-adds; NULL: none worth counting */
    double (*macs)(const Graph *g, const Node *n);
    /* Emits the gradient: dout[n_out] may hold NO_VAL (no gradient reached that output); fills din[n_in], leaving
     * NO_VAL where there is none. n is a copy: the graph grows. */
    void (*grad)(Graph *g, Node n, const Val *dout, Val *din);
} OpDef;

extern const OpDef *const op_def[OP_COUNT];

static inline const OpDef *node_def(const Node *n) { return op_def[n->op]; }

/* The typing rule. A feature (an activation of the network, or its gradient) has the compute type f32, bf16 or f16, and
 * all features of a node have the same. So do the weights of dense products, linear* and conv2d*, and the bias of
 * linear* (GPU libraries add it in the product's own type): casts of the float32 masters. Everything else is float32
 * whatever the compute type: other biases, gains, gamma, keep, depthwise weights; means, deviations and attention's
 * statistics; logits at the loss, probabilities and the loss; every parameter's gradient; the optimizer's tensors.
 * Kernels compute in float32 and round once, when they store a feature.
 *
 * A row says which operands are features; graph_emit applies the rule through op_check_types, which completes the types
 * that infer left at f32, and returns NULL or what does not fit. */
const char *op_check_types(const Graph *g, const Node *n, Type out[MAX_OUT]);
/* The type of a node's features; f32 when it has none. */
DType node_compute_type(const Graph *g, const Node *n);

/* The device tensor that every optimizer op reads: a captured step never changes, its hyper-parameters do. */
enum {
    HYPER_LR,
    HYPER_WEIGHT_DECAY,
    HYPER_BETA1,
    HYPER_BETA2,
    HYPER_EPS,
    HYPER_CORRECTION1, /* 1 - beta1^t */
    HYPER_CORRECTION2, /* 1 - beta2^t */
    HYPER_CLIP,        /* largest global gradient norm; 0: no clipping */
    HYPER_EMA_DECAY,
    HYPER_INV_SCALE, /* 1 / loss scale: what every gradient is multiplied with first; 1 when losses are not scaled */
    HYPER_COUNT = 16
};

const char *attention_name(AttentionKind kind); /* "mala", as in configs */

/* Whether every channel of this gradient sums to 0 by mathematics, as what comes out of a batch norm's backward does
 * (a shift of all rows changes nothing behind it): the gradient of a bias in front of it is then exactly 0. Summing
 * would leave rounding noise, which AdamW's division by its own size turns into steps. */
bool op_sums_to_zero(const Graph *g, Val gradient);

/* Builders. Shapes and formulas are in ops.def. */
/* x in another float type; x itself when it has that type already. */
Val op_cast(Graph *g, Val x, DType dtype);
Val op_normalize(Graph *g, Val images, const float mean[3], const float std[3]);
Val op_conv2d(Graph *g, Val x, Val w, Val b, int kernel, int stride, int pad);
Val op_linear(Graph *g, Val x, Val w, Val b);
Val op_dwconv(Graph *g, Val x, Val w, Val b, int kernel, bool residual);
Val op_layer_norm(Graph *g, Val x, Val gain, Val bias, float eps);
Val op_batch_norm(Graph *g, Val x, Val gain, Val bias, Val running_mean, Val running_var, float eps, float momentum);
Val op_batch_norm_eval(Graph *g, Val x, Val gain, Val bias, Val running_mean, Val running_var, float eps);
Val op_gelu(Graph *g, Val x);
Val op_silu(Graph *g, Val x);
Val op_attention(Graph *g, Val qkvo, Val w, Val b, AttentionKind kind, int heads);
Val op_residual(Graph *g, Val x, Val u, Val gamma, Val keep, int stream);
Val op_add(Graph *g, Val a, Val b);
Val op_mean_pool(Graph *g, Val x);
Val op_zeros(Graph *g, Val like);
Val op_softmax(Graph *g, Val x);
Val op_cross_entropy(Graph *g, Val logits, Val target, float smoothing);
Val op_drop_path(Graph *g, Val counter, int batch, float rate, int streams);
Val op_grad_norm(Graph *g, Val grads, Val hyper);
void op_adamw(Graph *g, Val w, Val grad, Val m, Val v, Val norm, Val hyper, bool decay);
void op_ema(Graph *g, Val w, Val average, Val norm, Val hyper);

#endif
