/* linear.c - matrix products: the library multiplies tiles, what surrounds a product happens while its tile is in
 * cache. Tiles are cut by shape alone. */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/product.h"
#include "backend/cpu/simd/math.h"
#include "backend/cpu/simd/shuffle.h"

#define TILE_ROWS 196  /* rows of a tile: a tile of y and what made it stay in L2; MAViT's maps are 196 * 4^i tokens */
#define TURNED_ROWS 512 /* the same where B is transposed, which the library turns around for every tile */
#define TILES 16       /* tiles a product is cut into where its size allows it: work for that many threads */
#define TILE_COLUMNS 64 /* fewest columns worth a tile of their own */

/* y (rows, columns) = [x0 +] [gelu] (x (rows, k) B + bias), found out for a node once.
 *
 * Products made ahead, of tiles of one size or of two that differ by one, each way, start soonest and are fast where
 * nothing is strided: the columns of a tile are copied out of B, a fraction of a percent of the product's work, and the
 * tile of y is finished on its way to where it belongs. Training, where the weights change, takes most of its products
 * as they come. */
typedef struct {
    int64_t rows, k, columns;
    int64_t row_tiles, column_tiles;
    bool turned; /* B is (columns, k) */
    CpuLibrary *library;
    bool made, gemm;
    CpuProduct *tile[2][2]; /* [rows are one more][columns are one more]; NULL: there is no such tile */
    int64_t own, b, slot;   /* floats of a slot: for the library, for a tile of B, and with a tile of y in all */
    int slots;
} Product;

typedef struct {
    const Product *product;
    float *y;
    const float *x, *b, *bias, *x0;
    bool gelu;
    float *slots;
    int threads;
} ProductRun;

typedef struct {
    int64_t row0, row1, column0, column1;
} Tile;

/* y = what follows the product in `from`, which may be y itself; columns in vectors, the rest in a padded vector. */
static void finish_tile(const ProductRun *r, Tile t, const float *from, int64_t from_row) {
    int64_t columns = r->product->columns;
    float *y = r->y + t.row0 * columns + t.column0;
    if (from == y && !r->bias && !r->gelu && !r->x0) return;
    for (int64_t row = t.row0; row < t.row1; row++, y += columns, from += from_row) {
        const float *x0 = r->x0 ? r->x0 + row * columns + t.column0 : NULL;
        const float *bias = r->bias ? r->bias + t.column0 : NULL;
        for (int64_t j = 0; j < t.column1 - t.column0; j += VL) {
            int64_t n = MIN(t.column1 - t.column0 - j, VL);
            bool whole = n == VL;
            vf v = whole ? vf_load(from + j) : vf_load_part(from + j, n);
            if (bias) v += whole ? vf_load(bias + j) : vf_load_part(bias + j, n);
            if (r->gelu) v = vf_gelu(v);
            if (x0) v += whole ? vf_load(x0 + j) : vf_load_part(x0 + j, n);
            if (whole)
                vf_store(y + j, v);
            else
                vf_store_part(y + j, v, n);
        }
    }
}

/* Columns of B as the library wants them: of a turned B they are rows, without gaps as they lie. */
static const float *tile_of_b(const ProductRun *r, Tile t, float *copy) {
    const Product *p = r->product;
    if (p->turned) return r->b + t.column0 * p->k;
    if (p->column_tiles == 1) return r->b;
    int64_t columns = t.column1 - t.column0;
    for (int64_t k = 0; k < p->k; k++)
        memcpy(copy + k * columns, r->b + k * p->columns + t.column0, (size_t)columns * sizeof(float));
    return copy;
}

static void made_tile(const ProductRun *r, Tile t, int slot) {
    const Product *p = r->product;
    int64_t rows = t.row1 - t.row0, columns = t.column1 - t.column0;
    float *own = r->slots + slot * p->slot, *copy = own + p->own;
    float *y = p->column_tiles > 1 ? copy + p->b : r->y + t.row0 * p->columns;
    cpu_product_run(p->tile[rows - p->rows / p->row_tiles][columns - p->columns / p->column_tiles], slot, y,
                    r->x + t.row0 * p->k, tile_of_b(r, t, copy), own);
    finish_tile(r, t, y, columns);
}

static void product_tile(void *arg, int index, int thread) {
    const ProductRun *r = arg;
    const Product *p = r->product;
    int64_t row = index / p->column_tiles, column = index % p->column_tiles;
    Tile t = {part_begin(p->rows, row, p->row_tiles), part_begin(p->rows, row + 1, p->row_tiles),
              part_begin(p->columns, column, p->column_tiles), part_begin(p->columns, column + 1, p->column_tiles)};
    if (p->made) {
        made_tile(r, t, r->threads <= p->slots ? thread : index);
        return;
    }
    MatmulOperand a = {.data = r->x + t.row0 * p->k, .stride = p->k};
    MatmulOperand b = {.data = r->b + (p->turned ? t.column0 * p->k : t.column0),
                       .stride = p->turned ? p->k : p->columns, .transposed = p->turned};
    float *y = r->y + t.row0 * p->columns + t.column0;
    matmul(p->library, y, p->columns, a, b, t.row1 - t.row0, t.column1 - t.column0, p->k);
    finish_tile(r, t, y, p->columns);
}

