#include "app/trainer.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/epoch_report.h"
#include "app/evaluate.h"
#include "app/health.h"
#include "app/keeper.h"
#include "base/cpus.h"
#include "base/parallel.h"
#include "base/signals.h"
#include "data/split.h"
#include "lib/memory.h"
#include "base/strings.h"

#define START_KEPT_MAX 0.05 /* share of its first weights that an average may hold in the end, unsaid */

typedef struct {
    const Config *config;
    Log *log;
    Dataset train_data, val_data;
    Loader *train_loader, *val_loader;
    size_t train_bad, val_bad; /* bad pictures reported so far */
    Backend backend;
    ClassifySpec spec;
    ClassifyGraph graph;
    State state;
    Plan *plan;
    Predictor predictor; /* the evaluation network; its weights are copied from state */
    OptimizerConfig optimizer;
    Health health;
    Keeper keeper;
    int batch;
    int64_t step; /* queued so far, over all epochs */
    int64_t saved_step; /* whose weights are in weights/last */
    int sound_epochs;
    double start;
    double epoch_seconds, evaluation_seconds; /* that the last ones took */
    TrainResult *result;
} Trainer;

/* ---- setting up ---- */

static bool open_data(Trainer *t, Err *err) {
    const Config *c = t->config;
    if (!dataset_open_folder(&t->train_data, c->data.path, c->data.train, NULL, 0, err)) return false;
    if (!dataset_open_folder(&t->val_data, c->data.path, c->data.val, (const char *const *)t->train_data.classes,
                             t->train_data.class_count, err))
        return false;
    int classes = t->train_data.class_count;
    if (c->model.num_classes != AUTO_INT && c->model.num_classes != classes)
        return options_fail(&c->options, "model.num_classes", err, "is %d but %s holds %d classes - leave it at auto",
                            c->model.num_classes, c->data.path, classes);
    if (classes < 2)
        return err_set(err, EXIT_INPUT, "%s: holds %d class, at least 2 are needed - put the pictures into one folder "
                       "per class", c->data.path, classes);
    t->batch = c->train.batch_size;
    if ((size_t)t->batch > t->train_data.count) {
        t->batch = (int)t->train_data.count;
        log_warning(t->log, "%d pictures are fewer than a batch of %d: training with batches of %d", t->batch,
                    c->train.batch_size, t->batch);
    }
    return true;
}

/* Caches of pictures are a convenience: together they get half of the memory that the run leaves. */
static void hold_caches(LoaderOptions *train, LoaderOptions *val, size_t spare, Log *log) {
    size_t most = spare / 4;
    if (MAX(train->keep_bytes, val->keep_bytes) <= most) return;
    train->keep_bytes = MIN(train->keep_bytes, most), val->keep_bytes = MIN(val->keep_bytes, most);
    log_info(log, "memory is short: at most %zu MiB of decoded pictures are kept for each split", most >> 20);
}

/* Asks whether the run fits before anything large is taken. */
static bool open_loaders(Trainer *t, Err *err) {
    const Config *c = t->config;
    LoaderOptions train = config_loader(c, t->batch, true), val = config_loader(c, config_eval_batch(c), false);
    val.batch = (int)MIN((size_t)val.batch, t->val_data.count);
    MemoryRun run = {.config = c, .backend = &t->backend, .classes = t->train_data.class_count, .train = true,
                     .batch = t->batch, .eval_batch = c->eval.batch_size == AUTO_INT ? 0 : c->eval.batch_size,
                     .eval_most = (int)MIN(t->val_data.count, INT_MAX),
                     .picture_bytes = config_picture_bytes(c) * LOADER_AHEAD};
    size_t spare;
    if (!memory_check(&spare, &run, err)) return false;
    hold_caches(&train, &val, spare, t->log);
    return loader_open(&t->train_loader, &train, &t->train_data, err) &&
           loader_open(&t->val_loader, &val, &t->val_data, err);
}

