#include "retrace.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "colours.h"
#include "data/loader.h"
#include "io/tensor_file.h"

enum { SIDE = 32 };
#define NEAR 2e-3  /* parts of the way from the start; the same arithmetic in another order stays below 1e-4 */
#define LEAST 2e-2 /* that epochs, or an average and what it averages, must be apart */
#define ROUNDING 1e-4 /* of a logit: nearer ones may come in another order where kernels round otherwise */

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

void recipe_settings(char *out, size_t size, const Recipe *r) {
    char crop[200];
    if (r->scale[1] > 0)
        snprintf(crop, sizeof crop, "aug.crop=rrc 'aug.scale=[%g,%g]' 'aug.ratio=[%g,%g]'", r->scale[0], r->scale[1],
                 r->ratio[0], r->ratio[1]);
    else
        snprintf(crop, sizeof crop, r->pad ? "aug.crop=pad aug.pad=%d" : "aug.crop=none", r->pad);
    int n = snprintf(out, size,
                     "data.path=%s train.seed=%lld train.batch_size=%d sched.epochs=%d %s input.interpolation=%s "
                     "sched.warmup_epochs=%d aug.hflip=%g input.crop_pct=%g optim.lr=%g optim.lr_base_size=%g "
                     "sched.warmup_lr=%g sched.min_lr=%g optim.weight_decay=%g 'optim.betas=[%g,%g]' optim.eps=%g "
                     "optim.clip_grad=%g train.smoothing=%g model.drop_path=%g model.layer_scale=%g train.ema=%s "
                     "train.ema_decay=%g train.ema_ramp=%s model.name=custom 'model.dims=[8,8,16,16]' "
                     "'model.depths=[1,1,1,1]' 'model.heads=[1,1,2,2]' model.projection=16 input.size=%d ",
                     r->data, (long long)r->seed, r->batch, r->epochs, crop, r->bilinear ? "bilinear" : "bicubic",
                     r->warmup_epochs, r->flip, r->crop_pct, r->lr, r->lr_base, r->warmup_lr, r->min_lr, r->decay,
                     r->beta1, r->beta2, r->eps, r->clip, r->smoothing, r->drop_path, r->layer_scale,
                     r->ema_decay ? "true" : "false", r->ema_decay, r->ema_ramp ? "true" : "false", SIDE);
    assert_true(n > 0 && (size_t)n < size);
}

static ClassifySpec spec_of(const Recipe *r, const Backend *b) {
    const float scale = (float)r->layer_scale;
    return (ClassifySpec){.model = {.dims = {8, 8, 16, 16},
                                    .depths = {1, 1, 1, 1},
                                    .heads = {1, 1, 2, 2},
                                    .attention = {ATTN_MALA, ATTN_MALA, ATTN_SOFTMAX, ATTN_SOFTMAX},
                                    .layer_scale = {scale, scale, scale, scale},
                                    .mlp_ratio = 3.5,
                                    .drop_path = (float)r->drop_path,
                                    .projection = 16,
                                    .classes = COLOUR_CLASSES},
                          .mean = {0.485f, 0.456f, 0.406f},
                          .std = {0.229f, 0.224f, 0.225f},
                          .smoothing = (float)r->smoothing,
                          .ema = r->ema_decay > 0,
                          .compute = b->compute};
}

static float *copy_flat(const State *s, StateRole role) {
    size_t bytes = (size_t)state_role_length(s, role) * sizeof(float);
    float *out = mem_zalloc(bytes, 1);
    OK(s->backend->download(s->backend, out, s->buffer[role], bytes, STREAM_COMPUTE, &err) &&
       s->backend->wait(s->backend, STREAM_COMPUTE, &err));
    return out;
}

/* ---- what a step is told ---- */

/* Linear from warmup_lr to the peak, then half a cosine down to min_lr; step: from 0. */
static double rate_of(const Retraced *t, int64_t step) {
    const Recipe *r = &t->recipe;
    const double peak = r->lr_base ? r->lr * r->batch / r->lr_base : r->lr;
    const double warm = (double)(r->warmup_epochs * t->steps), all = (double)(r->epochs * t->steps);
    if ((double)step < warm) return r->warmup_lr + (peak - r->warmup_lr) * (double)step / warm;
    return r->min_lr + (peak - r->min_lr) * (1 + cos(acos(-1) * ((double)step - warm) / (all - warm))) / 2;
}

