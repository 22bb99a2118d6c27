/* conv.c - dense convolutions as matrix products of the library. The window of each output pixel becomes a row of a
 * matrix ("columns": taps by channels), a tile of pixels at a time, so that it never leaves the cache. A row is copied
 * in runs, since neighbouring taps are neighbours in a channels-last picture.
 *
 * The library's own convolutions were not taken: they want a handle per shape, whose making costs milliseconds at every
 * start of the program, and they share work among threads by the number of threads. */
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd/math.h"

#define PARTS 16            /* what a convolution is cut into at the most, each with working memory of its own */
#define TILE_FLOATS 49152   /* of columns: a fifth of an L2 cache, the product wants the rest */
#define TILE_PIXELS_MOST 256
#define TILE_PIXELS_LEAST 49
#define COLUMNS_LEAST 64    /* fewest output channels worth a tile of their own */

typedef struct {
    int64_t batch, height, width, ins;      /* x */
    int64_t out_height, out_width, outs;    /* y */
    int64_t kernel, stride, pad;
    int64_t taps;                           /* kernel * kernel * ins: a row of columns */
    int64_t pixels;                         /* of y, per picture */
    int64_t tile_pixels, tiles;             /* tiles per picture */
} Conv;

static Conv conv_of(const Node *n, const Shape *x, const Shape *y) {
    Conv c = {.batch = x->dim[0], .height = x->dim[1], .width = x->dim[2], .ins = x->dim[3],
              .out_height = y->dim[1], .out_width = y->dim[2], .outs = y->dim[3],
              .kernel = n->attr.conv.kernel, .stride = n->attr.conv.stride, .pad = n->attr.conv.pad};
    c.taps = c.kernel * c.kernel * c.ins;
    c.pixels = c.out_height * c.out_width;
    c.tile_pixels = MIN(MAX(TILE_FLOATS / c.taps, TILE_PIXELS_LEAST), TILE_PIXELS_MOST);
    c.tiles = CEIL_DIV(c.pixels, c.tile_pixels);
    return c;
}

/* The taps [first, end) along one axis that fall inside the picture, for a window that begins at `from`. */
static inline int64_t first_tap(int64_t from) { return from < 0 ? -from : 0; }
static inline int64_t end_tap(int64_t from, int64_t kernel, int64_t size) { return MAX(MIN(kernel, size - from), 0); }

static inline void copy(float *to, const float *from, int64_t count) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(to + i, vf_load(from + i));
    for (; i < count; i++) to[i] = from[i];
}

/* columns (pixels, taps) of the output pixels [pixel0, pixel1) of one picture, taps in the order (row, column, channel). */
static void gather(float *columns, const float *x, const Conv *c, int64_t pixel0, int64_t pixel1) {
    int64_t row_floats = c->kernel * c->ins, x_row = c->width * c->ins;
    for (int64_t pixel = pixel0; pixel < pixel1; pixel++) {
        int64_t top = pixel / c->out_width * c->stride - c->pad, left = pixel % c->out_width * c->stride - c->pad;
        const float *from = x + (top * c->width + left) * c->ins;
        if (top >= 0 && left >= 0 && top + c->kernel <= c->height && left + c->kernel <= c->width) {
            for (int64_t r = 0; r < c->kernel; r++, columns += row_floats) copy(columns, from + r * x_row, row_floats);
            continue;
        }
        int64_t s0 = first_tap(left), s1 = MAX(end_tap(left, c->kernel, c->width), s0);
        for (int64_t r = 0; r < c->kernel; r++, columns += row_floats) {
            memset(columns, 0, (size_t)row_floats * sizeof(float));
            if (top + r >= 0 && top + r < c->height)
                copy(columns + s0 * c->ins, from + r * x_row + s0 * c->ins, (s1 - s0) * c->ins);
        }
    }
}

/* Adds columns back to where they came from. */
static void scatter_add(float *x, const float *columns, const Conv *c, int64_t pixel0, int64_t pixel1) {
    int64_t row_floats = c->kernel * c->ins;
    for (int64_t pixel = pixel0; pixel < pixel1; pixel++) {
        int64_t top = pixel / c->out_width * c->stride - c->pad, left = pixel % c->out_width * c->stride - c->pad;
        int64_t s0 = first_tap(left), s1 = MAX(end_tap(left, c->kernel, c->width), s0);
        for (int64_t r = 0; r < c->kernel; r++, columns += row_floats) {
            if (top + r < 0 || top + r >= c->height) continue;
            float *to = x + ((top + r) * c->width + left) * c->ins;
            int64_t i = s0 * c->ins, end = s1 * c->ins;
            for (; i + VL <= end; i += VL) vf_store(to + i, vf_load(to + i) + vf_load(columns + i));
            for (; i < end; i++) to[i] += columns[i];
        }
    }
}

