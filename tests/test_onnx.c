/* test_onnx.c - ONNX files read back by the tests' own reader (onnx_file.h): what the format demands of a graph, for
 * every kind of attention, both forms, fixed and free sizes, both inputs. Numbers: test_onnx_numbers.c, and
 * scripts/check_onnx.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "io/onnx.h"
#include "io/onnx_build.h"
#include "onnx_file.h"
#include "pass/fuse.h"
#include "rule.h"
#include "scratch.h"
#include "task/classify.h"

static Err err;
static Backend backend;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- a model ---- */

typedef struct {
    Bytes name;
    bool used;
} Name;

enum { MAX_NAMES = 8192 };
typedef struct {
    Bytes file, graph;
    Name tensor[MAX_NAMES]; /* in order of definition */
    int tensors;
    Bytes node[MAX_NAMES]; /* names */
    int nodes;
} Model;

static Name *find_tensor(Model *m, Bytes name) {
    for (int i = 0; i < m->tensors; i++)
        if (same_bytes(m->tensor[i].name, name)) return &m->tensor[i];
    return NULL;
}

static void define(Model *m, Bytes name) {
    assert_true(size_of(name) > 0 && m->tensors < MAX_NAMES);
    if (find_tensor(m, name)) fail_msg("tensor %.*s is defined twice", (int)size_of(name), (const char *)name.at);
    m->tensor[m->tensors++] = (Name){name, false};
}

static void use(Model *m, Bytes name) {
    Name *t = find_tensor(m, name);
    if (!t) fail_msg("tensor %.*s is used before it is defined", (int)size_of(name), (const char *)name.at);
    t->used = true;
}

static void check_initializer(Model *m, Bytes tensor, const State *s) {
    Field f;
    int64_t count = 1, type = 0;
    Bytes data = {0}, name = {0};
    while (next_field(&tensor, &f)) {
        if (f.number == 1) count *= (int64_t)f.value;
        if (f.number == 2) type = (int64_t)f.value;
        if (f.number == 8) name = f.bytes;
        if (f.number == 9) data = f.bytes;
    }
    assert_true(type == ONNX_FLOAT || type == ONNX_INT64);
    assert_int_equal(size_of(data), (size_t)count * (type == ONNX_FLOAT ? 4 : 8));
    define(m, name);
    for (int32_t p = 0; p < s->n_params; p++) {
        if (!same_text(name, s->params[p].name)) continue;
        float *host = mem_zalloc((size_t)count, sizeof *host);
        assert_int_equal(count, state_count(s, p));
        OK(state_read(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, &err));
        assert_memory_equal(host, data.at, size_of(data));
        free(host);
    }
}

/* clang-format off */
#define STANDARD_OPERATORS \
    "Add", "BatchNormalization", "Cast", "Concat", "Conv", "Cos", "Div", "Elu", "Erf", "Expand", "Gemm", "Identity", \
    "LayerNormalization", "MatMul", "Mul", "Range", "Reciprocal", "ReduceMean", "ReduceProd", "Reshape", "Shape", \
    "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"
/* clang-format on */

static void check_node(Model *m, Bytes node) {
    static const char *const standard[] = {STANDARD_OPERATORS};
    Field f;
    Bytes rest = node;
    while (next_field(&rest, &f)) { /* inputs before outputs, whatever their order in the message */
        if (f.number == 1) use(m, f.bytes);
        assert_int_not_equal(f.number, 7); /* a domain */
    }
    rest = node;
    while (next_field(&rest, &f))
        if (f.number == 2) define(m, f.bytes);
    Bytes name = only(node, 3).bytes, type = only(node, 4).bytes;
    bool known = false;
    for (size_t i = 0; i < COUNTOF(standard); i++) known = known || same_text(type, standard[i]);
    if (!known) fail_msg("operator %.*s", (int)size_of(type), (const char *)type.at);
    for (int i = 0; i < m->nodes; i++) assert_false(same_bytes(m->node[i], name));
    m->node[m->nodes++] = name;
}

/* "batch,3,64,96" of an input or output */
static void shape_of(char *out, size_t capacity, Bytes value) {
    Bytes shape = only(only(only(value, 2).bytes, 1).bytes, 2).bytes;
    Field dim, f;
    size_t used = 0;
    out[0] = '\0';
    while (next_field(&shape, &dim)) {
        assert_true(next_field(&dim.bytes, &f) && used < capacity);
        const char *comma = used ? "," : "";
        if (f.number == 1)
            used += (size_t)snprintf(out + used, capacity - used, "%s%lld", comma, (long long)f.value);
        else
            used += (size_t)snprintf(out + used, capacity - used, "%s%.*s", comma, (int)size_of(f.bytes),
                                     (const char *)f.bytes.at);
    }
}

