/* linear.c - matrix products on gemm.h's tiles. Forward and gradient of the input are one routine (product) on weights
 * packed from either side; the gradient of the weights is the one that reduces over rows. */
#include "backend/cpu/simd/gemm.h"
#include "backend/cpu/simd/math.h"

/* Parts that a product is cut into where its size allows it: enough for any number of threads that it can feed. */
#define PARTS 16
#define PART_ROWS 98        /* fewest rows worth a part of their own: below, columns are cut as well */
#define PART_FLOATS 131072  /* what a part reads of A again for every panel: half of an L2 cache */

static const float zeros[PANEL];

static const float *operand(const KernelCall *c, int i) { return i < c->node->n_in ? c->in[i] : NULL; }

/* y (rows, columns) = [x0 + gamma *] [gelu] (x (rows, k) B + bias) */
typedef struct {
    float *y;
    const float *x, *bias, *x0, *gamma;
    bool gelu;
    const float *panels;     /* B: panel p at p * k * PANEL, but for a last one with fewer columns: */
    const float *last_panel; /* NULL, or where that one is, padded */
    int64_t rows, k, columns;
    int64_t row_parts, column_parts;
} Product;

static void product_cut(Product *p) {
    int64_t panels = CEIL_DIV(p->columns, PANEL), by_cache = CEIL_DIV(p->rows * p->k, PART_FLOATS);
    int64_t by_rows = MIN(CEIL_DIV(p->rows, PART_ROWS), PARTS);
    p->row_parts = MIN(MAX(by_rows, by_cache), CEIL_DIV(p->rows, TILE_ROWS));
    p->column_parts = MIN(CEIL_DIV(PARTS, p->row_parts), panels);
}

/* What follows the sum, on a tile of y that is still in the cache. */
static void product_finish(const Product *p, int64_t row, int64_t column, int64_t rows, int64_t columns) {
    for (int64_t m = row; m < row + rows; m++) {
        float *y = p->y + m * p->columns + column;
        const float *x0 = p->x0 ? p->x0 + m * p->columns + column : NULL;
        for (int64_t j = 0; j < columns; j += VL) {
            int64_t n = MIN(columns - j, VL);
            vf v = n == VL ? vf_load(y + j) : vf_load_part(y + j, n);
            if (p->gelu) v = vf_gelu(v);
            if (x0 && n == VL) v = vf_load(x0 + j) + vf_load(p->gamma + column + j) * v;
            if (x0 && n < VL) v = vf_load_part(x0 + j, n) + vf_load_part(p->gamma + column + j, n) * v;
            if (n == VL)
                vf_store(y + j, v);
            else
                vf_store_part(y + j, v, n);
        }
    }
}

static void product_part(void *arg, int index, int thread) {
    (void)thread;
    const Product *p = arg;
    int64_t row_part = index / p->column_parts, column_part = index % p->column_parts;
    int64_t tiles = CEIL_DIV(p->rows, TILE_ROWS), panels = CEIL_DIV(p->columns, PANEL);
    int64_t row0 = part_begin(tiles, row_part, p->row_parts) * TILE_ROWS;
    int64_t row1 = MIN(part_begin(tiles, row_part + 1, p->row_parts) * TILE_ROWS, p->rows);
    int64_t panel0 = part_begin(panels, column_part, p->column_parts);
    int64_t panel1 = part_begin(panels, column_part + 1, p->column_parts);
    tiles = CEIL_DIV(row1 - row0, TILE_ROWS);
    for (int64_t panel = panel0; panel < panel1; panel++) {
        int64_t column = panel * PANEL, columns = MIN(p->columns - column, PANEL);
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = row0 + part_begin(row1 - row0, i, tiles), end = row0 + part_begin(row1 - row0, i + 1, tiles);
            gemm_tile(&(Gemm){.c = p->y + row * p->columns + column,
                              .c_row = p->columns,
                              .start = p->bias ? p->bias + column : zeros,
                              .a = p->x + row * p->k,
                              .a_row = p->k,
                              .a_k = 1,
                              .b = columns < PANEL && p->last_panel ? p->last_panel : p->panels + column * p->k,
                              .k = p->k,
                              .taps = 1},
                      end - row, columns);
            if (p->gelu || p->x0) product_finish(p, row, column, end - row, columns);
        }
    }
}

static void product_run(Product *p) {
    product_cut(p);
    parallel_for((int)(p->row_parts * p->column_parts), product_part, p);
}

/* Packing: panel p of B (k, columns) at p * k * PANEL of the work space. */
typedef struct {
    float *panels;
    const float *b;
    int64_t b_k, b_column, k, columns;
} Packing;