static void product_release(void *prepared) {
    Product *p = prepared;
    for (int i = 0; i < 4; i++) cpu_product_drop(p->library, p->tile[i / 2][i % 2]);
    free(p);
}

/* Takes the products of all sizes that tiles have. */
static bool make_tiles(Product *p, Err *err) {
    for (int i = 0; i < 4; i++) {
        bool more_rows = i / 2, more_columns = i % 2;
        if ((more_rows && p->rows % p->row_tiles == 0) || (more_columns && p->columns % p->column_tiles == 0)) continue;
        ProductSize size = {p->rows / p->row_tiles + more_rows, p->columns / p->column_tiles + more_columns, p->k,
                            p->turned};
        CpuProduct **tile = &p->tile[more_rows][more_columns];
        if (!cpu_product_take(p->library, tile, &size, err)) return false;
        p->own = MAX(p->own, ROUND_UP(cpu_product_scratch_floats(*tile), 16));
        p->gemm |= cpu_product_is_gemm(*tile);
    }
    int64_t rows = CEIL_DIV(p->rows, p->row_tiles), columns = CEIL_DIV(p->columns, p->column_tiles);
    bool copies = p->column_tiles > 1;
    p->b = copies && !p->turned ? ROUND_UP(p->k * columns, 16) : 0;
    p->slot = p->own + p->b + (copies ? ROUND_UP(rows * columns, 16) : 0);
    p->slots = (int)MIN(p->library->callers, p->row_tiles * p->column_tiles);
    return true;
}

static bool product_prepare(void **out, Product cut, int64_t tile_rows, Err *err) {
    Product *p = *out = mem_zalloc(1, sizeof *p);
    *p = cut;
    p->row_tiles = CEIL_DIV(p->rows, tile_rows);
    p->column_tiles = MAX(1, MIN(CEIL_DIV(TILES, p->row_tiles), p->columns / TILE_COLUMNS));
    p->gemm = !p->made;
    if (p->made ? make_tiles(p, err) : matmul_compile(p->library, err)) return true;
    product_release(p);
    *out = NULL;
    return false;
}

static size_t product_work(const void *prepared) {
    const Product *p = prepared;
    return (size_t)(p->slots * p->slot) * sizeof(float);
}

static void product_run(const KernelCall *c, const float *bias, const float *x0, bool gelu) {
    const Product *p = c->prepared;
    ProductRun r = {.product = p, .y = c->out[0], .x = c->in[0], .b = c->in[1], .bias = bias, .x0 = x0, .gelu = gelu,
                    .slots = c->work, .threads = parallel_threads()};
    cpu_library_for(p->gemm, (int)(p->row_tiles * p->column_tiles), product_tile, &r);
}

static Product product_of(const Graph *g, const Node *n, Backend *backend) {
    const Shape *x = in_shape(g, n, 0), *y = out_shape(g, n, 0);
    return (Product){.rows = shape_rows(x), .k = shape_last(x), .columns = shape_last(y),
                     .library = cpu_library(backend)};
}

/* Where B is turned, the library turns it around for every tile: made ahead, that is faster for long sums only. */
static bool linear_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Product p = product_of(g, n, backend);
    p.turned = true;
    p.made = p.k >= 512 || (p.k >= 192 && p.k > p.columns);
    return product_prepare(prepared, p, TURNED_ROWS, err);
}

RUN(linear) { product_run(call, call->in[2], NULL, call->node->attr.linear.gelu); }
KERNEL(linear, .prepare = linear_prepare, .prepared_workspace = product_work, .release = product_release);

static bool linear_dx_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    return product_prepare(prepared, product_of(g, n, backend), TILE_ROWS, err);
}

RUN(linear_dx) { product_run(call, NULL, NULL, false); }
KERNEL(linear_dx, .prepare = linear_dx_prepare, .prepared_workspace = product_work, .release = product_release);

static bool linear_packed_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Product p = product_of(g, n, backend);
    p.made = true;
    return product_prepare(prepared, p, TILE_ROWS, err);
}

RUN(linear_packed) { product_run(call, call->in[2], call->in[3], call->node->attr.linear.gelu); }
KERNEL(linear_packed, .prepare = linear_packed_prepare, .prepared_workspace = product_work, .release = product_release);

/* A band of VL rows of wt, by squares of VL x VL numbers in registers; what is left over one by one. */
static void transpose_band(void *arg, int index, int thread) {
    (void)thread;
    const KernelCall *call = arg;
    int64_t outs = call_in(call, 0)->dim[0], ins = call_in(call, 0)->dim[1], i0 = (int64_t)index * VL;
    const float *w = call->in[0], *scale = call->node->n_in > 1 ? call->in[1] : NULL;
    float *wt = call->out[0];
    int64_t whole = i0 + VL <= ins ? outs / VL * VL : 0;
    for (int64_t o = 0; o < whole; o += VL) {
        vf square[VL];
        UNROLL for (int k = 0; k < VL; k++) square[k] = vf_load(w + (o + k) * ins + i0);
        transpose_block(square);
        vf factor = scale ? vf_load(scale + o) : vf_set(1);
        UNROLL for (int k = 0; k < VL; k++) vf_store(wt + (i0 + k) * outs + o, factor * square[k]);
    }
    for (int64_t i = i0; i < MIN(i0 + VL, ins); i++)
        for (int64_t o = whole; o < outs; o++) wt[i * outs + o] = (scale ? scale[o] : 1) * w[o * ins + i];
}

