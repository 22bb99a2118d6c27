/* nn.h - layers: one call declares the parameters under the released checkpoints' names and applies them. */
#ifndef MALA_NN_H
#define MALA_NN_H

#include "graph/op.h"

/* How a network is being built: the same C function makes the training graph (batch statistics, drop path) and the
 * evaluation graph (running statistics, neither emitted). */
typedef struct {
    Graph *g;
    bool train;
    Val counter; /* u64 (2): seed and step, for drop path; training only */
    Val keep;    /* drop path's factors of all residuals (mavit_features); NO_VAL: nothing is dropped */
} Nn;

/* x (B,H,W,I) -> (B,H',W',out); parameters weight (out,I,k,k), bias (out) */
Val nn_conv(Nn *nn, Val x, const char *name, int64_t out, int kernel, int stride);
/* 1x1 convolution, a matrix product: x (...,I) -> (...,out); weight (out,I,1,1), bias (out) */
Val nn_pointwise(Nn *nn, Val x, const char *name, int64_t out);
/* x + depthwise convolution of x; weight (C,1,k,k), bias (C) */
Val nn_depthwise_residual(Nn *nn, Val x, const char *name, int kernel);
/* over the channels, eps 1e-6; parameters weight, bias */
Val nn_layer_norm(Nn *nn, Val x, const char *name);
/* eps 1e-5, momentum 0.1; parameters weight, bias, buffers running_mean, running_var */
Val nn_batch_norm(Nn *nn, Val x, const char *name);
/* x + k gamma u, gamma (1,C,1,1) starting at layer_scale, k row `stream` of nn->keep; below 0: k = 1 */
Val nn_residual(Nn *nn, Val x, Val u, const char *gamma, float layer_scale, int stream);

#endif