static void set_optimizer(Trainer *t) {
    const Config *c = t->config;
    int64_t steps = loader_batches(t->train_loader);
    Schedule s = config_schedule(c, t->batch, t->log);
    t->optimizer = (OptimizerConfig){.lr = (float)s.peak_lr,
                                     .weight_decay = (float)c->optim.weight_decay,
                                     .beta1 = (float)c->optim.betas[0],
                                     .beta2 = (float)c->optim.betas[1],
                                     .eps = (float)c->optim.eps,
                                     .clip = (float)c->optim.clip_grad,
                                     .ema_decay = (float)c->train.ema_decay,
                                     .ema_ramp = c->train.ema_ramp,
                                     .warmup_lr = (float)s.warmup_lr,
                                     .min_lr = (float)s.min_lr,
                                     .warmup_steps = (int64_t)(s.warmup_epochs * (double)steps),
                                     .total_steps = c->sched.epochs * steps};
    double start = pow(c->train.ema_decay, (double)t->optimizer.total_steps);
    if (c->train.ema && !c->train.ema_ramp && start > START_KEPT_MAX)
        log_warning(t->log, "train.ema_decay: after all %lld steps the average, which is judged and kept, is still "
                    "%.0f %% the weights that training began with - lower it, or set train.ema_ramp=true",
                    (long long)t->optimizer.total_steps, 100 * start);
}

/* Names decide, never positions: a head whose classes have other names is of no use even when it has as many. */
static bool choose_head(HeadPolicy *out, const Dataset *data, const char *path, const TensorFile *file, Err *err) {
    char **names;
    int count;
    *out = HEAD_REPLACE;
    bool ok = model_classes_read_at(&names, &count, path, file, err);
    if (ok && count && count != data->class_count) *out = HEAD_NEW;
    for (int i = 0; ok && i < MIN(count, data->class_count); i++)
        if (strcmp(names[i], data->classes[i]) != 0) *out = HEAD_NEW;
    model_classes_free(names, count);
    return ok;
}

static bool load_weights(Trainer *t, Err *err) {
    const Config *c = t->config;
    TensorFile file;
    HeadPolicy head;
    WeightsReport report;
    if (!config_open_weights(&file, c->model.weights, c, t->log, err)) return false;
    bool ok = config_check_tensors(&file, c, err) && model_file_warn_start(&file, c->model.weights, c, t->log, err) &&
              choose_head(&head, &t->train_data, c->model.weights, &file, err);
    if (ok) {
        WeightsPolicy policy = config_weights_policy(c, head, t->log);
        ok = weights_load(&report, &t->state, &file, &policy, err);
        if (!ok && err->code == EXIT_INPUT) model_file_warn_misfit(&file, c->model.weights, c, t->log);
    }
    if (ok) weights_describe(&report, t->log);
    tensor_file_close(&file);
    return ok;
}

static bool start_weights(Trainer *t, Err *err) {
    const Config *c = t->config;
    return state_init(&t->state, (uint64_t)c->train.seed, err) && (!c->model.weights || load_weights(t, err)) &&
           (!t->spec.ema || state_copy_role(&t->state, ROLE_EMA, ROLE_WEIGHT, err));
}

static bool open_device(Trainer *t, Err *err) {
    return config_open_backend(&t->backend, t->config, err) && config_set_precision(&t->backend, t->config, true, err);
}

