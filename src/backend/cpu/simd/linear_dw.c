/* linear_dw.c - gradient of a linear map's weights: dw (outs, ins) = dy^T x, db = column sums of dy.
 *
 * Where dw is small, rows are cut into chunks with a sum of their own, and the chunks' sums are added in order; dw is
 * cut into rectangles besides. x is packed, a few hundred rows at a time; dy is read where it lies, by columns. */
#include "backend/cpu/simd/gemm.h"

#define PARTS 16
#define CHUNK_ROWS 512       /* fewest rows worth a sum of their own */
#define CHUNKS_FLOATS 524288 /* all sums together, where there is more than one */
#define SLOT_FLOATS 32768    /* of packed rows: what is read again for every tile stays in L2 with the rows of dy */

static const float zeros[PANEL];

typedef struct {
    const float *dy, *x; /* (rows, outs), (rows, ins) */
    float *dw, *db;
    float *sums;  /* [chunks] dw, db; when there is more than one */
    float *slots; /* [chunks * out_parts * column_parts] (slot_rows, columns of a part) */
    int64_t rows, outs, ins;
    int64_t chunks, out_parts, column_parts, slot_rows, slot_floats, sum_floats;
} WeightGrad;

static WeightGrad weight_grad_cut(const Shape *dy, const Shape *x) {
    WeightGrad d = {.rows = shape_rows(dy), .outs = shape_last(dy), .ins = shape_last(x)};
    d.sum_floats = ROUND_UP((d.ins + 1) * d.outs, 16);
    d.chunks = MAX(1, MIN(MIN(d.rows / CHUNK_ROWS, PARTS), CHUNKS_FLOATS / d.sum_floats));
    /* columns first: every row of parts packs the same x again */
    int64_t rectangles = CEIL_DIV(PARTS, d.chunks), panels = CEIL_DIV(d.ins, PANEL);
    d.column_parts = MIN(rectangles, panels);
    d.out_parts = MIN(CEIL_DIV(rectangles, d.column_parts), d.outs);
    int64_t columns = CEIL_DIV(panels, d.column_parts) * PANEL;
    d.slot_rows = MAX(64, MIN(256, SLOT_FLOATS / columns));
    d.slot_floats = d.slot_rows * columns;
    return d;
}

/* What one part computes: a rectangle of a chunk's dw, and some of its db. */
typedef struct {
    float *dw, *db, *slot;
    int64_t row0, row1, out0, out1, panel0, panel1, db0, db1;
} Part;

static Part part_of(const WeightGrad *d, int index) {
    int64_t column_part = index % d->column_parts, out_part = index / d->column_parts % d->out_parts;
    int64_t chunk = index / d->column_parts / d->out_parts, panels = CEIL_DIV(d->ins, PANEL);
    Part p = {.slot = d->slots + index * d->slot_floats,
              .dw = d->chunks > 1 ? d->sums + chunk * d->sum_floats : d->dw,
              .row0 = part_begin(d->rows, chunk, d->chunks),
              .row1 = part_begin(d->rows, chunk + 1, d->chunks),
              .out0 = part_begin(d->outs, out_part, d->out_parts),
              .out1 = part_begin(d->outs, out_part + 1, d->out_parts),
              .panel0 = part_begin(panels, column_part, d->column_parts),
              .panel1 = part_begin(panels, column_part + 1, d->column_parts)};
    p.db = d->chunks > 1 ? p.dw + d->outs * d->ins : d->db;
    p.db0 = p.out0 + part_begin(p.out1 - p.out0, column_part, d->column_parts);
    p.db1 = p.out0 + part_begin(p.out1 - p.out0, column_part + 1, d->column_parts);
    return p;
}

/* slot [panels] (k, PANEL) from k rows of x: whole rows at a time, since x comes from far */
static void pack_rows(const WeightGrad *d, const Part *p, int64_t row, int64_t k) {
    int64_t full = MIN(p->panel1, d->ins / PANEL);
    for (int64_t r = 0; r < k; r++)
        for (int64_t panel = p->panel0; panel < full; panel++)
            memcpy(p->slot + ((panel - p->panel0) * k + r) * PANEL, d->x + (row + r) * d->ins + panel * PANEL,
                   PANEL * sizeof(float));
    for (int64_t panel = full; panel < p->panel1; panel++)
        gemm_pack(p->slot + (panel - p->panel0) * k * PANEL, d->x + row * d->ins + panel * PANEL, d->ins, 1, k,
                  MIN(d->ins - panel * PANEL, PANEL));
}

