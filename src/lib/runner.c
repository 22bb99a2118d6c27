#include "lib/runner.h"

#include "lib/device.h"
#include "lib/memory.h"

/* Pictures a run. On the host: enough to share the weights' way through the caches, few enough to stay in them. On a
 * GPU: enough to fill it; the next ones are decoded meanwhile. */
enum { HOST_BATCH = 2, GPU_BATCH = 32 };

bool runner_open(Runner *r, const ModelFile *m, RunnerOptions options, Err *err) {
    const Config *c = options.config ? options.config : &m->config;
    *r = (Runner){.transform = config_eval_transform(&m->config)};
    if (config_open_backend(&r->backend, c, err) &&
        (options.exact || config_set_precision(&r->backend, c, false, err))) {
        int batch = options.batch ? options.batch : r->backend.host_memory ? HOST_BATCH : GPU_BATCH;
        MemoryRun run = {.config = &m->config, .backend = &r->backend, .classes = m->class_count, .batch = batch,
                         .eval_most = batch, .picture_bytes = config_picture_bytes(c) * LOADER_AHEAD};
        size_t spare;
        if (model_file_has_classifier(m, err) && memory_check(&spare, &run, err) &&
            predictor_open(&r->predictor, m, &r->backend, batch, options.tensors, err))
            return true;
    }
    runner_close(r);
    return false;
}

void runner_close(Runner *r) {
    if (r->predictor.graph.graph) predictor_close(&r->predictor);
    if (r->backend.close) r->backend.close(&r->backend);
    *r = (Runner){0};
}
