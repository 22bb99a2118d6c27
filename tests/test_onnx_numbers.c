/* test_onnx_numbers.c - what an ONNX file computes: run in double precision by the standard's rules (tests/onnx_run.c)
 * and compared with the reference of every op, in double precision, too. They may differ by the constants that stand in
 * the file as float32 alone. Weights are by rule; inputs are such that epsilons, positions, paddings and gains show. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "interpret.h"
#include "io/onnx.h"
#include "model/mavit.h"
#include "onnx_file.h"
#include "rule.h"
#include "scratch.h"

static Err err;
static Backend backend;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- a file and what it gives ---- */

typedef struct {
    Graph *graph;
    Val in, out;
    State state;
} Network;

static void network_finish(Network *n) {
    OK(state_new(&n->state, n->graph, &backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    rule_state(&n->state, "");
}

static void network_free(Network *n) {
    state_free(&n->state);
    graph_free(n->graph);
}

static uint8_t *export(const Network *n, bool dynamic, Bytes *graph) {
    char path[SCRATCH_PATH + 16];
    uint8_t *bytes;
    size_t count;
    OnnxOutput output = {n->out, "y"};
    OnnxSpec spec = {.name = "net", .outputs = &output, .output_count = 1, .dynamic_size = dynamic};
    snprintf(path, sizeof path, "%s/net.onnx", scratch_folder);
    OK(onnx_export(path, n->graph, (State *)&n->state, &spec, &err));
    OK(file_read(&bytes, &count, path, 1 << 26, &err));
    unlink(path);
    *graph = only((Bytes){bytes, bytes + count}, 7).bytes;
    return bytes;
}

/* The reference's output for one picture, in the graph's order. */
static double *reference(const Network *n, const double *picture) {
    Interpreter it = interpreter_new(n->graph);
    const Shape *in = &n->graph->values[n->in].shape, *out = &n->graph->values[n->out].shape;
    for (Val v = 0; v < n->graph->n_values; v++) {
        const Value *x = graph_value(n->graph, v);
        if (x->kind != V_STATE) continue;
        int32_t p = state_find(&n->state, x->name);
        float *host = mem_zalloc((size_t)state_count(&n->state, p), sizeof *host);
        OK(state_read(&n->state, x->role, p, host, &err));
        for (int64_t i = 0; i < state_count(&n->state, p); i++) it.x[v][i] = (double)host[i];
        free(host);
    }
    memcpy(it.x[n->in], picture, (size_t)shape_count(in) * sizeof *picture);
    interpreter_run(&it, 0, n->graph->n_nodes);
    double *y = mem_zalloc((size_t)shape_count(out), sizeof *y);
    memcpy(y, it.x[n->out], (size_t)shape_count(out) * sizeof *y);
    interpreter_free(&it);
    return y;
}

/* (H,W,C) to (C,H,W) */
static void turn_map(double *to, const double *from, int64_t tokens, int64_t channels) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = 0; c < channels; c++) to[c * tokens + t] = from[t * channels + c];
}

enum { BATCH = 2 };

/* Runs the file `from` wrote on two pictures of the size that `n` is built for, both at once, and compares each with
 * n's reference; the relative difference of all numbers together. */
static double difference(const Network *from, const Network *n, bool dynamic, const double *pictures) {
    const Shape *in = &n->graph->values[n->in].shape, *out = &n->graph->values[n->out].shape;
    bool pixels = n->graph->values[n->in].dtype == DT_U8, map = out->rank == 4;
    int64_t each = shape_count(in), gives = shape_count(out), channels = shape_last(in);
    double *x = mem_zalloc((size_t)(BATCH * each), sizeof *x), *want = mem_zalloc((size_t)gives, sizeof *want);
    for (int b = 0; b < BATCH; b++)
        if (pixels)
            memcpy(x + b * each, pictures + b * each, (size_t)each * sizeof *x);
        else
            turn_map(x + b * each, pictures + b * each, each / channels, channels);
    int64_t chw[] = {BATCH, channels, in->dim[1], in->dim[2]}, hwc[] = {BATCH, in->dim[1], in->dim[2], channels};
    Bytes graph;
    uint8_t *file = export(from, dynamic, &graph);
    OnnxRun run = onnx_run(graph, 4, pixels ? hwc : chw, x);
    const OnnxTensor *y = onnx_run_find(&run, "y");
    assert_int_equal(onnx_count(y), BATCH * gives);
    assert_int_equal(y->rank, out->rank);
    double apart = 0, size = 0;
    for (int b = 0; b < BATCH; b++) {
        double *plain = reference(n, pictures + b * each);
        if (map)
            turn_map(want, plain, gives / shape_last(out), shape_last(out));
        else
            memcpy(want, plain, (size_t)gives * sizeof *want);
        for (int64_t i = 0; i < gives; i++) {
            double d = want[i] - y->x[b * gives + i];
            apart += d * d, size += want[i] * want[i];
        }
        free(plain);
    }
    onnx_run_free(&run);
    free(file), free(x), free(want);
    return sqrt(apart / size);
}