static bool open_network(Trainer *t, Err *err) {
    const Config *c = t->config;
    int height = c->input.size[0], width = c->input.size[1];
    t->spec = config_classify_on(c, t->train_data.class_count, &t->backend);
    t->health.scaled = t->spec.compute == DT_F16;
    t->health.scale.scale = t->health.scaled ? LOSS_SCALE_FIRST : 1;
    t->graph = classify_train_graph(&t->spec, t->batch, height, width);
    Val keep[] = {t->graph.loss, t->graph.norm};
    if (!state_new(&t->state, t->graph.graph, &t->backend, classify_train_roles(&t->spec), err) ||
        !start_weights(t, err) ||
        !plan_new(&t->plan, t->graph.graph, &t->backend, &t->state, keep, COUNTOF(keep), (PlanOptions){.log = t->log},
                  err))
        return false;
    int eval_batch = (int)MIN((size_t)config_eval_batch(c), t->val_data.count);
    return predictor_open_random(&t->predictor, c, t->spec.model.classes, &t->backend, eval_batch, false, err);
}

static void describe(const Trainer *t) {
    const Plan *p = t->plan;
    device_announce(&t->backend, t->log);
    split_announce(&t->train_data, "training", t->log);
    split_announce(&t->val_data, "validation", t->log);
    split_warn_of_shared(&t->train_data, &t->val_data, t->log);
    log_info(t->log, "%zu training and %zu validation pictures, %d classes", t->train_data.count, t->val_data.count,
             t->train_data.class_count);
    log_info(t->log, "%lld parameters; activations %.1f MiB (%.1f without reuse)",
             (long long)state_parameter_count(&t->state), (double)p->arena_bytes / 0x1p20,
             (double)p->naive_bytes / 0x1p20);
    const int epochs = t->config->sched.epochs;
    const int64_t steps = loader_batches(t->train_loader);
    log_info(t->log, "%d epoch%s of %lld step%s of %d picture%s", epochs, text_plural(epochs), (long long)steps,
             text_plural(steps), t->batch, text_plural(t->batch));
    if (!t->keeper.dir.path) return; /* a dry run */
    log_info(t->log, "run directory: %s", t->keeper.dir.path);
    epoch_report_heading(t->log, t->config->sched.epochs, classify_has_top5(t->spec.model.classes));
}

/* ---- one step, one epoch ---- */

/* The device is one step ahead of what the host has read: while it computes one, the host reads the loss of the one
 * before and prepares the next. */
typedef struct {
    int64_t step; /* its number, from 0 */
    int images;   /* 0: no step is queued that was not read */
    float lr, scale; /* scale: of the loss */
} QueuedStep;

typedef struct {
    QueuedStep queued;
    double loss_sum;
    int64_t steps, images;
    double start;
    int64_t read;         /* steps of the whole run that were read */
    float loss, norm, lr; /* of the last of them */
} EpochTotals;

static void write_metrics(Trainer *t, int epoch, const EpochTotals *totals) {
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "step"), json_write_int(&w, totals->read);
    json_write_key(&w, "epoch"), json_write_int(&w, epoch);
    json_write_key(&w, "train/loss"), json_write_float(&w, totals->loss);
    json_write_key(&w, "train/grad_norm"), json_write_float(&w, totals->norm);
    json_write_key(&w, "lr/pg0"), json_write_float(&w, totals->lr);
    if (t->health.scaled) json_write_key(&w, "train/loss_scale"), json_write_float(&w, t->health.scale.scale);
    json_write_key(&w, "perf/images_per_sec");
    json_write_double(&w, (double)totals->images / (time_now() - totals->start));
    json_write_key(&w, "time"), json_write_double(&w, time_now() - t->start);
    json_write_end(&w);
    keeper_metrics(&t->keeper, json_writer_text(&w));
    json_writer_free(&w);
}

/* Of the epoch's steps that counted; NaN when none did. */
static double train_loss(const EpochTotals *totals) {
    return totals->steps ? totals->loss_sum / (double)totals->steps : NAN;
}

