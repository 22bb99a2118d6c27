/* onnx_run.c - the operators of ONNX that mala's files use, in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "onnx_file.h"

enum { MOST_INPUTS = 8, MOST_OUTPUTS = 4, MOST_TENSORS = 8192 };

/* A node being run: its operands, and its attributes as bytes. */
typedef struct {
    Bytes type, attributes[8];
    int attribute_count, inputs, outputs;
    const OnnxTensor *in[MOST_INPUTS];
    OnnxTensor *out[MOST_OUTPUTS];
} Call;

/* ---- tensors ---- */

int64_t onnx_count(const OnnxTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

static void make(OnnxTensor *t, int rank, const int64_t *dim) {
    assert_in_range(rank, 0, ONNX_RANK);
    t->rank = rank;
    for (int i = 0; i < rank; i++) t->dim[i] = dim[i];
    t->x = mem_zalloc((size_t)MAX(onnx_count(t), 1), sizeof *t->x);
}

static const OnnxTensor *find(const OnnxRun *run, Bytes name) {
    for (int i = 0; i < run->count; i++)
        if (same_bytes(run->tensors[i].name, name)) return &run->tensors[i];
    fail_msg("no tensor %.*s", (int)size_of(name), (const char *)name.at);
    return NULL;
}

static OnnxTensor *define(OnnxRun *run, Bytes name) {
    assert_true(run->count < MOST_TENSORS);
    OnnxTensor *t = &run->tensors[run->count++];
    *t = (OnnxTensor){.name = name};
    return t;
}

static void read_initializer(OnnxRun *run, Bytes message) {
    OnnxTensor t = {0};
    Bytes data = {0}, rest = message;
    uint64_t type = 0;
    Field f;
    while (next_field(&rest, &f)) {
        if (f.number == 1) t.dim[t.rank++] = (int64_t)f.value;
        if (f.number == 2) type = f.value;
        if (f.number == 8) t.name = f.bytes;
        if (f.number == 9) data = f.bytes;
    }
    OnnxTensor *to = define(run, t.name);
    make(to, t.rank, t.dim);
    for (int64_t i = 0; i < onnx_count(to); i++) {
        float number;
        int64_t integer;
        if (type == 1)
            memcpy(&number, data.at + 4 * i, 4), to->x[i] = (double)number;
        else
            memcpy(&integer, data.at + 8 * i, 8), to->x[i] = (double)integer;
    }
}

/* ---- attributes ---- */

static bool attribute(const Call *c, const char *name, Bytes *out) {
    for (int i = 0; i < c->attribute_count; i++) {
        *out = c->attributes[i];
        if (same_text(only(*out, 1).bytes, name)) return true;
    }
    return false;
}

/* INT; the standard's default where there is none */
static int64_t int_of(const Call *c, const char *name, int64_t otherwise) {
    Bytes a;
    return attribute(c, name, &a) ? (int64_t)only(a, 3).value : otherwise;
}

static double float_of(const Call *c, const char *name, double otherwise) {
    Bytes a;
    if (!attribute(c, name, &a)) return otherwise;
    uint32_t bits = (uint32_t)only(a, 2).value;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

/* INTS: how many; 0: there are none */
static int ints_of(const Call *c, const char *name, int64_t *out) {
    Bytes a;
    Field f;
    int count = 0;
    if (!attribute(c, name, &a)) return 0;
    while (next_field(&a, &f))
        if (f.number == 8) out[count++] = (int64_t)f.value;
    return count;
}

static int axis_in(int64_t axis, int rank) {
    if (axis < 0) axis += rank;
    assert_true(axis >= 0 && axis < rank);
    return (int)axis;
}

/* ---- element by element, with broadcasting ---- */

/* The element of t that element i of a larger shape is broadcast from. */
static int64_t broadcast_from(const OnnxTensor *t, const OnnxTensor *whole, int64_t i) {
    int64_t at = 0, step = 1;
    for (int d = 0; d < t->rank; d++) {
        int mine = t->rank - 1 - d, its = whole->rank - 1 - d;
        int64_t k = i % whole->dim[its];
        i /= whole->dim[its];
        if (t->dim[mine] != 1) at += k * step;
        step *= t->dim[mine];
    }
    return at;
}

static void broadcast_shape(OnnxTensor *out, const OnnxTensor *a, const OnnxTensor *b) {
    int rank = MAX(a->rank, b->rank);
    int64_t dim[ONNX_RANK];
    for (int d = 0; d < rank; d++) {
        int64_t x = d < a->rank ? a->dim[a->rank - 1 - d] : 1, y = d < b->rank ? b->dim[b->rank - 1 - d] : 1;
        if (x != y && x != 1 && y != 1) fail_msg("%lld against %lld", (long long)x, (long long)y);
        dim[rank - 1 - d] = MAX(x, y);
    }
    make(out, rank, dim);
}

static void run_binary(const Call *c) {
    OnnxTensor *y = c->out[0];
    const OnnxTensor *a = c->in[0], *b = c->in[1];
    broadcast_shape(y, a, b);
    for (int64_t i = 0; i < onnx_count(y); i++) {
        double p = a->x[broadcast_from(a, y, i)], q = b->x[broadcast_from(b, y, i)];
        y->x[i] = same_text(c->type, "Add")   ? p + q
                  : same_text(c->type, "Sub") ? p - q
                  : same_text(c->type, "Mul") ? p * q
                                              : p / q;
    }
}

static void run_unary(const Call *c) {
    OnnxTensor *y = c->out[0];
    make(y, c->in[0]->rank, c->in[0]->dim);
    for (int64_t i = 0; i < onnx_count(y); i++) {
        double x = c->in[0]->x[i];
        y->x[i] = same_text(c->type, "Cos")          ? cos(x)
                  : same_text(c->type, "Sin")        ? sin(x)
                  : same_text(c->type, "Erf")        ? erf(x)
                  : same_text(c->type, "Elu")        ? (x > 0 ? x : float_of(c, "alpha", 1) * expm1(x))
                  : same_text(c->type, "Sigmoid")    ? 1 / (1 + exp(-x))
                  : same_text(c->type, "Reciprocal") ? 1 / x
                                                     : x; /* Identity, Cast */
    }
}

/* ---- shapes ---- */

static void run_shape(const Call *c) {
    make(c->out[0], 1, (int64_t[]){c->in[0]->rank});
    for (int i = 0; i < c->in[0]->rank; i++) c->out[0]->x[i] = (double)c->in[0]->dim[i];
}

static void copy_as(OnnxTensor *to, const OnnxTensor *from, int rank, const int64_t *dim) {
    make(to, rank, dim);
    assert_int_equal(onnx_count(to), onnx_count(from));
    memcpy(to->x, from->x, (size_t)onnx_count(to) * sizeof *to->x);
}

static void run_reshape(const Call *c) {
    const OnnxTensor *x = c->in[0], *shape = c->in[1];
    int rank = (int)onnx_count(shape), open = -1;
    int64_t dim[ONNX_RANK], known = 1;
    for (int i = 0; i < rank; i++) {
        dim[i] = (int64_t)shape->x[i];
        if (dim[i] == 0) dim[i] = x->dim[i];
        if (dim[i] < 0) assert_int_equal(open, -1), open = i;
        if (dim[i] > 0) known *= dim[i];
    }
    if (open >= 0) dim[open] = onnx_count(x) / known;
    copy_as(c->out[0], x, rank, dim);
}

static void run_squeeze(const Call *c) {
    const OnnxTensor *x = c->in[0];
    assert_int_equal(onnx_count(c->in[1]), 1);
    bool more = same_text(c->type, "Unsqueeze");
    int axis = axis_in((int64_t)c->in[1]->x[0], x->rank + more), rank = 0;
    int64_t dim[ONNX_RANK];
    for (int i = 0; i < x->rank + more; i++)
        if (!more && i == axis)
            assert_int_equal(x->dim[i], 1);
        else
            dim[rank++] = more && i == axis ? 1 : x->dim[i - (more && i > axis)];
    copy_as(c->out[0], x, rank, dim);
}

static void run_transpose(const Call *c) {
    const OnnxTensor *x = c->in[0];
    int64_t perm[ONNX_RANK], dim[ONNX_RANK], step[ONNX_RANK], s = 1;
    assert_int_equal(ints_of(c, "perm", perm), x->rank);
    for (int i = x->rank - 1; i >= 0; i--) step[i] = s, s *= x->dim[i];
    for (int i = 0; i < x->rank; i++) dim[i] = x->dim[perm[i]];
    OnnxTensor *y = c->out[0];
    make(y, x->rank, dim);
    for (int64_t i = 0; i < onnx_count(y); i++) {
        int64_t rest = i, from = 0;
        for (int d = x->rank - 1; d >= 0; d--) from += rest % dim[d] * step[perm[d]], rest /= dim[d];
        y->x[i] = x->x[from];
    }
}

static void run_expand(const Call *c) {
    OnnxTensor shape = {.rank = (int)onnx_count(c->in[1])};
    for (int i = 0; i < shape.rank; i++) shape.dim[i] = (int64_t)c->in[1]->x[i];
    OnnxTensor *y = c->out[0];
    broadcast_shape(y, c->in[0], &shape);
    for (int64_t i = 0; i < onnx_count(y); i++) y->x[i] = c->in[0]->x[broadcast_from(c->in[0], y, i)];
}

static void run_range(const Call *c) {
    double start = c->in[0]->x[0], limit = c->in[1]->x[0], delta = c->in[2]->x[0];
    make(c->out[0], 1, (int64_t[]){(int64_t)ceil((limit - start) / delta)});
    for (int64_t i = 0; i < c->out[0]->dim[0]; i++) c->out[0]->x[i] = start + (double)i * delta;
}

/* of a vector, by one */
static void run_slice(const Call *c) {
    assert_true(c->inputs == 3 && c->in[0]->rank == 1);
    int64_t from = (int64_t)c->in[1]->x[0], to = MIN((int64_t)c->in[2]->x[0], c->in[0]->dim[0]);
    make(c->out[0], 1, (int64_t[]){to - from});
    for (int64_t i = from; i < to; i++) c->out[0]->x[i - from] = c->in[0]->x[i];
}

/* elements before and behind an axis */
static void around(const OnnxTensor *t, int axis, int64_t *before, int64_t *behind) {
    *before = *behind = 1;
    for (int i = 0; i < t->rank; i++) *(i < axis ? before : behind) *= i == axis ? 1 : t->dim[i];
}

/* A part of y along an axis from `at` on is x (join), or becomes it. */
static void copy_part(OnnxTensor *y, OnnxTensor *x, int axis, int64_t at, bool join) {
    int64_t before, behind;
    around(y, axis, &before, &behind);
    for (int64_t i = 0; i < before; i++) {
        double *large = y->x + (i * y->dim[axis] + at) * behind, *small = x->x + i * x->dim[axis] * behind;
        memcpy(join ? large : small, join ? small : large, (size_t)(x->dim[axis] * behind) * sizeof *large);
    }
}

static void run_concat(const Call *c) {
    int axis = axis_in(int_of(c, "axis", 0), c->in[0]->rank);
    int64_t dim[ONNX_RANK], at = 0;
    memcpy(dim, c->in[0]->dim, sizeof dim);
    for (int i = 1; i < c->inputs; i++) dim[axis] += c->in[i]->dim[axis];
    make(c->out[0], c->in[0]->rank, dim);
    for (int i = 0; i < c->inputs; at += c->in[i++]->dim[axis])
        copy_part(c->out[0], (OnnxTensor *)c->in[i], axis, at, true);
}

static void run_split(const Call *c) {
    int axis = axis_in(int_of(c, "axis", 0), c->in[0]->rank);
    int64_t dim[ONNX_RANK];
    memcpy(dim, c->in[0]->dim, sizeof dim);
    assert_int_equal(dim[axis] % c->outputs, 0);
    dim[axis] /= c->outputs;
    for (int i = 0; i < c->outputs; i++) {
        make(c->out[i], c->in[0]->rank, dim);
        copy_part((OnnxTensor *)c->in[0], c->out[i], axis, i * dim[axis], false);
    }
}

/* ---- sums ---- */

static void run_reduce(const Call *c) {
    const OnnxTensor *x = c->in[0];
    int64_t axes[ONNX_RANK], dim[ONNX_RANK], kept[ONNX_RANK];
    int count = ints_of(c, "axes", axes), rank = 0;
    bool product = same_text(c->type, "ReduceProd"), reduced[ONNX_RANK] = {0}, keep = int_of(c, "keepdims", 1) != 0;
    for (int i = 0; i < count; i++) reduced[axis_in(axes[i], x->rank)] = true;
    for (int i = 0; i < x->rank; i++) {
        dim[i] = reduced[i] ? 1 : x->dim[i];
        if (keep || !reduced[i]) kept[rank++] = dim[i];
    }
    OnnxTensor whole = {.rank = x->rank}, *y = c->out[0];
    make(&whole, x->rank, dim);
    for (int64_t i = 0; product && i < onnx_count(&whole); i++) whole.x[i] = 1;
    for (int64_t i = 0; i < onnx_count(x); i++) {
        double *to = &whole.x[broadcast_from(&whole, x, i)];
        *to = product ? *to * x->x[i] : *to + x->x[i];
    }
    double each = product ? 1 : (double)(onnx_count(x) / onnx_count(&whole));
    copy_as(y, &whole, rank, kept);
    for (int64_t i = 0; i < onnx_count(y); i++) y->x[i] /= each;
    free(whole.x);
}

static void run_softmax(const Call *c) {
    const OnnxTensor *x = c->in[0];
    assert_int_equal(axis_in(int_of(c, "axis", -1), x->rank), x->rank - 1);
    int64_t n = x->dim[x->rank - 1];
    make(c->out[0], x->rank, x->dim);
    for (int64_t row = 0; row < onnx_count(x); row += n) {
        double most = -INFINITY, sum = 0, *y = c->out[0]->x + row;
        for (int64_t i = 0; i < n; i++) most = fmax(most, x->x[row + i]);
        for (int64_t i = 0; i < n; i++) sum += y[i] = exp(x->x[row + i] - most);
        for (int64_t i = 0; i < n; i++) y[i] /= sum;
    }
}

static void run_layer_norm(const Call *c) {
    const OnnxTensor *x = c->in[0];
    assert_int_equal(axis_in(int_of(c, "axis", -1), x->rank), x->rank - 1);
    int64_t n = x->dim[x->rank - 1];
    double eps = float_of(c, "epsilon", 1e-5);
    make(c->out[0], x->rank, x->dim);
    for (int64_t row = 0; row < onnx_count(x); row += n) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < n; i++) mean += x->x[row + i] / (double)n;
        for (int64_t i = 0; i < n; i++) var += (x->x[row + i] - mean) * (x->x[row + i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++)
            c->out[0]->x[row + i] = (x->x[row + i] - mean) / sqrt(var + eps) * c->in[1]->x[i] + c->in[2]->x[i];
    }
}

static void run_batch_norm(const Call *c) {
    const OnnxTensor *x = c->in[0];
    int64_t channels = x->dim[1], before, behind;
    double eps = float_of(c, "epsilon", 1e-5);
    assert_int_equal(int_of(c, "training_mode", 0), 0);
    around(x, 1, &before, &behind);
    make(c->out[0], x->rank, x->dim);
    for (int64_t i = 0; i < onnx_count(x); i++) {
        int64_t k = i / behind % channels;
        c->out[0]->x[i] = (x->x[i] - c->in[3]->x[k]) / sqrt(c->in[4]->x[k] + eps) * c->in[1]->x[k] + c->in[2]->x[k];
    }
}

/* ---- products ---- */

static void run_matmul(const Call *c) {
    const OnnxTensor *a = c->in[0], *b = c->in[1];
    assert_true(a->rank >= 2 && a->rank == b->rank);
    const int r = a->rank;
    int64_t m = a->dim[r - 2], k = a->dim[r - 1], n = b->dim[r - 1], dim[ONNX_RANK], matrices = 1;
    assert_int_equal(b->dim[r - 2], k);
    for (int i = 0; i < r - 2; i++) {
        assert_int_equal(a->dim[i], b->dim[i]);
        matrices *= dim[i] = a->dim[i];
    }
    dim[r - 2] = m, dim[r - 1] = n;
    make(c->out[0], r, dim);
    for (int64_t s = 0; s < matrices; s++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t l = 0; l < k; l++)
                for (int64_t j = 0; j < n; j++)
                    c->out[0]->x[(s * m + i) * n + j] += a->x[(s * m + i) * k + l] * b->x[(s * k + l) * n + j];
}

static void run_gemm(const Call *c) {
    const OnnxTensor *a = c->in[0], *b = c->in[1];
    bool turned = int_of(c, "transB", 0) != 0;
    int64_t m = a->dim[0], k = a->dim[1], n = b->dim[turned ? 0 : 1];
    assert_int_equal(b->dim[turned ? 1 : 0], k);
    assert_int_equal(int_of(c, "transA", 0), 0);
    make(c->out[0], 2, (int64_t[]){m, n});
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = c->inputs > 2 ? c->in[2]->x[broadcast_from(c->in[2], c->out[0], i * n + j)] : 0;
            for (int64_t l = 0; l < k; l++) sum += a->x[i * k + l] * b->x[turned ? j * k + l : l * n + j];
            c->out[0]->x[i * n + j] = sum;
        }
}

