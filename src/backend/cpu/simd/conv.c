/* conv.c - dense convolutions as sums of matrix products on gemm.h's tiles, without im2col: a run of taps along a row
 * of a channels-last picture is contiguous, so A is read where it lies, and pixels whose window crosses the border
 * form blocks of their own with fewer taps. The gradient of the input is the same correlation on dy, one per residue
 * class of pixels modulo the stride. */
#include "backend/cpu/simd/gemm.h"

#define PARTS 16
#define PART_PIXELS 98
#define PART_FLOATS 131072 /* what a part reads of the input for every panel: half of an L2 cache */

static const float zeros[PANEL];

/* One axis of a correlation: output pixel u is at begin + u*out_step, and tap t of it reads the input pixel
 * u*step + offset + t with the weights of the kernel's tap kernel_tap + t*kernel_step. */
typedef struct {
    int64_t count, begin, out_step;
    int64_t size, step, offset; /* size: of the input */
    int64_t taps, kernel_tap, kernel_step;
} Axis;

/* Pixels of the forward's input congruent to `class` modulo the stride see the kernel's taps first, first + stride ...,
 * and a later tap comes from an earlier pixel of dy: the correlation's taps run backwards. */
static Axis backward_axis(int64_t class, int64_t size, int64_t dy_size, int64_t kernel, int64_t stride, int64_t pad) {
    int64_t first = (class + pad) % stride;
    int64_t taps = first < kernel ? (kernel - 1 - first) / stride + 1 : 0;
    return (Axis){.count = class < size ? (size - 1 - class) / stride + 1 : 0, .begin = class, .out_step = stride,
                  .size = dy_size, .step = 1, .offset = (class + pad - first) / stride - (taps - 1), .taps = taps,
                  .kernel_tap = first + stride * (taps - 1), .kernel_step = -stride};
}

static Axis forward_axis(int64_t size, int64_t x_size, int64_t kernel, int64_t stride, int64_t pad) {
    return (Axis){.count = size, .out_step = 1, .size = x_size, .step = stride, .offset = -pad, .taps = kernel,
                  .kernel_step = 1};
}

/* the taps of output pixel u that fall inside the input */
static int64_t first_tap(const Axis *a, int64_t u) { return MIN(MAX(0, -(u * a->step + a->offset)), a->taps); }
static int64_t end_tap(const Axis *a, int64_t u) {
    return MAX(first_tap(a, u), MIN(a->taps, a->size - (u * a->step + a->offset)));
}

/* The end of the run of output pixels from u on, at most to `end`, that have the same taps. */
static int64_t run_end(const Axis *a, int64_t u, int64_t end) {
    int64_t v = u + 1;
    while (v < end && first_tap(a, v) == first_tap(a, u) && end_tap(a, v) == end_tap(a, u)) v++;
    return v;
}

/* Either direction: `in` is x or dy, `out` is y or dx. */
typedef struct {
    float *out;      /* (batch, out_height, out_width, outs) */
    const float *in; /* (batch, height, width, ins) */
    const float *bias;
    const float *w; /* of the kernel's tap (0,0): channel i of in and o of out at i*w_in + o*w_out */
    int64_t w_in, w_out;
    float *panels;
    int64_t batch, height, width, ins, out_height, out_width, outs;
    int64_t kernel, stride, pad;
    bool backward;
    int64_t rows; /* of a residue class (the forward has one); batch * rows are cut into parts */
    int64_t row_parts, panel_parts;
} Conv;

typedef struct {
    Axis y, x;
    float *panels; /* panel p at p * y.taps * x.taps * ins * PANEL: (tap y, tap x, channel, PANEL) */
} Correlation;

static int classes_of(const Conv *c) { return c->backward ? (int)(c->stride * c->stride) : 1; }

