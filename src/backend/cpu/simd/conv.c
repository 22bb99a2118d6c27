/* conv.c - dense convolutions: work cut by shape alone, each piece a convolution of the library's in one thread.
 *
 * Where the weights are smaller than a picture, pieces are pictures or bands of their rows, and the weights are turned
 * into the library's order once. Where they are larger, pieces are slices of the channels, whoever computes a slice
 * turns its weights, and the slice's channels are copied between the pictures and a tile without gaps. */
#include <stdlib.h>

#include "backend/cpu/convolution.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/simd/math.h"

#define PARTS CONVOLUTION_SLOTS
#define SLICE 32            /* channels */
#define BAND_FLOATS 65536   /* of a band of y: GELU finds it in the cache */
#define SUMS_FLOATS 1048576 /* of all sums of a weight gradient together */

typedef struct {
    ConvolutionKind kind;
    ConvolutionSize whole, piece;
    Convolution *library;
    int64_t slices; /* of the channels of y, or of x where its gradient is wanted */
    int64_t bands;  /* of the rows of y */
    int64_t chunks; /* of the batch, whose weight gradients are summed in order */
    /* floats of working memory; a slot has scratch, a tile, and packed weights of a slice */
    int64_t packed, scratch, tile, slot;
    int slots;
} Cut;

static Cut cut_of(ConvolutionKind kind, const Node *n, const Shape *x, const Shape *y) {
    Cut c = {.kind = kind, .slices = 1, .bands = 1, .chunks = 1};
    c.whole = (ConvolutionSize){.batch = x->dim[0], .height = x->dim[1], .width = x->dim[2], .ins = x->dim[3],
                                .out_height = y->dim[1], .out_width = y->dim[2], .outs = y->dim[3],
                                .kernel = n->attr.conv.kernel, .stride = n->attr.conv.stride,
                                .pad_rows = n->attr.conv.pad, .pad_columns = n->attr.conv.pad, .filter_ins = x->dim[3]};
    c.piece = c.whole;
    c.piece.batch = 1;
    return c;
}

static int64_t x_floats(const ConvolutionSize *s) { return s->height * s->width * s->ins; }
static int64_t y_floats(const ConvolutionSize *s) { return s->out_height * s->out_width * s->outs; }
static int64_t w_floats(const ConvolutionSize *s) { return s->outs * s->ins * s->kernel * s->kernel; }

/* The largest divisor of count that is at most `most`, and at least 1. */
static int64_t divisor(int64_t count, int64_t most) {
    int64_t d = MAX(MIN(count, most), 1);
    while (count % d) d--;
    return d;
}

static bool can_slice(int64_t channels) { return channels > SLICE && channels % SLICE == 0; }

static void cut_bands(Cut *c) {
    c->bands = divisor(c->whole.out_height, MAX(CEIL_DIV(PARTS, c->whole.batch), y_floats(&c->whole) / BAND_FLOATS));
    if (c->bands == 1) return;
    ConvolutionSize *s = &c->piece;
    s->out_height /= c->bands;
    s->height = (s->out_height - 1) * s->stride + s->kernel;
    s->pad_rows = 0;
    c->tile = x_floats(s);
}

/* Makes the library's convolution of a piece, and *prepared of the cut. */
static bool cut_finish(Cut *c, Backend *backend, void **prepared, Err *err) {
    if (!cpu_convolution_new(&c->library, cpu_library(backend), c->kind, &c->piece, err)) return false;
    c->packed = ROUND_UP(cpu_convolution_packed_floats(c->library), 16);
    c->scratch = ROUND_UP(cpu_convolution_scratch_floats(c->library), 16);
    c->tile = ROUND_UP(c->tile, 16);
    c->slot = c->scratch + c->tile + (c->slices > 1 ? c->packed : 0);
    c->slots = MIN(cpu_threads(backend), PARTS);
    Cut *kept = *prepared = mem_zalloc(1, sizeof *kept);
    *kept = *c;
    return true;
}

static void cut_free(void *prepared) {
    Cut *c = prepared;
    cpu_convolution_free(c->library);
    free(c);
}

