/* ref_loss.c - the definition of the probabilities and the training loss. */
#include "backend/cpu/ref.h"

#include <math.h>

/* The log of the sum of exp(x[0 .. count)) is *most, the largest of x, plus what is returned: in two numbers, since
 * beside a large one the other's digits are lost. */
static double log_sum_exp(double *most, const double *x, int64_t count) {
    double sum = 0;
    *most = x[0];
    for (int64_t k = 1; k < count; k++) *most = fmax(*most, x[k]);
    for (int64_t k = 0; k < count; k++) sum += exp(x[k] - *most);
    return log(sum);
}

REF(softmax) {
    int64_t rows = shape_rows(in_shape(g, n, 0)), classes = shape_last(in_shape(g, n, 0));
    for (int64_t b = 0; b < rows; b++) {
        const double *x = in[0] + b * classes;
        double most, rest = log_sum_exp(&most, x, classes);
        for (int64_t k = 0; k < classes; k++) out[0][b * classes + k] = exp(x[k] - most - rest);
    }
}

/* The target distribution's probability of class k for sample b; target is operand i. */
static double target_of(const Graph *g, const Node *n, const double *target, int i, int64_t b, int64_t k,
                        int64_t classes) {
    double smoothing = n->attr.loss.smoothing;
    bool labels = graph_value(g, node_in(g, n, i))->dtype == DT_I32;
    double hard = labels ? target[b] == (double)k : target[b * classes + k];
    return (1 - smoothing) * hard + smoothing / (double)classes;
}

/* does sample b count? */
static bool counts(const Graph *g, const Node *n, const double *target, int i, int64_t b, int64_t classes) {
    if (graph_value(g, node_in(g, n, i))->dtype != DT_I32) return true;
    return target[b] >= 0 && target[b] < (double)classes;
}

REF(cross_entropy) {
    const double *target = in[1];
    int64_t rows = shape_rows(in_shape(g, n, 0)), classes = shape_last(in_shape(g, n, 0)), counted = 0;
    double sum = 0;
    for (int64_t b = 0; b < rows; b++) {
        const double *x = in[0] + b * classes;
        double most, rest = log_sum_exp(&most, x, classes);
        for (int64_t k = 0; k < classes; k++) out[1][b * classes + k] = exp(x[k] - most - rest);
        if (!counts(g, n, target, 1, b, classes)) continue;
        counted++;
        for (int64_t k = 0; k < classes; k++) sum -= target_of(g, n, target, 1, b, k, classes) * (x[k] - most - rest);
    }
    out[0][0] = counted ? sum / (double)counted : 0;
}

REF(cross_entropy_bwd) {
    const double *dloss = in[0], *prob = in[1], *target = in[2];
    int64_t rows = shape_rows(in_shape(g, n, 1)), classes = shape_last(in_shape(g, n, 1)), counted = 0;
    for (int64_t b = 0; b < rows; b++) counted += counts(g, n, target, 2, b, classes);
    for (int64_t b = 0; b < rows; b++) {
        bool on = counts(g, n, target, 2, b, classes);
        double whole = 0;
        for (int64_t k = 0; k < classes; k++) whole += target_of(g, n, target, 2, b, k, classes);
        for (int64_t k = 0; k < classes; k++) {
            double d = prob[b * classes + k] * whole - target_of(g, n, target, 2, b, k, classes);
            out[0][b * classes + k] = on ? dloss[0] * d / (double)counted : 0;
        }
    }
}
