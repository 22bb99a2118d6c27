/* linear.cu - the linear ops: cuBLASLt's products (matmul.h) and what its epilogues cannot do. Its GELU is the tanh
 * form, the model's is the erf form, so GELU is ours; so are sums of columns. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/gelu.cuh"

extern "C" {
#include "backend/cuda/matmul.h"
}

#define THREADS 256

/* ---- what follows a product, in place ---- */

template <class T> __global__ void finish_gelu(T *y, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * Pack<T>::N;
    if (i + Pack<T>::N <= count) {
        Pack<T> v = pack_load(y + i);
        for (int k = 0; k < Pack<T>::N; k++) v.x[k] = from_float<T>(gelu(to_float(v.x[k])));
        pack_store(y + i, v);
    } else {
        for (; i < count; i++) y[i] = from_float<T>(gelu(to_float(y[i])));
    }
}

static void gelu_of_output(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    WITH_FEATURE(out_type(c, 0), T, {
        unsigned blocks = (unsigned)CEIL_DIV(count, (int64_t)THREADS * Pack<T>::N);
        launch(c, finish_gelu<T>, dim3(blocks), dim3(THREADS), 0, (T *)c->out[0], count);
    });
}

/* ---- the forward ops: rows of x times the weights ---- */

static DType feature_type(const Graph *g, const Node *n) { return graph_value(g, node_in(g, n, 0))->dtype; }

static bool has(const Graph *g, const Node *n, int operand) {
    return n->n_in > operand && node_in(g, n, operand) != NO_VAL;
}

static bool linear_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    const Shape *x = in_shape(g, n, 0), *y = out_shape(g, n, 0);
    MatmulSpec spec = {};
    spec.rows = shape_rows(x), spec.cols = shape_last(y), spec.inner = shape_last(x);
    spec.b_transposed = n->op == OP_linear; /* the weights of files are (out, in) */
    spec.type = spec.out_type = feature_type(g, n);
    spec.bias = has(g, n, 2);
    spec.add = has(g, n, 3);
    return matmul_prepare((Matmul **)prepared, &spec, backend, err);
}

static size_t linear_workspace(const Graph *, const Node *) { return MATMUL_WORKSPACE; }

static void linear_run(const KernelCall *c) {
    const void *bias = c->node->n_in > 2 ? c->in[2] : NULL, *x0 = c->node->n_in > 3 ? c->in[3] : NULL;
    matmul_run((const Matmul *)c->prepared, c, c->out[0], c->in[0], c->in[1], bias, x0, c->work);
    if (c->node->attr.linear.gelu) gelu_of_output(c);
}

/* GELU goes over the product once more */
static double linear_moves(const KernelCall *c) {
    return call_bytes(c) + (c->node->attr.linear.gelu ? 2 * out_bytes(c, 0) : 0);
}

static void linear_dx_run(const KernelCall *c) {
    matmul_run((const Matmul *)c->prepared, c, c->out[0], c->in[0], c->in[1], NULL, NULL, c->work);
}

static void linear_release(void *prepared) { matmul_release((Matmul *)prepared); }

/* ---- dw = dy^T x and db, in float32 whatever the features are ---- */

static bool linear_dw_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    const Shape *dy = in_shape(g, n, 0), *x = in_shape(g, n, 1);
    MatmulSpec spec = {};
    spec.rows = shape_last(dy), spec.cols = shape_last(x), spec.inner = shape_rows(x);
    spec.a_transposed = true;
    spec.type = feature_type(g, n);
    spec.out_type = DT_F32;
    return matmul_prepare((Matmul **)prepared, &spec, backend, err);
}

static size_t linear_dw_workspace(const Graph *g, const Node *n) {
    const Shape *dy = in_shape(g, n, 0);
    return MAX(MATMUL_WORKSPACE, column_sum_workspace(feature_type(g, n), shape_rows(dy), shape_last(dy)));
}

static void linear_dw_run(const KernelCall *c) {
    const Shape *dy = call_in(c, 0);
    if (c->out[0]) matmul_run((const Matmul *)c->prepared, c, c->out[0], c->in[0], c->in[1], NULL, NULL, c->work);
    if (c->out[1]) column_sum(c, (float *)c->out[1], c->in[0], in_type(c, 0), shape_rows(dy), shape_last(dy));
}

/* db is a pass of its own over dy */
static double linear_dw_moves(const KernelCall *c) { return call_bytes(c) + (c->out[1] ? in_bytes(c, 0) : 0); }

CUDA_KERNEL(linear, .run = linear_run, .types = FEATURE_TYPES, .workspace = linear_workspace, .prepare = linear_prepare,
            .release = linear_release, .moves = linear_moves)
CUDA_KERNEL(linear_packed, .run = linear_run, .types = FEATURE_TYPES, .workspace = linear_workspace,
            .prepare = linear_prepare, .release = linear_release, .moves = linear_moves)
CUDA_KERNEL(linear_dx, .run = linear_dx_run, .types = FEATURE_TYPES, .workspace = linear_workspace,
            .prepare = linear_prepare, .release = linear_release)
CUDA_KERNEL(linear_dw, .run = linear_dw_run, .types = FEATURE_TYPES, .workspace = linear_dw_workspace,
            .prepare = linear_dw_prepare, .release = linear_release, .moves = linear_dw_moves)
