/* fuse.h - rewrites a forward graph for speed. What a pattern computes from weights alone becomes nodes of their own,
 * which the plan runs once. Patterns that have gradients serve training too, ahead of autodiff; export uses the graph
 * as the model wrote it. */
#ifndef MALA_FUSE_H
#define MALA_FUSE_H

#include "graph/op.h"

enum {
    FUSE_BATCH_NORM = 1,   /* BatchNorm with running statistics goes into the convolution or linear before it */
    FUSE_PACKED = 2,       /* products use weights that were turned once into the order kernels want */
    FUSE_GELU = 4,         /* GELU on the tile that the product has just left in cache; needs FUSE_PACKED */
    FUSE_RESIDUAL = 8,     /* likewise x + gamma * product, gamma in the weights */
    FUSE_GELU_DWCONV = 16, /* GELU before a depthwise convolution goes into that, ahead of FUSE_GELU */
    FUSE_BATCH_NORM_GELU = 32, /* a batch's own BatchNorm takes the GELU behind it along */
    FUSE_ALL = 63,
    FUSE_TRAINING = FUSE_GELU_DWCONV | FUSE_BATCH_NORM_GELU /* those with a gradient */
};

/* A new graph with the same inputs (in order) and parameters; keep[n_keep] is changed to the values' new ids. */
Graph *fuse(const Graph *g, unsigned patterns, Val *keep, int n_keep);

#endif
