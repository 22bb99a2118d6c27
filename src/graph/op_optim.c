/* op_optim.c - what a training step does beside the network: stochastic depth's draws, the gradient's norm, AdamW and
 * the moving average. The optimizer ops take whole groups of parameters as one rank-1 tensor. */
#include "graph/op.h"

static bool is_hyper(const Shape *s) { return s->rank == 1 && s->dim[0] == HYPER_COUNT; }

/* Stochastic depth (Huang et al., 2016) of all blocks but the first, two streams a block, the rate rising from block to
 * block to attr.rate: stream s has r = attr.rate * (s / 2 + 1) / (streams / 2), in float32 and in this order.
 * keep (S,B): 0 with probability r, else 1 / (1 - r). counter u64 (2): seed, step. Sample b of stream s takes draw b of
 * (seed, RNG_DROP_PATH, step, s): kept when the draw is at least r. */
static const char *drop_path_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    Val counter = node_in(g, n, 0);
    if (counter == NO_VAL || graph_value(g, counter)->dtype != DT_U64 || shape_count(in_shape(g, n, 0)) != 2)
        return "counter must be u64 (2)";
    if (!(n->attr.drop_path.rate >= 0 && n->attr.drop_path.rate < 1)) return "rate must lie in [0, 1)";
    if (n->attr.drop_path.batch < 1) return "batch must be at least 1";
    if (n->attr.drop_path.streams < 2 || n->attr.drop_path.streams % 2) return "there must be two streams a block";
    out[0] = (Type){SHAPE(n->attr.drop_path.streams, n->attr.drop_path.batch), DT_F32};
    return NULL;
}

const OpDef op_def_drop_path = {.name = "drop_path", .min_in = 1, .max_in = 1, .n_out = 1,
                                .flags = OPF_NO_GRAD | OPF_RANDOM, .untyped = 1 << 0, .infer = drop_path_infer};

Val op_drop_path(Graph *g, Val counter, int batch, float rate, int streams) {
    Val keep;
    Attr attr = {.drop_path = {.rate = rate, .streams = streams, .batch = batch}};
    graph_emit(g, OP_drop_path, attr, &counter, 1, &keep);
    return keep;
}

/* norm (1) = sqrt of the sum of (g hyper[HYPER_INV_SCALE])^2 */
static const char *grad_norm_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    out[0] = (Type){SHAPE(1), DT_F32};
    return is_hyper(in_shape(g, n, 1)) ? NULL : "hyper must be (HYPER_COUNT)";
}

const OpDef op_def_grad_norm = {.name = "grad_norm", .min_in = 2, .max_in = 2, .n_out = 1, .flags = OPF_NO_GRAD,
                                .infer = grad_norm_infer};

Val op_grad_norm(Graph *g, Val grads, Val hyper) {
    Val norm;
    graph_emit(g, OP_grad_norm, (Attr){0}, (Val[]){grads, hyper}, 2, &norm);
    return norm;
}

/* Decoupled weight decay (Loshchilov and Hutter, 2019). With the hyper tensor's lr, wd, b1, b2, eps, c1 = 1 - b1^t,
 * c2 = 1 - b2^t, clip and i = HYPER_INV_SCALE:
 *   g' = i g min(1, clip / (norm + 1e-6))        (g' = i g when clip is 0)
 *   m  = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
 *   w  = (1 - lr wd) w - lr / c1 * m / (sqrt(v / c2) + eps)          (no decay unless attr.adamw.decay)
 * When norm is not finite nothing changes: one bad batch must not destroy a run. */
static const char *adamw_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    (void)out;
    for (int i = 1; i < 4; i++)
        if (shape_count(in_shape(g, n, i)) != shape_count(in_shape(g, n, 0)))
            return "w, g, m and v must be of one size";
    if (shape_count(in_shape(g, n, 4)) != 1) return "norm must be one number";
    return is_hyper(in_shape(g, n, 5)) ? NULL : "hyper must be (HYPER_COUNT)";
}

const OpDef op_def_adamw = {.name = "adamw", .min_in = 6, .max_in = 6, .n_out = 0, .flags = OPF_NO_GRAD,
                            .mutates = 1 << 0 | 1 << 2 | 1 << 3, .infer = adamw_infer};

void op_adamw(Graph *g, Val w, Val grad, Val m, Val v, Val norm, Val hyper, bool decay) {
    Attr attr = {.adamw = {.decay = decay}};
    graph_emit(g, OP_adamw, attr, (Val[]){w, grad, m, v, norm, hyper}, 6, NULL);
}

/* average = d average + (1 - d) w, d = hyper[HYPER_EMA_DECAY]; nothing changes when norm is not finite */
static const char *ema_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    (void)out;
    if (shape_count(in_shape(g, n, 0)) != shape_count(in_shape(g, n, 1))) return "w and average must be of one size";
    if (shape_count(in_shape(g, n, 2)) != 1) return "norm must be one number";
    return is_hyper(in_shape(g, n, 3)) ? NULL : "hyper must be (HYPER_COUNT)";
}

const OpDef op_def_ema = {.name = "ema", .min_in = 4, .max_in = 4, .n_out = 0, .flags = OPF_NO_GRAD, .mutates = 1 << 1,
                          .infer = ema_infer};

void op_ema(Graph *g, Val w, Val average, Val norm, Val hyper) {
    graph_emit(g, OP_ema, (Attr){0}, (Val[]){w, average, norm, hyper}, 4, NULL);
}