static double *random_pictures(const Network *n, double low, double high) {
    const Value *in = graph_value(n->graph, n->in);
    int64_t count = BATCH * shape_count(&in->shape);
    float *u = mem_zalloc((size_t)count, sizeof *u);
    double *x = mem_zalloc((size_t)count, sizeof *x);
    rule_uniform("pictures", u, count);
    for (int64_t i = 0; i < count; i++) {
        x[i] = low + (high - low) * ((double)u[i] + 1) / 2;
        if (in->dtype == DT_U8) x[i] = floor(x[i]);
    }
    free(u);
    return x;
}

static void expect_same(const Network *from, const Network *n, bool dynamic, double low, double high,
                        const char *what) {
    double *pictures = random_pictures(n, low, high), apart = difference(from, n, dynamic, pictures);
    if (!(apart < 1e-6)) fail_msg("%s: the file's numbers differ by %.3g", what, apart);
    free(pictures);
}

/* ---- op by op ---- */

/* One op on a map of 5 x 7 of so many channels: exported as it is and for any size, and compared on inputs in
 * low .. high. Its parameters are by rule. */
typedef Val (*Build)(Graph *g, Val x, int kind);

enum { HEIGHT = 5, WIDTH = 7 };

static void check_op(const char *what, Build build, int kind, int channels, double low, double high) {
    Network n = {.graph = graph_new()};
    n.in = graph_input(n.graph, "images", DT_F32, SHAPE(1, HEIGHT, WIDTH, channels));
    n.out = build(n.graph, n.in, kind);
    network_finish(&n);
    for (int dynamic = 0; dynamic < 2; dynamic++) expect_same(&n, &n, dynamic, low, high, what);
    network_free(&n);
}

static Val parameter(Graph *g, const char *name, Shape shape) {
    bool buffer = strncmp(name, "running", 7) == 0;
    return graph_param(g, (ParamSpec){.name = name, .shape = shape, .buffer = buffer});
}

static Val build_attention(Graph *g, Val x, int kind) {
    int64_t c = graph_value(g, x)->shape.dim[3] / 4;
    return op_attention(g, x, parameter(g, "w.weight", SHAPE(c, 1, 5, 5)), parameter(g, "w.bias", SHAPE(c)),
                        (AttentionKind)kind, 2);
}

static const char *const kinds[] = {"mala", "softmax", "linear", "inline"};

static void test_attention_of_every_kind(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        check_op(kinds[kind], build_attention, kind, 4 * 16, -2, 2);
        check_op(kinds[kind], build_attention, kind, 4 * 24, -1, 3);
    }
}

/* Heads of 8 and of 4 channels on maps of one size: each turned by its own angles. */
static Val build_heads_of_two_sizes(Graph *g, Val x, int kind) {
    int64_t c = graph_value(g, x)->shape.dim[3] / 4;
    Val few = op_attention(g, x, parameter(g, "w.weight", SHAPE(c, 1, 5, 5)), parameter(g, "w.bias", SHAPE(c)),
                           (AttentionKind)kind, 2);
    Val many = op_attention(g, x, parameter(g, "v.weight", SHAPE(c, 1, 5, 5)), parameter(g, "v.bias", SHAPE(c)),
                            (AttentionKind)kind, 4);
    return op_add(g, few, many);
}

static void test_attention_with_heads_of_two_sizes(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) check_op(kinds[kind], build_heads_of_two_sizes, kind, 4 * 16, -2, 2);
}

/* phi(q) and phi(k) of some 1e-3: z, of some 1e-5, is no more than ten times its epsilon */
static void test_attentions_epsilon(void **state) {
    (void)state;
    check_op("mala", build_attention, ATTN_MALA, 4 * 8, -7, -6);
    check_op("linear", build_attention, ATTN_LINEAR, 4 * 8, -7, -6);
}

static Val build_layer_norm(Graph *g, Val x, int kind) {
    int64_t c = shape_last(&graph_value(g, x)->shape);
    Val gain = parameter(g, "n.weight", SHAPE(c)), bias = parameter(g, "n.bias", SHAPE(c));
    return op_layer_norm(g, kind ? op_mean_pool(g, x) : x, gain, bias, kind == 2 ? 1e-3f : 1e-6f);
}

