/* golden.c - layers, whole networks and a training run against the numbers in tests/golden. Weights and inputs come
 * from names alone: tests/rule.h. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/parallel.h"
#include "io/tensor_file.h"
#include "pass/autodiff.h"
#include "pass/fuse.h"
#include "rule.h"
#include "task/classify.h"

static Err err;
static Backend *backend;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- comparing with a golden file: maps there are (B,C,H,W) ---- */

static float *golden(const TensorFile *st, const char *name, int64_t count) {
    const StoredTensor *t = tensor_file_find(st, name);
    if (!t || (int64_t)t->count != count) fail_msg("golden %s is missing or has another size", name);
    float *x = mem_zalloc(t->count, sizeof(float));
    OK(tensor_file_read_f32(x, st, t, &err));
    return x;
}

static double relative_l2(const float *want, const float *got, int64_t n) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)want[i] - got[i]) * ((double)want[i] - got[i]);
        s += (double)want[i] * want[i];
    }
    /* gradients that are 0 by mathematics (biases before a BatchNorm) stand in the files as noise of about 1e-18 */
    return sqrt(d / (s > 1e-24 ? s : 1));
}

static void check(const char *name, const float *want, const float *got, int64_t n, double tolerance) {
    double e = relative_l2(want, got, n);
    if (!(e <= tolerance)) fail_msg("%s: relative L2 error %.3g above %.3g", name, e, tolerance);
}

/* A value (B,...,C) of a finished run against the golden tensor of that name. */
static void check_map(const TensorFile *st, const char *name, Plan *p, Val v, double tolerance) {
    const Shape *s = &graph_value(p->graph, v)->shape;
    int64_t n = shape_count(s), channels = shape_last(s), batch = s->dim[0];
    float *host = mem_zalloc((size_t)n, sizeof(float)), *nchw = mem_zalloc((size_t)n, sizeof(float));
    OK(plan_download(p, v, host, (size_t)n * sizeof(float), &err));
    to_nchw(nchw, host, batch, channels, n / batch / channels);
    float *want = golden(st, name, n);
    check(name, want, nchw, n, tolerance);
    free(want);
    free(nchw);
    free(host);
}

static void check_parameters(const TensorFile *st, const char *prefix, const State *s, StateRole role, double tolerance) {
    for (int32_t p = 0; p < s->n_params; p++) {
        if (s->params[p].buffer != (role == ROLE_BUFFER)) continue;
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, s->params[p].name);
        int64_t n = state_count(s, p);
        float *host = mem_zalloc((size_t)n, sizeof(float)), *want = golden(st, name, n);
        OK(state_read(s, role, p, host, &err));
        check(name, want, host, n, tolerance);
        free(want);
        free(host);
    }
}

/* ---- one attention layer ---- */

static void test_attention(void **state) {
    const char *kind = *state;
    static const char *const kinds[] = {[ATTN_MALA] = "mala", [ATTN_SOFTMAX] = "softmax", [ATTN_LINEAR] = "linear",
                                        [ATTN_INLINE] = "inline"};
    int which = 0;
    while (strcmp(kinds[which], kind) != 0) which++;
    enum { B = 2, C = 32, H = 5, W = 7, N = B * C * H * W };

    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(B, H, W, C)), dy = graph_input(g, "dy", DT_F32, SHAPE(B, H, W, C));
    Nn nn = {.g = g, .train = true};
    Val qkvo = nn_pointwise(&nn, x, "qkvo", 4 * C);
    Val w = graph_param(g, (ParamSpec){.name = "lepe.weight", .shape = SHAPE(C, 1, 5, 5), .decay = true});
    Val b = graph_param(g, (ParamSpec){.name = "lepe.bias", .shape = SHAPE(C)});
    Val y = nn_pointwise(&nn, op_attention(g, qkvo, w, b, (AttentionKind)which, 2), "proj", C);
    int32_t n_values = g->n_values;
    Val *grad = mem_zalloc((size_t)n_values, sizeof *grad);
    autodiff(g, &y, &dy, 1, false, grad);
    autodiff_bind_parameters(g, grad, n_values);

    State s;
    OK(state_new(&s, g, backend, 1u << ROLE_WEIGHT | 1u << ROLE_GRAD, &err));
    rule_state(&s, "");
    Plan *p;
    OK(plan_new(&p, g, backend, &s, (Val[]){y, grad[x]}, 2, (PlanOptions){0}, &err));
    float in[N], nhwc[N];
    rule_uniform("x", in, N);
    to_nhwc(nhwc, in, B, C, H * W);
    OK(plan_upload(p, x, nhwc, sizeof nhwc, &err));
    rule_uniform("dy", in, N);
    to_nhwc(nhwc, in, B, C, H * W);
    OK(plan_upload(p, dy, nhwc, sizeof nhwc, &err));
    plan_run(p);

    char path[128];
    snprintf(path, sizeof path, "tests/golden/attention_%s.safetensors", kind);
    TensorFile st;
    OK(tensor_file_open(&st, path, NULL, &err));
    check_map(&st, "y", p, y, 1e-5);
    check_map(&st, "dx", p, grad[x], 1e-5);
    check_parameters(&st, "d.", &s, ROLE_GRAD, 1e-5);
    tensor_file_close(&st);
    plan_free(p);
    state_free(&s);
    free(grad);
    graph_free(g);
}

