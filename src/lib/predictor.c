#include "lib/predictor.h"

static bool predictor_graph(Predictor *p, const Config *c, int classes, Backend *backend, int batch, bool float_images,
                            Err *err) {
    ClassifySpec spec = config_classify_on(c, classes, backend);
    spec.model.classes = classes;
    spec.float_images = float_images;
    int height = c->input.size[0], width = c->input.size[1];
    size_t element = float_images ? sizeof(float) : sizeof(uint8_t);
    *p = (Predictor){.batch = batch, .classes = classes, .image_bytes = (size_t)height * (size_t)width * 3 * element};
    p->graph = classify_eval_graph(&spec, batch, height, width, classify_eval_fusion(backend));
    return state_new(&p->state, p->graph.graph, backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, err);
}

static bool predictor_plan(Predictor *p, Backend *backend, Log *log, Err *err) {
    Val keep[] = {p->graph.logits, p->graph.prob};
    return plan_new(&p->plan, p->graph.graph, backend, &p->state, keep, COUNTOF(keep), (PlanOptions){.log = log}, err);
}

bool predictor_open(Predictor *p, const ModelFile *m, Backend *backend, int batch, bool float_images, Err *err) {
    WeightsReport report;
    WeightsPolicy policy = config_weights_policy(&m->config, HEAD_STRICT, m->log);
    *p = (Predictor){0};
    if (!model_file_has_classifier(m, err)) return false;
    if (predictor_graph(p, &m->config, m->class_count, backend, batch, float_images, err) &&
        weights_attach(&report, &p->state, &m->file, &policy, err) && predictor_plan(p, backend, m->log, err)) {
        weights_describe(&report, m->log);
        return true;
    }
    predictor_close(p);
    return false;
}

bool predictor_open_random(Predictor *p, const Config *c, int classes, Backend *backend, int batch, bool on_demand,
                           Err *err) {
    static const uint64_t seed = 0;
    bool ok = predictor_graph(p, c, classes, backend, batch, false, err);
    if (ok && on_demand) state_attach(&p->state, state_initial_source(&seed));
    if (ok && (on_demand || state_init(&p->state, seed, err)) && predictor_plan(p, backend, NULL, err)) return true;
    predictor_close(p);
    return false;
}

void predictor_close(Predictor *p) {
    plan_free(p->plan);
    if (p->state.params) state_free(&p->state);
    classify_graph_free(&p->graph);
    *p = (Predictor){0};
}

bool predictor_queue(Predictor *p, const void *pixels, int count, Err *err) {
    CHECK(count > 0 && count <= p->batch, "%d pictures in a batch of %d", count, p->batch);
    CHECK(p->queued < 2, "two batches are queued already");
    if (!plan_stage(p->plan, p->graph.images, pixels, (size_t)count * p->image_bytes, err)) return false;
    plan_run(p->plan);
    if (!plan_fetch_begin(p->plan, err)) return false;
    p->counts[p->queued++] = count;
    return true;
}

bool predictor_read(Predictor *p, float *logits, float *prob, Err *err) {
    CHECK(p->queued > 0, "no batch is queued");
    size_t bytes = (size_t)p->counts[0] * (size_t)p->classes * sizeof(float);
    int back = --p->queued;
    p->counts[0] = p->counts[1];
    return (!logits || plan_fetch(p->plan, p->graph.logits, logits, bytes, back, err)) &&
           (!prob || plan_fetch(p->plan, p->graph.prob, prob, bytes, back, err));
}

bool predictor_run(Predictor *p, float *logits, float *prob, const void *pixels, int count, Err *err) {
    return predictor_queue(p, pixels, count, err) && predictor_read(p, logits, prob, err);
}
