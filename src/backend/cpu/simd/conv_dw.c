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
    float *sums;  /* [chunks] [panels] (taps, ins, PANEL), then (PANEL) for db: no power-of-two strides to add to */
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

/* the sums of one panel of output channels */
static int64_t panel_floats(const WeightGrad *d) { return (d->kernel * d->kernel * d->ins + 1) * PANEL; }

static int64_t chunk_floats(const WeightGrad *d) { return CEIL_DIV(d->outs, PANEL) * panel_floats(d); }

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
        float *db = sum + d->kernel * d->kernel * d->ins * PANEL;
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t j = 0; j < PANEL; j++) db[j] += slot[i * PANEL + j];
    }
    if (!d->dw) return;
    for (int64_t r = 0; r < d->kernel; r++)
        for (int64_t s = 0; s < d->kernel; s++) {
            int64_t p = p0, p_end = p1, q = 0, q_end = d->out_width;
            clip(&p, &p_end, r, d->height, d);
            clip(&q, &q_end, s, d->width, d);
            if (p >= p_end || q >= q_end) continue;
            int64_t row = p * d->stride + r - d->pad, column = q * d->stride + s - d->pad;
            float *c = sum + (r * d->kernel + s) * d->ins * PANEL;
            gemm_panel(&(Gemm){.c = c,
                               .c_row = PANEL,
                               .start = c,
                               .start_row = PANEL,
                               .a = d->x + ((image * d->height + row) * d->width + column) * d->ins,
                               .a_row = 1,
                               .a_k = d->stride * d->ins,
                               .a_tap = d->stride * d->width * d->ins,
                               .b = slot + ((p - p0) * d->out_width + q) * PANEL,
                               .b_tap = d->out_width * PANEL,
                               .k = q_end - q,
                               .taps = p_end - p},
                       d->ins, PANEL);
        }
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t chunk = index / d->panel_parts, part = index % d->panel_parts;
    int64_t rows = d->batch * d->out_height, panels = CEIL_DIV(d->outs, PANEL);
    int64_t row0 = part_begin(rows, chunk, d->chunks), row1 = part_begin(rows, chunk + 1, d->chunks);
    int64_t panel1 = part_begin(panels, part + 1, d->panel_parts);
    float *slot = d->slots + index * d->slot_rows * d->out_width * PANEL;
    for (int64_t panel = part_begin(panels, part, d->panel_parts); panel < panel1; panel++) {
        float *sum = d->sums + chunk * chunk_floats(d) + panel * panel_floats(d);
        memset(sum, 0, (size_t)panel_floats(d) * sizeof(float));
        for (int64_t row = row0, end; row < row1; row = end) {
            int64_t image = row / d->out_height, first = image * d->out_height;
            end = MIN(MIN(row1, row + d->slot_rows), first + d->out_height);
            add_rows(d, sum, slot, image, row - first, end - first, panel * PANEL);
        }
    }
}

/* Where number n of an output channel's weights, (ins, taps) in files, lies in a panel's sums, (taps, ins, PANEL). */
static int64_t sum_at(const WeightGrad *d, int64_t n) {
    int64_t taps = d->kernel * d->kernel;
    return (n % taps * d->ins + n / taps) * PANEL;
}

/* Numbers [begin, end) of every output channel: the chunks' sums, turned to the files' layout. */
static void sum_weights(const WeightGrad *d, int64_t begin, int64_t end) {
    int64_t count = d->kernel * d->kernel * d->ins;
    for (int64_t o = 0; o < d->outs; o += VL) {
        const float *sums = d->sums + o / PANEL * panel_floats(d) + o % PANEL;
        for (int64_t n = begin; n < end; n += VL) {
            int64_t rows = MIN(VL, end - n), columns = MIN(VL, d->outs - o);
            vf row[VL];
            for (int64_t i = 0; i < VL; i++) {
                const float *from = sums + sum_at(d, n + MIN(i, rows - 1));
                row[i] = vf_load(from);
                for (int64_t c = 1; c < d->chunks; c++) row[i] += vf_load(from + c * chunk_floats(d));
            }
            vf_transpose(row);
            for (int64_t i = 0; i < columns; i++) {
                float *to = d->dw + (o + i) * count + n;
                if (rows == VL)
                    vf_store(to, row[i]);
                else
                    vf_store_part(to, row[i], rows);
            }
        }
    }
}

static void weight_grad_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t count = d->kernel * d->kernel * d->ins, blocks = CEIL_DIV(count, VL);
    int64_t begin = part_begin(blocks, index, PARTS) * VL, end = part_begin(blocks, index + 1, PARTS) * VL;
    if (d->dw) sum_weights(d, begin, MIN(end, count));
    for (int64_t o = 0; d->db && index == 0 && o < d->outs; o++) {
        const float *sum = d->sums + o / PANEL * panel_floats(d) + count * PANEL + o % PANEL;
        d->db[o] = sum[0];
        for (int64_t c = 1; c < d->chunks; c++) d->db[o] += sum[c * chunk_floats(d)];
    }
}

static size_t conv2d_dw_workspace(const Graph *g, const Node *n) {
    WeightGrad d = weight_grad_cut(n, in_shape(g, n, 0), in_shape(g, n, 1));
    int64_t slots = d.chunks * d.panel_parts * d.slot_rows * d.out_width * PANEL;
    return (size_t)(d.chunks * chunk_floats(&d) + slots) * sizeof(float);
}

RUN(conv2d_dw) {
    WeightGrad d = weight_grad_cut(call->node, call_in(call, 0), call_in(call, 1));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.slots = d.sums + d.chunks * chunk_floats(&d);
    parallel_for((int)(d.chunks * d.panel_parts), weight_grad_part, &d);
    parallel_for(PARTS, weight_grad_sum, &d);
}

KERNEL(conv2d_dw, .workspace = conv2d_dw_workspace);
