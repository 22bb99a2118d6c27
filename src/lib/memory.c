#include "lib/memory.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/host_memory.h"
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

/* Batches of 0: without that network. */
static bool predict(MemoryNeeds *out, const Config *c, int classes, int train_batch, int eval_batch, Backend *backend,
                    Err *err) {
    ClassifySpec spec = config_classify_on(c, classes, backend);
    spec.model.classes = classes;
    int height = c->input.size[0], width = c->input.size[1];
    *out = (MemoryNeeds){.training.batch = train_batch, .evaluation.batch = eval_batch};
    bool ok = true;
    if (train_batch) {
        ClassifyGraph g = classify_train_graph(&spec, train_batch, height, width);
        ok = measure(&out->training, &g, classify_train_roles(&spec), (Val[]){g.loss, g.norm}, 2, backend, err);
        classify_graph_free(&g);
    }
    if (ok && eval_batch) {
        ClassifyGraph g = classify_eval_graph(&spec, eval_batch, height, width, classify_eval_fusion(backend));
        ok = measure(&out->evaluation, &g, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, (Val[]){g.logits, g.prob}, 2, backend,
                     err);
        classify_graph_free(&g);
    }
    out->total = network_memory_total(&out->training) + network_memory_total(&out->evaluation);
    return ok;
}

bool memory_predict(MemoryNeeds *out, const Config *c, int classes, int batch, bool train, Backend *backend, Err *err) {
    int eval_batch = train && c->eval.batch_size != AUTO_INT ? c->eval.batch_size : batch;
    return predict(out, c, classes, train ? batch : 0, eval_batch, backend, err);
}

/* ---- will it fit? ---- */

/* What a run takes beside what is counted: the program and its libraries, their code for this machine, pictures that
 * are being decoded. */
#define BESIDE ((size_t)32 << 20)

static bool total_of(size_t *out, const MemoryRun *r, int batch, Err *err) {
    MemoryNeeds needs;
    int eval_batch = r->eval_batch ? MIN(r->eval_batch, r->eval_most) : MIN(batch, r->eval_most);
    if (!predict(&needs, r->config, r->classes, r->train ? batch : 0, eval_batch, r->backend, err)) return false;
    if (r->train && eval_batch) needs.total += 2 * needs.evaluation.weights; /* golden logits, beside all that */
    bool streamed = !r->train && r->backend->discard; /* weights go as soon as they are folded into constants */
    size_t pictures = (size_t)(eval_batch + (r->train ? batch : 0));
    *out = needs.total - (streamed ? needs.evaluation.weights : 0) + pictures * r->picture_bytes + BESIDE;
    return true;
}

/* The largest batch below `batch` that fits in `left`; 0: none. */
static bool largest_batch(int *out, const MemoryRun *r, int batch, size_t left, Err *err) {
    int low = 0, high = batch;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        size_t total;
        if (!total_of(&total, r, middle, err)) return false;
        *(total <= left ? &low : &high) = middle;
    }
    *out = low;
    return true;
}

bool memory_check(size_t *spare, const MemoryRun *r, Err *err) {
    const char *limit;
    size_t left, total;
    int most;
    if (!host_memory_allowed(&left, &limit, err)) return false;
    *spare = left;
    if (left == SIZE_MAX || !r->backend->host_memory) return true;
    if (!total_of(&total, r, r->batch, err)) return false;
    *spare = left - MIN(total, left);
    if (total <= left) return true;
    if (!largest_batch(&most, r, r->batch, left, err)) return false;
    char advice[100] = "use a smaller model or input.size";
    if (most) snprintf(advice, sizeof advice, "the largest batch that fits is %d", most);
    return err_set(err, EXIT_MEMORY, "memory: %s with a batch of %d takes %.2f GiB, %.2f are left (%s) - %s",
                   r->train ? "training" : "the network", r->batch, (double)total / 0x1p30, (double)left / 0x1p30,
                   limit, advice);
}