static void pack_panel(void *arg, int index, int thread) {
    (void)thread;
    const Packing *p = arg;
    int64_t column = (int64_t)index * PANEL;
    gemm_pack(p->panels + column * p->k, p->b + column * p->b_column, p->b_k, p->b_column, p->k,
              MIN(p->columns - column, PANEL));
}

static const float *pack(void *work, const float *b, int64_t b_k, int64_t b_column, int64_t k, int64_t columns) {
    Packing p = {.panels = work, .b = b, .b_k = b_k, .b_column = b_column, .k = k, .columns = columns};
    parallel_for((int)CEIL_DIV(columns, PANEL), pack_panel, &p);
    return work;
}

static size_t packed_bytes(int64_t k, int64_t columns) {
    return (size_t)(k * ROUND_UP(columns, PANEL)) * sizeof(float);
}

/* linear and linear_dx: panels run over the output's channels */
static size_t product_workspace(const Graph *g, const Node *n) {
    return packed_bytes(shape_last(in_shape(g, n, 0)), shape_last(out_shape(g, n, 0)));
}

static Product product_of(const KernelCall *c) {
    return (Product){.y = c->out[0], .x = c->in[0], .rows = shape_rows(call_in(c, 0)), .k = shape_last(call_in(c, 0)),
                     .columns = shape_last(call_out(c, 0))};
}

RUN(linear) {
    Product p = product_of(call);
    p.bias = operand(call, 2);
    p.gelu = call->node->attr.linear.gelu;
    p.panels = pack(call->work, call->in[1], 1, p.k, p.k, p.columns);
    product_run(&p);
}

RUN(linear_dx) {
    Product p = product_of(call);
    p.panels = pack(call->work, call->in[1], p.columns, 1, p.k, p.columns);
    product_run(&p);
}

RUN(linear_packed) {
    Product p = product_of(call);
    p.bias = operand(call, 2);
    p.x0 = operand(call, 3);
    p.gamma = operand(call, 4);
    p.gelu = call->node->attr.linear.gelu;
    p.panels = pack(call->work, call->in[1], p.columns, 1, p.k, p.columns);
    product_run(&p);
}

static void transpose_rows(void *arg, int index, int thread) {
    (void)thread;
    const KernelCall *call = arg;
    const float *w = call->in[0];
    float *wt = call->out[0];
    int64_t outs = call_in(call, 0)->dim[0], ins = call_in(call, 0)->dim[1];
    for (int64_t i = part_begin(ins, index, PARTS); i < part_begin(ins, index + 1, PARTS); i++)
        for (int64_t o = 0; o < outs; o++) wt[i * outs + o] = w[o * ins + i];
}

RUN(transpose) { parallel_for(PARTS, transpose_rows, (void *)call); }

/* dw (outs, ins) = dy^T x, db = column sums of dy. Rows are cut into chunks with a sum of their own where dw is small,
 * and the chunks' sums are added in order; columns of dw are cut besides. */
#define CHUNK_ROWS 512      /* fewest rows worth a sum of their own */
#define CHUNKS_FLOATS 524288 /* all sums together */
#define SLOT_FLOATS 16384   /* rows of x that are packed at a time: shared with L2 by the rows of dy */

typedef struct {
    const float *dy, *x;
    float *dw, *db;
    float *sums;  /* [chunks] (outs * ins + outs), when there is more than one */
    float *slots; /* [chunks * column_parts] packed rows of x */
    int64_t rows, outs, ins;
    int64_t chunks, column_parts, slot_rows, slot_floats;
} WeightGrad;

static WeightGrad weight_grad_cut(int64_t rows, int64_t outs, int64_t ins) {
    WeightGrad d = {.rows = rows, .outs = outs, .ins = ins};
    int64_t panels = CEIL_DIV(ins, PANEL);
    d.chunks = MAX(1, MIN(MIN(rows / CHUNK_ROWS, PARTS), CHUNKS_FLOATS / (outs * ins + outs)));
    d.column_parts = MIN(CEIL_DIV(PARTS, d.chunks), panels);
    int64_t part_columns = CEIL_DIV(panels, d.column_parts) * PANEL;
    d.slot_rows = MAX(64, SLOT_FLOATS / part_columns);
    d.slot_floats = d.slot_rows * part_columns;
    return d;
}

