/* test_op_shapes.c - what every op takes and refuses: for each row of the op table operands that fit, with the shapes
 * and types that come of them and the multiply-adds, and some that do not for each reason that the row can give. A
 * shape is written as "2x9x8x3", "." for a single number, "-" for an absent operand, with i: u: k: h: b: before it for
 * i32, u8, u64, f16 and bf16. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/op.h"

typedef struct {
    OpId op;
    const char *in;
    const char *out;    /* of what fits */
    const char *misfit; /* of what does not: a part of the reason */
    double macs;        /* of what fits: outputs times what each sums, counted by hand; what is no product counts 0 */
    Attr attr;
} Row;

/* clang-format off */
#define NORM_STD .normalize = {.std = {1, 1, 1}}
#define CONV .attr = {.conv = {.kernel = 3, .stride = 2, .pad = 1}}
#define CONV_OF(k, s, p) .attr = {.conv = {.kernel = k, .stride = s, .pad = p}}
#define CONV_DX(h, w) .attr = {.conv = {.kernel = 3, .stride = 2, .pad = 1, .in_height = h, .in_width = w}}
#define DW(k) .attr = {.dwconv = {.kernel = k}}
#define BN_GELU .attr = {.norm = {.gelu = true}}
#define STREAM(s) .attr = {.residual = {.stream = s}}
#define SMOOTH(s) .attr = {.loss = {.smoothing = s}}
#define PATHS(r, s, b) .attr = {.drop_path = {.rate = r, .streams = s, .batch = b}}
#define HEADS(n) .attr = {.attention = {.kind = ATTN_MALA, .heads = n}}
#define SOFTMAX_HEADS(n) .attr = {.attention = {.kind = ATTN_SOFTMAX, .heads = n}}

