/* linear.c - cases of the matrix products. */
#include "op_case.h"

enum { ROWS, INS, OUTS, FORM };
enum { BIAS = 1, GELU = 2, RESIDUAL = 4, CONV_WEIGHT = 8 }; /* bits of FORM */

static Shape weight_shape(const int *d) {
    return d[FORM] & CONV_WEIGHT ? SHAPE(d[OUTS], d[INS], 1, 1) : SHAPE(d[OUTS], d[INS]);
}

static void build_linear(Graph *g, const int *d) {
    Val in[3] = {case_input(g, "x", SHAPE(d[ROWS], d[INS]), -1, 1), case_input(g, "w", weight_shape(d), -1, 1), NO_VAL};
    if (d[FORM] & BIAS) in[2] = case_input(g, "b", SHAPE(d[OUTS]), -1, 1);
    Val y;
    graph_emit(g, OP_linear, (Attr){.linear = {.gelu = d[FORM] & GELU}}, in, 3, &y);
}

/* a picture instead of a matrix; 3 x d[ROWS] pixels */
static void build_linear_picture(Graph *g, const int *d) {
    Val x = case_input(g, "x", SHAPE(2, 3, d[ROWS], d[INS]), -1, 1);
    op_linear(g, x, case_input(g, "w", weight_shape(d), -1, 1), case_input(g, "b", SHAPE(d[OUTS]), -1, 1));
}

static void build_packed(Graph *g, const int *d) {
    Val in[4] = {case_input(g, "x", SHAPE(d[ROWS], d[INS]), -1, 1), NO_VAL, NO_VAL, NO_VAL};
    graph_emit(g, OP_transpose, (Attr){0}, (Val[]){case_input(g, "w", weight_shape(d), -1, 1)}, 1, &in[1]);
    if (d[FORM] & BIAS) in[2] = case_input(g, "b", SHAPE(d[OUTS]), -1, 1);
    if (d[FORM] & RESIDUAL) in[3] = case_input(g, "x0", SHAPE(d[ROWS], d[OUTS]), -1, 1);
    Val y;
    graph_emit(g, OP_linear_packed, (Attr){.linear = {.gelu = d[FORM] & GELU}}, in, 4, &y);
}

static void build_transpose(Graph *g, const int *d) {
    Val in[2] = {case_input(g, "w", weight_shape(d), -1, 1), case_input(g, "scale", SHAPE(1, d[OUTS], 1, 1), -1, 1)}, wt;
    graph_emit(g, OP_transpose, (Attr){0}, in, 2, &wt);
}

const OpCase linear_cases[] = {
    {.name = "linear 1x1x1", .build = build_linear, .d = {1, 1, 1, BIAS}},
    {.name = "linear 3x1x17", .build = build_linear, .d = {3, 1, 17, 0}},
    {.name = "linear 17x33x3", .build = build_linear, .d = {17, 33, 3, BIAS}},
    {.name = "linear 33x17x35", .build = build_linear, .d = {33, 17, 35, BIAS | CONV_WEIGHT}},
    {.name = "linear 1x67x131: one row", .build = build_linear, .d = {1, 67, 131, BIAS}},
    {.name = "linear 5x16x64", .build = build_linear, .d = {5, 16, 64, BIAS}},
    {.name = "linear picture", .build = build_linear_picture, .d = {7, 9, 13, CONV_WEIGHT}},
    {.name = "linear 49x512x96: a stage 4 map", .build = build_linear, .d = {49, 512, 96, BIAS | CONV_WEIGHT}},
    {.name = "linear 1000x64x40: many rows", .build = build_linear, .d = {1000, 64, 40, BIAS}},
    {.name = "linear gelu 19x21x37", .build = build_linear, .d = {19, 21, 37, BIAS | GELU}, .no_grad = true},
    {.name = "linear gelu 2x3x5, no bias", .build = build_linear, .d = {2, 3, 5, GELU}, .no_grad = true},
    {.name = "packed 1x1x1", .build = build_packed, .d = {1, 1, 1, BIAS}, .no_grad = true},
    {.name = "packed 17x33x3", .build = build_packed, .d = {17, 33, 3, 0}, .no_grad = true},
    {.name = "packed 33x17x35 gelu", .build = build_packed, .d = {33, 17, 35, BIAS | GELU | CONV_WEIGHT}, .no_grad = true},
    {.name = "packed 49x224x64 residual", .build = build_packed, .d = {49, 224, 64, BIAS | RESIDUAL}, .no_grad = true},
    {.name = "packed 13x5x33 residual, no bias", .build = build_packed, .d = {13, 5, 33, RESIDUAL}, .no_grad = true},
    {.name = "packed 1x512x100: one row", .build = build_packed, .d = {1, 512, 100, BIAS}, .no_grad = true},
    {.name = "packed 300x64x256", .build = build_packed, .d = {300, 64, 256, BIAS | CONV_WEIGHT}, .no_grad = true},
    {.name = "transpose scaled 1x3x17", .build = build_transpose, .d = {1, 3, 17, 0}, .no_grad = true},
    {.name = "transpose scaled 1x64x33", .build = build_transpose, .d = {1, 64, 33, CONV_WEIGHT}, .no_grad = true},
    {.name = "transpose scaled 1x33x64", .build = build_transpose, .d = {1, 33, 64, 0}, .no_grad = true},
    {0}};