/* packed weights that all share, or sums; then the slots */
static int64_t shared_floats(const Cut *c) { return c->slices > 1 ? 0 : c->chunks * c->packed; }

static size_t cut_work(const void *prepared) {
    const Cut *c = prepared;
    return (size_t)(shared_floats(c) + c->slots * c->slot) * sizeof(float);
}

/* Which slot a part may use: its thread's, or its own where there are more threads than slots. How many threads there
 * are, the thread that starts a loop knows. */
static int slot_of(int threads, int part, int thread) { return threads <= PARTS ? thread : part; }

/* to = [gelu] from, rows of channels; they may be the same */
static void copy_rows(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t channels,
                      bool gelu) {
    for (int64_t r = 0; r < rows; r++, to += to_row, from += from_row) {
        for (int64_t j = 0; j < channels; j += VL) {
            int64_t n = MIN(channels - j, VL);
            vf v = n == VL ? vf_load(from + j) : vf_load_part(from + j, n);
            if (gelu) v = vf_gelu(v);
            if (n == VL)
                vf_store(to + j, v);
            else
                vf_store_part(to + j, v, n);
        }
    }
}

/* ---- y from x, and dx from dy ---- */

typedef struct {
    const Cut *cut;
    const float *in, *w, *bias;
    float *out, *packed, *slots;
    bool gelu;
    int threads;
} Product;

/* The rows of x under a band of y: where they lie, or, at the picture's borders, copied between rows of zeros. */
static const float *band_input(const Cut *c, float *tile, const float *x, int64_t band) {
    const ConvolutionSize *s = &c->piece;
    int64_t row_floats = s->width * s->ins, top = band * s->out_height * s->stride - c->whole.pad_rows;
    if (top >= 0 && top + s->height <= c->whole.height) return x + top * row_floats;
    for (int64_t row = 0; row < s->height; row++, tile += row_floats) {
        if (top + row >= 0 && top + row < c->whole.height)
            memcpy(tile, x + (top + row) * row_floats, (size_t)row_floats * sizeof(float));
        else
            memset(tile, 0, (size_t)row_floats * sizeof(float));
    }
    return tile - s->height * row_floats;
}

static void y_piece(const Product *p, int slot, const float *packed, int64_t slice, int64_t image, int64_t band) {
    const Cut *c = p->cut;
    float *scratch = p->slots + slot * c->slot, *tile = scratch + c->scratch;
    const float *x = p->in + image * x_floats(&c->whole);
    int64_t pixels = c->piece.out_height * c->piece.out_width, outs = c->whole.outs;
    float *out = p->out + ((image * c->bands + band) * pixels * outs) + slice * SLICE;
    float *y = c->slices > 1 ? tile : out;
    if (c->bands > 1) x = band_input(c, tile, x, band);
    cpu_convolution_run(c->library, slot, x, packed, y, p->bias + slice * SLICE, scratch);
    if (p->gelu || y != out) copy_rows(out, outs, y, c->piece.outs, pixels, c->piece.outs, p->gelu);
}

static void dx_piece(const Product *p, int slot, const float *packed, int64_t slice, int64_t image) {
    const Cut *c = p->cut;
    float *scratch = p->slots + slot * c->slot, *tile = scratch + c->scratch;
    float *out = p->out + image * x_floats(&c->whole) + slice * SLICE, *dx = c->slices > 1 ? tile : out;
    cpu_convolution_run(c->library, slot, dx, packed, p->in + image * y_floats(&c->whole), NULL, scratch);
    if (dx != out) copy_rows(out, c->whole.ins, dx, SLICE, c->whole.height * c->whole.width, SLICE, false);
}

static int64_t pieces(const Cut *c) { return c->slices * c->whole.batch * c->bands; }
static int64_t parts(const Cut *c) { return MIN(pieces(c), PARTS); }

