/* op_attention.c - attention between the two projections of a layer, in its four kinds, with the 5x5 local enhancement
 * and the output gate: one op, because the parts share operands and nothing between them is worth memory traffic. */
#include "graph/op.h"

/* qkvo (B,H,W,4C) holds q | k | v | o, each C = heads * d channels; N = H*W tokens, s = d^-1/2. Per head, with
 * phi = elu + 1 and R the rotary embedding (backend/rope.h):
 *
 *     z = s phi(q) . mean phi(k)       kv = s/N sum_j (R phi(k_j))^T v_j       r = (R phi(q)) kv
 *     mala     r (1 + 1 / (z + eps)) - z mean(v)      eps = 1e-6
 *     linear   r / (z + eps)
 *     inline   r + (1 - z) mean(v)
 *     softmax  sum_j softmax_j(s (R q) . (R k_j)) v_j
 *
 * z comes before the rotation, as in the released models. Then
 *
 *     mix (B,H,W,C) = attention + dwconv5(v; w (C,1,5,5), b (C))       y (B,H,W,C) = mix * o
 *
 * mix and stats are there for the gradient. stats of the linear kinds is (B,heads,2+d,d): mean phi(k), mean(v) and the
 * d rows of kv; of softmax (B,heads,N): the logarithm of the sum of exponentials. */
static Shape mix_shape(const Shape *qkvo) { return SHAPE(qkvo->dim[0], qkvo->dim[1], qkvo->dim[2], qkvo->dim[3] / 4); }

static Shape stats_shape(const Node *n, const Shape *qkvo) {
    int64_t heads = n->attr.attention.heads, d = qkvo->dim[3] / 4 / heads;
    if (n->attr.attention.kind == ATTN_SOFTMAX) return SHAPE(qkvo->dim[0], heads, qkvo->dim[1] * qkvo->dim[2]);
    return SHAPE(qkvo->dim[0], heads, 2 + d, d);
}

static const char *check_operands(const Node *n, const Shape *qkvo, const Shape *w, const Shape *b) {
    if (!qkvo || qkvo->rank != 4 || qkvo->dim[3] % 4) return "qkvo must be (B,H,W,4C)";
    int64_t channels = qkvo->dim[3] / 4, heads = n->attr.attention.heads;
    if (heads < 1 || channels % heads) return "the heads must divide the channels";
    if (channels / heads % 4 || channels / heads > ATTENTION_MAX_HEAD)
        return "a head must have 4, 8, 12 ... 512 channels";
    if (!w || !shape_equal(w, &SHAPE(channels, 1, 5, 5))) return "w must be (C,1,5,5)";
    if (!b || !shape_equal(b, &SHAPE(channels))) return "b must be (C)";
    return NULL;
}

static const char *attention_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *qkvo = in_shape(g, n, 0);
    const char *misfit = check_operands(n, qkvo, in_shape(g, n, 1), in_shape(g, n, 2));
    if (misfit) return misfit;
    out[0] = out[1] = (Type){mix_shape(qkvo), DT_F32};
    out[2] = (Type){stats_shape(n, qkvo), DT_F32};
    return NULL;
}

/* `products` of the size of q kv (q k^T for softmax), and `convolutions` of 5x5 */
static double count_macs(const Node *n, const Shape *qkvo, int products, int convolutions) {
    double tokens = (double)(qkvo->dim[1] * qkvo->dim[2]), channels = (double)qkvo->dim[3] / 4;
    double length = n->attr.attention.kind == ATTN_SOFTMAX ? tokens : channels / n->attr.attention.heads;
    return (double)qkvo->dim[0] * tokens * channels * (products * length + convolutions * 25);
}

static double attention_macs(const Graph *g, const Node *n) { return count_macs(n, in_shape(g, n, 0), 2, 1); }

static void attention_grad(Graph *g, Node n, const Val *dout, Val *din) {
    CHECK(dout[1] == NO_VAL && dout[2] == NO_VAL, "%s: mix and stats are for the gradient alone", n.name);
    Val in[] = {dout[0],           node_in(g, &n, 0),  node_in(g, &n, 1),
                node_in(g, &n, 2), node_out(g, &n, 1), node_out(g, &n, 2)};
    graph_emit(g, OP_attention_bwd, n.attr, in, COUNTOF(in), din);
}