/* Weights in the order of columns: packed (outs, taps) from the files' (outs, ins, kernel, kernel). */
typedef struct {
    float *packed;
    const float *w;
    int64_t ins, area;
} Packing;

static void pack_filter(void *arg, int o, int thread) {
    (void)thread;
    const Packing *p = arg;
    float *packed = p->packed + o * p->ins * p->area;
    const float *w = p->w + o * p->ins * p->area;
    for (int64_t t = 0; t < p->area; t++)
        for (int64_t i = 0; i < p->ins; i++) packed[t * p->ins + i] = w[i * p->area + t];
}

static void pack_weights(float *packed, const float *w, int64_t outs, int64_t ins, int64_t area) {
    parallel_for((int)outs, pack_filter, &(Packing){packed, w, ins, area});
}

RUN(pack_conv) {
    const Shape *w = call_in(call, 0);
    pack_weights(call->out[0], call->in[0], w->dim[0], w->dim[1], w->dim[2] * w->dim[3]);
}
KERNEL(pack_conv);

/* Which of at most PARTS working memories a part may use. Few threads share few, and the others are never touched. */
static int64_t slot_of(int part, int thread) { return parallel_threads() <= PARTS ? thread : part; }

static int64_t packed_floats(const Conv *c) { return ROUND_UP(c->outs * c->taps, 16); }
static int64_t columns_floats(const Conv *c) { return ROUND_UP(c->tile_pixels * c->taps, 16); }

/* ---- forward ---- */

typedef struct {
    Conv c;
    const float *x, *bias, *packed;
    float *y, *columns;
    bool gelu;
    int64_t column_tiles, parts; /* tiles of output channels; what tile_run is called with */
} Forward;

static Forward forward_cut(const Node *n, const Shape *x, const Shape *y) {
    Forward f = {.c = conv_of(n, x, y)};
    int64_t tiles = f.c.batch * f.c.tiles;
    f.column_tiles = MAX(1, MIN(CEIL_DIV(8, tiles), f.c.outs / COLUMNS_LEAST));
    f.parts = MIN(tiles * f.column_tiles, PARTS);
    return f;
}

/* y = [gelu] (y + bias) on a tile that is still in the nearest cache */
static void finish(float *y, int64_t y_row, const float *bias, bool gelu, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; r++, y += y_row) {
        for (int64_t j = 0; j < columns; j += VL) {
            int64_t n = MIN(columns - j, VL);
            vf v = n == VL ? vf_load(y + j) + vf_load(bias + j) : vf_load_part(y + j, n) + vf_load_part(bias + j, n);
            if (gelu) v = vf_gelu(v);
            if (n == VL)
                vf_store(y + j, v);
            else
                vf_store_part(y + j, v, n);
        }
    }
}

static void forward_tile(const Forward *f, float *columns, int64_t index) {
    const Conv *c = &f->c;
    int64_t column_tile = index % f->column_tiles, tile = index / f->column_tiles % c->tiles;
    int64_t image = index / f->column_tiles / c->tiles;
    int64_t pixel0 = part_begin(c->pixels, tile, c->tiles), pixel1 = part_begin(c->pixels, tile + 1, c->tiles);
    int64_t o0 = part_begin(c->outs, column_tile, f->column_tiles), o1 = part_begin(c->outs, column_tile + 1, f->column_tiles);
    float *y = f->y + (image * c->pixels + pixel0) * c->outs + o0;
    gather(columns, f->x + image * c->height * c->width * c->ins, c, pixel0, pixel1);
    MatmulOperand a = {.data = columns, .stride = c->taps};
    MatmulOperand b = {.data = f->packed + o0 * c->taps, .stride = c->taps, .transposed = true};
    matmul(y, c->outs, a, b, pixel1 - pixel0, o1 - o0, c->taps, false);
    finish(y, c->outs, f->bias + o0, f->gelu, pixel1 - pixel0, o1 - o0);
}