static const Row rows[] = {
    {OP_normalize, "u:2x8x8x3", .out = "2x8x8x3", .attr = {NORM_STD}},
    {OP_normalize, "u:2x8x8x3", .out = "b:2x8x8x3", .attr = {.normalize = {.std = {1, 1, 1}, .dtype = DT_BF16}}},
    {OP_normalize, "2x8x8x3", .misfit = "images must be u8", .attr = {NORM_STD}},
    {OP_normalize, "u:2x8x8x4", .misfit = "must be (B,H,W,3)", .attr = {NORM_STD}},
    {OP_normalize, "u:8x8x3", .misfit = "must be (B,H,W,3)", .attr = {NORM_STD}},
    {OP_normalize, "u:2x8x8x3", .misfit = "std must be positive", .attr = {.normalize = {.std = {1, 1, 0}}}},
    {OP_normalize, "u:2x8x8x3", .misfit = "std must be positive", .attr = {.normalize = {.std = {NAN, 1, 1}}}},
    {OP_normalize, "u:2x8x8x3", .misfit = "must be f32", .attr = {.normalize = {.std = {1, 1, 1}, .dtype = DT_U8}}},
    {OP_cast, "4x2", .out = "b:4x2", .attr = {.cast = {DT_BF16}}},
    {OP_cast, "h:4", .out = "4", .attr = {.cast = {DT_F32}}},
    {OP_cast, "i:4", .misfit = "x must be f32", .attr = {.cast = {DT_BF16}}},
    {OP_cast, "4", .misfit = "casts lead to", .attr = {.cast = {DT_I32}}},

    {OP_conv2d, "2x9x8x3 5x3x3x3 5", .out = "2x5x4x5", .macs = 5400, CONV},
    {OP_conv2d, "b:2x9x8x3 b:5x3x3x3 5", .out = "b:2x5x4x5", .macs = 5400, CONV},
    {OP_conv2d, "1x2x4x3 5x3x4x4 5", .out = "1x1x2x5", .macs = 480, CONV_OF(4, 2, 1)},
    {OP_conv2d, "9x8x3 5x3x3x3 5", .misfit = "x must be (B,H,W,I)", CONV},
    {OP_conv2d, "2x9x8x3 5x3x9 5", .misfit = "w (O,I,k,k)", CONV},
    {OP_conv2d, "2x9x8x3 5x3x1x3 5", .misfit = "w (O,I,k,k)", CONV},
    {OP_conv2d, "2x9x8x3 5x3x3x1 5", .misfit = "w (O,I,k,k)", CONV},
    {OP_conv2d, "2x9x8x3 5x4x3x3 5", .misfit = "as many input channels", CONV},
    {OP_conv2d, "2x9x8x3 5x3x3x3 4", .misfit = "b must have as many elements", CONV},
    {OP_conv2d, "2x9x8x3 5x3x3x3 5", .misfit = "must be positive", CONV_OF(0, 2, 0)},
    {OP_conv2d, "2x9x8x3 5x3x3x3 5", .misfit = "must be positive", CONV_OF(3, 0, 1)},
    {OP_conv2d, "2x9x8x3 5x3x3x3 5", .misfit = "pad must be in", CONV_OF(3, 2, 3)},
    {OP_conv2d, "2x9x8x3 5x3x3x3 5", .misfit = "pad must be in", CONV_OF(3, 2, -1)},
    {OP_conv2d, "2x2x8x3 5x3x3x3 5", .misfit = "smaller than the kernel", CONV_OF(3, 1, 0)},
    {OP_conv2d, "2x8x2x3 5x3x3x3 5", .misfit = "smaller than the kernel", CONV_OF(3, 1, 0)},
    {OP_conv2d_packed, "2x9x8x4 5x3x3x4 5", .out = "2x5x4x5", .macs = 7200, CONV},
    {OP_conv2d_packed, "2x9x8x4 5x3x3 5", .misfit = "w must be (O,k,k,I)", CONV},
    {OP_conv2d_packed, "2x9x8x4 5x4x3x3 5", .misfit = "w (O,I,k,k)", CONV},
    {OP_conv2d_packed, "2x9x8x4 5x3x3x3 5", .misfit = "as many input channels", CONV},
    {OP_pack_conv, "6x3x5x7", .out = "6x5x7x3"},
    {OP_pack_conv, "6x3x5", .misfit = "w must be (O,I,k,k)"},
    {OP_conv2d_dx, "2x5x4x5 5x3x3x3", .out = "2x9x8x3", .macs = 5400, CONV_DX(9, 8)},
    {OP_conv2d_dx, "5x4x5 5x3x3x3", .misfit = "dy must be (B,H',W',O)", CONV_DX(9, 8)},
    {OP_conv2d_dx, "2x5x4x5 5x3x5x5", .misfit = "w (O,I,k,k)", CONV_DX(9, 8)},
    {OP_conv2d_dx, "2x5x4x5 4x3x3x3", .misfit = "as many output channels", CONV_DX(9, 8)},
    {OP_conv2d_dx, "2x5x4x5 5x3x3x3", .misfit = "the size of y", CONV_DX(11, 8)},
    {OP_conv2d_dx, "2x5x4x5 5x3x3x3", .misfit = "the size of y", CONV_DX(9, 9)},
    {OP_conv2d_dx, "2x5x4x5 5x3x3x3", .misfit = "must be positive", CONV_OF(3, 0, 1)},
    {OP_conv2d_dw, "2x5x4x5 2x9x8x3", .out = "5x3x3x3 5", .macs = 5400, CONV},
    {OP_conv2d_dw, "b:2x5x4x5 b:2x9x8x3", .out = "5x3x3x3 5", .macs = 5400, CONV},
    {OP_conv2d_dw, "2x5x4x5 3x9x8x3", .misfit = "dy must be (B,H',W',O)", CONV},
    {OP_conv2d_dw, "5x4x5 5x9x8x3", .misfit = "dy must be (B,H',W',O)", CONV},
    {OP_conv2d_dw, "2x5x4x5 2x9x24", .misfit = "dy must be (B,H',W',O)", CONV},
    {OP_conv2d_dw, "2x4x4x5 2x9x8x3", .misfit = "the size of y", CONV},
    {OP_conv2d_dw, "2x5x5x5 2x9x8x3", .misfit = "the size of y", CONV},
    {OP_conv2d_dw, "2x5x4x5 2x9x8x3", .misfit = "pad must be in", CONV_OF(3, 2, 3)},

    {OP_linear, "2x7x4 6x4 6", .out = "2x7x6", .macs = 336},
    {OP_linear, "7x4 6x4x1x1 -", .out = "7x6", .macs = 168},
    {OP_linear, "7x4 6x4 1x6x1x1", .out = "7x6", .macs = 168},
    {OP_linear, "h:7x4 h:6x4 h:6", .out = "h:7x6", .macs = 168},
    {OP_linear, ". 6x1 6", .misfit = "x must have a channel dimension"},
    {OP_linear, "7x4 24 6", .misfit = "w must be (O,I) or"},
    {OP_linear, "7x4 6x4x3x1 6", .misfit = "w must be (O,I) or"},
    {OP_linear, "7x4 6x4x1x3 6", .misfit = "w must be (O,I) or"},
    {OP_linear, "7x4 6x4x1 6", .misfit = "w must be (O,I) or"},
    {OP_linear, "7x4 6x5 6", .misfit = "as many columns"},
    {OP_linear, "7x4 6x4 5", .misfit = "b must have as many elements"},
    {OP_linear, "b:7x4 6x4 6", .misfit = "must have one type"},
    {OP_linear, "7x4 6x4 b:6", .misfit = "must have one type"},
    {OP_linear, "b:7x4 h:6x4 b:6", .misfit = "must have one type"},
    {OP_linear, "i:7x4 i:6x4 i:6", .misfit = "features must be f32, bf16 or f16"},
    {OP_linear_dx, "2x7x6 6x4", .out = "2x7x4", .macs = 336},
    {OP_linear_dx, "7x6 6x4x1x1", .out = "7x4", .macs = 168},
    {OP_linear_dx, ". 1x4", .misfit = "dy must have channels"},
    {OP_linear_dx, "7x6 24", .misfit = "w must be (O,I) or"},
    {OP_linear_dx, "7x6 5x4", .misfit = "as many rows as dy has channels"},
    {OP_linear_dw, "2x7x6 14x4", .out = "6x4 6", .macs = 336},
    {OP_linear_dw, "h:7x6 h:7x4", .out = "6x4 6", .macs = 168},
    {OP_linear_dw, "8x6 7x4", .misfit = "must have the same rows"},
    {OP_linear_dw, ". 1x4", .misfit = "must have the same rows"},
    {OP_linear_dw, "1x4 .", .misfit = "must have the same rows"},
    {OP_transpose, "6x4 6", .out = "4x6"},
    {OP_transpose, "6x4x1x1 -", .out = "4x6"},
    {OP_transpose, "24 -", .misfit = "w must be (O,I) or"},
    {OP_transpose, "6x4 4", .misfit = "scale must have as many elements"},
    {OP_linear_packed, "7x4 4x6 6 7x6", .out = "7x6", .macs = 168},
    {OP_linear_packed, "2x7x4 4x6 - -", .out = "2x7x6", .macs = 336},
    {OP_linear_packed, ". 1x6 - -", .misfit = "x must have channels"},
    {OP_linear_packed, "7x4 4x6x1x1 - -", .misfit = "w^T must be (I,O)"},
    {OP_linear_packed, "7x5 4x6 - -", .misfit = "as many rows as x has channels"},
    {OP_linear_packed, "7x4 4x6 4 -", .misfit = "b must have as many elements"},
    {OP_linear_packed, "7x4 4x6 - 7x4", .misfit = "x0 must have the shape of y"},
    {OP_linear_packed, "7x4 4x6 - 1x7x6", .misfit = "x0 must have the shape of y"},

    {OP_dwconv, "2x5x7x4 4x1x3x3 4", .out = "2x5x7x4", .macs = 2520, DW(3)},
    {OP_dwconv, "b:2x5x7x4 4x1x3x3 4", .out = "b:2x5x7x4", .macs = 2520, DW(3)},
    {OP_dwconv, "2x5x7x4 4x1x2x2 4", .misfit = "kernel must be odd", DW(2)},
    {OP_dwconv, "2x5x7x4 4x1x3x3 4", .misfit = "kernel must be odd", DW(-1)},
    {OP_dwconv, "5x7x4 4x1x3x3 4", .misfit = "pictures must be (B,H,W,C)", DW(3)},
    {OP_dwconv, "2x5x7x4 3x1x3x3 4", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv, "2x5x7x4 4x2x3x3 4", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv, "2x5x7x4 4x1x5x3 4", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv, "2x5x7x4 4x1x3x5 4", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv, "2x5x7x4 4x3x3 4", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv, "2x5x7x4 4x1x3x3 3", .misfit = "b must have as many elements", DW(3)},
    {OP_dwconv_dx, "2x5x7x4 4x1x3x3", .out = "2x5x7x4", .macs = 2520, DW(3)},
    {OP_dwconv_dx, "2x5x7x4 5x1x3x3", .misfit = "w must be (C,1,k,k)", DW(3)},
    {OP_dwconv_dx, "5x7x4 4x1x3x3", .misfit = "pictures must be", DW(3)},
    {OP_dwconv_dw, "2x5x7x4 2x5x7x4", .out = "4x1x3x3 4", .macs = 2520, DW(3)},
    {OP_dwconv_dw, "2x5x7x4 2x5x6x4", .misfit = "must have the same shape", DW(3)},
    {OP_dwconv_dw, "5x7x4 5x7x4", .misfit = "pictures must be", DW(3)},
    {OP_dwconv_dw, "2x5x7x4 2x5x7x4", .misfit = "kernel must be odd", DW(4)},
    {OP_dwconv_gelu_bwd, "2x5x7x4 2x5x7x4 4x1x3x3", .out = "2x5x7x4 4x1x3x3 4", .macs = 5040, DW(3)},
    {OP_dwconv_gelu_bwd, "2x5x7x4 2x5x6x4 4x1x3x3", .misfit = "must have the same shape", DW(3)},
    {OP_dwconv_gelu_bwd, "2x5x7x4 2x5x7x4 4x1x5x5", .misfit = "w must be (C,1,k,k)", DW(3)},

    {OP_layer_norm, "2x7x4 4 4", .out = "2x7x4 14 14"},
    {OP_layer_norm, "h:2x7x4 4 4", .out = "h:2x7x4 14 14"},
    {OP_layer_norm, ". 1 1", .misfit = "x must have a channel dimension"},
    {OP_layer_norm, "2x7x4 3 4", .misfit = "as many elements as x has channels"},
    {OP_layer_norm, "2x7x4 4 5", .misfit = "as many elements as x has channels"},
    {OP_layer_norm, "h:2x7x4 h:4 4", .misfit = "operands that are not features must be f32"},
    {OP_layer_norm_bwd, "2x7x4 2x7x4 4 14 14", .out = "2x7x4 4 4"},
    {OP_layer_norm_bwd, "14x4 2x7x4 4 14 14", .misfit = "dy and x must have the same shape"},
    {OP_layer_norm_bwd, "2x7x4 2x7x4 5 14 14", .misfit = "as many elements as x has channels"},
    {OP_layer_norm_bwd, "2x7x4 2x7x4 4 13 14", .misfit = "as many elements as x has rows"},
    {OP_layer_norm_bwd, "2x7x4 2x7x4 4 14 4", .misfit = "as many elements as x has rows"},
    {OP_batch_norm, "2x7x4 4 4 4 4", .out = "2x7x4 4 4"},
    {OP_batch_norm, ". 1 1 1 1", .misfit = "x must have a channel dimension"},
    {OP_batch_norm, "14x4 3 4 4 4", .misfit = "as many elements as x has channels"},
    {OP_batch_norm, "14x4 4 3 4 4", .misfit = "as many elements as x has channels"},
    {OP_batch_norm, "14x4 4 4 3 4", .misfit = "as many elements as x has channels"},
    {OP_batch_norm, "14x4 4 4 4 3", .misfit = "as many elements as x has channels"},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 4 -", .out = "14x4 4 4"},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 4 4", .out = "14x4 4 4", BN_GELU},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 4 4", .misfit = "b must be present with gelu alone"},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 4 -", .misfit = "b must be present with gelu alone", BN_GELU},
    {OP_batch_norm_bwd, "14x4 7x4 4 4 4 -", .misfit = "dy and x must have the same shape"},
    {OP_batch_norm_bwd, "14x4 14x4 3 4 4 -", .misfit = "as many elements as x has channels"},
    {OP_batch_norm_bwd, "14x4 14x4 4 3 4 -", .misfit = "as many elements as x has channels"},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 3 -", .misfit = "as many elements as x has channels"},
    {OP_batch_norm_bwd, "14x4 14x4 4 4 4 3", .misfit = "as many elements as x has channels", BN_GELU},
    {OP_batch_norm_eval, "2x7x4 4 4 4 4", .out = "2x7x4"},
    {OP_batch_norm_eval, ". 1 1 1 1", .misfit = "x must have a channel dimension"},
    {OP_batch_norm_eval, "14x4 3 4 4 4", .misfit = "as many elements as x has channels"},
    {OP_batch_norm_eval, "14x4 4 4 4 5", .misfit = "as many elements as x has channels"},
    {OP_fold_batch_norm, "6x4 6 6 6 6 6", .out = "6x4 6"},
    {OP_fold_batch_norm, ". 1 1 1 1 1", .misfit = "w must have output channels"},
    {OP_fold_batch_norm, "6x4 4 6 6 6 6", .misfit = "as many elements as w has outputs"},
    {OP_fold_batch_norm, "6x4 6 6 6 6 4", .misfit = "as many elements as w has outputs"},
    {OP_fold_batch_norm, "b:6x4 6 6 6 6 6", .misfit = "operands that are not features must be f32"},

    {OP_gelu, "h:2x3", .out = "h:2x3"},
    {OP_gelu, "i:3", .misfit = "features must be f32"},
    {OP_gelu_bwd, "2x3 2x3", .out = "2x3"},
    {OP_gelu_bwd, "3 1x3", .misfit = "must have the same shape"},
    {OP_silu, "2x3", .out = "2x3"},
    {OP_silu, "u:3", .misfit = "features must be f32"},
    {OP_silu_bwd, "2x3 2x3", .out = "2x3"},
    {OP_silu_bwd, "3 4", .misfit = "must have the same shape"},
    {OP_add, "b:2x3 b:2x3", .out = "b:2x3"},
    {OP_add, "2x3 3x2", .misfit = "must have the same shape"},
    {OP_add, "b:3 3", .misfit = "must have one type"},
    {OP_multiply, "2x3 6", .out = "2x3"},
    {OP_multiply, "2x3 5", .misfit = "must have as many elements"},
    {OP_zeros, "2x3", .out = "2x3"},
    {OP_zeros, "i:3", .out = "3"},
    {OP_residual, "2x5x4 2x5x4 4 -", .out = "2x5x4"},
    {OP_residual, "2x5x4 2x5x4 1x4x1x1 3x2", .out = "2x5x4", STREAM(2)},
    {OP_residual, "2x5x4 2x4x5 4 -", .misfit = "must have the same shape"},
    {OP_residual, ". . 1 -", .misfit = "u must have channels"},
    {OP_residual, "2x5x4 2x5x4 5 -", .misfit = "one element per channel"},
    {OP_residual, "2x5x4 2x5x4 4 3x3", .misfit = "one column per sample"},
    {OP_residual, "2x5x4 2x5x4 4 2", .misfit = "one column per sample"},
    {OP_residual, "4 4 4 3x4", .misfit = "one column per sample"},
    {OP_residual, "2x5x4 2x5x4 4 3x2", .misfit = "keep has no such row", STREAM(3)},
    {OP_residual, "2x5x4 2x5x4 4 3x2", .misfit = "keep has no such row", STREAM(-1)},
    {OP_residual_bwd, "2x5x4 2x5x4 1x4x1x1 3x2", .out = "2x5x4 1x4x1x1", STREAM(2)},
    {OP_residual_bwd, "2x5x4 2x4x5 4 -", .misfit = "must have the same shape"},
    {OP_residual_bwd, "2x5x4 2x5x4 5 -", .misfit = "one element per channel"},
    {OP_residual_bwd, "2x5x4 2x5x4 4 3x5", .misfit = "one column per sample"},
    {OP_residual_bwd, "2x5x4 2x5x4 4 3x2", .misfit = "keep has no such row", STREAM(3)},
    {OP_mean_pool, "2x3x5x4", .out = "2x4"},
    {OP_mean_pool, "3x5x4", .misfit = "x must be (B,H,W,C)"},
    {OP_mean_pool_bwd, "2x4", .out = "2x3x5x4", .attr = {.pool = {3, 5}}},
    {OP_mean_pool_bwd, "2x4x1", .misfit = "dy must be (B,C)", .attr = {.pool = {3, 5}}},

    {OP_softmax, "2x5", .out = "2x5"},
    {OP_softmax, "10", .misfit = "x must be f32 (B,K)"},
    {OP_softmax, "2x0", .misfit = "x must be f32 (B,K)"},
    {OP_softmax, "h:2x5", .misfit = "x must be f32 (B,K)"},
    {OP_cross_entropy, "2x5 i:2", .out = "1 2x5", SMOOTH(0.1f)},
    {OP_cross_entropy, "2x5 2x5", .out = "1 2x5", SMOOTH(1)},
    {OP_cross_entropy, "10 i:2", .misfit = "logits must be f32 (B,K)"},
    {OP_cross_entropy, "2x0 i:2", .misfit = "logits must be f32 (B,K)"},
    {OP_cross_entropy, "b:2x5 i:2", .misfit = "logits must be f32 (B,K)"},
    {OP_cross_entropy, "2x5 i:3", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 i:1", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 i:2x1", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 i:2x5", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 2", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 2x4", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 b:2x5", .misfit = "a target must be labels"},
    {OP_cross_entropy, "2x5 i:2", .misfit = "smoothing must lie", SMOOTH(1.5f)},
    {OP_cross_entropy, "2x5 i:2", .misfit = "smoothing must lie", SMOOTH(-0.1f)},
    {OP_cross_entropy, "2x5 i:2", .misfit = "smoothing must lie", SMOOTH(NAN)},
    {OP_cross_entropy_bwd, "1 2x5 i:2", .out = "2x5"},
    {OP_cross_entropy_bwd, "1 2x5 2x5", .out = "2x5"},
    {OP_cross_entropy_bwd, "2 2x5 i:2", .misfit = "dloss must be one f32"},
    {OP_cross_entropy_bwd, "i:1 2x5 i:2", .misfit = "dloss must be one f32"},
    {OP_cross_entropy_bwd, "1 10 i:2", .misfit = "prob must be f32 (B,K)"},
    {OP_cross_entropy_bwd, "1 b:2x5 i:2", .misfit = "prob must be f32 (B,K)"},
    {OP_cross_entropy_bwd, "1 2x5 i:5", .misfit = "a target must be labels"},
    {OP_drop_path, "k:2", .out = "4x3", PATHS(0.1f, 4, 3)},
    {OP_drop_path, "k:3", .misfit = "counter must be u64 (2)", PATHS(0.1f, 4, 3)},
    {OP_drop_path, "2", .misfit = "counter must be u64 (2)", PATHS(0.1f, 4, 3)},
    {OP_drop_path, "k:2", .misfit = "rate must lie in", PATHS(1, 4, 3)},
    {OP_drop_path, "k:2", .misfit = "rate must lie in", PATHS(-0.1f, 4, 3)},
    {OP_drop_path, "k:2", .misfit = "batch must be at least 1", PATHS(0.1f, 4, 0)},
    {OP_drop_path, "k:2", .misfit = "two streams a block", PATHS(0.1f, 3, 3)},
    {OP_drop_path, "k:2", .misfit = "two streams a block", PATHS(0.1f, 0, 3)},
    {OP_grad_norm, "9 16", .out = "1"},
    {OP_grad_norm, "9 15", .misfit = "hyper must be"},
    {OP_grad_norm, "9 4x4", .misfit = "hyper must be"},
    {OP_adamw, "9 9 9 9 1 16", .out = ""},
    {OP_adamw, "9 8 9 9 1 16", .misfit = "must be of one size"},
    {OP_adamw, "9 9 8 9 1 16", .misfit = "must be of one size"},
    {OP_adamw, "9 9 9 8 1 16", .misfit = "must be of one size"},
    {OP_adamw, "9 9 9 9 2 16", .misfit = "norm must be one number"},
    {OP_adamw, "9 9 9 9 1 17", .misfit = "hyper must be"},
    {OP_adamw, "9 b:9 9 9 1 16", .misfit = "operands that are not features must be f32"},
    {OP_ema, "9 9 1 16", .out = ""},
    {OP_ema, "9 8 1 16", .misfit = "must be of one size"},
    {OP_ema, "9 9 2 16", .misfit = "norm must be one number"},
    {OP_ema, "9 9 1 1", .misfit = "hyper must be"},

    {OP_attention, "2x3x5x32 8x1x5x5 8", .out = "2x3x5x8 2x3x5x8 2x2x6x4", .macs = 7920, HEADS(2)},
    {OP_attention, "2x3x5x32 8x1x5x5 8", .out = "2x3x5x8 2x3x5x8 2x2x15", .macs = 13200, SOFTMAX_HEADS(2)},
    {OP_attention, "h:2x3x5x32 8x1x5x5 8", .out = "h:2x3x5x8 h:2x3x5x8 2x2x6x4", .macs = 7920, HEADS(2)},
    {OP_attention, "1x1x1x2048 512x1x5x5 512", .out = "1x1x1x512 1x1x1x512 1x1x514x512", .macs = 537088, HEADS(1)},
    {OP_attention, "2x15x32 8x1x5x5 8", .misfit = "qkvo must be (B,H,W,4C)", HEADS(2)},
    {OP_attention, "2x3x5x30 8x1x5x5 8", .misfit = "qkvo must be (B,H,W,4C)", HEADS(2)},
    {OP_attention, "2x3x5x32 8x1x5x5 8", .misfit = "heads must divide", HEADS(3)},
    {OP_attention, "2x3x5x32 8x1x5x5 8", .misfit = "heads must divide", HEADS(0)},
    {OP_attention, "2x3x5x32 8x1x5x5 8", .misfit = "a head must have 4, 8", HEADS(4)},
    {OP_attention, "2x3x5x24 6x1x5x5 6", .misfit = "a head must have 4, 8", HEADS(1)},
    {OP_attention, "1x1x1x2064 516x1x5x5 516", .misfit = "a head must have 4, 8", HEADS(1)},
    {OP_attention, "2x3x5x32 8x1x3x3 8", .misfit = "w must be (C,1,5,5)", HEADS(2)},
    {OP_attention, "2x3x5x32 32x1x5x5 8", .misfit = "w must be (C,1,5,5)", HEADS(2)},
    {OP_attention, "2x3x5x32 8x1x5x5 7", .misfit = "b must be (C)", HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 8 2x3x5x8 2x2x6x4", .out = "2x3x5x32 8x1x5x5 8", .macs = 15840,
     HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 8 2x3x5x8 2x2x15", .out = "2x3x5x32 8x1x5x5 8", .macs = 30000,
     SOFTMAX_HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 8 2x3x5x8 2x2x15", .misfit = "stats must be those", HEADS(2)},
    {OP_attention_bwd, "2x5x3x8 2x3x5x32 8x1x5x5 8 2x3x5x8 2x2x6x4", .misfit = "dy must be (B,H,W,C)", HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 8 2x5x3x8 2x2x6x4", .misfit = "mix must be (B,H,W,C)", HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 8 2x3x5x8 2x1x6x4", .misfit = "stats must be those", HEADS(2)},
    {OP_attention_bwd, "2x3x5x8 2x3x5x32 8x1x5x5 9 2x3x5x8 2x2x6x4", .misfit = "b must be (C)", HEADS(2)},
};
/* clang-format on */