static Val build_batch_norm(Graph *g, Val x, int kind) {
    Shape c = SHAPE(shape_last(&graph_value(g, x)->shape));
    return op_batch_norm_eval(g, x, parameter(g, "n.weight", c), parameter(g, "n.bias", c),
                              parameter(g, "running_mean", c), parameter(g, "running_var", c), kind ? 0.1f : 1e-5f);
}

/* inputs whose variance is of the size of epsilon, on maps and on rows; a variance near 1 against 1e-5 and 0.1 */
static void test_norms_and_their_epsilons(void **state) {
    (void)state;
    check_op("layer_norm", build_layer_norm, 0, 12, -2, 2);
    check_op("layer_norm, small", build_layer_norm, 0, 12, 0.5, 0.502);
    check_op("layer_norm of rows", build_layer_norm, 1, 12, 0.5, 0.51);
    check_op("layer_norm of rows, another epsilon", build_layer_norm, 2, 12, 0.5, 0.6);
    check_op("batch_norm", build_batch_norm, 0, 12, -2, 2);
    check_op("batch_norm, another epsilon", build_batch_norm, 1, 12, -2, 2);
}

enum { PLAIN, STRIDED, PADDED, WIDE };

static Val build_conv(Graph *g, Val x, int kind) {
    int64_t c = shape_last(&graph_value(g, x)->shape);
    const int kernel = kind == WIDE ? 5 : 3, stride = kind == STRIDED ? 2 : 1;
    Val w = parameter(g, "c.weight", SHAPE(6, c, kernel, kernel)), b = parameter(g, "c.bias", SHAPE(6));
    return op_conv2d(g, x, w, b, kernel, stride, kind == PLAIN ? 0 : kernel / 2);
}

static Val build_dwconv(Graph *g, Val x, int kind) {
    int64_t c = shape_last(&graph_value(g, x)->shape);
    const int kernel = kind == WIDE ? 5 : 3;
    Val w = parameter(g, "d.weight", SHAPE(c, 1, kernel, kernel)), b = parameter(g, "d.bias", SHAPE(c)), y;
    Attr attr = {.dwconv = {.kernel = kernel, .residual = kind == PADDED, .gelu = kind == STRIDED}};
    graph_emit(g, OP_dwconv, attr, (Val[]){x, w, b}, 3, &y);
    return y;
}

static void test_convolutions(void **state) {
    (void)state;
    for (int kind = PLAIN; kind <= WIDE; kind++) {
        check_op("conv2d", build_conv, kind, 3, -2, 2);
        check_op("dwconv", build_dwconv, kind, 5, -2, 2);
    }
}

enum { MAP, MAP_WITHOUT_BIAS, MAP_FROM_MATRIX, ROWS, ROWS_WITHOUT_BIAS, ROWS_FROM_MAP, GELU };

static Val build_linear(Graph *g, Val x, int kind) {
    int64_t c = shape_last(&graph_value(g, x)->shape);
    bool rows = kind >= ROWS && kind != GELU;
    bool flat = kind == MAP_FROM_MATRIX || kind == ROWS || kind == ROWS_WITHOUT_BIAS;
    Val w = parameter(g, "l.weight", flat ? SHAPE(6, c) : SHAPE(6, c, 1, 1)), y;
    Val b = kind == MAP_WITHOUT_BIAS || kind == ROWS_WITHOUT_BIAS ? NO_VAL : parameter(g, "l.bias", SHAPE(6));
    Attr attr = {.linear = {.gelu = kind == GELU}};
    graph_emit(g, OP_linear, attr, (Val[]){rows ? op_mean_pool(g, x) : x, w, b}, 3, &y);
    return y;
}

static void test_products(void **state) {
    (void)state;
    for (int kind = MAP; kind <= GELU; kind++) check_op("linear", build_linear, kind, 4, -2, 2);
}

static Val build_rest(Graph *g, Val x, int kind) {
    int64_t c = shape_last(&graph_value(g, x)->shape);
    switch (kind) {
    case 0: return op_gelu(g, x);
    case 1: return op_silu(g, x);
    case 2: return op_add(g, x, op_gelu(g, x));
    case 3: return op_mean_pool(g, x);
    case 4: return op_softmax(g, op_mean_pool(g, x));
    case 5: return op_residual(g, x, op_gelu(g, x), parameter(g, "gamma_1", SHAPE(1, c, 1, 1)), NO_VAL, 0);
    case 6: return op_residual(g, x, op_gelu(g, x), parameter(g, "gamma_1", SHAPE(c)), NO_VAL, 0);
    default: {
        Val rows = op_mean_pool(g, x);
        return op_residual(g, rows, op_gelu(g, rows), parameter(g, "gamma_1", SHAPE(1, c, 1, 1)), NO_VAL, 0);
    }
    }
}