/* rows of dy and x, columns of x: sum (outs, ins) += dy^T x. slot: slot_rows rows at least. */
static void add_outer(const WeightGrad *d, float *sum, float *slot, int64_t row0, int64_t row1, int64_t panel0,
                      int64_t panel1) {
    int64_t k = row1 - row0, tiles = CEIL_DIV(d->outs, TILE_ROWS);
    for (int64_t p = panel0; p < panel1; p++)
        gemm_pack(slot + (p - panel0) * k * PANEL, d->x + row0 * d->ins + p * PANEL, d->ins, 1, k,
                  MIN(d->ins - p * PANEL, PANEL));
    for (int64_t i = 0; i < tiles; i++) {
        int64_t o = part_begin(d->outs, i, tiles), end = part_begin(d->outs, i + 1, tiles);
        for (int64_t p = panel0; p < panel1; p++) {
            float *c = sum + o * d->ins + p * PANEL;
            gemm_tile(&(Gemm){.c = c,
                              .c_row = d->ins,
                              .start = c,
                              .start_row = d->ins,
                              .a = d->dy + row0 * d->outs + o,
                              .a_row = 1,
                              .a_k = d->outs,
                              .b = slot + (p - panel0) * k * PANEL,
                              .k = k,
                              .taps = 1},
                      end - o, MIN(d->ins - p * PANEL, PANEL));
        }
    }
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t chunk = index / d->column_parts, part = index % d->column_parts;
    int64_t row0 = part_begin(d->rows, chunk, d->chunks), row1 = part_begin(d->rows, chunk + 1, d->chunks);
    float *dw = d->chunks > 1 ? d->sums + chunk * (d->outs * d->ins + d->outs) : d->dw;
    float *db = d->chunks > 1 ? dw + d->outs * d->ins : d->db;
    if (d->db) { /* this part's share of the columns of dy */
        int64_t o0 = part_begin(d->outs, part, d->column_parts), o1 = part_begin(d->outs, part + 1, d->column_parts);
        memset(db + o0, 0, (size_t)(o1 - o0) * sizeof(float));
        for (int64_t r = row0; r < row1; r++)
            for (int64_t o = o0; o < o1; o++) db[o] += d->dy[r * d->outs + o];
    }
    if (!d->dw) return;
    int64_t panels = CEIL_DIV(d->ins, PANEL);
    int64_t panel0 = part_begin(panels, part, d->column_parts), panel1 = part_begin(panels, part + 1, d->column_parts);
    size_t bytes = (size_t)(MIN(panel1 * PANEL, d->ins) - panel0 * PANEL) * sizeof(float);
    for (int64_t o = 0; o < d->outs; o++) memset(dw + o * d->ins + panel0 * PANEL, 0, bytes);
    for (int64_t r = row0; r < row1; r += d->slot_rows)
        add_outer(d, dw, d->slots + index * d->slot_floats, r, MIN(r + d->slot_rows, row1), panel0, panel1);
}

static void add_chunks(float *out, const WeightGrad *d, int64_t first, int64_t begin, int64_t end) {
    int64_t stride = d->outs * d->ins + d->outs;
    for (int64_t i = begin; i < end; i++) {
        float sum = d->sums[first + i];
        for (int64_t c = 1; c < d->chunks; c++) sum += d->sums[c * stride + first + i];
        out[i] = sum;
    }
}

static void weight_grad_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t count = d->outs * d->ins;
    if (d->dw) add_chunks(d->dw, d, 0, part_begin(count, index, PARTS), part_begin(count, index + 1, PARTS));
    if (d->db && index == 0) add_chunks(d->db, d, count, 0, d->outs);
}

static size_t linear_dw_workspace(const Graph *g, const Node *n) {
    const Shape *dy = in_shape(g, n, 0), *x = in_shape(g, n, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    int64_t sums = d.chunks > 1 ? d.chunks * (d.outs * d.ins + d.outs) : 0;
    return (size_t)(ROUND_UP(sums, 16) + d.chunks * d.column_parts * d.slot_floats) * sizeof(float);
}

RUN(linear_dw) {
    const Shape *dy = call_in(call, 0), *x = call_in(call, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.slots = d.sums + (d.chunks > 1 ? ROUND_UP(d.chunks * (d.outs * d.ins + d.outs), 16) : 0);
    parallel_for((int)(d.chunks * d.column_parts), weight_grad_part, &d);
    if (d.chunks > 1) parallel_for(PARTS, weight_grad_sum, &d);
}

KERNEL(linear, .workspace = product_workspace);
KERNEL(linear_dx, .workspace = product_workspace);
KERNEL(linear_packed, .workspace = product_workspace);
KERNEL(linear_dw, .workspace = linear_dw_workspace);
KERNEL(transpose);
