/* linear.c - matrix products on gemm.h's tiles. Forward and gradient of the input are one routine (product) on weights
 * packed from either side, or transposed ahead of time. */
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

KERNEL(linear, .workspace = product_workspace);
KERNEL(linear_dx, .workspace = product_workspace);
KERNEL(linear_packed, .workspace = linear_packed_workspace);
KERNEL(transpose);