/* Reads what the queued step left; back: 1 when another one was queued behind it. */
static bool read_step(Trainer *t, int epoch, EpochTotals *totals, int back, Err *err) {
    QueuedStep q = totals->queued;
    if (q.images == 0) return true;
    totals->queued.images = 0;
    float loss, norm;
    if (!plan_fetch(t->plan, t->graph.loss, &loss, sizeof loss, back, err) ||
        !plan_fetch(t->plan, t->graph.norm, &norm, sizeof norm, back, err) ||
        !health_step(&t->health, q.step, q.scale, loss, norm, t->log, err))
        return false;
    if (isfinite(loss) && isfinite(norm)) totals->loss_sum += loss, totals->steps++;
    totals->images += q.images;
    totals->loss = loss, totals->norm = norm, totals->lr = q.lr;
    totals->read = q.step + 1;
    char note[64];
    snprintf(note, sizeof note, totals->steps ? "loss %.4f" : "loss not finite", train_loss(totals));
    progress_update(t->log, totals->images, note);
    if (totals->read % t->config->log.interval == 0) write_metrics(t, epoch, totals);
    return true;
}

static bool train_step(Trainer *t, int epoch, const Batch *b, EpochTotals *totals, Err *err) {
    float hyper[HYPER_COUNT], scale = t->health.scale.scale;
    uint64_t counter[2] = {(uint64_t)t->config->train.seed, (uint64_t)t->step};
    optimizer_hyper(&t->optimizer, t->step, hyper);
    hyper[HYPER_INV_SCALE] = 1 / scale;
    Plan *p = t->plan;
    if (!plan_stage(p, t->graph.images, b->pixels, (size_t)b->count * t->predictor.image_bytes, err) ||
        !plan_stage(p, t->graph.targets, b->labels, (size_t)b->count * sizeof(int32_t), err) ||
        !plan_stage(p, t->graph.counter, counter, sizeof counter, err) ||
        !plan_stage(p, t->graph.hyper, hyper, sizeof hyper, err) ||
        !plan_stage(p, t->graph.scale, &scale, sizeof scale, err))
        return false;
    plan_run(p);
    if (!plan_fetch_begin(p, err) || !read_step(t, epoch, totals, 1, err)) return false;
    totals->queued = (QueuedStep){.step = t->step++, .images = b->count, .lr = hyper[HYPER_LR], .scale = scale};
    return true;
}

static bool train_epoch(Trainer *t, int epoch, EpochTotals *totals, Err *err) {
    char label[32];
    *totals = (EpochTotals){.start = time_now()};
    snprintf(label, sizeof label, "epoch %d/%d", epoch, t->config->sched.epochs);
    int left = t->config->sched.epochs - epoch;
    progress_after(t->log, left * loader_samples(t->train_loader), (left + 1) * t->evaluation_seconds);
    progress_begin(t->log, label, loader_samples(t->train_loader), "images");
    loader_start_epoch(t->train_loader, (uint32_t)epoch, 0);
    bool ok = true;
    while (ok && !signals_stop()) {
        const Batch *b;
        ok = loader_next(t->train_loader, &b, err);
        if (!ok || !b) break;
        ok = train_step(t, epoch, b, totals, err);
    }
    ok = ok && read_step(t, epoch, totals, 0, err);
    progress_end(t->log);
    t->epoch_seconds = time_now() - totals->start;
    report_bad(t->train_loader, &t->train_bad, t->log);
    bool written = totals->images == 0 || totals->read % t->config->log.interval == 0;
    if (ok && !written) write_metrics(t, epoch, totals);
    return ok;
}

/* ---- evaluation and saving ---- */

static StateRole judged_role(const Trainer *t) { return t->spec.ema ? ROLE_EMA : ROLE_WEIGHT; }

/* The weights to judge go into the evaluation network. */
static bool copy_weights(Trainer *t, Err *err) {
    return state_copy_model(&t->predictor.state, &t->state, judged_role(t), err) &&
           plan_refresh(t->predictor.plan, err);
}

