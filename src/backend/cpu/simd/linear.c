/* linear.c - matrix products: the library multiplies tiles, what surrounds a product happens while its tile is in
 * cache. Tiles are cut by shape alone. */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd/math.h"
#include "backend/cpu/simd/shuffle.h"

#define TILE_ROWS 196  /* rows of a tile: a tile of y and what made it stay in L2; MAViT's maps are 196 * 4^i tokens */
#define TURNED_ROWS 512 /* the same where B is transposed, which the library turns around for every tile */
#define TILES 16       /* tiles a product is cut into where its size allows it: work for that many threads */
#define TILE_COLUMNS 64 /* fewest columns worth a tile of their own */

/* The products of a node's tiles, made ahead: tiles are of one size, or of two that differ by one, each way. The
 * library is fast, and starts soon, where nothing is strided: the columns of a tile are copied out of B, a fraction of
 * a percent of the product's work, and the tile of y is finished on its way to where it belongs. */
typedef struct {
    CpuProducts *all; /* where they were taken from */
    CpuProduct *tile[2][2]; /* [rows are one more][columns are one more]; NULL: there is no such tile */
    int64_t own, b, slot;   /* floats of a slot: for the library, for a tile of B, and with a tile of y in all */
    int slots;              /* one for each thread */
} Made;

/* y (rows, columns) = [x0 +] [gelu] (x (rows, k) B + bias) */
typedef struct {
    float *y;
    const float *x, *bias, *x0;
    MatmulOperand b;
    bool gelu;
    int64_t rows, k, columns;
    int64_t row_tiles, column_tiles;
    const Made *made; /* or NULL: of any size as it comes */
    float *slots;     /* of made */
    int threads;
} Product;

typedef struct {
    int64_t row0, row1, column0, column1;
} Tile;

/* y = what follows the product in `from`, which may be y itself; columns in vectors, the rest in a padded vector. */
static void finish_tile(const Product *p, Tile t, const float *from, int64_t from_row) {
    float *y = p->y + t.row0 * p->columns + t.column0;
    if (from == y && !p->bias && !p->gelu && !p->x0) return;
    for (int64_t r = t.row0; r < t.row1; r++, y += p->columns, from += from_row) {
        const float *x0 = p->x0 ? p->x0 + r * p->columns + t.column0 : NULL;
        const float *bias = p->bias ? p->bias + t.column0 : NULL;
        for (int64_t j = 0; j < t.column1 - t.column0; j += VL) {
            int64_t n = MIN(t.column1 - t.column0 - j, VL);
            bool whole = n == VL;
            vf v = whole ? vf_load(from + j) : vf_load_part(from + j, n);
            if (bias) v += whole ? vf_load(bias + j) : vf_load_part(bias + j, n);
            if (p->gelu) v = vf_gelu(v);
            if (x0) v += whole ? vf_load(x0 + j) : vf_load_part(x0 + j, n);
            if (whole)
                vf_store(y + j, v);
            else
                vf_store_part(y + j, v, n);
        }
    }
}

static void made_tile(const Product *p, Tile t, int slot) {
    const Made *m = p->made;
    int64_t rows = t.row1 - t.row0, columns = t.column1 - t.column0;
    CpuProduct *product = m->tile[rows - p->rows / p->row_tiles][columns - p->columns / p->column_tiles];
    float *own = p->slots + slot * m->slot, *y = p->y + t.row0 * p->columns;
    const float *b = p->b.data;
    if (p->column_tiles > 1) {
        float *tile = own + m->own;
        for (int64_t k = 0; k < p->k; k++)
            memcpy(tile + k * columns, b + k * p->columns + t.column0, (size_t)columns * sizeof(float));
        b = tile;
        y = tile + m->b;
    }
    cpu_product_run(product, slot, y, p->x + t.row0 * p->k, b, own);
    finish_tile(p, t, y, columns);
}

static void product_tile(void *arg, int index, int thread) {
    const Product *p = arg;
    int64_t row = index / p->column_tiles, column = index % p->column_tiles;
    Tile t = {part_begin(p->rows, row, p->row_tiles), part_begin(p->rows, row + 1, p->row_tiles),
              part_begin(p->columns, column, p->column_tiles), part_begin(p->columns, column + 1, p->column_tiles)};
    if (p->made && p->threads <= PRODUCT_SLOTS) {
        made_tile(p, t, thread);
        return;
    }
    MatmulOperand a = {.data = p->x + t.row0 * p->k, .stride = p->k}, b = p->b;
    b.data += b.transposed ? t.column0 * b.stride : t.column0;
    float *y = p->y + t.row0 * p->columns + t.column0;
    matmul(y, p->columns, a, b, t.row1 - t.row0, t.column1 - t.column0, p->k, false);
    finish_tile(p, t, y, p->columns);
}