static void check_value(Bytes value, const char *name, int type, const char *shape) {
    char text[128];
    assert_true(same_text(only(value, 1).bytes, name));
    assert_int_equal(only(only(only(value, 2).bytes, 1).bytes, 1).value, type);
    shape_of(text, sizeof text, value);
    assert_string_equal(text, shape);
}

/* Everything that holds for any file; weights must be those of s, each parameter of it there. */
static void check_graph(Model *m, const State *s) {
    static const int order[] = {5, 11, 1, 12}; /* initializers, inputs, nodes, outputs */
    for (size_t k = 0; k < COUNTOF(order); k++) {
        Bytes rest = m->graph;
        Field f;
        while (next_field(&rest, &f)) {
            if (f.number != order[k]) continue;
            if (f.number == 5) check_initializer(m, f.bytes, s);
            if (f.number == 11) define(m, only(f.bytes, 1).bytes);
            if (f.number == 1) check_node(m, f.bytes);
            if (f.number == 12) use(m, only(f.bytes, 1).bytes);
        }
    }
    for (int i = 0; i < m->tensors; i++) {
        const Name *t = &m->tensor[i];
        if (!t->used) fail_msg("tensor %.*s is not used", (int)size_of(t->name), (const char *)t->name.at);
    }
    for (int32_t p = 0; p < s->n_params; p++) {
        const char *name = s->params[p].name;
        assert_non_null(find_tensor(m, (Bytes){(const uint8_t *)name, (const uint8_t *)name + strlen(name)}));
    }
}

/* ---- exporting ---- */

typedef struct {
    Graph *graph;
    OnnxOutput outputs[MAVIT_STAGES];
    int output_count;
    State state;
} Network;

enum { BACKBONE = 1, DYNAMIC = 2, PIXELS = 4, VARIANTS = 8 };

static MavitConfig nano(AttentionKind kind) {
    return (MavitConfig){.dims = {16, 32, 48, 64},
                         .depths = {1, 1, 2, 1},
                         .heads = {1, 2, 3, 4},
                         .attention = {kind, kind, kind, kind},
                         .layer_scale = {1, 1, 1, 1},
                         .mlp_ratio = 3.5,
                         .projection = 96,
                         .classes = 10};
}

