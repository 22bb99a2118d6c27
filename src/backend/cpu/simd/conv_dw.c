/* conv_dw.c - gradient of a dense convolution's weights: per tap, a product that reduces over pixels. A part takes a
 * chunk of the batch's rows of dy and some panels of output channels; where dw is small every chunk has a sum of its
 * own, and the chunks' sums are added in order. */
#include "backend/cpu/simd/gemm.h"

#define PARTS 16
#define CHUNK_PIXELS 392     /* fewest pixels worth a sum of their own */
#define CHUNKS_FLOATS 786432 /* all sums together, where there is more than one */
#define SLOT_PIXELS 512      /* pixels of dy that are packed at a time, unless a row has more */

typedef struct {
    const float *dy, *x; /* (batch, out_height, out_width, outs), (batch, height, width, ins) */
    float *dw, *db;
    float *sums;  /* [chunks] (taps, ins, outs), then (outs) for db */
    float *slots; /* [chunks * panel_parts] (slot_rows * out_width, PANEL) */
    int64_t batch, height, width, ins, out_height, out_width, outs;
    int64_t kernel, stride, pad;
    int64_t chunks, panel_parts, slot_rows;
} WeightGrad;

static WeightGrad weight_grad_cut(const Node *n, const Shape *dy, const Shape *x) {
    WeightGrad d = {.batch = x->dim[0], .height = x->dim[1], .width = x->dim[2], .ins = x->dim[3],
                    .out_height = dy->dim[1], .out_width = dy->dim[2], .outs = dy->dim[3],
                    .kernel = n->attr.conv.kernel, .stride = n->attr.conv.stride, .pad = n->attr.conv.pad};
    int64_t rows = d.batch * d.out_height, by_pixels = MIN(rows * d.out_width / CHUNK_PIXELS, PARTS);
    int64_t by_memory = CHUNKS_FLOATS / (d.kernel * d.kernel * d.ins * d.outs);
    d.chunks = MAX(1, MIN(MIN(by_pixels, by_memory), rows));
    d.panel_parts = MIN(CEIL_DIV(PARTS, d.chunks), CEIL_DIV(d.outs, PANEL));
    d.slot_rows = MAX(1, MIN(SLOT_PIXELS / d.out_width, d.out_height));
    return d;
}

static int64_t sum_floats(const WeightGrad *d) {
    return ROUND_UP((d->kernel * d->kernel * d->ins + 1) * d->outs, 16);
}

/* The outputs p whose input p*stride + tap - pad lies in [0, size): [*begin, *end) within [begin, end). */
static void clip(int64_t *begin, int64_t *end, int64_t tap, int64_t size, const WeightGrad *d) {
    int64_t low = CEIL_DIV(MAX(0, d->pad - tap), d->stride), last = size - 1 + d->pad - tap;
    int64_t high = last < 0 ? 0 : last / d->stride + 1;
    *begin = MAX(*begin, low);
    *end = MIN(*end, high);
}

