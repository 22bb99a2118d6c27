/* dwconv.c - cases of the depthwise convolution. */
#include "op_case.h"

enum { BATCH, HEIGHT, WIDTH, CHANNELS, KERNEL, RESIDUAL, GELU };

static void build_dwconv(Graph *g, const int *d) {
    /* a GELU is to be tried in both of its tails */
    double range = d[GELU] ? 7 : 1;
    Val x = case_input(g, "x", SHAPE(d[BATCH], d[HEIGHT], d[WIDTH], d[CHANNELS]), -range, range);
    Val w = case_input(g, "w", SHAPE(d[CHANNELS], 1, d[KERNEL], d[KERNEL]), -1, 1);
    Val b = case_input(g, "b", SHAPE(d[CHANNELS]), -1, 1), y;
    Attr attr = {.dwconv = {.kernel = d[KERNEL], .residual = d[RESIDUAL], .gelu = d[GELU]}};
    graph_emit(g, OP_dwconv, attr, (Val[]){x, w, b}, 3, &y);
}

/* Roundings: of what a kernel puts in place of gelu(x), and of its result. */
const OpCase dwconv_cases[] = {
    {.name = "dwconv 1x1 map", .build = build_dwconv, .d = {1, 1, 1, 1, 3, 0}},
    {.name = "dwconv 1x1 map, kernel 5", .build = build_dwconv, .d = {3, 1, 1, 16, 5, 1}},
    {.name = "dwconv 2x1 map", .build = build_dwconv, .d = {2, 2, 1, 17, 3, 1}},
    {.name = "dwconv 1x3 map, kernel 5", .build = build_dwconv, .d = {1, 1, 3, 33, 5, 0}},
    {.name = "dwconv 3x2 map", .build = build_dwconv, .d = {2, 3, 2, 35, 3, 0}},
    {.name = "dwconv 4x5 map", .build = build_dwconv, .d = {1, 4, 5, 16, 3, 1}},
    {.name = "dwconv 5x6 map, kernel 5", .build = build_dwconv, .d = {1, 5, 6, 19, 5, 1}},
    {.name = "dwconv 7x8 map", .build = build_dwconv, .d = {1, 7, 8, 48, 3, 0}},
    {.name = "dwconv 9x17 map", .build = build_dwconv, .d = {2, 9, 17, 3, 3, 1}},
    {.name = "dwconv 17x9 map, kernel 5", .build = build_dwconv, .d = {1, 17, 9, 20, 5, 0}},
    {.name = "dwconv 33x11 map", .build = build_dwconv, .d = {1, 33, 11, 16, 3, 1}},
    {.name = "dwconv kernel 1", .build = build_dwconv, .d = {2, 3, 4, 18, 1, 0}},
    {.name = "dwconv kernel 7", .build = build_dwconv, .d = {2, 6, 5, 17, 7, 1}},
    {.name = "dwconv stage 3 hidden", .build = build_dwconv, .d = {2, 14, 14, 112, 3, 1}},
    {.name = "dwconv stage 4, kernel 5", .build = build_dwconv, .d = {3, 7, 7, 80, 5, 0}},
    {.name = "dwconv stage 1, kernel 5", .build = build_dwconv, .d = {1, 56, 56, 32, 5, 0}},
    {.name = "dwconv 70 maps: several tiles to a block", .build = build_dwconv, .d = {70, 1, 2, 2048, 3, 1}},
    {.name = "gelu dwconv 1x1 map", .build = build_dwconv, .d = {1, 1, 1, 1, 3, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv 3x2 map", .build = build_dwconv, .d = {2, 3, 2, 35, 3, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv 9x17 map", .build = build_dwconv, .d = {2, 9, 17, 3, 3, 0, 1}, .roundings = 2},
    {.name = "gelu dwconv 17x9 map, kernel 5", .build = build_dwconv, .d = {1, 17, 9, 20, 5, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv 33x11 map", .build = build_dwconv, .d = {1, 33, 11, 16, 3, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv kernel 7", .build = build_dwconv, .d = {2, 6, 5, 17, 7, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv stage 3 hidden", .build = build_dwconv, .d = {3, 14, 14, 112, 3, 1, 1}, .roundings = 2},
    {.name = "gelu dwconv 70 maps", .build = build_dwconv, .d = {70, 1, 2, 2048, 3, 1, 1}, .roundings = 2},
    {0}};
