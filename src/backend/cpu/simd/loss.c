/* loss.c - softmax and cross-entropy over rows of class scores. A row with a score that is not finite gives
 * probabilities and a loss that are not numbers, so that divergence is seen at once. */
#include <float.h>

#include "backend/cpu/simd/simd.h"

/* elements of rows that one thread takes at a time: a small batch is not worth a second thread */
enum { TILE = 16384 };

static int64_t tile_rows(const Shape *x) { return MAX(1, TILE / shape_last(x)); }
static int row_tiles(const Shape *x) { return (int)CEIL_DIV(shape_rows(x), tile_rows(x)); }

/* n < VL numbers, the other lanes are `fill` */
static inline vf load_filled(const float *p, int64_t n, float fill) {
    vf v = vf_set(fill);
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

/* ---- parts of a row ---- */

/* the largest of x; not a number if any of x is not finite */
static float row_max(const float *x, int64_t n) {
    vf most = vf_set(-FLT_MAX), poison = {0};
    int64_t i = 0;
    for (; i < n; i += VL) {
        vf v = i + VL <= n ? vf_load(x + i) : load_filled(x + i, n - i, -FLT_MAX);
        most = vf_max(v, most);
        poison += v - v;
    }
    float result = -FLT_MAX;
    for (int l = 0; l < VL; l++) result = MAX(result, most[l]);
    return result + vf_sum(poison);
}

/* y = exp(x - max), unless y is NULL; returns the sum */
static float row_exp(float *y, const float *x, float max, int64_t n) {
    vf sum = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf e = vf_exp(vf_load(x + i) - max);
        if (y) vf_store(y + i, e);
        sum += e;
    }
    if (i < n) {
        vf e = vf_exp(load_filled(x + i, n - i, -FLT_MAX) - max); /* the filled lanes give less than 1e-37 */
        if (y) vf_store_part(y + i, e, n - i);
        sum += e;
    }
    return vf_sum(sum) + (max - max); /* vf_exp clamps what is not a number: bring it back */
}

static void row_scale(float *y, float factor, int64_t n) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, vf_load(y + i) * factor);
    for (; i < n; i++) y[i] *= factor;
}

static float row_sum(const float *x, int64_t n) {
    vf sum = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) sum += vf_load(x + i);
    if (i < n) sum += vf_load_part(x + i, n - i);
    return vf_sum(sum);
}

/* sum of weight (or 1) times -log of the probability, which is log_sum - (x - max) */
static double row_cost(const float *x, const float *weight, float max, float log_sum, int64_t n) {
    vf sum = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf cost = log_sum - (vf_load(x + i) - max);
        sum += weight ? cost * vf_load(weight + i) : cost;
    }
    double total = vf_sum(sum);
    for (; i < n; i++) total += (log_sum - (x[i] - max)) * (weight ? weight[i] : 1);
    return total;
}

/* ---- softmax ---- */

static void softmax_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *shape = call_in(call, 0);
    int64_t classes = shape_last(shape), rows = tile_rows(shape);
    int64_t end = MIN(shape_rows(shape), (tile + 1) * rows);
    (void)thread;
    for (int64_t row = tile * rows; row < end; row++) {
        const float *x = (const float *)call->in[0] + row * classes;
        float *y = (float *)call->out[0] + row * classes;
        row_scale(y, 1 / row_exp(y, x, row_max(x, classes), classes), classes);
    }
}

RUN(softmax) {
    if (call->out[0]) parallel_for(row_tiles(call_in(call, 0)), softmax_tile, (void *)call);
}
KERNEL(softmax);

/* ---- cross-entropy ---- */

/* The labels, or NULL when operand i holds a distribution per row. */
static const int32_t *labels_of(const KernelCall *call, int i) {
    return graph_value(call->graph, node_in(call->graph, call->node, i))->dtype == DT_I32 ? call->in[i] : NULL;
}

static bool label_counts(int32_t label, int64_t classes) { return label >= 0 && label < classes; }

/* rows that count */
static int64_t count_rows(const int32_t *labels, int64_t rows, int64_t classes) {
    int64_t counted = 0;
    for (int64_t b = 0; b < rows; b++) counted += !labels || label_counts(labels[b], classes);
    return counted;
}

