/* norm.c - cases of LayerNorm and BatchNorm. */
#include "op_case.h"

enum { ROWS, CHANNELS, OFFSET, GELU }; /* OFFSET: mean of x, in units of its range, to provoke cancellation */

static Val rows_input(Graph *g, const int *d) {
    return case_input(g, "x", SHAPE(d[ROWS], d[CHANNELS]), d[OFFSET] - 1, d[OFFSET] + 1);
}

static void build_layer_norm(Graph *g, const int *d) {
    Val x = rows_input(g, d), gain = case_input(g, "g", SHAPE(d[CHANNELS]), 0.5, 1.5);
    op_layer_norm(g, x, gain, case_input(g, "b", SHAPE(d[CHANNELS]), -1, 1), 1e-6f);
}

/* The variance is less than eps. */
static void build_faint_layer_norm(Graph *g, const int *d) {
    Val x = case_input(g, "x", SHAPE(d[ROWS], d[CHANNELS]), -1e-3, 1e-3);
    Val gain = case_input(g, "g", SHAPE(d[CHANNELS]), 0.5, 1.5);
    op_layer_norm(g, x, gain, case_input(g, "b", SHAPE(d[CHANNELS]), -1, 1), 1e-6f);
}

static void build_batch_norm(Graph *g, const int *d) {
    Val x = rows_input(g, d), gain = case_input(g, "g", SHAPE(d[CHANNELS]), 0.5, 1.5);
    Val bias = case_input(g, "b", SHAPE(d[CHANNELS]), -1, 1);
    Val mean = case_state(g, "running_mean", SHAPE(d[CHANNELS]), -1, 1);
    Val var = case_state(g, "running_var", SHAPE(d[CHANNELS]), 0.5, 2), out[3];
    Attr attr = {.norm = {.eps = 1e-5f, .momentum = 0.1f, .gelu = d[GELU]}};
    graph_emit(g, OP_batch_norm, attr, (Val[]){x, gain, bias, mean, var}, 5, out);
}

static void build_batch_norm_eval(Graph *g, const int *d) {
    Val x = rows_input(g, d), gain = case_input(g, "g", SHAPE(d[CHANNELS]), 0.5, 1.5);
    Val bias = case_input(g, "b", SHAPE(d[CHANNELS]), -1, 1);
    Val mean = case_state(g, "running_mean", SHAPE(d[CHANNELS]), -1, 1);
    op_batch_norm_eval(g, x, gain, bias, mean, case_state(g, "running_var", SHAPE(d[CHANNELS]), 0.5, 2), 1e-5f);
}

/* ROWS output channels of a 3x3 kernel on CHANNELS inputs */
static void build_fold(Graph *g, const int *d) {
    Val in[6] = {case_input(g, "w", SHAPE(d[ROWS], d[CHANNELS], 3, 3), -1, 1)};
    static const char *const names[] = {"b", "g", "beta", "running_mean", "running_var"};
    for (int i = 0; i < 5; i++) in[1 + i] = case_input(g, names[i], SHAPE(d[ROWS]), i == 4 ? 0.5 : -1, 2);
    Val out[2];
    graph_emit(g, OP_fold_batch_norm, (Attr){.norm = {.eps = 1e-5f}}, in, 6, out);
}

const OpCase norm_cases[] = {
    {.name = "layer_norm 1x3", .build = build_layer_norm, .d = {1, 3, 0}},
    /* no gradient: it is 0, computed as rounding errors times rstd = 1000 */
    {.name = "layer_norm 5x1", .build = build_layer_norm, .d = {5, 1, 0}, .no_grad = true},
    {.name = "layer_norm 3x17", .build = build_layer_norm, .d = {3, 17, 0}},
    {.name = "layer_norm 17x3", .build = build_layer_norm, .d = {17, 3, 0}},
    {.name = "layer_norm 33x33", .build = build_layer_norm, .d = {33, 33, 0}},
    {.name = "layer_norm 5x16", .build = build_layer_norm, .d = {5, 16, 0}},
    {.name = "layer_norm 401x64", .build = build_layer_norm, .d = {401, 64, 0}},
    {.name = "layer_norm 49x512", .build = build_layer_norm, .d = {49, 512, 0}},
    {.name = "layer_norm 9x24, faint", .build = build_faint_layer_norm, .d = {9, 24}},
    {.name = "layer_norm 37x40, far from 0", .build = build_layer_norm, .d = {37, 40, 50}, .tolerance = 2e-4},
    {.name = "batch_norm 1x1", .build = build_batch_norm, .d = {1, 1, 0}},
    {.name = "batch_norm 3x17", .build = build_batch_norm, .d = {3, 17, 0}},
    {.name = "batch_norm 17x3", .build = build_batch_norm, .d = {17, 3, 0}},
    {.name = "batch_norm 33x33", .build = build_batch_norm, .d = {33, 33, 0}},
    {.name = "batch_norm 1003x32", .build = build_batch_norm, .d = {1003, 32, 0}},
    {.name = "batch_norm 98x512", .build = build_batch_norm, .d = {98, 512, 0}},
    {.name = "batch_norm 601x20, far from 0", .build = build_batch_norm, .d = {601, 20, 50}, .tolerance = 2e-4},
    {.name = "gelu batch_norm 3x17", .build = build_batch_norm, .d = {3, 17, 0, 1}},
    {.name = "gelu batch_norm 17x3", .build = build_batch_norm, .d = {17, 3, 0, 1}},
    {.name = "gelu batch_norm 1003x32", .build = build_batch_norm, .d = {1003, 32, 0, 1}},
    {.name = "batch_norm_eval 17x33", .build = build_batch_norm_eval, .d = {17, 33, 0}, .no_grad = true},
    {.name = "batch_norm_eval 401x64", .build = build_batch_norm_eval, .d = {401, 64, 0}, .no_grad = true},
    {.name = "fold_batch_norm 17x3", .build = build_fold, .d = {17, 3}, .no_grad = true},
    {.name = "fold_batch_norm 64x32", .build = build_fold, .d = {64, 32}, .no_grad = true},
    {0}};