static void add_db(const WeightGrad *d, const Part *p, int64_t row, int64_t k) {
    if (row == p->row0) memset(p->db + p->db0, 0, (size_t)(p->db1 - p->db0) * sizeof(float));
    for (int64_t r = row; r < row + k; r++)
        for (int64_t o = p->db0; o < p->db1; o++) p->db[o] += d->dy[r * d->outs + o];
}

/* k rows of dy and x into the part's rectangle: set by the first, added to by the others */
static void add_dw(const WeightGrad *d, const Part *p, int64_t row, int64_t k) {
    int64_t outs = p->out1 - p->out0, tiles = CEIL_DIV(outs, TILE_ROWS);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t out = p->out0 + part_begin(outs, i, tiles), end = p->out0 + part_begin(outs, i + 1, tiles);
        for (int64_t panel = p->panel0; panel < p->panel1; panel++) {
            float *c = p->dw + out * d->ins + panel * PANEL;
            gemm_tile(&(Gemm){.c = c,
                              .c_row = d->ins,
                              .start = row == p->row0 ? zeros : c,
                              .start_row = row == p->row0 ? 0 : d->ins,
                              .a = d->dy + row * d->outs + out,
                              .a_row = 1,
                              .a_k = d->outs,
                              .b = p->slot + (panel - p->panel0) * k * PANEL,
                              .k = k,
                              .taps = 1},
                      end - out, MIN(d->ins - panel * PANEL, PANEL));
        }
    }
}

static void weight_grad_part(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    Part p = part_of(d, index);
    for (int64_t row = p.row0; row < p.row1; row += d->slot_rows) {
        int64_t k = MIN(d->slot_rows, p.row1 - row);
        if (d->db) add_db(d, &p, row, k);
        if (!d->dw) continue;
        pack_rows(d, &p, row, k);
        add_dw(d, &p, row, k);
    }
}

/* Elements [begin, end) of the chunks' sums from `first` on. */
static void add_chunks(float *out, const WeightGrad *d, int64_t first, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = d->sums[first + i];
    for (int64_t c = 1; c < d->chunks; c++)
        for (int64_t i = begin; i < end; i++) out[i] += d->sums[c * d->sum_floats + first + i];
}

static void weight_grad_sum(void *arg, int index, int thread) {
    (void)thread;
    const WeightGrad *d = arg;
    int64_t count = d->outs * d->ins, end = part_begin(count, index + 1, PARTS);
    for (int64_t i = part_begin(count, index, PARTS); d->dw && i < end; i += 1024)
        add_chunks(d->dw, d, 0, i, MIN(i + 1024, end));
    if (d->db && index == 0) add_chunks(d->db, d, count, 0, d->outs);
}

static size_t linear_dw_workspace(const Graph *g, const Node *n) {
    WeightGrad d = weight_grad_cut(in_shape(g, n, 0), in_shape(g, n, 1));
    int64_t sums = d.chunks > 1 ? d.chunks * d.sum_floats : 0;
    return (size_t)(sums + d.chunks * d.out_parts * d.column_parts * d.slot_floats) * sizeof(float);
}

RUN(linear_dw) {
    WeightGrad d = weight_grad_cut(call_in(call, 0), call_in(call, 1));
    d.dy = call->in[0];
    d.x = call->in[1];
    d.dw = call->out[0];
    d.db = call->out[1];
    d.sums = call->work;
    d.slots = d.sums + (d.chunks > 1 ? d.chunks * d.sum_floats : 0);
    parallel_for((int)(d.chunks * d.out_parts * d.column_parts), weight_grad_part, &d);
    if (d.chunks > 1) parallel_for(PARTS, weight_grad_sum, &d);
}

KERNEL(linear_dw, .workspace = linear_dw_workspace);
