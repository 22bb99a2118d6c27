/* test_passes.c - the passes on graphs of a few nodes, where every case of a rule can be had: fusion gives the same
 * numbers whoever else reads what it would take into a node, gradients end where an op has none, what is computed again
 * is computed once, and a value is cast once for all its readers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "interpret.h"
#include "pass/autodiff.h"
#include "pass/fuse.h"
#include "pass/precision.h"

static int op_nodes(const Graph *g, OpId op) {
    int count = 0;
    for (int32_t i = 0; i < g->n_nodes; i++) count += g->nodes[i].op == op;
    return count;
}

static void draw(double *x, int64_t n, double low, uint64_t stream) {
    Rng r = rng_make(1, RNG_TEST, stream, 0);
    for (int64_t i = 0; i < n; i++) x[i] = low + rng_uniform(&r);
}

/* The graph run in double precision, inputs drawn by their order, parameters by their place: all positive. */
static Interpreter run(const Graph *g) {
    Interpreter it = interpreter_new(g);
    uint64_t inputs = 2;
    for (Val v = 0; v < g->n_values; v++)
        if (graph_value(g, v)->kind == V_INPUT) draw(it.x[v], shape_count(&graph_value(g, v)->shape), -0.5, inputs++);
    draw(it.state[ROLE_WEIGHT], it.layout.total, 0.1, 0);
    draw(it.state[ROLE_BUFFER], it.layout.buffers, 0.1, 1);
    interpreter_run(&it, 0, g->n_nodes);
    return it;
}

static void same_numbers(const char *what, const Interpreter *a, Val v, const Interpreter *b, Val w) {
    const Shape *s = &graph_value(a->graph, v)->shape;
    if (w < 0 || w >= b->graph->n_values || !shape_equal(s, &graph_value(b->graph, w)->shape))
        fail_msg("%s: the value is gone, or has another shape", what);
    for (int64_t i = 0; i < shape_count(s); i++)
        if (!(fabs(a->x[v][i] - b->x[w][i]) <= 1e-12 * (1 + fabs(a->x[v][i]))))
            fail_msg("%s: element %lld is %.15g, not %.15g", what, (long long)i, b->x[w][i], a->x[v][i]);
}

/* ---- fusion ---- */

static Val parameter(Graph *g, const char *name, Shape shape, bool buffer) {
    return graph_param(g, (ParamSpec){.name = name, .shape = shape, .buffer = buffer});
}

static Val picture(Graph *g) { return graph_input(g, "x", DT_F32, SHAPE(2, 4, 3, 5)); }

static Val linear(Graph *g, Val x) {
    return op_linear(g, x, parameter(g, "w", SHAPE(5, 5), false), parameter(g, "b", SHAPE(5), false));
}

static Val conv(Graph *g, Val x) {
    return op_conv2d(g, x, parameter(g, "w", SHAPE(5, 5, 3, 3), false), parameter(g, "b", SHAPE(5), false), 3, 1, 1);
}

static Val norm(Graph *g, Val x, bool train) {
    Val gain = parameter(g, "gain", SHAPE(5), false), bias = parameter(g, "bias", SHAPE(5), false);
    Val mean = parameter(g, "mean", SHAPE(5), true), var = parameter(g, "var", SHAPE(5), true);
    return train ? op_batch_norm(g, x, gain, bias, mean, var, 1e-5f, 0.1f)
                 : op_batch_norm_eval(g, x, gain, bias, mean, var, 1e-5f);
}

static Val residual(Graph *g, Val x, Val u, Val keep) {
    return op_residual(g, x, u, parameter(g, "gamma", SHAPE(1, 5, 1, 1), false), keep, 1);
}

/* A pattern: the value that a node takes into itself, and the node's own. */
typedef struct {
    Val inner, outer;
} Pair;

static Pair gelu_of_linear(Graph *g) {
    Val y = linear(g, picture(g));
    return (Pair){y, op_gelu(g, y)};
}
static Pair norm_of_linear(Graph *g) {
    Val y = linear(g, picture(g));
    return (Pair){y, norm(g, y, false)};
}
static Pair norm_of_conv(Graph *g) {
    Val y = conv(g, picture(g));
    return (Pair){y, norm(g, y, false)};
}
static Pair gelu_of_norm_of_conv(Graph *g) {
    Val y = norm(g, conv(g, picture(g)), false);
    return (Pair){y, op_gelu(g, y)};
}
static Pair gelu_of_batch_norm(Graph *g) {
    Val y = norm(g, picture(g), true);
    return (Pair){y, op_gelu(g, y)};
}
static Pair dwconv_of_gelu(Graph *g) {
    Val y = op_gelu(g, picture(g));
    Val w = parameter(g, "w", SHAPE(5, 1, 3, 3), false), b = parameter(g, "b", SHAPE(5), false);
    return (Pair){y, op_dwconv(g, y, w, b, 3, true)};
}
static Pair residual_of_linear(Graph *g) {
    Val x = picture(g), y = linear(g, op_silu(g, x));
    return (Pair){y, residual(g, x, y, NO_VAL)};
}
/* which drops samples, as the product in weights turned once cannot */
static Pair residual_with_keep(Graph *g) {
    Val x = picture(g), keep = graph_input(g, "keep", DT_F32, SHAPE(3, 2)), y = linear(g, op_silu(g, x));
    return (Pair){y, residual(g, x, y, keep)};
}