static Product product_cut(const Shape *x, const Shape *y, int64_t tile_rows) {
    Product p = {.rows = shape_rows(x), .k = shape_last(x), .columns = shape_last(y)};
    p.row_tiles = CEIL_DIV(p.rows, tile_rows);
    p.column_tiles = MAX(1, MIN(CEIL_DIV(TILES, p.row_tiles), p.columns / TILE_COLUMNS));
    return p;
}

static Product product_of(const KernelCall *c, int64_t tile_rows) {
    Product p = product_cut(call_in(c, 0), call_out(c, 0), tile_rows);
    p.y = c->out[0];
    p.x = c->in[0];
    return p;
}

static void product_run(Product *p) {
    p->threads = parallel_threads();
    parallel_for((int)(p->row_tiles * p->column_tiles), product_tile, p);
}

RUN(linear) {
    Product p = product_of(call, TURNED_ROWS);
    p.b = (MatmulOperand){.data = call->in[1], .stride = p.k, .transposed = true};
    p.bias = call->in[2];
    p.gelu = call->node->attr.linear.gelu;
    product_run(&p);
}
KERNEL(linear);

RUN(linear_dx) {
    Product p = product_of(call, TILE_ROWS);
    p.b = (MatmulOperand){.data = call->in[1], .stride = p.columns};
    product_run(&p);
}
KERNEL(linear_dx);

static void linear_packed_release(void *prepared) {
    Made *made = prepared;
    for (int i = 0; i < 4; i++) cpu_product_drop(made->all, made->tile[i / 2][i % 2]);
    free(made);
}

static bool linear_packed_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    Product p = product_cut(in_shape(g, n, 0), out_shape(g, n, 0), TILE_ROWS);
    Made *made = *prepared = mem_zalloc(1, sizeof *made);
    made->all = cpu_products(backend);
    made->slots = MIN(cpu_threads(backend), PRODUCT_SLOTS);
    int64_t rows = CEIL_DIV(p.rows, p.row_tiles), columns = CEIL_DIV(p.columns, p.column_tiles);
    for (int i = 0; i < 4; i++) {
        bool more_rows = i / 2, more_columns = i % 2;
        if ((more_rows && p.rows % p.row_tiles == 0) || (more_columns && p.columns % p.column_tiles == 0)) continue;
        ProductSize size = {p.rows / p.row_tiles + more_rows, p.columns / p.column_tiles + more_columns, p.k};
        if (!cpu_product_take(made->all, &made->tile[i / 2][i % 2], &size, err)) {
            linear_packed_release(made);
            *prepared = NULL;
            return false;
        }
        made->own = MAX(made->own, ROUND_UP(cpu_product_scratch_floats(made->tile[i / 2][i % 2]), 16));
    }
    bool copies = p.column_tiles > 1;
    made->b = copies ? ROUND_UP(p.k * columns, 16) : 0;
    made->slot = made->own + made->b + (copies ? ROUND_UP(rows * columns, 16) : 0);
    return true;
}

static size_t linear_packed_work(const void *prepared) {
    const Made *made = prepared;
    return (size_t)(made->slots * made->slot) * sizeof(float);
}

RUN(linear_packed) {
    Product p = product_of(call, TILE_ROWS);
    p.made = call->prepared;
    p.slots = call->work;
    p.b = (MatmulOperand){.data = call->in[1], .stride = p.columns};
    p.bias = call->in[2];
    p.x0 = call->in[3];
    p.gelu = call->node->attr.linear.gelu;
    product_run(&p);
}
KERNEL(linear_packed, .prepare = linear_packed_prepare, .prepared_workspace = linear_packed_work,
       .release = linear_packed_release);

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
    matmul(dw + o0 * d->ins + i0, d->ins, a, b, o1 - o0, i1 - i0, row1 - row0, false);
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
    parallel_for((int)(d.chunks * d.out_parts * d.in_parts), weight_grad_part, &d);
    if (d.chunks > 1) parallel_for(TILES, weight_grad_sum, &d);
}
KERNEL(linear_dw, .workspace = linear_dw_workspace);