static void tell(const Retraced *t, int64_t step, float hyper[HYPER_COUNT]) {
    const Recipe *r = &t->recipe;
    const double n = (double)step + 1, ramp = n / (n + 9);
    memset(hyper, 0, HYPER_COUNT * sizeof *hyper);
    hyper[HYPER_LR] = (float)rate_of(t, step);
    hyper[HYPER_WEIGHT_DECAY] = (float)r->decay;
    hyper[HYPER_BETA1] = (float)r->beta1, hyper[HYPER_BETA2] = (float)r->beta2;
    hyper[HYPER_EPS] = (float)r->eps;
    hyper[HYPER_CORRECTION1] = (float)(1 - pow(r->beta1, n)), hyper[HYPER_CORRECTION2] = (float)(1 - pow(r->beta2, n));
    hyper[HYPER_CLIP] = (float)r->clip;
    hyper[HYPER_EMA_DECAY] = (float)(r->ema_ramp ? fmin(r->ema_decay, ramp) : r->ema_decay);
    hyper[HYPER_INV_SCALE] = 1 / t->scale.scale;
}

/* One step; of a float16 run one that went too far halves the scale of the next but one, since its outcome is read
 * when that has been queued. */
static void do_step(Retraced *t, int64_t step, const Batch *b, bool scaled) {
    static float before, used;
    float hyper[HYPER_COUNT], scale = t->scale.scale, loss, norm;
    uint64_t counter[2] = {(uint64_t)t->recipe.seed, (uint64_t)step};
    Plan *p = t->plan;
    tell(t, step, hyper);
    OK(plan_upload(p, t->graph.images, b->pixels, (size_t)b->count * SIDE * SIDE * 3, &err));
    OK(plan_upload(p, t->graph.targets, b->labels, (size_t)b->count * sizeof(int32_t), &err));
    OK(plan_upload(p, t->graph.counter, counter, sizeof counter, &err));
    OK(plan_upload(p, t->graph.hyper, hyper, sizeof hyper, &err));
    OK(plan_upload(p, t->graph.scale, &scale, sizeof scale, &err));
    plan_run(p);
    OK(plan_download(p, t->graph.loss, &loss, sizeof loss, &err));
    OK(plan_download(p, t->graph.norm, &norm, sizeof norm, &err));
    assert_true(step < RETRACE_STEPS);
    t->loss[step] = loss, t->norm[step] = norm, t->rate[step] = rate_of(t, step), t->scales[step] = scale;
    const bool first = step % t->steps == 0, last = step % t->steps == t->steps - 1;
    if (scaled && !first && !isfinite(before) && used == t->scale.scale) t->scale.scale /= 2;
    if (scaled && last && !isfinite(norm) && scale == t->scale.scale) t->scale.scale /= 2;
    before = norm, used = scale;
    if (step + 1 != t->recipe.stop) return;
    t->stopped = copy_flat(&t->state, t->recipe.ema_decay ? ROLE_EMA : ROLE_WEIGHT);
    t->stopped_buffers = copy_flat(&t->state, ROLE_BUFFER);
}

/* ---- an epoch ---- */

static void train_epoch(Retraced *t, int epoch, Loader *loader) {
    const Batch *b;
    double sum = 0;
    int64_t step = epoch * t->steps, counted = 0;
    loader_start_epoch(loader, (uint32_t)epoch + 1, 0);
    for (;; step++) {
        OK(loader_next(loader, &b, &err));
        if (!b) break;
        do_step(t, step, b, t->state.backend->compute == DT_F16);
        if (isfinite(t->loss[step]) && isfinite(t->norm[step])) sum += t->loss[step], counted++;
    }
    assert_int_equal(step, (epoch + 1) * t->steps);
    t->epoch[epoch].train_loss = sum / (double)counted;
    t->epoch[epoch].lr = t->rate[step - 1];
}