static Correlation correlation_of(const Conv *c, int class) {
    Correlation k = {.panels = c->panels};
    if (!c->backward) {
        k.y = forward_axis(c->out_height, c->height, c->kernel, c->stride, c->pad);
        k.x = forward_axis(c->out_width, c->width, c->kernel, c->stride, c->pad);
        return k;
    }
    for (int i = 0; i <= class; i++) {
        k.panels += k.y.taps * k.x.taps * c->ins * ROUND_UP(c->outs, PANEL);
        k.y = backward_axis(i / c->stride, c->out_height, c->height, c->kernel, c->stride, c->pad);
        k.x = backward_axis(i % c->stride, c->out_width, c->width, c->kernel, c->stride, c->pad);
    }
    return k;
}

static void pack_panel(const Conv *c, int panel) {
    int64_t channel = (int64_t)panel * PANEL, columns = MIN(c->outs - channel, PANEL);
    if (!c->backward) { /* an output channel's weights lie in one piece */
        gemm_pack_rows(c->panels + channel * c->w_out, c->w + channel * c->w_out, c->w_out, c->ins, c->w_in, columns);
        return;
    }
    for (int class = 0; class < classes_of(c); class++) {
        Correlation k = correlation_of(c, class);
        float *to = k.panels + panel * k.y.taps * k.x.taps * c->ins * PANEL;
        for (int64_t ty = 0; ty < k.y.taps; ty++)
            for (int64_t tx = 0; tx < k.x.taps; tx++, to += c->ins * PANEL) {
                int64_t r = k.y.kernel_tap + ty * k.y.kernel_step, s = k.x.kernel_tap + tx * k.x.kernel_step;
                gemm_pack(to, c->w + channel * c->w_out + r * c->kernel + s, c->w_in, c->w_out, c->ins, columns);
            }
    }
}

/* A rectangle of output pixels with the same taps, one panel of channels. */
static void correlate_block(const Conv *c, const Correlation *k, int64_t image, int64_t u0, int64_t u1, int64_t v0,
                            int64_t v1, int64_t panel) {
    const Axis *y = &k->y, *x = &k->x;
    int64_t ty = first_tap(y, u0), tx = first_tap(x, v0), channel = panel * PANEL;
    int64_t taps_y = end_tap(y, u0) - ty, taps_x = end_tap(x, v0) - tx;
    if (taps_x == 0) taps_y = 0;
    int64_t columns = MIN(c->outs - channel, PANEL);
    int64_t a_y = y->step * c->width * c->ins, a_x = x->step * c->ins;
    int64_t c_y = y->out_step * c->out_width * c->outs, c_x = x->out_step * c->outs;
    Gemm g = {.start = c->bias ? c->bias + channel : zeros,
              .a_k = 1,
              .a_tap = c->width * c->ins,
              .b = k->panels + ((panel * y->taps + ty) * x->taps + tx) * c->ins * PANEL,
              .b_tap = x->taps * c->ins * PANEL,
              .k = taps_x * c->ins,
              .taps = taps_y};
    bool along_rows = v1 - v0 >= u1 - u0;
    g.a_row = along_rows ? a_x : a_y;
    g.c_row = along_rows ? c_x : c_y;
    for (int64_t i = 0; i < (along_rows ? u1 - u0 : v1 - v0); i++) {
        int64_t u = along_rows ? u0 + i : u0, v = along_rows ? v0 : v0 + i;
        int64_t row = u * y->step + y->offset + ty, column = v * x->step + x->offset + tx;
        int64_t out_row = y->begin + u * y->out_step, out_column = x->begin + v * x->out_step;
        g.c = c->out + ((image * c->out_height + out_row) * c->out_width + out_column) * c->outs + channel;
        g.a = taps_y > 0 ? c->in + ((image * c->height + row) * c->width + column) * c->ins : c->in;
        gemm_panel(&g, along_rows ? v1 - v0 : u1 - u0, columns);
    }
}

/* Output rows [begin, end) of an image. */
static void correlate_rows(const Conv *c, const Correlation *k, int64_t image, int64_t begin, int64_t end,
                           int64_t panel) {
    end = MIN(end, k->y.count);
    for (int64_t u = begin, u_end; u < end; u = u_end) {
        u_end = run_end(&k->y, u, end);
        for (int64_t v = 0, v_end; v < k->x.count; v = v_end) {
            v_end = run_end(&k->x, v, k->x.count);
            correlate_block(c, k, image, u, u_end, v, v_end, panel);
        }
    }
}