static const struct {
    const char *name;
    Pair (*build)(Graph *g);
    OpId goes; /* of which no node is left when the pattern applies */
    bool never;
} patterns[] = {
    {"gelu of linear", gelu_of_linear, OP_gelu, false},
    {"norm of linear", norm_of_linear, OP_batch_norm_eval, false},
    {"norm of conv", norm_of_conv, OP_batch_norm_eval, false},
    {"gelu of norm of conv", gelu_of_norm_of_conv, OP_gelu, false},
    {"gelu of batch norm", gelu_of_batch_norm, OP_gelu, false},
    {"dwconv of gelu", dwconv_of_gelu, OP_gelu, false},
    {"residual of linear", residual_of_linear, OP_residual, false},
    {"residual with keep", residual_with_keep, OP_residual, true},
};

/* Nobody else wants the inner value, another node reads it too, or the caller keeps it. */
typedef enum { ALONE, READ, KEPT } Others;

static void check_fusion(size_t k, Others others, unsigned flags) {
    static const char *const of_others[] = {"alone", "read", "kept"};
    char what[128];
    snprintf(what, sizeof what, "%s, %s, patterns %u", patterns[k].name, of_others[others], flags);
    Graph *g = graph_new();
    Pair p = patterns[k].build(g);
    Val was[2] = {others == READ ? op_add(g, p.outer, p.inner) : p.outer, p.inner}, keep[2] = {was[0], was[1]};
    int n_keep = others == KEPT ? 2 : 1;
    Graph *fused = fuse(g, flags, keep, n_keep);
    Interpreter a = run(g), b = run(fused);
    for (int i = 0; i < n_keep; i++) same_numbers(what, &a, was[i], &b, keep[i]);
    if (flags == FUSE_ALL && op_nodes(fused, patterns[k].goes) != (others != ALONE || patterns[k].never))
        fail_msg("%s: %d nodes of %s", what, op_nodes(fused, patterns[k].goes), op_def[patterns[k].goes]->name);
    interpreter_free(&a);
    interpreter_free(&b);
    graph_free(fused);
    graph_free(g);
}

static void test_fusion_changes_no_number_whoever_else_reads(void **state) {
    (void)state;
    for (size_t k = 0; k < COUNTOF(patterns); k++)
        for (Others others = ALONE; others <= KEPT; others++)
            for (unsigned flags = 0; flags <= FUSE_ALL; flags++) check_fusion(k, others, flags);
}

/* ---- gradients ---- */

/* Pixels as bytes and drop path's draws take no gradient, and the ops that read them have one all the same. */
static void test_gradients_end_where_an_op_has_none(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val images = graph_input(g, "images", DT_U8, SHAPE(2, 4, 4, 3));
    Val counter = graph_input(g, "counter", DT_U64, SHAPE(2));
    Val x = op_normalize(g, images, (float[]){0, 0, 0}, (float[]){1, 1, 1});
    Val w = parameter(g, "w", SHAPE(3, 3, 3, 3), false), b = parameter(g, "b", SHAPE(3), false);
    Val gamma = parameter(g, "gamma", SHAPE(3), false), keep = op_drop_path(g, counter, 2, 0.5f, 2);
    Val y = op_residual(g, x, op_conv2d(g, x, w, b, 3, 1, 1), gamma, keep, 1);
    Val seed = graph_input(g, "seed", DT_F32, SHAPE(2, 4, 4, 3)), grad[64];
    assert_true(g->n_values <= (int)COUNTOF(grad));
    autodiff(g, &y, &seed, 1, false, grad);
    assert_int_equal(grad[images], NO_VAL);
    assert_int_equal(grad[counter], NO_VAL);
    assert_int_equal(grad[keep], NO_VAL);
    assert_int_not_equal(grad[w], NO_VAL);
    assert_int_not_equal(grad[b], NO_VAL);
    assert_int_not_equal(grad[gamma], NO_VAL);
    graph_free(g);
}

typedef struct {
    Graph *g;
    Val normed, bent, grad[64]; /* a chain of two cheap ops, which two products read */
    int32_t forward;            /* nodes */
} Chain;