RUN(transpose) { parallel_for((int)CEIL_DIV(call_in(call, 0)->dim[1], VL), transpose_band, (void *)call); }
KERNEL(transpose);

/* dw (outs, ins) = dy^T x, db = column sums of dy. Rows are cut into chunks with a sum of their own where dw is small,
 * and the chunks' sums are added in order; dw is cut into rectangles besides. */
#define CHUNK_ROWS 512       /* fewest rows worth a sum of their own */
#define CHUNKS_FLOATS 524288 /* all sums together */

typedef struct {
    const float *dy, *x;
    float *dw, *db;
    float *sums; /* [chunks] (outs * ins + outs), when there is more than one */
    int64_t rows, outs, ins;
    int64_t chunks, out_parts, in_parts;
    CpuLibrary *library;
} WeightGrad;

static WeightGrad weight_grad_cut(int64_t rows, int64_t outs, int64_t ins) {
    WeightGrad d = {.rows = rows, .outs = outs, .ins = ins};
    d.chunks = MAX(1, MIN(MIN(rows / CHUNK_ROWS, TILES), CHUNKS_FLOATS / (outs * ins + outs)));
    int64_t rectangles = CEIL_DIV(TILES, d.chunks);
    d.out_parts = MAX(1, MIN(rectangles, outs / TILE_COLUMNS));
    d.in_parts = MAX(1, MIN(rectangles / d.out_parts, ins / TILE_COLUMNS));
    return d;
}

static int64_t sum_floats(const WeightGrad *d) { return ROUND_UP(d->outs * d->ins + d->outs, 16); }

static void add_columns(float *db, const float *dy, int64_t dy_row, int64_t rows, int64_t columns) {
    memset(db, 0, (size_t)columns * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < columns; o++) db[o] += dy[r * dy_row + o];
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t chunk = index / (d->out_parts * d->in_parts), out_part = index / d->in_parts % d->out_parts;
    int64_t in_part = index % d->in_parts;
    int64_t row0 = part_begin(d->rows, chunk, d->chunks), row1 = part_begin(d->rows, chunk + 1, d->chunks);
    int64_t o0 = part_begin(d->outs, out_part, d->out_parts), o1 = part_begin(d->outs, out_part + 1, d->out_parts);
    int64_t i0 = part_begin(d->ins, in_part, d->in_parts), i1 = part_begin(d->ins, in_part + 1, d->in_parts);
    float *dw = d->chunks > 1 ? d->sums + chunk * sum_floats(d) : d->dw;
    float *db = d->chunks > 1 ? dw + d->outs * d->ins : d->db;
    if (d->db && in_part == 0) add_columns(db + o0, d->dy + row0 * d->outs + o0, d->outs, row1 - row0, o1 - o0);
    if (!d->dw) return;
    MatmulOperand a = {.data = d->dy + row0 * d->outs + o0, .stride = d->outs, .transposed = true};
    MatmulOperand b = {.data = d->x + row0 * d->ins + i0, .stride = d->ins};
    matmul(d->library, dw + o0 * d->ins + i0, d->ins, a, b, o1 - o0, i1 - i0, row1 - row0);
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
    int64_t count = d->outs * d->ins, begin = part_begin(count, index, TILES),
            end = part_begin(count, index + 1, TILES);
    for (int64_t i = begin; d->dw && i < end; i += 1024) add_chunks(d->dw, d, 0, i, MIN(i + 1024, end));
    if (d->db && index == 0) add_chunks(d->db, d, count, 0, d->outs);
}

/* What a run needs is small enough to be found out each time, but for the library. */
static bool linear_dw_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    (void)g, (void)n, (void)prepared;
    return matmul_compile(cpu_library(backend), err);
}

static size_t linear_dw_workspace(const Graph *g, const Node *n) {
    const Shape *dy = in_shape(g, n, 0), *x = in_shape(g, n, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    return d.chunks > 1 ? (size_t)(d.chunks * sum_floats(&d)) * sizeof(float) : 0;
}

RUN(linear_dw) {
    const Shape *dy = call_in(call, 0), *x = call_in(call, 1);
    WeightGrad d = weight_grad_cut(shape_rows(dy), shape_last(dy), shape_last(x));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.library = cpu_library(call->backend);
    cpu_library_for(true, (int)(d.chunks * d.out_parts * d.in_parts), weight_grad_part, &d);
    if (d.chunks > 1) parallel_for(TILES, weight_grad_sum, &d);
}
KERNEL(linear_dw, .prepare = linear_dw_prepare, .workspace = linear_dw_workspace);