static DType type_of(char letter) {
    return letter == 'i' ? DT_I32 : letter == 'u' ? DT_U8 : letter == 'k' ? DT_U64 : letter == 'h' ? DT_F16 : DT_BF16;
}

/* The operands of a row, declared: how many. */
static int declare(Graph *g, const char *text, Val *in) {
    int count = 0;
    while (*text) {
        DType type = DT_F32;
        Shape s = {0};
        if (text[1] == ':') type = type_of(*text), text += 2;
        bool absent = *text == '-';
        while (*text && *text != ' ') {
            char *end;
            if (*text == '-' || *text == '.' || *text == 'x')
                text++;
            else
                s.dim[s.rank++] = strtoll(text, &end, 10), text = end;
        }
        in[count++] = absent ? NO_VAL : graph_input(g, "operand", type, s);
        text += *text == ' ';
    }
    return count;
}

static void print_outputs(char *text, size_t capacity, const Graph *g, const Val *out, int count) {
    static const char *const letters[] = {
        [DT_F32] = "", [DT_I32] = "i:", [DT_U8] = "u:", [DT_U64] = "k:", [DT_F16] = "h:", [DT_BF16] = "b:"};
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        char shape[128];
        const Value *v = graph_value(g, out[i]);
        used += (size_t)snprintf(text + used, capacity - used, "%s%s%s", i ? " " : "", letters[v->dtype],
                                 shape_print(shape, sizeof shape, &v->shape));
    }
}

