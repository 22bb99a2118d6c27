/* ref_conv.c - the definition of the dense convolutions. All three ops visit the same pairs of an output element and
 * an input element under it; they differ in which two of the three arrays are read. */
#include "backend/cpu/ref.h"

#include <stdlib.h>
#include <string.h>

/* The sizes of the forward convolution, and its three arrays: y (B,H',W',O), x (B,H,W,I), w (O,I,k,k). */
typedef struct {
    int64_t batch, height, width, ins, out_height, out_width, outs, kernel, stride, pad;
} Sizes;

static Sizes sizes_of(const Node *n, const Shape *x, const Shape *y) {
    return (Sizes){.batch = x->dim[0], .height = x->dim[1], .width = x->dim[2], .ins = x->dim[3],
                   .out_height = y->dim[1], .out_width = y->dim[2], .outs = y->dim[3], .kernel = n->attr.conv.kernel,
                   .stride = n->attr.conv.stride, .pad = n->attr.conv.pad};
}

/* Calls visit for every triple (element of y, element of x, element of w) that is multiplied. */
static void each_product(const Sizes *s, void (*visit)(double *const array[3], int64_t y, int64_t x, int64_t w),
                         double *const array[3]) {
    int64_t y = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t p = 0; p < s->out_height; p++)
            for (int64_t q = 0; q < s->out_width; q++)
                for (int64_t o = 0; o < s->outs; o++, y++)
                    for (int64_t i = 0; i < s->ins; i++)
                        for (int64_t r = 0; r < s->kernel; r++)
                            for (int64_t t = 0; t < s->kernel; t++) {
                                int64_t row = p * s->stride + r - s->pad, column = q * s->stride + t - s->pad;
                                if (row < 0 || row >= s->height || column < 0 || column >= s->width) continue;
                                visit(array, y, ((b * s->height + row) * s->width + column) * s->ins + i,
                                      ((o * s->ins + i) * s->kernel + r) * s->kernel + t);
                            }
}

static void add_to_y(double *const a[3], int64_t y, int64_t x, int64_t w) { a[0][y] += a[1][x] * a[2][w]; }
static void add_to_x(double *const a[3], int64_t y, int64_t x, int64_t w) { a[1][x] += a[0][y] * a[2][w]; }
static void add_to_w(double *const a[3], int64_t y, int64_t x, int64_t w) { a[2][w] += a[0][y] * a[1][x]; }

REF(conv2d) {
    Sizes s = sizes_of(n, in_shape(g, n, 0), out_shape(g, n, 0));
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t y = 0; y < count; y++) out[0][y] = in[2][y % s.outs];
    each_product(&s, add_to_y, (double *[]){out[0], in[0], in[1]});
}

REF(conv2d_dx) {
    Sizes s = sizes_of(n, out_shape(g, n, 0), in_shape(g, n, 0));
    memset(out[0], 0, (size_t)shape_count(out_shape(g, n, 0)) * sizeof(double));
    each_product(&s, add_to_x, (double *[]){in[0], out[0], in[1]});
}

REF(conv2d_dw) {
    Sizes s = sizes_of(n, in_shape(g, n, 1), in_shape(g, n, 0));
    int64_t count = shape_count(in_shape(g, n, 0));
    memset(out[0], 0, (size_t)shape_count(out_shape(g, n, 0)) * sizeof(double));
    each_product(&s, add_to_w, (double *[]){in[0], in[1], out[0]});
    memset(out[1], 0, (size_t)s.outs * sizeof(double));
    for (int64_t y = 0; y < count; y++) out[1][y % s.outs] += in[0][y];
}

REF(pack_conv) {
    const Shape *w = in_shape(g, n, 0);
    int64_t k = w->dim[2];
    for (int64_t o = 0; o < w->dim[0]; o++)
        for (int64_t i = 0; i < w->dim[1]; i++)
            for (int64_t r = 0; r < k; r++)
                for (int64_t s = 0; s < k; s++)
                    out[0][((o * k + r) * k + s) * w->dim[1] + i] = in[0][((o * w->dim[1] + i) * k + r) * k + s];
}

/* conv2d on weights turned back to the files' order */
REF(conv2d_packed) {
    const Shape *w = in_shape(g, n, 1);
    int64_t k = w->dim[1], ins = w->dim[3];
    double *plain = mem_zalloc((size_t)shape_count(w), sizeof(double));
    for (int64_t o = 0; o < w->dim[0]; o++)
        for (int64_t i = 0; i < ins; i++)
            for (int64_t r = 0; r < k; r++)
                for (int64_t s = 0; s < k; s++)
                    plain[((o * ins + i) * k + r) * k + s] = in[1][((o * k + r) * k + s) * ins + i];
    ref_conv2d(g, n, (double *[]){in[0], plain, in[2]}, out);
    for (int64_t i = 0; n->attr.conv.gelu && i < shape_count(out_shape(g, n, 0)); i++)
        out[0][i] = ref_gelu_of(out[0][i]);
    free(plain);
}
