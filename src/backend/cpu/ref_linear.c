/* ref_linear.c - the definition of the matrix products. */
#include "backend/cpu/ref.h"

static double *operand(const Node *n, double *const *in, int i) { return i < n->n_in ? in[i] : NULL; }

REF(linear) {
    const double *x = in[0], *w = in[1], *b = operand(n, in, 2);
    int64_t rows = shape_rows(in_shape(g, n, 0)), ins = shape_last(in_shape(g, n, 0));
    int64_t outs = shape_last(out_shape(g, n, 0));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < outs; o++) {
            double sum = b ? b[o] : 0;
            for (int64_t i = 0; i < ins; i++) sum += x[r * ins + i] * w[o * ins + i];
            out[0][r * outs + o] = n->attr.linear.gelu ? ref_gelu_of(sum) : sum;
        }
    }
}

REF(linear_dx) {
    const double *dy = in[0], *w = in[1];
    int64_t rows = shape_rows(in_shape(g, n, 0)), outs = shape_last(in_shape(g, n, 0));
    int64_t ins = shape_last(out_shape(g, n, 0));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < ins; i++) {
            double sum = 0;
            for (int64_t o = 0; o < outs; o++) sum += dy[r * outs + o] * w[o * ins + i];
            out[0][r * ins + i] = sum;
        }
    }
}

REF(linear_dw) {
    const double *dy = in[0], *x = in[1];
    double *dw = out[0], *db = out[1];
    int64_t rows = shape_rows(in_shape(g, n, 0)), outs = shape_last(in_shape(g, n, 0));
    int64_t ins = shape_last(in_shape(g, n, 1));
    for (int64_t o = 0; o < outs; o++) {
        db[o] = 0;
        for (int64_t i = 0; i < ins; i++) dw[o * ins + i] = 0;
        for (int64_t r = 0; r < rows; r++) {
            db[o] += dy[r * outs + o];
            for (int64_t i = 0; i < ins; i++) dw[o * ins + i] += dy[r * outs + o] * x[r * ins + i];
        }
    }
}

REF(transpose) {
    const double *w = in[0], *scale = operand(n, in, 1);
    int64_t outs = in_shape(g, n, 0)->dim[0], ins = in_shape(g, n, 0)->dim[1];
    for (int64_t i = 0; i < ins; i++)
        for (int64_t o = 0; o < outs; o++) out[0][i * outs + o] = (scale ? scale[o] : 1) * w[o * ins + i];
}

REF(linear_packed) {
    const double *x = in[0], *wt = in[1], *b = operand(n, in, 2), *x0 = operand(n, in, 3);
    int64_t rows = shape_rows(in_shape(g, n, 0)), ins = shape_last(in_shape(g, n, 0));
    int64_t outs = shape_last(out_shape(g, n, 0));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < outs; o++) {
            double sum = b ? b[o] : 0;
            for (int64_t i = 0; i < ins; i++) sum += x[r * ins + i] * wt[i * outs + o];
            if (n->attr.linear.gelu) sum = ref_gelu_of(sum);
            out[0][r * outs + o] = x0 ? x0[r * outs + o] + sum : sum;
        }
    }
}