static Network network_new(AttentionKind kind, int variant) {
    static const char *const names[] = {"stage0", "stage1", "stage2", "stage3"};
    static const float mean[3] = {0.5f, 0.4f, 0.3f}, std[3] = {0.2f, 0.3f, 0.4f};
    Network net = {.graph = graph_new(), .output_count = variant & BACKBONE ? MAVIT_STAGES : 1};
    MavitConfig c = nano(kind);
    Nn nn = {.g = net.graph, .counter = NO_VAL};
    Shape shape = SHAPE(1, 64, 96, 3);
    Val x = variant & PIXELS ? op_normalize(net.graph, graph_input(net.graph, "pixels", DT_U8, shape), mean, std)
                             : graph_input(net.graph, "images", DT_F32, shape);
    Val stage[MAVIT_STAGES], out[MAVIT_STAGES];
    mavit_features(&nn, &c, x, stage);
    if (variant & BACKBONE) {
        mavit_extra_norms(&nn, out, stage);
        for (int i = 0; i < MAVIT_STAGES; i++) net.outputs[i] = (OnnxOutput){out[i], names[i]};
    } else {
        net.outputs[0] = (OnnxOutput){mavit_classifier(&nn, &c, stage[MAVIT_STAGES - 1]), "logits"};
        op_softmax(net.graph, net.outputs[0].value); /* leads to no output: must not appear */
    }
    OK(state_new(&net.state, net.graph, &backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    rule_state(&net.state, "");
    return net;
}

static void network_free(Network *net) {
    state_free(&net->state);
    graph_free(net->graph);
}

static void file_name(char out[SCRATCH_PATH + 16]) { snprintf(out, SCRATCH_PATH + 16, "%s/net.onnx", scratch_folder); }

static const StoredPair metadata[] = {{"names", "[\"a\",\"\xc3\xa9\"]"}, {"license", "CC0"}};

static Model *export(Network *net, int variant) {
    char path[SCRATCH_PATH + 16];
    OnnxSpec spec = {.name = "net",
                     .outputs = net->outputs,
                     .output_count = net->output_count,
                     .dynamic_size = (variant & DYNAMIC) != 0,
                     .metadata = metadata,
                     .metadata_count = COUNTOF(metadata)};
    uint8_t *bytes;
    size_t count;
    file_name(path);
    OK(onnx_export(path, net->graph, &net->state, &spec, &err));
    OK(file_read(&bytes, &count, path, 1 << 26, &err));
    unlink(path);
    Model *m = mem_zalloc(1, sizeof *m);
    m->file = (Bytes){bytes, bytes + count};
    m->graph = only(m->file, 7).bytes;
    return m;
}

static void model_free(Model *m) {
    free((void *)m->file.at);
    free(m);
}

static void check_head(const Model *m) {
    assert_int_equal(only(m->file, 1).value, 8);
    assert_true(same_text(only(m->file, 2).bytes, "mala"));
    Bytes opset = only(m->file, 8).bytes, rest = m->file;
    assert_true(same_text(only(opset, 1).bytes, ""));
    assert_int_equal(only(opset, 2).value, ONNX_OPSET);
    Field f;
    size_t pairs = 0;
    while (next_field(&rest, &f)) {
        if (f.number != 14) continue;
        assert_true(pairs < COUNTOF(metadata));
        assert_true(same_text(only(f.bytes, 1).bytes, metadata[pairs].key));
        assert_true(same_text(only(f.bytes, 2).bytes, metadata[pairs].value));
        pairs++;
    }
    assert_int_equal(pairs, COUNTOF(metadata));
}

static void check_interface(const Model *m, int variant) {
    static const char *const inputs[] = {"batch,3,64,96", "batch,3,height,width", "batch,64,96,3",
                                         "batch,height,width,3"};
    static const char *const maps[2][MAVIT_STAGES] = {
        {"batch,16,16,24", "batch,32,8,12", "batch,48,4,6", "batch,64,2,3"},
        {"batch,16,height/4,width/4", "batch,32,height/8,width/8", "batch,48,height/16,width/16",
         "batch,64,height/32,width/32"}};
    bool pixels = variant & PIXELS, dynamic = variant & DYNAMIC;
    check_value(only(m->graph, 11).bytes, pixels ? "pixels" : "images", pixels ? ONNX_UINT8 : ONNX_FLOAT,
                inputs[2 * pixels + dynamic]);
    if (!(variant & BACKBONE)) {
        check_value(only(m->graph, 12).bytes, "logits", ONNX_FLOAT, "batch,10");
        return;
    }
    Bytes rest = m->graph;
    Field f;
    int outputs = 0;
    while (next_field(&rest, &f)) {
        if (f.number != 12) continue;
        char name[16];
        assert_true(outputs < MAVIT_STAGES);
        snprintf(name, sizeof name, "stage%d", outputs);
        check_value(f.bytes, name, ONNX_FLOAT, maps[dynamic][outputs++]);
    }
    assert_int_equal(outputs, MAVIT_STAGES);
}

static void test_files(void **state) {
    (void)state;
    for (AttentionKind kind = ATTN_MALA; kind <= ATTN_INLINE; kind++) {
        for (int variant = 0; variant < VARIANTS; variant++) {
            Network net = network_new(kind, variant);
            Model *m = export(&net, variant);
            check_head(m);
            check_interface(m, variant);
            check_graph(m, &net.state);
            model_free(m);
            network_free(&net);
        }
    }
}

/* A value that is used twice, and a parameter shared by two layers, stand in the file once; a weight in two dimensions
 * serves a map. */
static void test_shared_parameter(void **state) {
    (void)state;
    Network net = {.graph = graph_new(), .output_count = 1};
    Graph *g = net.graph;
    Val x = graph_input(g, "images", DT_F32, SHAPE(1, 32, 32, 3));
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(3, 3)});
    Val gamma = graph_param(g, (ParamSpec){.name = "gamma", .shape = SHAPE(3)});
    Val y = op_linear(g, op_linear(g, x, w, NO_VAL), w, NO_VAL);
    net.outputs[0] = (OnnxOutput){op_residual(g, x, op_add(g, y, y), gamma, NO_VAL, 0), "y"};
    OK(state_new(&net.state, g, &backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    rule_state(&net.state, "");
    Model *m = export(&net, 0);
    check_graph(m, &net.state);
    check_value(only(m->graph, 12).bytes, "y", ONNX_FLOAT, "batch,3,32,32");
    model_free(m);
    network_free(&net);
}

/* ---- the table ---- */

/* clang-format off */
static const OpId without_row[] = {
    /* training */
    OP_conv2d_dx, OP_conv2d_dw, OP_linear_dx, OP_linear_dw, OP_dwconv_dx, OP_dwconv_dw, OP_dwconv_gelu_bwd,
    OP_layer_norm_bwd, OP_batch_norm, OP_batch_norm_bwd, OP_gelu_bwd, OP_silu_bwd, OP_attention_bwd, OP_residual_bwd,
    OP_zeros, OP_mean_pool_bwd, OP_cross_entropy, OP_cross_entropy_bwd, OP_drop_path, OP_grad_norm, OP_adamw, OP_ema,
    /* fusion */
    OP_fold_batch_norm, OP_pack_conv, OP_conv2d_packed, OP_transpose, OP_linear_packed, OP_multiply,
    /* lower precision */
    OP_cast};
/* clang-format on */

static void test_every_op_has_a_row(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool exempt = false;
        for (size_t i = 0; i < COUNTOF(without_row); i++) exempt = exempt || without_row[i] == (OpId)op;
        if (exempt == (onnx_emitter[op] != NULL))
            fail_msg("op %s: %s", op_def[op]->name, exempt ? "has a row after all" : "has no row in io/onnx_ops.c");
    }
}

/* ---- refusals ---- */

static void expect_refusal(const Graph *g, State *s, Val out, const StoredPair *pair, ExitCode code, const char *text) {
    Err e = {0};
    char path[SCRATCH_PATH + 16];
    OnnxOutput output = {out, "y"};
    OnnxSpec spec = {
        .name = "net", .outputs = &output, .output_count = 1, .metadata = pair, .metadata_count = pair ? 1 : 0};
    file_name(path);
    assert_false(onnx_export(path, g, s, &spec, &e));
    assert_int_equal(e.code, code);
    if (!strstr(e.text, text)) fail_msg("\"%s\" does not contain \"%s\"", e.text, text);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_refuses_other_graphs(void **state) {
    (void)state;
    ClassifySpec spec = {.model = nano(ATTN_MALA), .float_images = true};
    ClassifyGraph train = classify_train_graph(&spec, 2, 64, 64),
                  fused = classify_eval_graph(&spec, 1, 64, 64, FUSE_ALL);
    State s = {0}; /* never asked: the graph is refused before */
    expect_refusal(train.graph, &s, train.loss, NULL, EXIT_BUG, "patch_embed.proj.batch_norm: op batch_norm has no");
    expect_refusal(fused.graph, &s, fused.logits, NULL, EXIT_BUG, "has no ONNX form");
    classify_graph_free(&train);
    classify_graph_free(&fused);
}

static void test_refuses_too_large(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "images", DT_F32, SHAPE(1, 32, 32, 1 << 15));
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(1 << 14, 1 << 15)});
    State s = {0};
    expect_refusal(g, &s, op_linear(g, x, w, NO_VAL), NULL, EXIT_INPUT, "2.0 GiB");
    graph_free(g);
}

