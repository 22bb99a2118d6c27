/* linear.c - matrix products on gemm.h's tiles. Forward and gradient of the input are one routine (product) on weights
 * packed from either side; the gradient of the weights is the one that reduces over rows. */
#include "backend/cpu/simd/gemm.h"

/* Parts that a product is cut into where its size allows it: enough for any number of threads that it can feed. */
#define PARTS 16
#define PART_ROWS 98        /* fewest rows worth a part of their own: below, columns are cut as well */
#define PART_FLOATS 131072  /* what a part reads again and again, of A or B: half of an L2 cache */

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

/* Rows [row, end) of y, at most TILE_ROWS; one panel of its columns. */
static void product_tile(const Product *p, int64_t row, int64_t end, int64_t panel) {
    int64_t column = panel * PANEL, columns = MIN(p->columns - column, PANEL);
    gemm_tile(&(Gemm){.c = p->y + row * p->columns + column,
                      .c_row = p->columns,
                      .start = p->bias ? p->bias + column : zeros,
                      .a = p->x + row * p->k,
                      .a_row = p->k,
                      .a_k = 1,
                      .b = columns < PANEL && p->last_panel ? p->last_panel : p->panels + column * p->k,
                      .k = p->k,
                      .taps = 1,
                      .gelu = p->gelu,
                      .residual = p->x0 ? p->x0 + row * p->columns + column : NULL,
                      .residual_row = p->columns,
                      .gamma = p->x0 ? p->gamma + column : NULL},
              end - row, columns);
}

