#include "app/memory.h"

#include <stdlib.h>

#include "lib/model_file.h"

size_t network_memory_total(const NetworkMemory *n) {
    return n->weights + n->gradients + n->moments + n->average + n->cast + n->statistics + n->activations +
           n->constants + n->workspace + n->inputs + n->staging;
}

static bool measure(NetworkMemory *out, const ClassifyGraph *g, unsigned roles, const Val *keep, int n_keep,
                    Backend *backend, Err *err) {
    Plan *p;
    if (!plan_new(&p, g->graph, backend, NULL, keep, n_keep, (PlanOptions){.measure = true}, err)) return false;
    FlatLayout layout = graph_flat_layout(g->graph);
    size_t role = (size_t)layout.total * sizeof(float);
    out->weights = roles & 1u << ROLE_WEIGHT ? role : 0;
    out->gradients = roles & 1u << ROLE_GRAD ? role : 0;
    out->moments = (roles & 1u << ROLE_MOMENT1 ? role : 0) + (roles & 1u << ROLE_MOMENT2 ? role : 0);
    out->average = roles & 1u << ROLE_EMA ? role : 0;
    out->cast = roles & 1u << ROLE_CAST ? role / 2 : 0;
    out->statistics = roles & 1u << ROLE_BUFFER ? (size_t)layout.buffers * sizeof(float) : 0;
    out->activations = p->arena_bytes;
    out->constants = p->constant_bytes;
    out->workspace = p->work_bytes;
    out->inputs = p->input_bytes;
    out->staging = plan_device_bytes(p) - p->arena_bytes - p->constant_bytes - p->work_bytes - p->input_bytes;
    out->transfers = plan_transfer_bytes(p);
    free(layout.offset);
    plan_free(p);
    return true;
}

bool memory_predict(MemoryNeeds *out, const Config *c, int classes, int batch, bool train, Backend *backend, Err *err) {
    ClassifySpec spec = config_classify_on(c, classes, backend);
    spec.model.classes = classes;
    int height = c->input.size[0], width = c->input.size[1];
    *out = (MemoryNeeds){0};
    bool ok = true;
    if (train) {
        ClassifyGraph g = classify_train_graph(&spec, batch, height, width);
        out->training.batch = batch;
        ok = measure(&out->training, &g, classify_train_roles(&spec), (Val[]){g.loss, g.norm}, 2, backend, err);
        classify_graph_free(&g);
    }
    if (ok) {
        out->evaluation.batch = train && c->eval.batch_size != AUTO_INT ? c->eval.batch_size : batch;
        ClassifyGraph g = classify_eval_graph(&spec, out->evaluation.batch, height, width,
                                              classify_eval_fusion(backend));
        ok = measure(&out->evaluation, &g, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, (Val[]){g.logits, g.prob}, 2, backend,
                     err);
        classify_graph_free(&g);
    }
    out->total = network_memory_total(&out->training) + network_memory_total(&out->evaluation);
    return ok;
}