static void test_all_other_ops(void **state) {
    (void)state;
    for (int kind = 0; kind < 8; kind++) check_op("an op", build_rest, kind, 5, -4, 4);
}

static void test_pixels_are_normalized(void **state) {
    (void)state;
    static const float mean[3] = {0.5f, 0.4f, 0.3f}, std[3] = {0.2f, 0.3f, 0.4f};
    Network n = {.graph = graph_new()};
    n.in = graph_input(n.graph, "pixels", DT_U8, SHAPE(1, HEIGHT, WIDTH, 3));
    n.out = op_normalize(n.graph, n.in, mean, std);
    network_finish(&n);
    for (int dynamic = 0; dynamic < 2; dynamic++) expect_same(&n, &n, dynamic, 0, 256, "normalize");
    network_free(&n);
}

/* ---- networks ---- */

static Network classifier(AttentionKind kind, int height, int width) {
    MavitConfig c = {.dims = {8, 16, 24, 32}, .depths = {1, 1, 2, 1}, .heads = {1, 2, 3, 4},
                     .attention = {kind, kind, kind, kind}, .layer_scale = {1, 1, 1, 1}, .mlp_ratio = 2,
                     .projection = 20, .classes = 6};
    Network n = {.graph = graph_new()};
    Nn nn = {.g = n.graph, .counter = NO_VAL};
    n.in = graph_input(n.graph, "images", DT_F32, SHAPE(1, height, width, 3));
    Val stage[MAVIT_STAGES];
    mavit_features(&nn, &c, n.in, stage);
    n.out = mavit_classifier(&nn, &c, stage[MAVIT_STAGES - 1]);
    network_finish(&n);
    return n;
}

/* A file for any size, run at sizes that it was not written for. */
static void test_networks_at_their_size_and_at_others(void **state) {
    (void)state;
    for (AttentionKind kind = ATTN_MALA; kind <= ATTN_INLINE; kind++) {
        Network n = classifier(kind, 32, 64), other = classifier(kind, 96, 32);
        expect_same(&n, &n, false, -2, 2, kinds[kind]);
        expect_same(&n, &n, true, -2, 2, kinds[kind]);
        expect_same(&n, &other, true, -2, 2, kinds[kind]);
        network_free(&n), network_free(&other);
    }
}

/* What these comparisons can tell apart: another picture, another weight. */
static void test_the_comparison_can_tell(void **state) {
    (void)state;
    Network n = classifier(ATTN_MALA, 32, 32);
    int64_t each = shape_count(&n.graph->values[n.in].shape), changed = 0;
    double *pictures = random_pictures(&n, -2, 2), *a = reference(&n, pictures), *b = reference(&n, pictures + each);
    for (int i = 0; i < 6; i++) changed += fabs(a[i] - b[i]) > 1e-3 * fabs(a[i]);
    assert_true(changed >= 5);
    int32_t p = state_find(&n.state, "layers.0.blocks.0.gamma_2");
    assert_true(p >= 0);
    float *gamma = mem_zalloc((size_t)state_count(&n.state, p), sizeof *gamma);
    OK(state_read(&n.state, ROLE_WEIGHT, p, gamma, &err));
    gamma[3] *= 1.1f;
    OK(state_write(&n.state, ROLE_WEIGHT, p, gamma, &err));
    double *c = reference(&n, pictures);
    changed = 0;
    for (int i = 0; i < 6; i++) changed += fabs(a[i] - c[i]) > 1e-5 * fabs(a[i]);
    assert_true(changed >= 5);
    free(gamma), free(pictures), free(a), free(b), free(c);
    network_free(&n);
}

static int setup(void **state) {
    return scratch_set_up(state) || !backend_open_cpu(&backend, 1, &err) ? -1 : 0;
}

static int teardown(void **state) {
    backend.close(&backend);
    return scratch_tear_down(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_of_every_kind),
        cmocka_unit_test(test_attention_with_heads_of_two_sizes),
        cmocka_unit_test(test_attentions_epsilon),
        cmocka_unit_test(test_norms_and_their_epsilons),
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_all_other_ops),
        cmocka_unit_test(test_pixels_are_normalized),
        cmocka_unit_test(test_networks_at_their_size_and_at_others),
        cmocka_unit_test(test_the_comparison_can_tell),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