/* the loss of a row, with a label or a distribution as its target */
static double row_loss(const float *x, const int32_t *label, const float *target, float max, float log_sum, int64_t n,
                       double smoothing) {
    if (label && !label_counts(*label, n)) return 0;
    double loss = label ? (double)log_sum - ((double)x[*label] - max) : row_cost(x, target, max, log_sum, n);
    if (smoothing == 0) return loss;
    return (1 - smoothing) * loss + smoothing / (double)n * row_cost(x, NULL, max, log_sum, n);
}

static void cross_entropy_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *shape = call_in(call, 0);
    int64_t classes = shape_last(shape), rows = tile_rows(shape);
    int64_t end = MIN(shape_rows(shape), (tile + 1) * rows);
    const int32_t *labels = labels_of(call, 1);
    const float *targets = labels ? NULL : call->in[1];
    (void)thread;
    for (int64_t row = tile * rows; row < end; row++) {
        const float *x = (const float *)call->in[0] + row * classes;
        float *prob = call->out[1] ? (float *)call->out[1] + row * classes : NULL;
        float max = row_max(x, classes), sum = row_exp(prob, x, max, classes);
        if (prob) row_scale(prob, 1 / sum, classes);
        const int32_t *label = labels ? labels + row : NULL;
        const float *target = targets ? targets + row * classes : NULL;
        ((double *)call->work)[row] =
            row_loss(x, label, target, max, logf(sum), classes, call->node->attr.loss.smoothing);
    }
}

/* one loss per row */
static size_t cross_entropy_workspace(const Graph *g, const Node *n) {
    return (size_t)shape_rows(in_shape(g, n, 0)) * sizeof(double);
}

RUN(cross_entropy) {
    const Shape *shape = call_in(call, 0);
    int64_t rows = shape_rows(shape), counted = count_rows(labels_of(call, 1), rows, shape_last(shape));
    parallel_for(row_tiles(shape), cross_entropy_tile, (void *)call);
    if (!call->out[0]) return;
    double sum = 0;
    for (int64_t row = 0; row < rows; row++) sum += ((const double *)call->work)[row];
    *(float *)call->out[0] = counted ? (float)(sum / (double)counted) : 0;
}
KERNEL(cross_entropy, .workspace = cross_entropy_workspace);

/* dx = scale (prob whole - even - share target), target NULL: 0 */
static void row_gradient(float *dx, const float *prob, const float *target, float scale, float whole, float even,
                         float share, int64_t n) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf d = vf_load(prob + i) * whole - even;
        if (target) d -= share * vf_load(target + i);
        vf_store(dx + i, d * scale);
    }
    for (; i < n; i++) dx[i] = (prob[i] * whole - even - (target ? share * target[i] : 0)) * scale;
}

static void cross_entropy_bwd_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *shape = call_in(call, 1);
    int64_t classes = shape_last(shape), rows = tile_rows(shape);
    int64_t end = MIN(shape_rows(shape), (tile + 1) * rows);
    const int32_t *labels = labels_of(call, 2);
    float smoothing = call->node->attr.loss.smoothing, even = smoothing / (float)classes, share = 1 - smoothing;
    float scale = *(const float *)call->in[0] / (float)MAX(1, count_rows(labels, shape_rows(shape), classes));
    (void)thread;
    for (int64_t row = tile * rows; row < end; row++) {
        const float *prob = (const float *)call->in[1] + row * classes;
        float *dx = (float *)call->out[0] + row * classes;
        if (!labels) {
            const float *target = (const float *)call->in[2] + row * classes;
            row_gradient(dx, prob, target, scale, share * row_sum(target, classes) + smoothing, even, share, classes);
        } else if (label_counts(labels[row], classes)) {
            row_gradient(dx, prob, NULL, scale, 1, even, share, classes);
            dx[labels[row]] = (prob[labels[row]] - even - share) * scale;
        } else {
            memset(dx, 0, (size_t)classes * sizeof(float));
        }
    }
}

RUN(cross_entropy_bwd) {
    if (call->out[0]) parallel_for(row_tiles(call_in(call, 1)), cross_entropy_bwd_tile, (void *)call);
}
KERNEL(cross_entropy_bwd);
