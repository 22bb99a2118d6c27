/* op_run.c - see op_run.h. */
#include "op_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/ref.h"
#include "base/half.h"
#include "pass/autodiff.h"
#include "pass/precision.h"

const OpCase *const op_families[OP_FAMILIES] = {linear_cases, conv_cases, dwconv_cases, norm_cases,
                                                attention_cases, elementwise_cases, loss_cases, optim_cases};

/* ---- operands of a case: ranges by value id ---- */

#define MAX_OPERANDS 4096
static struct {
    double low, high;
    bool differentiable;
} operand[MAX_OPERANDS];

static Val declare(Graph *g, const char *name, DType dtype, Shape shape, double low, double high, bool differentiable) {
    Val v = graph_input(g, name, dtype, shape);
    assert_true(v < MAX_OPERANDS);
    operand[v].low = low;
    operand[v].high = high;
    operand[v].differentiable = differentiable;
    return v;
}

Val case_input(Graph *g, const char *name, Shape shape, double low, double high) {
    return declare(g, name, DT_F32, shape, low, high, true);
}
Val case_state(Graph *g, const char *name, Shape shape, double low, double high) {
    return declare(g, name, DT_F32, shape, low, high, false);
}
Val case_labels(Graph *g, const char *name, Shape shape, DType dtype, int below) {
    return declare(g, name, dtype, shape, 0, below, false);
}

/* Element i of an operand: rounded to its type, so that the kernels and the reference start from the same number. */
double operand_element(Rng *r, const Value *v, Val id) {
    double x = operand[id].low + (operand[id].high - operand[id].low) * rng_uniform(r);
    return dtype_is_float(v->dtype) ? ref_round((double)(float)x, v->dtype) : floor(x);
}

Rng operand_rng(Val id) { return rng_make(1, RNG_TEST, (uint64_t)id, 0); }
bool operand_differentiable(Val id) { return operand[id].differentiable; }

/* ---- building: forward, then the backward program from random upstream gradients ---- */

static bool has_reader(const Graph *g, Val v) {
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (node_in(g, &g->nodes[i], k) == v) return true;
    return false;
}

/* g in another compute type. What is known of its operands moves with them: casts to features are nodes like others. */
static Graph *lowered(Graph *g, DType compute) {
    if (compute == DT_F32) return g;
    Val inputs[64];
    int n = 0;
    for (Val v = 0; v < g->n_values; v++) {
        if (g->values[v].kind != V_INPUT) continue;
        assert_true(n < (int)COUNTOF(inputs));
        operand[n] = operand[v];
        inputs[n++] = v;
    }
    Graph *to = precision_lower(g, compute, false, inputs, n);
    for (int i = n - 1; i >= 0; i--) operand[inputs[i]] = operand[i];
    graph_free(g);
    return to;
}

Built op_build(const OpCase *c, DType compute) {
    Built b = {.g = graph_new()};
    c->build(b.g, c->d);
    b.g = lowered(b.g, compute);
    b.forward_nodes = b.g->n_nodes;
    b.forward_values = b.g->n_values;
    b.grad = mem_zalloc((size_t)b.forward_values, sizeof(Val));
    for (Val v = 0; v < b.forward_values; v++) b.grad[v] = NO_VAL;
    if (c->no_grad) return b;
    for (int32_t i = 0; i < b.forward_nodes; i++) {
        Val y = node_out(b.g, &b.g->nodes[i], 0);
        if (!has_reader(b.g, y)) b.outputs[b.n_outputs++] = y;
    }
    for (int i = 0; i < b.n_outputs; i++)
        b.seeds[i] = declare(b.g, "upstream", graph_value(b.g, b.outputs[i])->dtype,
                             graph_value(b.g, b.outputs[i])->shape, -1, 1, false);
    /* the seeds are new values: autodiff's array covers everything that exists by now */
    b.grad = mem_resize(b.grad, (size_t)b.g->n_values, sizeof(Val));
    autodiff(b.g, b.outputs, b.seeds, b.n_outputs, false, b.grad);
    return b;
}