static void product_part(void *arg, int index, int thread) {
    const Product *p = arg;
    const Cut *c = p->cut;
    int slot = slot_of(p->threads, index, thread);
    float *packed = c->slices > 1 ? p->slots + slot * c->slot + c->scratch + c->tile : p->packed;
    int64_t turned = c->slices > 1 ? -1 : 0, area = c->whole.kernel * c->whole.kernel;
    int64_t slice_floats = SLICE * area * (c->kind == CONVOLUTION_Y ? c->whole.ins : 1);
    for (int64_t i = part_begin(pieces(c), index, parts(c)); i < part_begin(pieces(c), index + 1, parts(c)); i++) {
        int64_t band = i % c->bands, image = i / c->bands % c->whole.batch, slice = i / c->bands / c->whole.batch;
        if (slice != turned) cpu_convolution_pack(c->library, slot, packed, p->w + slice * slice_floats);
        turned = slice;
        if (c->kind == CONVOLUTION_Y)
            y_piece(p, slot, packed, slice, image, band);
        else
            dx_piece(p, slot, packed, slice, image);
    }
}

static void product_run(const KernelCall *call, const float *bias, bool gelu) {
    const Cut *c = call->prepared;
    Product p = {.cut = c, .in = call->in[0], .w = call->in[1], .bias = bias, .out = call->out[0], .packed = call->work,
                 .gelu = gelu, .threads = parallel_threads()};
    p.slots = p.packed + shared_floats(c);
    if (c->slices == 1) cpu_convolution_pack(c->library, 0, p.packed, p.w);
    cpu_library_for(cpu_convolution_is_gemm(c->library), (int)parts(c), product_part, &p);
}

static bool prepare_y(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Cut c = cut_of(CONVOLUTION_Y, n, in_shape(g, n, 0), out_shape(g, n, 0));
    c.piece.channels_last = n->op == OP_conv2d_packed;
    if (w_floats(&c.whole) > x_floats(&c.whole) && can_slice(c.whole.outs)) {
        c.slices = c.whole.outs / SLICE;
        c.piece.outs = SLICE;
        c.tile = y_floats(&c.piece);
    } else {
        cut_bands(&c);
    }
    return cut_finish(&c, backend, prepared, err);
}

RUN(conv2d) { product_run(call, call->in[2], false); }
KERNEL(conv2d, .prepare = prepare_y, .prepared_workspace = cut_work, .release = cut_free);

RUN(conv2d_packed) { product_run(call, call->in[2], call->node->attr.conv.gelu); }
KERNEL(conv2d_packed, .prepare = prepare_y, .prepared_workspace = cut_work, .release = cut_free);

/* Filters in the order of a channels-last window, once for all runs. */
static void pack_filter(void *arg, int o, int thread) {
    (void)thread;
    const KernelCall *call = arg;
    const Shape *packed = call_out(call, 0);
    int64_t area = packed->dim[1] * packed->dim[2], ins = packed->dim[3];
    float *to = (float *)call->out[0] + o * area * ins;
    const float *w = (const float *)call->in[0] + o * area * ins;
    for (int64_t t = 0; t < area; t++)
        for (int64_t i = 0; i < ins; i++) to[t * ins + i] = w[i * area + t];
}

RUN(pack_conv) { parallel_for((int)call_in(call, 0)->dim[0], pack_filter, (void *)call); }
KERNEL(pack_conv);

static bool prepare_dx(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Cut c = cut_of(CONVOLUTION_DX, n, out_shape(g, n, 0), in_shape(g, n, 0));
    if (w_floats(&c.whole) > x_floats(&c.whole) && can_slice(c.whole.ins)) {
        c.slices = c.whole.ins / SLICE;
        c.piece.ins = SLICE;
        c.tile = x_floats(&c.piece);
    }
    return cut_finish(&c, backend, prepared, err);
}

RUN(conv2d_dx) { product_run(call, NULL, false); }
KERNEL(conv2d_dx, .prepare = prepare_dx, .prepared_workspace = cut_work, .release = cut_free);

/* ---- dw from dy and x ---- */

typedef struct {
    const Cut *cut;
    const float *dy, *x;
    float *dw, *db, *sums, *slots;
    int threads;
} WeightGrad;

