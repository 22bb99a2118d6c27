/* elementwise.c - cases of activations, residual sums, the pixel transform and the mean over a map. */
#include "op_case.h"

enum { BATCH, HEIGHT, WIDTH, CHANNELS, KEEP }; /* KEEP: residual with stochastic depth */

static Shape picture(const int *d) { return SHAPE(d[BATCH], d[HEIGHT], d[WIDTH], d[CHANNELS]); }

static void build_normalize(Graph *g, const int *d) {
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    op_normalize(g, case_labels(g, "images", picture(d), DT_U8, 256), mean, std);
}

/* wide enough to reach the tails, where the function is 0 or the identity */
static void build_gelu(Graph *g, const int *d) { op_gelu(g, case_input(g, "x", picture(d), -8, 8)); }
static void build_gelu_small(Graph *g, const int *d) { op_gelu(g, case_input(g, "x", picture(d), -0.01, 0.01)); }
static void build_silu(Graph *g, const int *d) { op_silu(g, case_input(g, "x", picture(d), -20, 20)); }

static void build_add(Graph *g, const int *d) {
    op_add(g, case_input(g, "a", picture(d), -1, 1), case_input(g, "b", picture(d), -1, 1));
}

static void build_multiply(Graph *g, const int *d) {
    Val in[2] = {case_input(g, "a", picture(d), -1, 1), case_input(g, "b", SHAPE(d[0] * d[1] * d[2] * d[3]), -1, 1)}, y;
    graph_emit(g, OP_multiply, (Attr){0}, in, 2, &y);
}

static void build_residual(Graph *g, const int *d) {
    Val keep = d[KEEP] ? case_state(g, "keep", SHAPE(3, d[BATCH]), 0, 2) : NO_VAL;
    op_residual(g, case_input(g, "x", picture(d), -1, 1), case_input(g, "u", picture(d), -1, 1),
                case_input(g, "gamma", SHAPE(1, d[CHANNELS], 1, 1), -1, 1), keep, 1);
}

/* rows without a map, gamma as a plain vector, three operands */
static void build_residual_matrix(Graph *g, const int *d) {
    Shape rows = SHAPE(d[BATCH], d[CHANNELS]);
    Val in[3] = {case_input(g, "x", rows, -1, 1), case_input(g, "u", rows, -1, 1),
                 case_input(g, "gamma", SHAPE(d[CHANNELS]), -1, 1)};
    Val y;
    graph_emit(g, OP_residual, (Attr){0}, in, 3, &y);
}

static void build_zeros(Graph *g, const int *d) {
    op_zeros(g, case_input(g, "like", SHAPE(d[0], d[1]), -1, 1));
}

static void build_mean_pool(Graph *g, const int *d) { op_mean_pool(g, case_input(g, "x", picture(d), -1, 1)); }

/* through all pairs of float types; small: into the subnormals of f16 */
static void build_casts(Graph *g, const int *d) {
    double most = d[CHANNELS] ? 1e-5 : 1;
    Val x = case_input(g, "x", SHAPE(d[BATCH], d[HEIGHT]), -most, most);
    DType to[] = {DT_BF16, DT_F16, DT_BF16, DT_F32, DT_F16, DT_F32};
    for (size_t i = 0; i < COUNTOF(to); i++) x = op_cast(g, x, to[i]);
}

/* a cast to the type that x has, whose gradient passes as it is */
static void build_cast_same(Graph *g, const int *d) {
    Val y, x = case_input(g, "x", SHAPE(d[BATCH], d[HEIGHT]), -1, 1);
    graph_emit(g, OP_cast, (Attr){.cast = {DT_F32}}, &x, 1, &y);
}

const OpCase elementwise_cases[] = {
    {.name = "normalize one pixel", .build = build_normalize, .d = {1, 1, 1, 3}, .no_grad = true},
    {.name = "normalize 2x17x33", .build = build_normalize, .d = {2, 17, 33, 3}, .no_grad = true},
    {.name = "normalize 3x96x64: many tiles", .build = build_normalize, .d = {3, 96, 64, 3}, .no_grad = true},
    {.name = "gelu one element", .build = build_gelu, .d = {1, 1, 1, 1}},
    {.name = "gelu 3x5x7x33", .build = build_gelu, .d = {3, 5, 7, 33}},
    {.name = "gelu 1x28x28x64: many tiles", .build = build_gelu, .d = {1, 28, 28, 64}},
    {.name = "gelu around 0", .build = build_gelu_small, .d = {1, 3, 5, 17}},
    {.name = "silu one element", .build = build_silu, .d = {1, 1, 1, 1}},
    {.name = "silu 3x5x7x33", .build = build_silu, .d = {3, 5, 7, 33}},
    {.name = "silu 1x28x28x64: many tiles", .build = build_silu, .d = {1, 28, 28, 64}},
    {.name = "add 1x3x3x3", .build = build_add, .d = {1, 3, 3, 3}},
    {.name = "add 2x17x33x17", .build = build_add, .d = {2, 17, 33, 17}},
    {.name = "multiply 1x1x3x17", .build = build_multiply, .d = {1, 1, 3, 17}, .no_grad = true},
    {.name = "multiply 2x17x33x17", .build = build_multiply, .d = {2, 17, 33, 17}, .no_grad = true},
    {.name = "residual one element", .build = build_residual, .d = {1, 1, 1, 1}},
    {.name = "residual 2x3x5x17", .build = build_residual, .d = {2, 3, 5, 17}},
    {.name = "residual keep 3x5x3x33", .build = build_residual, .d = {3, 5, 3, 33, 1}},
    {.name = "residual keep 2x28x28x64: many tiles", .build = build_residual, .d = {2, 28, 28, 64, 1}},
    {.name = "residual keep 5x7x7x3: samples share tiles", .build = build_residual, .d = {5, 7, 7, 3, 1}},
    {.name = "residual 3x1x1x17000: rows beyond a tile", .build = build_residual, .d = {3, 1, 1, 17000}},
    {.name = "residual matrix 17x33", .build = build_residual_matrix, .d = {17, 0, 0, 33}},
    {.name = "mean_pool one element", .build = build_mean_pool, .d = {1, 1, 1, 1}},
    {.name = "mean_pool 2x3x5x33", .build = build_mean_pool, .d = {2, 3, 5, 33}},
    {.name = "mean_pool 3x1x17x131", .build = build_mean_pool, .d = {3, 1, 17, 131}},
    {.name = "mean_pool 2x7x7x512: the last stage", .build = build_mean_pool, .d = {2, 7, 7, 512}},
    {.name = "cast 1x1", .build = build_casts, .d = {1, 1, 0, 0}, .no_grad = true},
    {.name = "cast 17x33", .build = build_casts, .d = {17, 33, 0, 0}, .no_grad = true},
    {.name = "cast 17x33 small", .build = build_casts, .d = {17, 33, 0, 1}, .no_grad = true},
    {.name = "cast 7x5001: many tiles", .build = build_casts, .d = {7, 5001, 0, 0}, .no_grad = true},
    {.name = "cast to itself 3x17", .build = build_cast_same, .d = {3, 17}},
    {.name = "zeros 3x17", .build = build_zeros, .d = {3, 17}, .no_grad = true},
    {0}};