static void forward_part(void *arg, int index, int thread) {
    const Forward *f = arg;
    float *columns = f->columns + slot_of(index, thread) * columns_floats(&f->c);
    int64_t tiles = f->c.batch * f->c.tiles * f->column_tiles;
    for (int64_t i = part_begin(tiles, index, f->parts); i < part_begin(tiles, index + 1, f->parts); i++)
        forward_tile(f, columns, i);
}

static void forward_run(Forward *f, const KernelCall *call) {
    f->x = call->in[0];
    f->bias = call->in[2];
    f->y = call->out[0];
    parallel_for((int)f->parts, forward_part, f);
}

static size_t conv2d_workspace(const Graph *g, const Node *n) {
    Forward f = forward_cut(n, in_shape(g, n, 0), out_shape(g, n, 0));
    return (size_t)(packed_floats(&f.c) + PARTS * columns_floats(&f.c)) * sizeof(float);
}

RUN(conv2d) {
    Forward f = forward_cut(call->node, call_in(call, 0), call_out(call, 0));
    float *packed = call->work;
    pack_weights(packed, call->in[1], f.c.outs, f.c.ins, f.c.kernel * f.c.kernel);
    f.packed = packed;
    f.columns = packed + packed_floats(&f.c);
    forward_run(&f, call);
}
KERNEL(conv2d, .workspace = conv2d_workspace);

static size_t conv2d_packed_workspace(const Graph *g, const Node *n) {
    Forward f = forward_cut(n, in_shape(g, n, 0), out_shape(g, n, 0));
    return (size_t)(PARTS * columns_floats(&f.c)) * sizeof(float);
}

RUN(conv2d_packed) {
    Forward f = forward_cut(call->node, call_in(call, 0), call_out(call, 0));
    f.packed = call->in[1];
    f.columns = call->work;
    f.gelu = call->node->attr.conv.gelu;
    forward_run(&f, call);
}
KERNEL(conv2d_packed, .workspace = conv2d_packed_workspace);

/* ---- gradient of the input: columns = dy w, added back; a picture is one part, since its windows overlap ---- */

typedef struct {
    Conv c;
    const float *dy;
    float *dx, *packed, *columns;
    int64_t parts;
} InputGrad;

static void input_grad_part(void *arg, int index, int thread) {
    const InputGrad *d = arg;
    const Conv *c = &d->c;
    float *columns = d->columns + slot_of(index, thread) * columns_floats(c);
    for (int64_t image = part_begin(c->batch, index, d->parts); image < part_begin(c->batch, index + 1, d->parts); image++) {
        float *dx = d->dx + image * c->height * c->width * c->ins;
        memset(dx, 0, (size_t)(c->height * c->width * c->ins) * sizeof(float));
        for (int64_t tile = 0; tile < c->tiles; tile++) {
            int64_t pixel0 = part_begin(c->pixels, tile, c->tiles), pixel1 = part_begin(c->pixels, tile + 1, c->tiles);
            MatmulOperand a = {.data = d->dy + (image * c->pixels + pixel0) * c->outs, .stride = c->outs};
            MatmulOperand b = {.data = d->packed, .stride = c->taps};
            matmul(columns, c->taps, a, b, pixel1 - pixel0, c->taps, c->outs, false);
            scatter_add(dx, columns, c, pixel0, pixel1);
        }
    }
}

static size_t conv2d_dx_workspace(const Graph *g, const Node *n) {
    Conv c = conv_of(n, out_shape(g, n, 0), in_shape(g, n, 0));
    return (size_t)(packed_floats(&c) + PARTS * columns_floats(&c)) * sizeof(float);
}

RUN(conv2d_dx) {
    InputGrad d = {.c = conv_of(call->node, call_out(call, 0), call_in(call, 0)), .dy = call->in[0], .dx = call->out[0],
                   .packed = call->work};
    d.columns = d.packed + packed_floats(&d.c);
    d.parts = MIN(d.c.batch, PARTS);
    pack_weights(d.packed, call->in[1], d.c.outs, d.c.ins, d.c.kernel * d.c.kernel);
    parallel_for((int)d.parts, input_grad_part, &d);
}
KERNEL(conv2d_dx, .workspace = conv2d_dx_workspace);