const OpDef op_def_attention = {.name = "attention", .min_in = 3, .max_in = 3, .n_out = 3, .features = 1 << 0,
                                .features_out = 1 << 0 | 1 << 1, .infer = attention_infer, .macs = attention_macs,
                                .grad = attention_grad};

Val op_attention(Graph *g, Val qkvo, Val w, Val b, AttentionKind kind, int heads) {
    Val out[3];
    Attr attr = {.attention = {.kind = kind, .heads = heads}};
    graph_emit(g, OP_attention, attr, (Val[]){qkvo, w, b}, 3, out);
    return out[0];
}

/* dqkvo (B,H,W,4C), dw (C,1,5,5), db (C) from dy (B,H,W,C), qkvo, w, b, and mix and stats as the forward op left them.
 * With g = dy o (the gradient of mix), a = 1 + 1/(z + eps), 1/(z + eps) or 1 the factor of r, c = -z, 0 or 1 - z that
 * of mean(v), primes for derivatives by z, and tildes for what is rotated, the linear kinds have
 *
 *     do = dy mix                  t_i = kv g_i                    dz_i = a'_i q~_i . t_i + c'_i g_i . mean(v)
 *     dkv = sum_i q~_i^T a_i g_i   dmean(v) = sum_i c_i g_i        dmean(phi(k)) = s sum_i dz_i phi(q_i)
 *     dphi(q_i) = R^T a_i t_i + s dz_i mean phi(k)
 *     dphi(k_j) = s/N R^T dkv v_j + dmean(phi(k)) / N              dv_j = s/N k~_j dkv + dmean(v) / N
 *
 * and softmax, with p the probabilities and u_i = g_i . (mix_i - dwconv5(v)_i), which is what b is for:
 *
 *     ds_ij = s p_ij (g_i . v_j - u_i)     dv_j = sum_i p_ij g_i
 *     dq~_i = sum_j ds_ij k~_j             dk~_j = sum_i ds_ij q~_i
 *
 * To dv the gradient of the convolution adds dwconv5(g) with w turned by half a turn. */
static const char *attention_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = in_shape(g, n, 0), *qkvo = in_shape(g, n, 1), *w = in_shape(g, n, 2);
    const char *misfit = check_operands(n, qkvo, w, in_shape(g, n, 3));
    if (misfit) return misfit;
    Shape mix = mix_shape(qkvo), stats = stats_shape(n, qkvo);
    if (!shape_equal(dy, &mix)) return "dy must be (B,H,W,C)";
    if (!shape_equal(in_shape(g, n, 4), &mix)) return "mix must be (B,H,W,C)";
    if (!shape_equal(in_shape(g, n, 5), &stats)) return "stats must be those of the forward op";
    out[0] = (Type){*qkvo, DT_F32};
    out[1] = (Type){*w, DT_F32};
    out[2] = (Type){SHAPE(mix.dim[3]), DT_F32};
    return NULL;
}

static double attention_bwd_macs(const Graph *g, const Node *n) {
    bool softmax = n->attr.attention.kind == ATTN_SOFTMAX;
    return count_macs(n, in_shape(g, n, 1), softmax ? 5 : 4, 2);
}

const OpDef op_def_attention_bwd = {.name = "attention_bwd", .min_in = 6, .max_in = 6, .n_out = 3,
                                    .flags = OPF_NO_GRAD, .features = 1 << 0 | 1 << 1 | 1 << 4, .features_out = 1 << 0,
                                    .infer = attention_bwd_infer, .macs = attention_bwd_macs};

const char *attention_name(AttentionKind kind) {
    static const char *const name[] = {
        [ATTN_MALA] = "mala", [ATTN_SOFTMAX] = "softmax", [ATTN_LINEAR] = "linear", [ATTN_INLINE] = "inline"};
    return name[kind];
}