static void test_refuses_bad_metadata(void **state) {
    (void)state;
    Network net = network_new(ATTN_MALA, 0);
    expect_refusal(net.graph, &net.state, net.outputs[0].value, &(StoredPair){"names", "[\"\xff\"]"}, EXIT_INPUT,
                   "UTF-8");
    network_free(&net);
}

/* ---- the writer of protobuf ---- */

static void expect_bytes(Protobuf *p, const char *hex) {
    char text[1024] = "";
    for (size_t i = 0; i < p->count; i++) snprintf(text + 2 * i, sizeof text - 2 * i, "%02x", p->bytes[i]);
    assert_string_equal(text, hex);
    protobuf_free(p);
}

static void test_wire_format(void **state) {
    (void)state;
    Protobuf p = {0};
    protobuf_int(&p, 1, 150);
    protobuf_int(&p, 16, 0);
    expect_bytes(&p, "089601800100");
    protobuf_int(&p, 3, -1);
    expect_bytes(&p, "18ffffffffffffffffff01");
    protobuf_float(&p, 2, -2.5f);
    expect_bytes(&p, "15000020c0");
    protobuf_string(&p, 2, "testing");
    protobuf_string(&p, 2, "");
    expect_bytes(&p, "120774657374696e671200");
    size_t outer = protobuf_begin(&p, 3), inner = protobuf_begin(&p, 1);
    protobuf_int(&p, 1, 7);
    protobuf_end(&p, inner);
    protobuf_int(&p, 2, 8);
    protobuf_end(&p, outer);
    expect_bytes(&p, "1a060a0208071008");
}

/* A length of two bytes moves what it counts. */
static void test_long_message(void **state) {
    (void)state;
    Protobuf p = {0};
    char text[300];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
    size_t outer = protobuf_begin(&p, 1), inner = protobuf_begin(&p, 2);
    protobuf_bytes(&p, 3, text, sizeof text);
    protobuf_end(&p, inner);
    protobuf_end(&p, outer);
    Bytes got = only(only(only((Bytes){p.bytes, p.bytes + p.count}, 1).bytes, 2).bytes, 3).bytes;
    assert_int_equal(size_of(got), sizeof text);
    assert_memory_equal(got.at, text, sizeof text);
    protobuf_free(&p);
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
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_shared_parameter),
        cmocka_unit_test(test_every_op_has_a_row),
        cmocka_unit_test(test_refuses_other_graphs),
        cmocka_unit_test(test_refuses_too_large),
        cmocka_unit_test(test_refuses_bad_metadata),
        cmocka_unit_test(test_wire_format),
        cmocka_unit_test(test_long_message),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