/* Emits the row's op; the reason why it was refused, or "". */
static const char *emit(Graph *g, const Row *row, const Val *in, int count, Val *out) {
    static Rescue rescue;
    Rescue *before = rescue_use(&rescue);
    if (setjmp(rescue.at) == 0) {
        graph_emit(g, row->op, row->attr, in, count, out);
        rescue_use(before);
        return "";
    }
    rescue_use(before);
    assert_int_equal(rescue.err.code, EXIT_BUG);
    return rescue.err.text;
}

static void test_operands_that_fit_and_that_do_not(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const Row *row = &rows[i];
        Graph *g = graph_new();
        Val in[MAX_IN], out[MAX_OUT];
        int count = declare(g, row->in, in);
        const char *reason = emit(g, row, in, count, out), *name = op_def[row->op]->name;
        if (row->out) {
            char got[256];
            if (reason[0]) fail_msg("%s %s: %s", name, row->in, reason);
            print_outputs(got, sizeof got, g, out, op_def[row->op]->n_out);
            if (strcmp(got, row->out) != 0) fail_msg("%s %s: gives %s, not %s", name, row->in, got, row->out);
            double (*count_macs)(const Graph *, const Node *) = op_def[row->op]->macs;
            double macs = count_macs ? count_macs(g, &g->nodes[0]) : 0;
            if (macs != row->macs) fail_msg("%s %s: %.0f multiply-adds, not %.0f", name, row->in, macs, row->macs);
        } else {
            if (!reason[0]) fail_msg("%s %s: taken, where \"%s\" was expected", name, row->in, row->misfit);
            if (!strstr(reason, row->misfit)) fail_msg("%s %s: \"%s\", not \"%s\"", name, row->in, reason, row->misfit);
            if (!strstr(reason, name)) fail_msg("%s: \"%s\" does not name the op", name, reason);
            assert_int_equal(g->n_nodes, 0); /* nothing half made */
        }
        graph_free(g);
    }
}

