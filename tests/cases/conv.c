/* conv.c - cases of the dense convolutions. */
#include "op_case.h"

enum { BATCH, HEIGHT, WIDTH, INS, OUTS, KERNEL, STRIDE, PAD };

static void build_conv(Graph *g, const int *d) {
    Val x = case_input(g, "x", SHAPE(d[BATCH], d[HEIGHT], d[WIDTH], d[INS]), -1, 1);
    Val w = case_input(g, "w", SHAPE(d[OUTS], d[INS], d[KERNEL], d[KERNEL]), -1, 1);
    op_conv2d(g, x, w, case_input(g, "b", SHAPE(d[OUTS]), -1, 1), d[KERNEL], d[STRIDE], d[PAD]);
}

/* what inference makes of a convolution: weights packed, gelu behind it */
static void build_packed(Graph *g, const int *d) {
    Val x = case_input(g, "x", SHAPE(d[BATCH], d[HEIGHT], d[WIDTH], d[INS]), -1, 1);
    Val w = case_input(g, "w", SHAPE(d[OUTS], d[INS], d[KERNEL], d[KERNEL]), -1, 1), b = case_input(g, "b", SHAPE(d[OUTS]), -1, 1);
    Attr attr = {.conv = {.kernel = d[KERNEL], .stride = d[STRIDE], .pad = d[PAD], .gelu = d[PAD] > 0}};
    Val packed, y;
    graph_emit(g, OP_pack_conv, (Attr){0}, &w, 1, &packed);
    graph_emit(g, OP_conv2d_packed, attr, (Val[]){x, packed, b}, 3, &y);
}

/* roundings: libraries give a 16-bit weight gradient in 16 bits */
#define CASE(title, ...) {.name = title, .build = build_conv, .d = {__VA_ARGS__}, .roundings = 1}

const OpCase conv_cases[] = {
    CASE("conv 1x1 map", 1, 1, 1, 1, 1, 3, 1, 1),
    CASE("conv 3x3 odd", 2, 5, 7, 3, 17, 3, 1, 1),
    CASE("conv 3x3 stride 2 odd", 3, 7, 9, 5, 33, 3, 2, 1),
    CASE("conv 3x3 stride 2 even", 2, 8, 6, 17, 3, 3, 2, 1),
    CASE("conv 3x3 stride 2, one column", 1, 6, 1, 2, 4, 3, 2, 1),
    CASE("conv 3x3 no pad", 1, 6, 5, 4, 19, 3, 1, 0),
    CASE("conv 5x5 pad 2 stride 3", 2, 11, 8, 3, 6, 5, 3, 2),
    CASE("conv 2x2 patches", 2, 6, 8, 5, 7, 2, 2, 0),
    CASE("conv 1x1 stride 2", 2, 5, 6, 9, 11, 1, 2, 0),
    CASE("conv stem 3->32", 1, 32, 30, 3, 32, 3, 2, 1),
    CASE("conv stem 32->32", 2, 14, 19, 32, 32, 3, 1, 1),
    CASE("conv downsample 64->128", 1, 14, 14, 64, 128, 3, 2, 1),
    CASE("conv of weights larger than a picture", 3, 5, 5, 64, 96, 3, 2, 1),
    CASE("conv of such weights, channels that cannot be cut", 2, 3, 4, 34, 47, 3, 1, 1),
    CASE("conv, pictures in bands", 1, 48, 20, 8, 16, 3, 1, 1),
    CASE("conv, more pictures than parts", 34, 6, 5, 4, 8, 3, 2, 1),
    {.name = "packed conv 3x3 gelu odd", .build = build_packed, .d = {2, 5, 7, 3, 17, 3, 1, 1}, .no_grad = true},
    {.name = "packed conv 3x3 stride 2 gelu", .build = build_packed, .d = {3, 8, 9, 33, 5, 3, 2, 1}, .no_grad = true},
    {.name = "packed conv 3x3 no pad, no gelu", .build = build_packed, .d = {1, 6, 5, 4, 19, 3, 1, 0}, .no_grad = true},
    {.name = "packed conv downsample 256->512", .build = build_packed, .d = {1, 14, 14, 64, 512, 3, 2, 1}, .no_grad = true},
    {.name = "packed conv, bands of a stem", .build = build_packed, .d = {1, 64, 62, 3, 32, 3, 2, 1}, .no_grad = true},
    {0}};
