#include "model/nn.h"

#define CONV_STD 0.02f /* the released initialisation: truncated normal for every convolution, zero bias */

static Val parameter(Nn *nn, const char *name, Shape shape, InitKind init, float value) {
    /* decay follows the file's dimensions, so that layer scale (1,C,1,1) decays, as in the released recipe */
    return graph_param(nn->g, (ParamSpec){.name = name, .shape = shape, .decay = shape.rank > 1, .init = init,
                                          .init_value = value});
}

static Val statistic(Nn *nn, const char *name, int64_t channels, InitKind init) {
    return graph_param(nn->g, (ParamSpec){.name = name, .shape = SHAPE(channels), .buffer = true, .init = init});
}

static int64_t channels_of(const Nn *nn, Val x) { return shape_last(&graph_value(nn->g, x)->shape); }

Val nn_conv(Nn *nn, Val x, const char *name, int64_t out, int kernel, int stride) {
    graph_push(nn->g, "%s", name);
    Val w = parameter(nn, "weight", SHAPE(out, channels_of(nn, x), kernel, kernel), INIT_TRUNC_NORMAL, CONV_STD);
    Val b = parameter(nn, "bias", SHAPE(out), INIT_ZERO, 0);
    Val y = op_conv2d(nn->g, x, w, b, kernel, stride, kernel / 2);
    graph_pop(nn->g);
    return y;
}

Val nn_pointwise(Nn *nn, Val x, const char *name, int64_t out) {
    graph_push(nn->g, "%s", name);
    Val w = parameter(nn, "weight", SHAPE(out, channels_of(nn, x), 1, 1), INIT_TRUNC_NORMAL, CONV_STD);
    Val b = parameter(nn, "bias", SHAPE(out), INIT_ZERO, 0);
    Val y = op_linear(nn->g, x, w, b);
    graph_pop(nn->g);
    return y;
}

Val nn_depthwise_residual(Nn *nn, Val x, const char *name, int kernel) {
    graph_push(nn->g, "%s", name);
    Val w = parameter(nn, "weight", SHAPE(channels_of(nn, x), 1, kernel, kernel), INIT_TRUNC_NORMAL, CONV_STD);
    Val b = parameter(nn, "bias", SHAPE(channels_of(nn, x)), INIT_ZERO, 0);
    Val y = op_dwconv(nn->g, x, w, b, kernel, true);
    graph_pop(nn->g);
    return y;
}

Val nn_layer_norm(Nn *nn, Val x, const char *name) {
    graph_push(nn->g, "%s", name);
    Val gain = parameter(nn, "weight", SHAPE(channels_of(nn, x)), INIT_ONE, 0);
    Val bias = parameter(nn, "bias", SHAPE(channels_of(nn, x)), INIT_ZERO, 0);
    Val y = op_layer_norm(nn->g, x, gain, bias, 1e-6f);
    graph_pop(nn->g);
    return y;
}

Val nn_batch_norm(Nn *nn, Val x, const char *name) {
    int64_t c = channels_of(nn, x);
    graph_push(nn->g, "%s", name);
    Val gain = parameter(nn, "weight", SHAPE(c), INIT_ONE, 0);
    Val bias = parameter(nn, "bias", SHAPE(c), INIT_ZERO, 0);
    Val mean = statistic(nn, "running_mean", c, INIT_ZERO);
    Val var = statistic(nn, "running_var", c, INIT_ONE);
    Val y = nn->train ? op_batch_norm(nn->g, x, gain, bias, mean, var, 1e-5f, 0.1f)
                      : op_batch_norm_eval(nn->g, x, gain, bias, mean, var, 1e-5f);
    graph_pop(nn->g);
    return y;
}

Val nn_residual(Nn *nn, Val x, Val u, const char *gamma, float layer_scale, int stream) {
    Val scale = parameter(nn, gamma, SHAPE(1, channels_of(nn, x), 1, 1), INIT_CONST, layer_scale);
    return op_residual(nn->g, x, u, scale, stream < 0 ? NO_VAL : nn->keep, MAX(stream, 0));
}