static void test_every_op_stands_in_the_table(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool fits = false, refused = op == OP_zeros; /* which takes anything */
        for (size_t i = 0; i < COUNTOF(rows); i++) {
            if ((int)rows[i].op != op) continue;
            fits |= rows[i].out != NULL, refused |= rows[i].misfit != NULL;
        }
        if (!fits || !refused) fail_msg("op %s has no row of what it %s", op_def[op]->name, fits ? "refuses" : "takes");
    }
}

/* Operands that are lacking, absent where they may not be, too many, or not there yet. */
static void test_operands_that_are_not_there(void **state) {
    (void)state;
    static const Row linear = {.op = OP_linear}, add = {.op = OP_add};
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(3, 4)), w = graph_input(g, "w", DT_F32, SHAPE(5, 4)), out[MAX_OUT];
    assert_non_null(strstr(emit(g, &linear, (Val[]){x}, 1, out), "1 inputs"));
    assert_non_null(strstr(emit(g, &linear, (Val[]){x, w, NO_VAL, x}, 4, out), "4 inputs"));
    assert_non_null(strstr(emit(g, &linear, (Val[]){x, NO_VAL}, 2, out), "input 1 is absent"));
    assert_non_null(strstr(emit(g, &add, (Val[]){NO_VAL, x}, 2, out), "input 0 is absent"));
    assert_non_null(strstr(emit(g, &add, (Val[]){x, w + 1}, 2, out), "input 1 does not exist yet"));
    assert_non_null(strstr(emit(g, &add, (Val[]){-2, x}, 2, out), "input 0 does not exist yet"));
    assert_string_equal(emit(g, &linear, (Val[]){x, w}, 2, out), "");
    assert_int_equal(g->n_nodes, 1);
    assert_int_equal(g->nodes[0].n_in, 3); /* the absent bias included */
    assert_int_equal(node_in(g, &g->nodes[0], 2), NO_VAL);
    graph_free(g);
}