static void count_answer(RetracedEpoch *e, const float *logits, int label, double images) {
    double sum = 0;
    int before = 0, surely = 0, perhaps = 0;
    for (int k = 0; k < COLOUR_CLASSES; k++) {
        const double above = (double)logits[k] - (double)logits[label];
        sum += exp(above);
        before += above > 0 || (above == 0 && k < label);
        surely += above > ROUNDING;
        perhaps += k != label && above > -ROUNDING;
    }
    e->val_loss += log(sum) / images;
    e->top1 += (before < 1) / images;
    e->top5 += (before < 5) / images;
    e->unsure1 += (surely < 1 && perhaps >= 1) / images;
    e->unsure5 += (surely < 5 && perhaps >= 5) / images;
}

/* A picture at a time, from weights and statistics that were just copied. */
static void judge(Retraced *t, int epoch, StateRole role, Loader *loader) {
    ClassifySpec spec = spec_of(&t->recipe, t->state.backend);
    ClassifyGraph g = classify_eval_graph(&spec, 1, SIDE, SIDE, 0);
    State s;
    Plan *p;
    OK(state_new(&s, g.graph, t->state.backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err) &&
       state_copy_model(&s, &t->state, role, &err) &&
       plan_new(&p, g.graph, t->state.backend, &s, &g.logits, 1, (PlanOptions){0}, &err));
    loader_start_epoch(loader, 0, 0);
    for (const Batch *b;;) {
        float logits[COLOUR_CLASSES];
        OK(loader_next(loader, &b, &err));
        if (!b) break;
        OK(plan_upload(p, g.images, b->pixels, SIDE * SIDE * 3, &err));
        plan_run(p);
        OK(plan_download(p, g.logits, logits, sizeof logits, &err));
        count_answer(&t->epoch[epoch], logits, b->labels[0], (double)t->val.count);
    }
    plan_free(p);
    state_free(&s);
    classify_graph_free(&g);
}

/* ---- the run ---- */

static Loader *open_loader(const Retraced *t, bool train) {
    const Recipe *r = &t->recipe;
    LoaderOptions o = loader_defaults(train ? r->batch : 1, SIDE, SIDE, train);
    o.seed = (uint64_t)r->seed;
    const ResizeFilter filter = r->bilinear ? FILTER_BILINEAR : FILTER_BICUBIC;
    const bool random = r->scale[1] > 0;
    o.train_transform = (TrainTransform){.width = SIDE,
                                         .height = SIDE,
                                         .crop = random ? CROP_RESIZED : CROP_PADDED,
                                         .scale_min = r->scale[0],
                                         .scale_max = r->scale[1],
                                         .ratio_min = r->ratio[0],
                                         .ratio_max = r->ratio[1],
                                         .pad = r->pad,
                                         .flip = r->flip,
                                         .filter = filter};
    o.eval_transform = (EvalTransform){SIDE, SIDE, filter, r->crop_pct};
    Loader *l;
    OK(loader_open(&l, &o, train ? &t->train : &t->val, &err));
    return l;
}

static void open_run(Retraced *t, Backend *backend) {
    ClassifySpec spec = spec_of(&t->recipe, backend);
    t->graph = classify_train_graph(&spec, t->recipe.batch, SIDE, SIDE);
    t->scale.scale = backend->compute == DT_F16 ? 65536 : 1;
    OK(state_new(&t->state, t->graph.graph, backend, classify_train_roles(&spec), &err) &&
       state_init(&t->state, (uint64_t)t->recipe.seed, &err));
    if (spec.ema) OK(state_copy_role(&t->state, ROLE_EMA, ROLE_WEIGHT, &err));
    t->start = copy_flat(&t->state, ROLE_WEIGHT);
    Val keep[] = {t->graph.loss, t->graph.norm};
    OK(plan_new(&t->plan, t->graph.graph, backend, &t->state, keep, 2, (PlanOptions){0}, &err));
}

/* |a - b| / |b - c|, over flat weights */
static double distance(const State *s, const float *a, const float *b, const float *c) {
    double d = 0, way = 0;
    for (int64_t i = 0; i < s->layout.total; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        way += ((double)b[i] - c[i]) * ((double)b[i] - c[i]);
    }
    return sqrt(d / way);
}