typedef struct {
    int64_t kernel[2], stride[2], pad[4], group;
} Window;

static Window window_of(const Call *c) {
    Window w = {.stride = {1, 1}, .group = int_of(c, "group", 1)};
    int64_t dilations[ONNX_RANK];
    assert_int_equal(ints_of(c, "kernel_shape", w.kernel), 2);
    ints_of(c, "strides", w.stride);
    ints_of(c, "pads", w.pad);
    assert_int_equal(ints_of(c, "dilations", dilations), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(w.kernel[i], c->in[1]->dim[2 + i]);
    return w;
}

static double convolved(const Call *c, const Window *w, int64_t image, int64_t o, int64_t y, int64_t x) {
    const OnnxTensor *in = c->in[0], *weight = c->in[1];
    int64_t each = weight->dim[1], first = o / (weight->dim[0] / w->group) * each;
    double sum = c->inputs > 2 ? c->in[2]->x[o] : 0;
    for (int64_t i = 0; i < each; i++)
        for (int64_t r = 0; r < w->kernel[0]; r++)
            for (int64_t s = 0; s < w->kernel[1]; s++) {
                int64_t row = y * w->stride[0] + r - w->pad[0], column = x * w->stride[1] + s - w->pad[1];
                if (row < 0 || row >= in->dim[2] || column < 0 || column >= in->dim[3]) continue;
                sum += in->x[((image * in->dim[1] + first + i) * in->dim[2] + row) * in->dim[3] + column] *
                       weight->x[((o * each + i) * w->kernel[0] + r) * w->kernel[1] + s];
            }
    return sum;
}

static void run_conv(const Call *c) {
    const OnnxTensor *in = c->in[0], *weight = c->in[1];
    Window w = window_of(c);
    assert_true(in->rank == 4 && weight->rank == 4 && weight->dim[1] * w.group == in->dim[1]);
    int64_t dim[4] = {in->dim[0], weight->dim[0]};
    for (int i = 0; i < 2; i++) dim[2 + i] = (in->dim[2 + i] + w.pad[i] + w.pad[2 + i] - w.kernel[i]) / w.stride[i] + 1;
    make(c->out[0], 4, dim);
    double *to = c->out[0]->x;
    for (int64_t image = 0; image < dim[0]; image++)
        for (int64_t o = 0; o < dim[1]; o++)
            for (int64_t y = 0; y < dim[2]; y++)
                for (int64_t x = 0; x < dim[3]; x++) *to++ = convolved(c, &w, image, o, y, x);
}

/* ---- the table ---- */

static const struct {
    const char *type;
    void (*run)(const Call *c);
} operators[] = {
    {"Add", run_binary},       {"Sub", run_binary},     {"Mul", run_binary},
    {"Div", run_binary},       {"Cos", run_unary},      {"Sin", run_unary},
    {"Erf", run_unary},        {"Elu", run_unary},      {"Sigmoid", run_unary},
    {"Reciprocal", run_unary}, {"Identity", run_unary}, {"Cast", run_unary},
    {"Shape", run_shape},      {"Reshape", run_reshape}, {"Squeeze", run_squeeze},
    {"Unsqueeze", run_squeeze}, {"Transpose", run_transpose}, {"Expand", run_expand},
    {"Range", run_range},      {"Slice", run_slice},    {"Concat", run_concat},
    {"Split", run_split},      {"ReduceMean", run_reduce}, {"ReduceProd", run_reduce},
    {"Softmax", run_softmax},  {"LayerNormalization", run_layer_norm}, {"BatchNormalization", run_batch_norm},
    {"MatMul", run_matmul},    {"Gemm", run_gemm},      {"Conv", run_conv},
};

static void run_node(OnnxRun *run, Bytes node) {
    Call c = {0};
    Field f;
    Bytes rest = node;
    while (next_field(&rest, &f)) {
        assert_true(c.inputs < MOST_INPUTS && c.outputs < MOST_OUTPUTS + 1);
        if (f.number == 1) c.in[c.inputs++] = find(run, f.bytes);
        if (f.number == 2) c.out[c.outputs++] = define(run, f.bytes);
        if (f.number == 4) c.type = f.bytes;
        if (f.number == 5) c.attributes[c.attribute_count++] = f.bytes;
    }
    for (size_t i = 0; i < COUNTOF(operators); i++)
        if (same_text(c.type, operators[i].type)) {
            operators[i].run(&c);
            return;
        }
    fail_msg("operator %.*s", (int)size_of(c.type), (const char *)c.type.at);
}

OnnxRun onnx_run(Bytes graph, int rank, const int64_t *dim, const double *x) {
    static const int order[] = {5, 11, 1}; /* initializers, the input, nodes */
    OnnxRun run = {.tensors = mem_zalloc(MOST_TENSORS, sizeof *run.tensors)};
    for (size_t k = 0; k < COUNTOF(order); k++) {
        Bytes rest = graph;
        Field f;
        while (next_field(&rest, &f)) {
            if (f.number != order[k]) continue;
            if (f.number == 5) read_initializer(&run, f.bytes);
            if (f.number == 1) run_node(&run, f.bytes);
            if (f.number != 11) continue;
            OnnxTensor *t = define(&run, only(f.bytes, 1).bytes);
            make(t, rank, dim);
            memcpy(t->x, x, (size_t)onnx_count(t) * sizeof *x);
        }
    }
    return run;
}

void onnx_run_free(OnnxRun *run) {
    for (int i = 0; i < run->count; i++) free(run->tensors[i].x);
    free(run->tensors);
}

const OnnxTensor *onnx_run_find(const OnnxRun *run, const char *name) {
    return find(run, (Bytes){(const uint8_t *)name, (const uint8_t *)name + strlen(name)});
}