static bool prepare_dw(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Cut c = cut_of(CONVOLUTION_DW, n, in_shape(g, n, 1), in_shape(g, n, 0));
    c.chunks = divisor(c.whole.batch, MIN(PARTS, SUMS_FLOATS / w_floats(&c.whole)));
    if ((w_floats(&c.whole) > x_floats(&c.whole) || c.chunks == 1) && can_slice(c.whole.outs)) {
        c.chunks = 1;
        c.slices = c.whole.outs / SLICE;
        c.piece.outs = SLICE;
        c.tile = c.whole.batch * y_floats(&c.piece);
    }
    c.piece.batch = c.whole.batch / c.chunks;
    return cut_finish(&c, backend, prepared, err);
}

static void dw_chunk(void *arg, int index, int thread) {
    const WeightGrad *d = arg;
    const Cut *c = d->cut;
    int slot = slot_of(d->threads, index, thread);
    int64_t image = index * c->piece.batch;
    cpu_convolution_run(c->library, slot, d->x + image * x_floats(&c->whole), d->sums + index * c->packed,
                    d->dy + image * y_floats(&c->whole), NULL, d->slots + slot * c->slot);
}

static void dw_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    const Cut *c = d->cut;
    int64_t begin = part_begin(c->packed, index, PARTS), end = part_begin(c->packed, index + 1, PARTS);
    for (int64_t chunk = 1; chunk < c->chunks; chunk++)
        for (int64_t i = begin; i < end; i++) d->sums[i] += d->sums[chunk * c->packed + i];
}

static void dw_slices(void *arg, int part, int thread) {
    const WeightGrad *d = arg;
    const Cut *c = d->cut;
    int slot = slot_of(d->threads, part, thread);
    float *scratch = d->slots + slot * c->slot, *tile = scratch + c->scratch, *packed = tile + c->tile;
    int64_t rows = c->whole.batch * c->whole.out_height * c->whole.out_width, count = MIN(c->slices, PARTS);
    for (int64_t slice = part_begin(c->slices, part, count); slice < part_begin(c->slices, part + 1, count); slice++) {
        copy_rows(tile, SLICE, d->dy + slice * SLICE, c->whole.outs, rows, SLICE, false);
        cpu_convolution_run(c->library, slot, d->x, packed, tile, NULL, scratch);
        cpu_convolution_unpack(c->library, slot, d->dw + slice * w_floats(&c->piece), packed);
    }
}

/* db of SLICE channels: sums of blocks of rows, so that rounding errors stay small */
static void db_slice(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    const ConvolutionSize *s = &d->cut->whole;
    int64_t rows = s->batch * s->out_height * s->out_width, first = index * SLICE, count = MIN(SLICE, s->outs - first);
    memset(d->db + first, 0, (size_t)count * sizeof(float));
    for (int64_t block = 0; block < rows; block += 256) {
        float sum[SLICE] = {0};
        for (int64_t r = block; r < MIN(block + 256, rows); r++)
            for (int64_t o = 0; o < count; o++) sum[o] += d->dy[r * s->outs + first + o];
        for (int64_t o = 0; o < count; o++) d->db[first + o] += sum[o];
    }
}

RUN(conv2d_dw) {
    const Cut *c = call->prepared;
    WeightGrad d = {.cut = c, .dy = call->in[0], .x = call->in[1], .dw = call->out[0], .db = call->out[1],
                    .sums = call->work, .threads = parallel_threads()};
    d.slots = d.sums + shared_floats(c);
    if (d.db) parallel_for((int)CEIL_DIV(c->whole.outs, SLICE), db_slice, &d);
    if (!d.dw) return;
    bool gemm = cpu_convolution_is_gemm(c->library);
    if (c->slices > 1) {
        cpu_library_for(gemm, (int)MIN(c->slices, PARTS), dw_slices, &d);
        return;
    }
    cpu_library_for(gemm, (int)c->chunks, dw_chunk, &d);
    if (c->chunks > 1) parallel_for(PARTS, dw_sum, &d);
    cpu_convolution_unpack(c->library, 0, d.dw, d.sums);
}
KERNEL(conv2d_dw, .prepare = prepare_dw, .prepared_workspace = cut_work, .release = cut_free);