void op_built_free(Built *b) {
    graph_free(b->g);
    free(b->grad);
}

bool op_has_features(const OpCase *c) {
    Built b = op_build(c, DT_F32);
    bool any = false;
    for (int32_t i = 0; i < b.g->n_nodes; i++)
        any |= node_def(&b.g->nodes[i])->features || node_def(&b.g->nodes[i])->features_out;
    op_built_free(&b);
    return any;
}

/* ---- kernels against the reference ---- */

static void to_double(double *out, const void *in, const Value *v) {
    int64_t n = shape_count(&v->shape);
    for (int64_t i = 0; i < n; i++) {
        switch (v->dtype) {
        case DT_F32: out[i] = ((const float *)in)[i]; break;
        case DT_BF16: out[i] = bf16_to_f32(((const uint16_t *)in)[i]); break;
        case DT_F16: out[i] = f16_to_f32(((const uint16_t *)in)[i]); break;
        case DT_U8: out[i] = ((const uint8_t *)in)[i]; break;
        case DT_I32: out[i] = ((const int32_t *)in)[i]; break;
        case DT_U64: out[i] = (double)((const uint64_t *)in)[i]; break;
        }
    }
}

/* Element i of a host array of the value's type. */
static void store(void *array, const Value *v, int64_t i, double x) {
    switch (v->dtype) {
    case DT_F32: ((float *)array)[i] = (float)x; break;
    case DT_BF16: ((uint16_t *)array)[i] = bf16_from_f32((float)x); break;
    case DT_F16: ((uint16_t *)array)[i] = f16_from_f32((float)x); break;
    case DT_U8: ((uint8_t *)array)[i] = (uint8_t)x; break;
    case DT_I32: ((int32_t *)array)[i] = (int32_t)x; break;
    case DT_U64: ((uint64_t *)array)[i] = (uint64_t)x; break;
    }
}

static size_t value_bytes(const Value *v) { return (size_t)shape_count(&v->shape) * dtype_size(v->dtype); }

/* A copy on the host; NULL for a value without memory. */
static void *fetch(const Plan *p, Val v) {
    const Value *x = graph_value(p->graph, v);
    if (!p->address[v]) return NULL;
    void *host = mem_zalloc(value_bytes(x), 1);
    Err err = {0};
    Backend *b = p->backend;
    if (!b->download(b, host, p->address[v], value_bytes(x), 0, &err) || !b->wait(b, 0, &err)) fail_msg("%s", err.text);
    return host;
}

static double *fetch_double(const Plan *p, Val v) {
    void *host = fetch(p, v);
    double *out = mem_zalloc((size_t)shape_count(&p->graph->values[v].shape), sizeof(double));
    if (host) to_double(out, host, graph_value(p->graph, v));
    free(host);
    return out;
}

static void upload_operands(Plan *p) {
    for (Val v = 0; v < p->graph->n_values; v++) {
        const Value *x = graph_value(p->graph, v);
        if (x->kind != V_INPUT) continue;
        Rng r = operand_rng(v);
        void *host = mem_zalloc(value_bytes(x), 1);
        for (int64_t i = 0; i < shape_count(&x->shape); i++) store(host, x, i, operand_element(&r, x, v));
        Err err = {0};
        if (!plan_upload(p, v, host, value_bytes(x), &err) || !p->backend->wait(p->backend, 0, &err)) fail_msg("%s", err.text);
        free(host);
    }
}

Plan *op_plan(const Graph *g, Backend *backend) {
    Val *keep = mem_zalloc((size_t)g->n_values, sizeof(Val));
    int n_keep = 0;
    for (Val v = 0; v < g->n_values; v++)
        if (g->values[v].kind == V_ACT) keep[n_keep++] = v;
    Plan *p;
    Err err = {0};
    if (!plan_new(&p, g, backend, NULL, keep, n_keep, (PlanOptions){.no_reuse = true}, &err)) fail_msg("%s", err.text);
    free(keep);
    upload_operands(p);
    return p;
}

