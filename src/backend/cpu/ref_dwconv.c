/* ref_dwconv.c - the definition of the depthwise convolution and its gradients. */
#include "backend/cpu/ref.h"

typedef struct {
    int64_t batch, height, width, channels;
} Picture;

static Picture picture_of(const Graph *g, const Node *n) {
    const Shape *s = in_shape(g, n, 0);
    return (Picture){s->dim[0], s->dim[1], s->dim[2], s->dim[3]};
}

/* Index of element (b,i,j,c), or -1 outside of the picture. */
static int64_t at(const Picture *p, int64_t b, int64_t i, int64_t j, int64_t c) {
    if (i < 0 || i >= p->height || j < 0 || j >= p->width) return -1;
    return ((b * p->height + i) * p->width + j) * p->channels + c;
}

/* what the convolution is taken of: x, or gelu(x) */
static double taken(const Node *n, double x) { return n->attr.dwconv.gelu ? ref_gelu_of(x) : x; }

REF(dwconv) {
    const double *x = in[0], *w = in[1], *bias = in[2];
    const Picture p = picture_of(g, n);
    const int64_t k = n->attr.dwconv.kernel, pad = (k - 1) / 2;
    for (int64_t b = 0; b < p.batch; b++)
        for (int64_t i = 0; i < p.height; i++)
            for (int64_t j = 0; j < p.width; j++)
                for (int64_t c = 0; c < p.channels; c++) {
                    int64_t here = at(&p, b, i, j, c);
                    double sum = bias[c] + (n->attr.dwconv.residual ? taken(n, x[here]) : 0);
                    for (int64_t r = 0; r < k; r++)
                        for (int64_t s = 0; s < k; s++) {
                            int64_t from = at(&p, b, i + r - pad, j + s - pad, c);
                            if (from >= 0) sum += taken(n, x[from]) * w[(c * k + r) * k + s];
                        }
                    out[0][here] = sum;
                }
}

REF(dwconv_dx) {
    const double *dy = in[0], *w = in[1];
    const Picture p = picture_of(g, n);
    const int64_t k = n->attr.dwconv.kernel, pad = (k - 1) / 2;
    for (int64_t b = 0; b < p.batch; b++)
        for (int64_t i = 0; i < p.height; i++)
            for (int64_t j = 0; j < p.width; j++)
                for (int64_t c = 0; c < p.channels; c++) {
                    int64_t here = at(&p, b, i, j, c);
                    double sum = n->attr.dwconv.residual ? dy[here] : 0;
                    for (int64_t r = 0; r < k; r++)
                        for (int64_t s = 0; s < k; s++) {
                            int64_t to = at(&p, b, i + pad - r, j + pad - s, c);
                            if (to >= 0) sum += dy[to] * w[(c * k + r) * k + s];
                        }
                    out[0][here] = sum;
                }
}

REF(dwconv_dw) {
    const double *dy = in[0], *x = in[1];
    double *dw = out[0], *db = out[1];
    const Picture p = picture_of(g, n);
    const int64_t k = n->attr.dwconv.kernel, pad = (k - 1) / 2;
    for (int64_t i = 0; i < p.channels * k * k; i++) dw[i] = 0;
    for (int64_t c = 0; c < p.channels; c++) db[c] = 0;
    for (int64_t b = 0; b < p.batch; b++)
        for (int64_t i = 0; i < p.height; i++)
            for (int64_t j = 0; j < p.width; j++)
                for (int64_t c = 0; c < p.channels; c++) {
                    double d = dy[at(&p, b, i, j, c)];
                    db[c] += d;
                    for (int64_t r = 0; r < k; r++)
                        for (int64_t s = 0; s < k; s++) {
                            int64_t from = at(&p, b, i + r - pad, j + s - pad, c);
                            if (from >= 0) dw[(c * k + r) * k + s] += d * taken(n, x[from]);
                        }
                }
}

REF(dwconv_gelu_bwd) {
    double *dy = in[0], *x = in[1], *w = in[2], *dx = out[0];
    ref_dwconv_dx(g, n, (double *[]){dy, w}, (double *[]){dx});
    for (int64_t i = 0; i < shape_count(in_shape(g, n, 1)); i++) dx[i] *= ref_gelu_slope(x[i]);
    ref_dwconv_dw(g, n, (double *[]){dy, x}, (double *[]){out[1], out[2]});
}