static void test_a_cast_to_the_type_that_is_there_is_no_node(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(3, 4));
    assert_int_equal(op_cast(g, x, DT_F32), x);
    assert_int_equal(g->n_nodes, 0);
    Val half = op_cast(g, x, DT_F16);
    assert_int_not_equal(half, x);
    assert_int_equal(op_cast(g, half, DT_F16), half);
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
}

static Err declare_again(Graph *g, ParamSpec spec, Val *out) {
    static Rescue rescue;
    Rescue *before = rescue_use(&rescue);
    rescue.err = (Err){0};
    if (setjmp(rescue.at) == 0) *out = graph_param(g, spec);
    rescue_use(before);
    return rescue.err;
}

/* The same name is the same parameter, of one shape; under another scope it is another one. */
static void test_a_parameter_declared_twice(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val out = NO_VAL, w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(6, 4)});
    assert_int_equal(declare_again(g, (ParamSpec){.name = "w", .shape = SHAPE(6, 4)}, &out).code, 0);
    assert_int_equal(out, w);
    assert_int_equal(g->n_params, 1);
    static const Shape other[] = {{2, {4, 6}}, {2, {6, 5}}, {2, {7, 4}}, {1, {6}}, {3, {6, 4, 1}}};
    for (size_t i = 0; i < COUNTOF(other); i++) {
        Err e = declare_again(g, (ParamSpec){.name = "w", .shape = other[i]}, &out);
        assert_int_equal(e.code, EXIT_BUG);
        assert_non_null(strstr(e.text, "w declared twice with different shapes"));
    }
    graph_push(g, "block");
    assert_int_equal(declare_again(g, (ParamSpec){.name = "w", .shape = SHAPE(5)}, &out).code, 0);
    assert_int_not_equal(out, w);
    assert_int_equal(g->n_params, 2);
    graph_free(g);
}