/* Weights that cannot be written before the last epoch are warned of; those of the next one go out instead. */
static bool save(Trainer *t, Kept which, const char *metrics, bool last_chance, bool *written, Err *err) {
    Err why = {0};
    *written = keeper_save(&t->keeper, which, &t->state, judged_role(t), metrics, last_chance, &why);
    if (*written && which == KEPT_LAST) t->saved_step = t->step;
    if (*written) return true;
    if (last_chance || why.code != EXIT_IO) return err_set(err, why.code, "%s", why.text);
    log_warning(t->log, "%s; training goes on, weights are saved after the next epoch", why.text);
    return true;
}

/* Keeps the weights of an epoch. What counts as best is what lies in weights/best: a better one that could not be
 * written is none. */
static bool keep_weights(Trainer *t, int epoch, const ClassifyMetrics *m, Err *err) {
    TrainResult *r = t->result;
    const bool last_chance = epoch == t->config->sched.epochs, best = !r->best_epoch || r->last_top1 > r->best_top1;
    bool written = false;
    JsonWriter metrics = {0};
    evaluate_write_json(&metrics, m, t->train_data.classes, t->val_bad);
    const char *text = json_writer_text(&metrics);
    bool ok = save(t, KEPT_LAST, text, last_chance, &written, err) &&
              (!best || save(t, KEPT_BEST, text, last_chance, &written, err));
    if (ok && best && written) r->best_top1 = r->last_top1, r->best_epoch = epoch;
    json_writer_free(&metrics);
    return ok;
}

/* A field of results.csv; empty where there is no such number, which is spelt in as many ways as there are readers. */
static const char *loss_field(char out[32], double loss) {
    out[0] = '\0';
    if (isfinite(loss)) snprintf(out, 32, "%.6f", loss);
    return out;
}

static void report_epoch(Trainer *t, int epoch, const EpochTotals *totals, const ClassifyMetrics *m) {
    const TrainResult *r = t->result;
    const int left = t->config->sched.epochs - epoch;
    double loss = train_loss(totals), top5 = (double)m->top5 / (double)m->images;
    char row[256], train[32], val[32];
    epoch_report(t->log, &(EpochReport){.epoch = epoch, .epochs = t->config->sched.epochs, .train_loss = loss,
                                        .val_loss = r->last_loss, .top1 = r->last_top1, .top5 = top5,
                                        .images_per_second = (double)totals->images / t->epoch_seconds,
                                        .seconds_left = r->seconds / epoch * left,
                                        .has_top5 = classify_has_top5(m->classes), .best = r->best_epoch == epoch});
    snprintf(row, sizeof row, "%d,%.3f,%s,%.6f,%.6f,%s,%.9g", epoch, r->seconds, loss_field(train, loss), r->last_top1,
             top5, loss_field(val, r->last_loss), (double)optimizer_lr(&t->optimizer, t->step - 1));
    keeper_results(&t->keeper, row);
}

/* An epoch in which no step counted, or after which the network gives no numbers, is none to keep: the weights of a
 * better one stay. */
static bool is_sound(const Trainer *t, int epoch, const EpochTotals *totals, const ClassifyMetrics *m) {
    if (m->not_finite)
        log_warning(t->log, "epoch %d: %lld of %lld answers are not finite: its weights are not kept", epoch,
                    (long long)m->not_finite, (long long)m->images);
    else if (!totals->steps)
        log_warning(t->log, "epoch %d: no step gave a finite gradient: its weights are not kept", epoch);
    return m->not_finite == 0 && totals->steps > 0;
}