/* ---- gradient of the weights: dy^T columns, summed over chunks of pictures in order. Where weights are many, chunks
 * are few, and the output channels are cut instead. ---- */

#define SUMS_FLOATS 1048576 /* all chunks together */

typedef struct {
    Conv c;
    const float *dy, *x;
    float *dw, *db, *sums, *columns;
    int64_t chunks, out_parts;
} WeightGrad;

static WeightGrad weight_grad_cut(const Node *n, const Shape *dy, const Shape *x) {
    WeightGrad d = {.c = conv_of(n, x, dy)};
    d.chunks = MAX(1, MIN(MIN(d.c.batch, PARTS), SUMS_FLOATS / (d.c.outs * d.c.taps)));
    d.out_parts = MAX(1, MIN(CEIL_DIV(8, d.chunks), d.c.outs / COLUMNS_LEAST));
    return d;
}

/* sums of a chunk: (outs, taps), then outs for the bias */
static int64_t sum_floats(const WeightGrad *d) { return ROUND_UP(d->c.outs * d->c.taps + d->c.outs, 16); }

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    const Conv *c = &d->c;
    int64_t chunk = index / d->out_parts, out_part = index % d->out_parts;
    int64_t o0 = part_begin(c->outs, out_part, d->out_parts), o1 = part_begin(c->outs, out_part + 1, d->out_parts);
    float *sum = d->sums + chunk * sum_floats(d), *bias = sum + c->outs * c->taps;
    float *columns = d->columns + index * columns_floats(c);
    memset(bias + o0, 0, (size_t)(o1 - o0) * sizeof(float));
    bool first = true;
    for (int64_t image = part_begin(c->batch, chunk, d->chunks); image < part_begin(c->batch, chunk + 1, d->chunks); image++) {
        for (int64_t tile = 0; tile < c->tiles; tile++, first = false) {
            int64_t pixel0 = part_begin(c->pixels, tile, c->tiles), pixel1 = part_begin(c->pixels, tile + 1, c->tiles);
            const float *dy = d->dy + (image * c->pixels + pixel0) * c->outs;
            gather(columns, d->x + image * c->height * c->width * c->ins, c, pixel0, pixel1);
            MatmulOperand a = {.data = dy + o0, .stride = c->outs, .transposed = true};
            MatmulOperand b = {.data = columns, .stride = c->taps};
            matmul(sum + o0 * c->taps, c->taps, a, b, o1 - o0, c->taps, pixel1 - pixel0, !first);
            for (int64_t p = 0; p < pixel1 - pixel0; p++)
                for (int64_t o = o0; o < o1; o++) bias[o] += dy[p * c->outs + o];
        }
    }
}

/* One output channel: the chunks' sums in order, turned to the files' layout. */
static void weight_grad_sum(void *arg, int o, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    const Conv *c = &d->c;
    int64_t area = c->kernel * c->kernel;
    float *sum = d->sums + o * c->taps;
    for (int64_t chunk = 1; chunk < d->chunks; chunk++) {
        const float *more = sum + chunk * sum_floats(d);
        for (int64_t i = 0; i < c->taps; i++) sum[i] += more[i];
    }
    for (int64_t t = 0; d->dw && t < area; t++)
        for (int64_t i = 0; i < c->ins; i++) d->dw[o * c->taps + i * area + t] = sum[t * c->ins + i];
    if (!d->db) return;
    const float *bias = d->sums + c->outs * c->taps + o;
    d->db[o] = bias[0];
    for (int64_t chunk = 1; chunk < d->chunks; chunk++) d->db[o] += bias[chunk * sum_floats(d)];
}

static size_t conv2d_dw_workspace(const Graph *g, const Node *n) {
    WeightGrad d = weight_grad_cut(n, in_shape(g, n, 0), in_shape(g, n, 1));
    return (size_t)(d.chunks * sum_floats(&d) + d.chunks * d.out_parts * columns_floats(&d.c)) * sizeof(float);
}

RUN(conv2d_dw) {
    WeightGrad d = weight_grad_cut(call->node, call_in(call, 0), call_in(call, 1));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.columns = d.sums + d.chunks * sum_floats(&d);
    parallel_for((int)(d.chunks * d.out_parts), weight_grad_part, &d);
    parallel_for((int)d.c.outs, weight_grad_sum, &d);
}
KERNEL(conv2d_dw, .workspace = conv2d_dw_workspace);