static void product_part(void *arg, int index, int thread) {
    (void)thread;
    const Product *p = arg;
    int64_t row_part = index / p->column_parts, column_part = index % p->column_parts;
    int64_t tiles = CEIL_DIV(p->rows, TILE_ROWS), panels = CEIL_DIV(p->columns, PANEL);
    int64_t row0 = part_begin(tiles, row_part, p->row_parts) * TILE_ROWS;
    int64_t rows = MIN(part_begin(tiles, row_part + 1, p->row_parts) * TILE_ROWS, p->rows) - row0;
    int64_t panel0 = part_begin(panels, column_part, p->column_parts);
    panels = part_begin(panels, column_part + 1, p->column_parts) - panel0;
    /* More rows than a set of the L1 cache has ways would displace each other where they lie 4 kB apart. */
    tiles = CEIL_DIV(rows, p->k % 1024 == 0 ? MIN(7, TILE_ROWS) : TILE_ROWS);
    /* The smaller side is read again and again and stays in L2: B where it fits, else the rows of A. */
    bool rows_first = panels * PANEL * p->k <= PART_FLOATS;
    for (int64_t n = 0; n < tiles * panels; n++) {
        int64_t tile = rows_first ? n / panels : n % tiles, panel = rows_first ? n % panels : n / tiles;
        product_tile(p, row0 + part_begin(rows, tile, tiles), row0 + part_begin(rows, tile + 1, tiles),
                     panel0 + panel);
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
    bool by_columns; /* b is (columns, k), else (k, columns) */
    int64_t k, columns;
} Packing;

static void pack_panel(void *arg, int index, int thread) {
    (void)thread;
    const Packing *p = arg;
    int64_t column = (int64_t)index * PANEL, columns = MIN(p->columns - column, PANEL);
    if (p->by_columns)
        gemm_pack_rows(p->panels + column * p->k, p->b + column * p->k, p->k, p->k, 1, columns);
    else
        gemm_pack(p->panels + column * p->k, p->b + column, p->columns, 1, p->k, columns);
}

static const float *pack(void *work, const float *b, bool by_columns, int64_t k, int64_t columns) {
    Packing p = {.panels = work, .b = b, .by_columns = by_columns, .k = k, .columns = columns};
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
    p.panels = pack(call->work, call->in[1], true, p.k, p.columns);
    product_run(&p);
}

RUN(linear_dx) {
    Product p = product_of(call);
    p.panels = pack(call->work, call->in[1], false, p.k, p.columns);
    product_run(&p);
}

/* the last panel of w^T, padded, where it has fewer columns */
static size_t linear_packed_workspace(const Graph *g, const Node *n) {
    return shape_last(out_shape(g, n, 0)) % PANEL ? packed_bytes(shape_last(in_shape(g, n, 0)), PANEL) : 0;
}

RUN(linear_packed) {
    Product p = product_of(call);
    p.bias = operand(call, 2);
    p.x0 = operand(call, 3);
    p.gamma = operand(call, 4);
    p.gelu = call->node->attr.linear.gelu;
    p.panels = call->in[1];
    int64_t rest = p.columns % PANEL;
    if (rest) {
        gemm_pack(call->work, p.panels + (p.columns - rest) * p.k, rest, 1, p.k, rest);
        p.last_panel = call->work;
    }
    product_run(&p);
}

static void transpose_panel(void *arg, int index, int thread) {
    (void)thread;
    const KernelCall *call = arg;
    int64_t outs = call_in(call, 0)->dim[0], ins = call_in(call, 0)->dim[1], first = (int64_t)index * PANEL;
    int64_t width = MIN(outs - first, PANEL);
    const float *w = (const float *)call->in[0] + first * ins;
    float *wt = (float *)call->out[0] + first * ins;
    if (width == PANEL) {
        gemm_pack_rows(wt, w, ins, ins, 1, PANEL);
        return;
    }
    for (int64_t i = 0; i < ins; i++)
        for (int64_t o = 0; o < width; o++) wt[i * width + o] = w[o * ins + i];
}

RUN(transpose) { parallel_for((int)CEIL_DIV(call_in(call, 0)->dim[0], PANEL), transpose_panel, (void *)call); }

/* dw (outs, ins) = dy^T x, db = column sums of dy. Rows are cut into chunks with a sum of their own where dw is small,
 * and the chunks' sums are added in order; dw is cut into rectangles besides. */
#define CHUNK_ROWS 512       /* fewest rows worth a sum of their own */
#define CHUNKS_FLOATS 524288 /* all sums together */
#define SLOT_FLOATS 32768    /* rows of x that are packed at a time */

typedef struct {
    const float *dy, *x;
    float *dw, *db;
    float *sums;  /* [chunks] (outs * ins + outs), when there is more than one */
    float *slots; /* [parts] (slot_rows, part_columns): packed rows of x */
    int64_t rows, outs, ins;
    int64_t chunks, out_parts, column_parts, slot_rows, part_columns;
} WeightGrad;

static WeightGrad weight_grad_cut(int64_t rows, int64_t outs, int64_t ins) {
    WeightGrad d = {.rows = rows, .outs = outs, .ins = ins, .column_parts = 1};
    int64_t panels = CEIL_DIV(ins, PANEL);
    d.chunks = MAX(1, MIN(MIN(rows / CHUNK_ROWS, PARTS), CHUNKS_FLOATS / (outs * ins + outs)));
    int64_t rectangles = CEIL_DIV(PARTS, d.chunks);
    while (4 * d.column_parts * d.column_parts <= rectangles) d.column_parts *= 2;
    d.column_parts = MIN(d.column_parts, panels);
    d.out_parts = MIN(CEIL_DIV(rectangles, d.column_parts), outs);
    d.part_columns = CEIL_DIV(panels, d.column_parts) * PANEL;
    d.slot_rows = MAX(64, MIN(256, SLOT_FLOATS / d.part_columns));
    return d;
}

static int64_t slot_floats(const WeightGrad *d) { return d->slot_rows * d->part_columns; }
static int64_t sum_floats(const WeightGrad *d) { return ROUND_UP(d->outs * d->ins + d->outs, 16); }

/* Rows [row0, row1) of dy and x: adds to the rectangle [o0, o1) x [panel0, panel1) of sum (outs, ins). */
static void add_outer(const WeightGrad *d, float *sum, float *slot, int64_t row0, int64_t row1, int64_t o0, int64_t o1,
                      int64_t panel0, int64_t panel1) {
    int64_t k = row1 - row0, tiles = CEIL_DIV(o1 - o0, TILE_ROWS);
    int64_t full = MIN(panel1, d->ins / PANEL);
    for (int64_t r = 0; r < k; r++)
        for (int64_t p = panel0; p < full; p++)
            memcpy(slot + ((p - panel0) * k + r) * PANEL, d->x + (row0 + r) * d->ins + p * PANEL,
                   PANEL * sizeof(float));
    for (int64_t p = full; p < panel1; p++)
        gemm_pack(slot + (p - panel0) * k * PANEL, d->x + row0 * d->ins + p * PANEL, d->ins, 1, k,
                  MIN(d->ins - p * PANEL, PANEL));
    for (int64_t i = 0; i < tiles; i++) {
        int64_t o = o0 + part_begin(o1 - o0, i, tiles), end = o0 + part_begin(o1 - o0, i + 1, tiles);
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

static void add_columns(float *db, const float *dy, int64_t dy_row, int64_t rows, int64_t columns) {
    memset(db, 0, (size_t)columns * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < columns; o++) db[o] += dy[r * dy_row + o];
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t chunk = index / (d->out_parts * d->column_parts), out_part = index / d->column_parts % d->out_parts;
    int64_t column_part = index % d->column_parts;
    int64_t row0 = part_begin(d->rows, chunk, d->chunks), row1 = part_begin(d->rows, chunk + 1, d->chunks);
    int64_t o0 = part_begin(d->outs, out_part, d->out_parts), o1 = part_begin(d->outs, out_part + 1, d->out_parts);
    float *dw = d->chunks > 1 ? d->sums + chunk * sum_floats(d) : d->dw;
    float *db = d->chunks > 1 ? dw + d->outs * d->ins : d->db;
    if (d->db && column_part == 0)
        add_columns(db + o0, d->dy + row0 * d->outs + o0, d->outs, row1 - row0, o1 - o0);
    if (!d->dw) return;
    int64_t panels = CEIL_DIV(d->ins, PANEL), panel0 = part_begin(panels, column_part, d->column_parts);
    int64_t panel1 = part_begin(panels, column_part + 1, d->column_parts);
    size_t bytes = (size_t)(MIN(panel1 * PANEL, d->ins) - panel0 * PANEL) * sizeof(float);
    for (int64_t o = o0; o < o1; o++) memset(dw + o * d->ins + panel0 * PANEL, 0, bytes);
    for (int64_t r = row0; r < row1; r += d->slot_rows)
        add_outer(d, dw, d->slots + index * slot_floats(d), r, MIN(r + d->slot_rows, row1), o0, o1, panel0, panel1);
}

/* Elements [begin, end) of all chunks' sums, from `first` on, into out. */
static void add_chunks(float *out, const WeightGrad *d, int64_t first, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = d->sums[first + i];
    for (int64_t c = 1; c < d->chunks; c++)
        for (int64_t i = begin; i < end; i++) out[i] += d->sums[c * sum_floats(d) + first + i];
}

static void weight_grad_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t count = d->outs * d->ins, begin = part_begin(count, index, PARTS), end = part_begin(count, index + 1, PARTS);
    for (int64_t i = begin; d->dw && i < end; i += 1024) add_chunks(d->dw, d, 0, i, MIN(i + 1024, end));
    if (d->db && index == 0) add_chunks(d->db, d, count, 0, d->outs);
}

static size_t linear_dw_workspace(const Graph *g, const Node *n) {
    const Shape *dy = in_shape(g, n, 0), *x = in_shape(g, n, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    int64_t sums = d.chunks > 1 ? d.chunks * sum_floats(&d) : 0;
    return (size_t)(sums + d.chunks * d.out_parts * d.column_parts * slot_floats(&d)) * sizeof(float);
}

RUN(linear_dw) {
    const Shape *dy = call_in(call, 0), *x = call_in(call, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.slots = d.sums + (d.chunks > 1 ? d.chunks * sum_floats(&d) : 0);
    parallel_for((int)(d.chunks * d.out_parts * d.column_parts), weight_grad_part, &d);
    if (d.chunks > 1) parallel_for(PARTS, weight_grad_sum, &d);
}

KERNEL(linear, .workspace = product_workspace);
KERNEL(linear_dx, .workspace = product_workspace);
KERNEL(linear_packed, .workspace = linear_packed_workspace);
KERNEL(linear_dw, .workspace = linear_dw_workspace);
KERNEL(transpose);