static double relative_l2(const double *want, const double *got, int64_t n) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        d += (want[i] - got[i]) * (want[i] - got[i]);
        s += want[i] * want[i];
    }
    /* an output that is 0 by mathematics is judged by its absolute size */
    return sqrt(d / MAX(s, 1e-12 * (double)n));
}

static void compare(const OpCase *c, const Graph *g, const Node *n, const char *what, int i, const double *want,
                    const double *got, Val v, const char *where) {
    double tolerance = c->tolerance > 0 ? c->tolerance : 2e-6;
    /* what a single number can lose by rounding, and what operands that a kernel rounds on the way add to it */
    DType compute = node_compute_type(g, n);
    double rounding = compute == DT_BF16 ? 0x1p-8 : compute == DT_F16 ? 0x1p-11 : 0;
    if (g->values[v].dtype == compute || c->roundings > 0) tolerance = MAX(tolerance, rounding * MAX(1, c->roundings));
    double error = relative_l2(want, got, shape_count(&g->values[v].shape));
    if (!(error <= tolerance))
        fail_msg("%s: %s: %s %d: relative L2 error %.3g above %.3g (%s)", c->name, n->name, what, i, error, tolerance, where);
}

/* Memory is new, and new memory is often 0: a kernel that leaves out the zeros of its result would go unseen. */
static void spoil(const Plan *p, void *address, size_t bytes) {
    if (!address || bytes == 0) return;
    void *rubbish = mem_zalloc(bytes, 1);
    memset(rubbish, 0xff, bytes);
    Err err = {0};
    Backend *b = p->backend;
    if (!b->upload(b, address, rubbish, bytes, 0, &err) || !b->wait(b, 0, &err)) fail_msg("%s", err.text);
    free(rubbish);
}

/* One step of the plan with its inputs as they stand, against the reference on the same inputs. */
static void check_step(const OpCase *c, Plan *p, const Step *step, const char *where) {
    const Graph *g = p->graph;
    const Node *n = step->call.node;
    double *in[MAX_IN] = {0}, *out[MAX_OUT] = {0};
    for (int i = 0; i < n->n_in; i++)
        if (node_in(g, n, i) != NO_VAL) in[i] = fetch_double(p, node_in(g, n, i));
    for (int i = 0; i < n->n_out; i++)
        out[i] = mem_zalloc((size_t)shape_count(out_shape(g, n, i)), sizeof(double));
    for (int i = 0; i < n->n_out; i++)
        spoil(p, p->address[node_out(g, n, i)], value_bytes(graph_value(g, node_out(g, n, i))));
    spoil(p, p->work, p->work_bytes);
    step->kernel->run(&step->call);
    op_ref[n->op](g, n, in, out);
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        bool output = i >= n->n_in;
        if (!output && !(node_def(n)->mutates >> i & 1)) continue;
        Val v = g->operand[n->first + i];
        double *got = fetch_double(p, v);
        compare(c, g, n, output ? "output" : "updated input", output ? i - n->n_in : i, output ? out[i - n->n_in] : in[i],
                got, v, where);
        free(got);
    }
    for (int i = 0; i < n->n_in; i++) free(in[i]);
    for (int i = 0; i < n->n_out; i++) free(out[i]);
}

void op_check(const OpCase *c, Plan *p, const char *where) {
    for (int32_t i = 0; i < p->n_steps; i++) check_step(c, p, &p->steps[i], where);
}

uint64_t op_hash(const Plan *p) {
    uint64_t h = 0xcbf29ce484222325u;
    for (Val v = 0; v < p->graph->n_values; v++) {
        uint8_t *bytes = fetch(p, v);
        size_t n = value_bytes(graph_value(p->graph, v));
        for (size_t i = 0; bytes && i < n; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
        free(bytes);
    }
    return h;
}