static Chain chain_new(bool recompute) {
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(7, 5)), seed = graph_input(g, "seed", DT_F32, SHAPE(7, 4));
    Val gain = parameter(g, "gain", SHAPE(5), false), bias = parameter(g, "bias", SHAPE(5), false);
    Chain c = {.g = g, .normed = op_layer_norm(g, x, gain, bias, 1e-6f)};
    c.bent = op_gelu(g, c.normed);
    Val y = op_linear(g, c.bent, parameter(g, "w1", SHAPE(4, 5), false), NO_VAL);
    Val z = op_linear(g, c.bent, parameter(g, "w2", SHAPE(4, 5), false), NO_VAL);
    Val sum = op_add(g, y, z);
    c.forward = g->n_nodes;
    assert_true(g->n_values <= (int)COUNTOF(c.grad));
    autodiff(g, &sum, &seed, 1, recompute, c.grad);
    return c;
}

static void test_cheap_ops_are_computed_again_once_for_all_readers(void **state) {
    (void)state;
    Chain kept = chain_new(false), again = chain_new(true);
    assert_int_equal(op_nodes(kept.g, OP_layer_norm), 1);
    assert_int_equal(op_nodes(kept.g, OP_gelu), 1);
    assert_int_equal(op_nodes(again.g, OP_layer_norm), 2);
    assert_int_equal(op_nodes(again.g, OP_gelu), 2);
    for (int32_t i = again.forward; i < again.g->n_nodes; i++) {
        const Node *n = &again.g->nodes[i];
        for (int k = 0; k < n->n_in; k++)
            if (node_in(again.g, n, k) == again.normed || node_in(again.g, n, k) == again.bent)
                fail_msg("%s reads what the forward program gave", n->name);
    }
    Interpreter a = run(kept.g), b = run(again.g);
    for (Val v = 0; v < again.normed; v++) {
        assert_int_equal(kept.grad[v] == NO_VAL, again.grad[v] == NO_VAL);
        if (kept.grad[v] != NO_VAL)
            same_numbers(graph_value(kept.g, v)->name, &a, kept.grad[v], &b, again.grad[v]);
    }
    interpreter_free(&a);
    interpreter_free(&b);
    graph_free(kept.g);
    graph_free(again.g);
}

/* A norm's statistics are small: who reads them reads those of the forward program. */
static void test_statistics_are_not_computed_again(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(5, 3)), z = graph_input(g, "z", DT_F32, SHAPE(4, 5)), normed[3], out[3];
    Val gain = parameter(g, "gain", SHAPE(3), false), bias = parameter(g, "bias", SHAPE(3), false);
    graph_emit(g, OP_layer_norm, (Attr){.norm = {.eps = 1e-6f}}, (Val[]){x, gain, bias}, 3, normed);
    Val one = parameter(g, "one", SHAPE(5), false);
    graph_emit(g, OP_batch_norm, (Attr){.norm = {.eps = 1e-6f}}, (Val[]){z, one, one, normed[1], normed[2]}, 5, out);
    Val seed = graph_input(g, "seed", DT_F32, SHAPE(4, 5)), grad[64];
    autodiff(g, out, &seed, 1, true, grad);
    assert_int_not_equal(grad[z], NO_VAL);
    assert_int_equal(op_nodes(g, OP_layer_norm), 1);
    graph_free(g);
}

/* ---- precision ---- */

/* One cast for all who want a value in another type, whether as a feature, as an operand that must be float32, or for
 * the caller, who gets the type that it had. */
static void test_a_value_is_cast_once_for_all(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(4, 5)), half = op_cast(g, x, DT_F16);
    Val a = op_gelu(g, x), b = op_silu(g, x), c = op_gelu(g, half), d = op_silu(g, half);
    Val p = op_softmax(g, a), q = op_softmax(g, a);
    Val keep[] = {a, b, c, d, p, q, half, x};
    Graph *to = precision_lower(g, DT_BF16, false, keep, COUNTOF(keep));
    static const DType types[] = {DT_F32, DT_F32, DT_F16, DT_F16, DT_F32, DT_F32, DT_F16, DT_F32};
    for (size_t i = 0; i < COUNTOF(keep); i++) assert_int_equal(graph_value(to, keep[i])->dtype, types[i]);
    /* x to bf16 and, as the graph says, to f16; half to bf16; a and b to f32; c and d to f16 */
    assert_int_equal(op_nodes(to, OP_cast), 7);
    assert_int_equal(op_nodes(to, OP_softmax), 2);
    graph_free(to);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fusion_changes_no_number_whoever_else_reads),
        cmocka_unit_test(test_gradients_end_where_an_op_has_none),
        cmocka_unit_test(test_cheap_ops_are_computed_again_once_for_all_readers),
        cmocka_unit_test(test_statistics_are_not_computed_again),
        cmocka_unit_test(test_a_value_is_cast_once_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