/* States what this run can tell apart. */
static void expect_differences(const Retraced *t, int best) {
    const int last = t->recipe.epochs - 1;
    if (best == last && !t->recipe.stop) fail_msg("the best epoch is the last one: nothing tells best from last");
    for (int e = 0; e < last; e++) {
        const double away = distance(&t->state, t->epoch[e].weights, t->epoch[e + 1].weights, t->start);
        if (away < LEAST) fail_msg("epochs %d and %d differ by %.2g of the way: too little", e + 1, e + 2, away);
    }
    if (!t->recipe.ema_decay) return;
    float *raw = copy_flat(&t->state, ROLE_WEIGHT);
    const double away = distance(&t->state, raw, t->epoch[last].weights, t->start);
    if (away < LEAST) fail_msg("the average differs from the weights by %.2g of the way: too little", away);
    free(raw);
}

int retrace(Retraced *t, const Recipe *recipe, Backend *backend) {
    *t = (Retraced){.recipe = *recipe};
    OK(dataset_open_folder(&t->train, recipe->data, "train", NULL, 0, &err));
    OK(dataset_open_folder(&t->val, recipe->data, "val", NULL, 0, &err));
    assert_int_equal(t->train.class_count, COLOUR_CLASSES);
    Loader *train = open_loader(t, true), *val = open_loader(t, false);
    t->steps = (int64_t)t->train.count / recipe->batch;
    open_run(t, backend);
    const StateRole role = recipe->ema_decay ? ROLE_EMA : ROLE_WEIGHT;
    int best = 0;
    assert_true(recipe->epochs <= RETRACE_EPOCHS);
    for (int e = 0; e < recipe->epochs; e++) {
        train_epoch(t, e, train);
        judge(t, e, role, val);
        t->epoch[e].weights = copy_flat(&t->state, role), t->epoch[e].buffers = copy_flat(&t->state, ROLE_BUFFER);
        if (t->epoch[e].top1 > t->epoch[best].top1) best = e;
    }
    loader_close(train);
    loader_close(val);
    expect_differences(t, best);
    return best;
}

void retrace_free(Retraced *t) {
    for (int e = 0; e < RETRACE_EPOCHS; e++) free(t->epoch[e].weights), free(t->epoch[e].buffers);
    free(t->start), free(t->stopped), free(t->stopped_buffers);
    plan_free(t->plan);
    state_free(&t->state);
    classify_graph_free(&t->graph);
    dataset_close(&t->train);
    dataset_close(&t->val);
}

static void expect_weights(const Retraced *t, const float *weights, const float *buffers, const char *path) {
    const State *s = &t->state;
    TensorFile f;
    OK(tensor_file_open(&f, path, NULL, &err));
    double d = 0, way = 0, statistics = 0, size = 0;
    for (int32_t p = 0; p < s->n_params; p++) {
        const StoredTensor *stored = tensor_file_find(&f, s->params[p].name);
        if (!stored || (int64_t)stored->count != state_count(s, p)) fail_msg("%s: no %s", path, s->params[p].name);
        float *got = mem_zalloc(stored->count, sizeof *got);
        OK(tensor_file_read_f32(got, &f, stored, &err));
        const int64_t at = s->layout.offset[p];
        for (int64_t i = 0; i < state_count(s, p); i++) {
            const double want = s->params[p].buffer ? buffers[at + i] : weights[at + i], miss = got[i] - want;
            if (s->params[p].buffer)
                statistics += miss * miss, size += want * want;
            else
                d += miss * miss, way += pow(want - (double)t->start[at + i], 2);
        }
        free(got);
    }
    tensor_file_close(&f);
    if (!(sqrt(d / way) < NEAR)) fail_msg("%s: weights are %.2g of the way from the start beside", path, sqrt(d / way));
    if (!(sqrt(statistics / size) < NEAR)) fail_msg("%s: statistics are others", path);
}

void expect_retraced(const Retraced *t, int epoch, const char *path) {
    expect_weights(t, t->epoch[epoch].weights, t->epoch[epoch].buffers, path);
}

void expect_retraced_stop(const Retraced *t, const char *path) {
    expect_weights(t, t->stopped, t->stopped_buffers, path);
}
