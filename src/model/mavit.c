#include "model/mavit.h"

static Val stem(Nn *nn, Val x, int dim) {
    Graph *g = nn->g;
    graph_push(g, "patch_embed.proj");
    x = op_gelu(g, nn_batch_norm(nn, nn_conv(nn, x, "0", dim / 2, 3, 2), "1"));
    x = op_gelu(g, nn_batch_norm(nn, nn_conv(nn, x, "3", dim / 2, 3, 1), "4"));
    x = op_gelu(g, nn_batch_norm(nn, nn_conv(nn, x, "6", dim / 2, 3, 1), "7"));
    x = nn_batch_norm(nn, nn_conv(nn, x, "9", dim, 3, 2), "10");
    graph_pop(g);
    return x;
}

static Val attention(Nn *nn, Val x, AttentionKind kind, int heads) {
    Graph *g = nn->g;
    int64_t c = shape_last(&graph_value(g, x)->shape);
    graph_push(g, "attn");
    Val qkvo = nn_pointwise(nn, x, "qkvo", 4 * c);
    Val w = graph_param(g, (ParamSpec){.name = "lepe.weight", .shape = SHAPE(c, 1, 5, 5), .decay = true,
                                       .init = INIT_TRUNC_NORMAL, .init_value = 0.02f});
    Val b = graph_param(g, (ParamSpec){.name = "lepe.bias", .shape = SHAPE(c), .init = INIT_ZERO});
    x = nn_pointwise(nn, op_attention(g, qkvo, w, b, kind, heads), "proj", c);
    graph_pop(g);
    return x;
}

static Val feed_forward(Nn *nn, Val x, int hidden) {
    int64_t c = shape_last(&graph_value(nn->g, x)->shape);
    graph_push(nn->g, "ffn");
    x = op_gelu(nn->g, nn_pointwise(nn, x, "fc1", hidden));
    x = nn_pointwise(nn, nn_depthwise_residual(nn, x, "dwconv", 3), "fc2", c);
    graph_pop(nn->g);
    return x;
}

/* Block `index` of all; the first one is never dropped (drop_path in graph/op_optim.c). */
static Val block(Nn *nn, const MavitConfig *c, Val x, int stage, int index) {
    int stream = 2 * (index - 1);
    x = nn_depthwise_residual(nn, x, "pos", 3);
    Val u = attention(nn, nn_layer_norm(nn, x, "norm1.norm"), c->attention[stage], c->heads[stage]);
    x = nn_residual(nn, x, u, "gamma_1", c->layer_scale[stage], stream);
    u = feed_forward(nn, nn_layer_norm(nn, x, "norm2.norm"), (int)(c->mlp_ratio * c->dims[stage]));
    return nn_residual(nn, x, u, "gamma_2", c->layer_scale[stage], stream + 1);
}

void mavit_features(Nn *nn, const MavitConfig *c, Val x, Val stage[MAVIT_STAGES]) {
    Graph *g = nn->g;
    const Shape *s = &graph_value(g, x)->shape;
    CHECK(s->rank == 4 && s->dim[1] % 32 == 0 && s->dim[2] % 32 == 0, "sides must be multiples of 32");
    int blocks = 0, index = 0;
    for (int i = 0; i < MAVIT_STAGES; i++) blocks += c->depths[i];
    nn->keep = NO_VAL;
    if (nn->train && c->drop_path > 0 && blocks > 1)
        nn->keep = op_drop_path(g, nn->counter, (int)s->dim[0], c->drop_path, 2 * (blocks - 1));
    x = stem(nn, x, c->dims[0]);
    for (int i = 0; i < MAVIT_STAGES; i++) {
        graph_push(g, "layers.%d", i);
        for (int k = 0; k < c->depths[i]; k++, index++) {
            graph_push(g, "blocks.%d", k);
            x = block(nn, c, x, i, index);
            graph_pop(g);
        }
        stage[i] = x;
        if (i + 1 < MAVIT_STAGES) {
            graph_push(g, "downsample");
            x = nn_batch_norm(nn, nn_conv(nn, x, "reduction", c->dims[i + 1], 3, 2), "norm");
            graph_pop(g);
        }
        graph_pop(g);
    }
}

void mavit_extra_norms(Nn *nn, Val out[MAVIT_STAGES], const Val stage[MAVIT_STAGES]) {
    for (int i = 0; i < MAVIT_STAGES; i++) {
        graph_push(nn->g, "extra_norms.%d", i);
        out[i] = nn_layer_norm(nn, stage[i], "norm");
        graph_pop(nn->g);
    }
}

Val mavit_classifier(Nn *nn, const MavitConfig *c, Val x) {
    x = nn_pointwise(nn, x, "proj", c->projection);
    x = op_mean_pool(nn->g, op_silu(nn->g, nn_batch_norm(nn, x, "norm")));
    return nn_pointwise(nn, x, "head", c->classes);
}