/* ---- the nano network ---- */

static ClassifySpec nano_spec(void) {
    return (ClassifySpec){.model = {.dims = {16, 32, 48, 64},
                                    .depths = {1, 1, 2, 1},
                                    .heads = {1, 2, 3, 4},
                                    .attention = {ATTN_MALA, ATTN_MALA, ATTN_SOFTMAX, ATTN_SOFTMAX},
                                    .layer_scale = {1, 1, 1, 1},
                                    .mlp_ratio = 3.5,
                                    .projection = 96,
                                    .classes = 10},
                          .smoothing = 0.1f,
                          .float_images = true};
}

static void upload_images(Plan *p, Val images, const char *name) {
    const Shape *s = &graph_value(p->graph, images)->shape;
    float *x = mem_zalloc((size_t)shape_count(s), sizeof(float));
    rule_images(name, x, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2]);
    OK(plan_upload(p, images, x, (size_t)shape_count(s) * sizeof(float), &err));
    free(x);
}

static void test_nano_eval(void **state) {
    unsigned fusion = *(const unsigned *)*state;
    ClassifySpec spec = nano_spec();
    ClassifyGraph c = classify_eval_graph(&spec, 2, 64, 96, fusion);
    State s;
    OK(state_new(&s, c.graph, backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    rule_state(&s, "");
    Val keep[1 + MAVIT_STAGES] = {c.logits, c.stage[0], c.stage[1], c.stage[2], c.stage[3]};
    Plan *p;
    OK(plan_new(&p, c.graph, backend, &s, keep, fusion ? 1 : 1 + MAVIT_STAGES, (PlanOptions){0}, &err));
    OK(plan_verify(p, &err));
    upload_images(p, c.images, "image");
    plan_run(p);
    TensorFile st;
    OK(tensor_file_open(&st, "tests/golden/nano_eval.safetensors", NULL, &err));
    check_map(&st, "logits", p, c.logits, 1e-5);
    for (int i = 0; !fusion && i < MAVIT_STAGES; i++) {
        char name[32];
        snprintf(name, sizeof name, "stage%d", i);
        check_map(&st, name, p, c.stage[i], 1e-5);
    }
    tensor_file_close(&st);
    plan_free(p);
    state_free(&s);
    classify_graph_free(&c);
}

static void upload_scalars(Plan *p, const ClassifyGraph *c, const OptimizerConfig *o, int64_t step) {
    float hyper[HYPER_COUNT];
    optimizer_hyper(o, step, hyper);
    OK(plan_upload(p, c->hyper, hyper, sizeof hyper, &err));
    OK(plan_upload(p, c->scale, &(float){1}, sizeof(float), &err));
    OK(plan_upload(p, c->counter, (uint64_t[]){0, (uint64_t)step}, 16, &err));
}

static void test_nano_train(void **state) {
    ClassifySpec spec = nano_spec();
    spec.unfused = *(const bool *)*state;
    ClassifyGraph c = classify_train_graph(&spec, 2, 64, 96);
    State s;
    OK(state_new(&s, c.graph, backend, classify_train_roles(&spec), &err));
    rule_state(&s, "");
    Plan *p;
    OK(plan_new(&p, c.graph, backend, &s, (Val[]){c.logits, c.loss}, 2, (PlanOptions){0}, &err));
    OK(plan_verify(p, &err));
    upload_images(p, c.images, "image");
    OK(plan_upload(p, c.targets, (int32_t[]){3, 7}, 8, &err));
    upload_scalars(p, &c, &(OptimizerConfig){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f}, 0);
    plan_run(p);
    TensorFile st;
    OK(tensor_file_open(&st, "tests/golden/nano_train.safetensors", NULL, &err));
    check_map(&st, "logits", p, c.logits, 1e-4);
    check_map(&st, "loss", p, c.loss, 1e-5);
    check_parameters(&st, "d.", &s, ROLE_GRAD, 1e-4);
    check_parameters(&st, "after.", &s, ROLE_BUFFER, 1e-4);
    tensor_file_close(&st);
    plan_free(p);
    state_free(&s);
    classify_graph_free(&c);
}

/* ---- JSON goldens ---- */

static cJSON *load_json(const char *path) {
    uint8_t *text;
    size_t count;
    OK(file_read(&text, &count, path, 1 << 22, &err));
    cJSON *json = cJSON_Parse((char *)text);
    assert_non_null(json);
    free(text);
    return json;
}

static double number_at(const cJSON *list, int i) { return cJSON_GetArrayItem(list, i)->valuedouble; }

static void test_trajectory(void **state) {
    (void)state;
    ClassifySpec spec = nano_spec();
    ClassifyGraph c = classify_train_graph(&spec, 4, 64, 64);
    State s;
    OK(state_new(&s, c.graph, backend, classify_train_roles(&spec), &err));
    rule_state(&s, "");
    Plan *p;
    OK(plan_new(&p, c.graph, backend, &s, (Val[]){c.loss, c.norm}, 2, (PlanOptions){0}, &err));
    OptimizerConfig o = {.lr = 1e-3f, .min_lr = 1e-3f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f,
                         .eps = 1e-8f, .clip = 1};
    cJSON *json = load_json("tests/golden/trajectory.json");
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(json, "loss");
    const cJSON *norms = cJSON_GetObjectItemCaseSensitive(json, "gradient_norm_before_clipping");
    for (int step = 0; step < 40; step++) {
        char name[32];
        snprintf(name, sizeof name, "batch%d", step % 4);
        upload_images(p, c.images, name);
        int32_t labels[4];
        for (int j = 0; j < 4; j++) labels[j] = (step % 4 * 4 + j) * 7 % 10;
        OK(plan_upload(p, c.targets, labels, sizeof labels, &err));
        upload_scalars(p, &c, &o, step);
        plan_run(p);
        float loss, norm;
        OK(plan_download(p, c.loss, &loss, sizeof loss, &err));
        OK(plan_download(p, c.norm, &norm, sizeof norm, &err));
        double want = number_at(losses, step), want_norm = number_at(norms, step);
        if (!(fabs(loss - want) <= 1e-5 * want)) fail_msg("step %d: loss %.8f, golden %.8f", step, loss, want);
        if (!(fabs(norm - want_norm) <= 1e-3 * want_norm)) fail_msg("step %d: norm %.8f, golden %.8f", step, norm, want_norm);
    }
    const cJSON *l2 = cJSON_GetObjectItemCaseSensitive(json, "final_parameter_l2");
    assert_int_equal(cJSON_GetArraySize(l2), 134);
    for (const cJSON *item = l2->child; item; item = item->next) {
        int32_t param = state_find(&s, item->string);
        assert_true(param >= 0);
        int64_t n = state_count(&s, param);
        float *w = mem_zalloc((size_t)n, sizeof(float));
        OK(state_read(&s, ROLE_WEIGHT, param, w, &err));
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)w[i] * w[i];
        double want = item->valuedouble, got = sqrt(sum);
        if (!(fabs(got - want) <= 1e-4 * want)) fail_msg("%s: norm %.8f, golden %.8f", item->string, got, want);
        free(w);
    }
    cJSON_Delete(json);
    plan_free(p);
    state_free(&s);
    classify_graph_free(&c);
}

/* ---- the four released sizes ---- */

typedef struct {
    const char *size;
    MavitConfig config;
} Size;

static const Size sizes[] = {
    {"T", {.dims = {64, 128, 256, 512}, .depths = {2, 2, 6, 2}, .heads = {1, 2, 4, 8}, .projection = 2048}},
    {"S", {.dims = {64, 128, 320, 512}, .depths = {3, 5, 9, 3}, .heads = {1, 2, 5, 8}, .projection = 2048}},
    {"B", {.dims = {96, 192, 384, 512}, .depths = {4, 6, 12, 6}, .heads = {1, 2, 6, 8}, .projection = 2048}},
    {"L", {.dims = {96, 192, 448, 640}, .depths = {4, 7, 19, 8}, .heads = {1, 2, 7, 10}, .projection = 2560}},
};

static AttentionKind kind_of(const char *text) {
    return strcmp(text, "mala") == 0      ? ATTN_MALA
           : strcmp(text, "softmax") == 0 ? ATTN_SOFTMAX
           : strcmp(text, "linear") == 0  ? ATTN_LINEAR
                                          : ATTN_INLINE;
}

static void check_full(const cJSON *row, unsigned fusion) {
    const char *size = cJSON_GetObjectItemCaseSensitive(row, "size")->valuestring;
    const cJSON *kinds = cJSON_GetObjectItemCaseSensitive(row, "kinds");
    const cJSON *logits = cJSON_GetObjectItemCaseSensitive(row, "logits");
    int h = (int)cJSON_GetObjectItemCaseSensitive(row, "height")->valuedouble;
    int w = (int)cJSON_GetObjectItemCaseSensitive(row, "width")->valuedouble;
    ClassifySpec spec = {.float_images = true};
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        if (strcmp(size, sizes[i].size) == 0) spec.model = sizes[i].config;
    spec.model.mlp_ratio = 3.5;
    spec.model.classes = 1000;
    for (int i = 0; i < MAVIT_STAGES; i++) spec.model.attention[i] = kind_of(cJSON_GetArrayItem(kinds, i)->valuestring);

    ClassifyGraph c = classify_eval_graph(&spec, 1, h, w, fusion);
    State s;
    OK(state_new(&s, c.graph, backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    rule_state(&s, "");
    assert_int_equal(state_parameter_count(&s), (int64_t)cJSON_GetObjectItemCaseSensitive(row, "parameters")->valuedouble);
    Plan *p;
    OK(plan_new(&p, c.graph, backend, &s, &c.logits, 1, (PlanOptions){0}, &err));
    upload_images(p, c.images, "image");
    plan_run(p);
    float got[1000];
    OK(plan_download(p, c.logits, got, sizeof got, &err));
    for (int i = 0; i < 1000; i++) {
        double want = number_at(logits, i);
        if (!(fabs(got[i] - want) <= 1e-4))
            fail_msg("%s %dx%d %s: logit %d is %.6f, golden %.6f", size, h, w, cJSON_GetArrayItem(kinds, 0)->valuestring, i,
                     got[i], want);
    }
    plan_free(p);
    state_free(&s);
    classify_graph_free(&c);
}

static void test_full(void **state) {
    cJSON *json = load_json("tests/golden/full.json");
    assert_int_equal(cJSON_GetArraySize(json), 9);
    for (int i = 0; i < 9; i++) check_full(cJSON_GetArrayItem(json, i), *(const unsigned *)*state);
    cJSON_Delete(json);
}

int golden_run(Backend *on, bool full) {
    backend = on;
    static unsigned plain = 0, fused = FUSE_ALL, products = FUSE_ALL & ~FUSE_GELU_DWCONV;
    static bool no = false, yes = true;
    const struct CMUnitTest tests[] = {
        {"attention_mala", test_attention, NULL, NULL, "mala"},
        {"attention_softmax", test_attention, NULL, NULL, "softmax"},
        {"attention_linear", test_attention, NULL, NULL, "linear"},
        {"attention_inline", test_attention, NULL, NULL, "inline"},
        {"nano_eval", test_nano_eval, NULL, NULL, &plain},
        {"nano_eval_fused", test_nano_eval, NULL, NULL, &fused},
        {"nano_eval_gelu_in_products", test_nano_eval, NULL, NULL, &products},
        {"nano_train", test_nano_train, NULL, NULL, &no},
        {"nano_train_unfused", test_nano_train, NULL, NULL, &yes},
        {"trajectory", test_trajectory, NULL, NULL, NULL},
        /* the released sizes stay last */
        {"full", test_full, NULL, NULL, &plain},
        {"full_fused", test_full, NULL, NULL, &fused},
    };
    return _cmocka_run_group_tests("golden", tests, COUNTOF(tests) - (full ? 0 : 2), NULL, NULL);
}