/* Rows [p0, p1) of an image of dy, one panel of its channels: sum += their part of dw and db. */
static void add_rows(const WeightGrad *d, float *sum, float *slot, int64_t image, int64_t p0, int64_t p1,
                     int64_t channel) {
    int64_t columns = MIN(d->outs - channel, PANEL), pixels = (p1 - p0) * d->out_width;
    const float *dy = d->dy + (image * d->out_height + p0) * d->out_width * d->outs + channel;
    gemm_pack(slot, dy, d->outs, 1, pixels, columns);
    if (d->db) {
        float *db = sum + d->kernel * d->kernel * d->ins * d->outs + channel;
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t j = 0; j < columns; j++) db[j] += slot[i * PANEL + j];
    }
    if (!d->dw) return;
    for (int64_t r = 0; r < d->kernel; r++)
        for (int64_t s = 0; s < d->kernel; s++) {
            int64_t p = p0, p_end = p1, q = 0, q_end = d->out_width;
            clip(&p, &p_end, r, d->height, d);
            clip(&q, &q_end, s, d->width, d);
            if (p >= p_end || q >= q_end) continue;
            int64_t row = p * d->stride + r - d->pad, column = q * d->stride + s - d->pad;
            float *c = sum + (r * d->kernel + s) * d->ins * d->outs + channel;
            gemm_panel(&(Gemm){.c = c,
                               .c_row = d->outs,
                               .start = c,
                               .start_row = d->outs,
                               .a = d->x + ((image * d->height + row) * d->width + column) * d->ins,
                               .a_row = 1,
                               .a_k = d->stride * d->ins,
                               .a_tap = d->stride * d->width * d->ins,
                               .b = slot + ((p - p0) * d->out_width + q) * PANEL,
                               .b_tap = d->out_width * PANEL,
                               .k = q_end - q,
                               .taps = p_end - p},
                       d->ins, columns);
        }
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t chunk = index / d->panel_parts, part = index % d->panel_parts;
    int64_t rows = d->batch * d->out_height, panels = CEIL_DIV(d->outs, PANEL);
    int64_t row0 = part_begin(rows, chunk, d->chunks), row1 = part_begin(rows, chunk + 1, d->chunks);
    int64_t panel1 = part_begin(panels, part + 1, d->panel_parts);
    float *sum = d->sums + chunk * sum_floats(d), *slot = d->slots + index * d->slot_rows * d->out_width * PANEL;
    for (int64_t panel = part_begin(panels, part, d->panel_parts); panel < panel1; panel++) {
        int64_t channel = panel * PANEL;
        size_t bytes = (size_t)MIN(d->outs - channel, PANEL) * sizeof(float);
        for (int64_t i = 0; i < d->kernel * d->kernel * d->ins + 1; i++) memset(sum + i * d->outs + channel, 0, bytes);
        for (int64_t row = row0, end; row < row1; row = end) {
            int64_t image = row / d->out_height, first = image * d->out_height;
            end = MIN(MIN(row1, row + d->slot_rows), first + d->out_height);
            add_rows(d, sum, slot, image, row - first, end - first, channel);
        }
    }
}

/* A share of the output channels: the chunks' sums, from (taps, ins, outs) to the files' (outs, ins, taps). */
static void weight_grad_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t taps = d->kernel * d->kernel;
    for (int64_t o = part_begin(d->outs, index, PARTS); o < part_begin(d->outs, index + 1, PARTS); o++) {
        for (int64_t i = 0; d->dw && i < d->ins; i++)
            for (int64_t t = 0; t < taps; t++) {
                float sum = 0;
                for (int64_t c = 0; c < d->chunks; c++) sum += d->sums[c * sum_floats(d) + (t * d->ins + i) * d->outs + o];
                d->dw[(o * d->ins + i) * taps + t] = sum;
            }
        if (!d->db) continue;
        float sum = 0;
        for (int64_t c = 0; c < d->chunks; c++) sum += d->sums[c * sum_floats(d) + taps * d->ins * d->outs + o];
        d->db[o] = sum;
    }
}

static size_t conv2d_dw_workspace(const Graph *g, const Node *n) {
    WeightGrad d = weight_grad_cut(n, in_shape(g, n, 0), in_shape(g, n, 1));
    int64_t slots = d.chunks * d.panel_parts * d.slot_rows * d.out_width * PANEL;
    return (size_t)(d.chunks * sum_floats(&d) + slots) * sizeof(float);
}

RUN(conv2d_dw) {
    WeightGrad d = weight_grad_cut(call->node, call_in(call, 0), call_in(call, 1));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.slots = d.sums + d.chunks * sum_floats(&d);
    parallel_for((int)(d.chunks * d.panel_parts), weight_grad_part, &d);
    parallel_for(PARTS, weight_grad_sum, &d);
}

KERNEL(conv2d_dw, .workspace = conv2d_dw_workspace);