static void correlate_part(void *arg, int index, int thread) {
    (void)thread;
    const Conv *c = arg;
    int64_t row_part = index / c->panel_parts, panel_part = index % c->panel_parts;
    int64_t panels = CEIL_DIV(c->outs, PANEL), rows = c->batch * c->rows;
    int64_t row0 = part_begin(rows, row_part, c->row_parts), row1 = part_begin(rows, row_part + 1, c->row_parts);
    int64_t panel1 = part_begin(panels, panel_part + 1, c->panel_parts);
    for (int64_t panel = part_begin(panels, panel_part, c->panel_parts); panel < panel1; panel++) {
        if (c->row_parts == 1) pack_panel(c, (int)panel);
        for (int class = 0; class < classes_of(c); class++) {
            Correlation k = correlation_of(c, class);
            for (int64_t row = row0, end; row < row1; row = end) {
                int64_t image = row / c->rows;
                end = MIN(row1, (image + 1) * c->rows);
                correlate_rows(c, &k, image, row - image * c->rows, end - image * c->rows, panel);
            }
        }
    }
}

static void pack_one(void *arg, int panel, int thread) {
    (void)thread;
    pack_panel(arg, panel);
}

static void conv_run(Conv *c) {
    int64_t classes = c->backward ? c->stride : 1;
    c->rows = CEIL_DIV(c->out_height, classes);
    int64_t rows = c->batch * c->rows, pixels = rows * CEIL_DIV(c->out_width, classes);
    int64_t floats = c->batch * c->height * c->width * c->ins;
    int64_t by_pixels = MIN(CEIL_DIV(pixels, PART_PIXELS), PARTS);
    c->row_parts = MIN(MAX(by_pixels, CEIL_DIV(floats, PART_FLOATS)), rows);
    c->panel_parts = MIN(CEIL_DIV(PARTS, c->row_parts), CEIL_DIV(c->outs, PANEL));
    /* where every panel belongs to one part, it is packed there: still in that core's cache when it is used */
    if (c->row_parts > 1) parallel_for((int)CEIL_DIV(c->outs, PANEL), pack_one, c);
    parallel_for((int)(c->row_parts * c->panel_parts), correlate_part, c);
}

/* the packed weights: per panel of output channels, every tap of the kernel once */
static size_t conv_workspace(const Graph *g, const Node *n) {
    int64_t k = n->attr.conv.kernel, columns = ROUND_UP(shape_last(out_shape(g, n, 0)), PANEL);
    return (size_t)(k * k * shape_last(in_shape(g, n, 0)) * columns) * sizeof(float);
}

static Conv conv_of(const KernelCall *call) {
    const Shape *in = call_in(call, 0), *out = call_out(call, 0);
    return (Conv){.out = call->out[0], .in = call->in[0], .w = call->in[1], .panels = call->work, .batch = in->dim[0],
                  .height = in->dim[1], .width = in->dim[2], .ins = in->dim[3], .out_height = out->dim[1],
                  .out_width = out->dim[2], .outs = out->dim[3], .kernel = call->node->attr.conv.kernel,
                  .stride = call->node->attr.conv.stride, .pad = call->node->attr.conv.pad};
}

RUN(conv2d) {
    Conv c = conv_of(call);
    c.bias = call->in[2];
    c.w_in = c.kernel * c.kernel;
    c.w_out = c.ins * c.w_in;
    conv_run(&c);
}

RUN(conv2d_dx) {
    Conv c = conv_of(call);
    c.backward = true;
    c.w_out = c.kernel * c.kernel;
    c.w_in = c.outs * c.w_out;
    conv_run(&c);
}

KERNEL(conv2d, .workspace = conv_workspace);
KERNEL(conv2d_dx, .workspace = conv_workspace);