/* Judges an epoch and keeps its weights, unless a signal comes before all answers are there. */
static bool finish_epoch(Trainer *t, int epoch, const EpochTotals *totals, Err *err) {
    ClassifyMetrics m;
    bool complete;
    classify_metrics_init(&m, t->spec.model.classes);
    const int left = t->config->sched.epochs - epoch;
    double start = time_now();
    progress_after(t->log, left * loader_samples(t->val_loader), left * t->epoch_seconds);
    bool ok = copy_weights(t, err) && evaluate(&m, &t->predictor, t->val_loader, &complete, t->log, err);
    t->evaluation_seconds = time_now() - start;
    report_bad(t->val_loader, &t->val_bad, t->log);
    if (ok && complete) {
        TrainResult *r = t->result;
        r->epochs = epoch;
        r->last_top1 = (double)m.top1 / (double)m.images;
        r->last_loss = m.loss / (double)m.images;
        r->seconds = time_now() - t->start;
        bool sound = is_sound(t, epoch, totals, &m);
        t->sound_epochs += sound;
        if (sound) ok = keep_weights(t, epoch, &m, err);
        report_epoch(t, epoch, totals, &m);
    }
    classify_metrics_free(&m);
    return ok;
}

static bool stopped(Trainer *t, Err *err) {
    bool written;
    if (t->saved_step != t->step && !save(t, KEPT_LAST, "{}", true, &written, err)) return false;
    return err_set(err, EXIT_PREEMPTED, "%s: stopped by signal %d at step %lld - weights/last.safetensors is saved",
                   t->keeper.dir.path, signals_stop(), (long long)t->step);
}

static bool run_epochs(Trainer *t, Err *err) {
    for (int epoch = 1; epoch <= t->config->sched.epochs; epoch++) {
        EpochTotals totals;
        if (!train_epoch(t, epoch, &totals, err)) return false;
        if (!signals_stop() && !finish_epoch(t, epoch, &totals, err)) return false;
        if (signals_stop() && t->result->epochs < t->config->sched.epochs) return stopped(t, err);
    }
    if (t->result->best_epoch > 0) return true;
    if (t->sound_epochs > 0)
        return err_set(err, EXIT_IO, "%s: no weights could be written (see above) - free some space",
                       t->keeper.dir.path);
    return err_set(err, EXIT_HEALTH, "training: no epoch gave a network whose answers are finite - lower optim.lr or "
                   "set optim.clip_grad");
}

static void trainer_close(Trainer *t) {
    loader_close(t->train_loader);
    loader_close(t->val_loader);
    plan_free(t->plan);
    predictor_close(&t->predictor);
    if (t->state.params) state_free(&t->state);
    classify_graph_free(&t->graph);
    if (t->backend.close) t->backend.close(&t->backend);
    dataset_close(&t->train_data);
    dataset_close(&t->val_data);
    keeper_close(&t->keeper);
}

bool train(TrainResult *out, const Config *config, int argc, char **argv, bool dry, Log *log, Err *err) {
    *out = (TrainResult){0};
    Trainer t = {.config = config, .log = log, .result = out, .start = time_now(), .saved_step = -1};
    bool ok = open_data(&t, err) && open_device(&t, err) && open_loaders(&t, err) && open_network(&t, err) &&
              model_file_check(config, t.train_data.classes, t.train_data.class_count, t.spec.model.classes, err);
    signals_listen(ok && !dry); /* from here on there is something to save */
    ok = ok && (dry || keeper_open(&t.keeper, config, &t.train_data, argc, argv, log, err));
    if (t.keeper.dir.path) out->run = mem_strdup(t.keeper.dir.path);
    if (ok) {
        set_optimizer(&t);
        describe(&t);
    }
    if (ok && dry) {
        const Batch *first;
        loader_start_epoch(t.train_loader, 1, 0);
        ok = loader_next(t.train_loader, &first, err);
    }
    if (ok && !dry) {
        t.start = time_now();
        ok = run_epochs(&t, err);
        ok = keeper_finish(&t.keeper, err) && ok;
        if (t.train_bad + t.val_bad > 0)
            log_warning(log, "%zu picture%s could not be used (listed above and in log.txt)", t.train_bad + t.val_bad,
                        text_plural((int64_t)(t.train_bad + t.val_bad)));
    }
    if (!signals_stop()) signals_listen(false); /* else: the same signal may come twice */
    trainer_close(&t);
    return ok;
}