/* Decayed parameters, then the others, then, by themselves, statistics: each in order, from a multiple of 16 on. */
static void test_flat_layout(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t count, offset;
        bool decay, buffer;
    } params[] = {{"a", 3, 48, false, false},  {"b", 17, 0, true, false}, {"c", 5, 0, false, true},
                  {"d", 16, 64, false, false}, {"e", 1, 32, true, false}, {"f", 40, 16, false, true}};
    Graph *g = graph_new();
    for (size_t i = 0; i < COUNTOF(params); i++)
        graph_param(g, (ParamSpec){.name = params[i].name, .shape = SHAPE(params[i].count), .decay = params[i].decay,
                                   .buffer = params[i].buffer});
    FlatLayout f = graph_flat_layout(g);
    for (size_t i = 0; i < COUNTOF(params); i++) assert_int_equal(f.offset[i], params[i].offset);
    assert_int_equal(f.decayed, 48);
    assert_int_equal(f.total, 80);
    assert_int_equal(f.buffers, 64);
    assert_int_equal(shape_count(&graph_value(g, graph_state_group(g, ROLE_WEIGHT, PARAMS_DECAYED))->shape), 48);
    assert_int_equal(shape_count(&graph_value(g, graph_state_group(g, ROLE_WEIGHT, PARAMS_OTHER))->shape), 32);
    assert_int_equal(shape_count(&graph_value(g, graph_state_group(g, ROLE_WEIGHT, PARAMS_ALL))->shape), 80);
    free(f.offset);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operands_that_fit_and_that_do_not),
        cmocka_unit_test(test_every_op_stands_in_the_table),
        cmocka_unit_test(test_operands_that_are_not_there),
        cmocka_unit_test(test_a_cast_to_the_type_that_is_there_is_no_node),
        cmocka_unit_test(test_a_parameter_declared_twice),
        cmocka_unit_test(test_flat_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
