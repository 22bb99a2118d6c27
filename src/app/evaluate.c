#include "app/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "base/signals.h"

/* Results of the oldest batch go into the metrics. */
static bool add_batch(ClassifyMetrics *m, Predictor *p, float *logits, const int32_t *labels, int count, Err *err) {
    if (count == 0) return true;
    if (!predictor_read(p, logits, NULL, err)) return false;
    classify_metrics_add(m, logits, labels, count);
    return true;
}

/* While the device computes a batch, the next one is decoded and queued, and the one before is counted. */
bool evaluate(ClassifyMetrics *m, Predictor *p, Loader *loader, bool *complete, Log *log, Err *err) {
    float *logits = mem_zalloc((size_t)p->batch * (size_t)p->classes, sizeof(float));
    int32_t *labels = mem_zalloc((size_t)p->batch, sizeof *labels); /* of the batch that is queued */
    const int64_t total = loader_samples(loader);
    int queued = 0;
    bool ok = true;
    *complete = false;
    progress_begin(log, "evaluating", total, "images");
    loader_start_epoch(loader, 0, 0);
    while (!signals_stop()) {
        const Batch *b;
        ok = loader_next(loader, &b, err);
        *complete = ok && !b;
        if (!ok || !b) break;
        ok = predictor_queue(p, b->pixels, b->count, err) && add_batch(m, p, logits, labels, queued, err);
        if (!ok) break;
        queued = b->count;
        memcpy(labels, b->labels, (size_t)queued * sizeof *labels);
        progress_update(log, MIN(b->index * p->batch, total), NULL); /* bad ones, too */
    }
    ok = ok && add_batch(m, p, logits, labels, queued, err);
    progress_end(log);
    free(labels);
    free(logits);
    if (ok && *complete && m->images == 0)
        return err_set(err, EXIT_INPUT, "evaluation: no picture could be read - check the data");
    return ok;
}

bool evaluate_finite(const ClassifyMetrics *m, const char *weights, Err *err) {
    return m->not_finite == 0 ||
           err_set(err, EXIT_INPUT, "%s: %lld of %lld answers are not finite - these weights do not compute", weights,
                   (long long)m->not_finite, (long long)m->images);
}

void report_bad(const Loader *loader, size_t *reported, Log *log) {
    size_t count;
    const BadSample *bad = loader_bad(loader, &count);
    for (; *reported < count; (*reported)++) log_warning(log, "%s", bad[*reported].reason);
}

void evaluate_write_json(JsonWriter *w, const ClassifyMetrics *m, char *const *classes, size_t bad) {
    json_write_object(w);
    json_write_key(w, "images");
    json_write_int(w, m->images);
    json_write_key(w, "top1");
    json_write_double(w, (double)m->top1 / (double)m->images);
    if (classify_has_top5(m->classes))
        json_write_key(w, "top5"), json_write_double(w, (double)m->top5 / (double)m->images);
    json_write_key(w, "loss");
    json_write_double(w, m->loss / (double)m->images);
    json_write_key(w, "bad_images");
    json_write_uint(w, bad);
    json_write_key(w, "per_class");
    json_write_object(w);
    for (int c = 0; c < m->classes; c++) {
        if (m->class_images[c] == 0) continue;
        json_write_key(w, classes[c]);
        json_write_object(w);
        json_write_key(w, "images");
        json_write_int(w, m->class_images[c]);
        json_write_key(w, "top1");
        json_write_double(w, (double)m->class_top1[c] / (double)m->class_images[c]);
        json_write_end(w);
    }
    json_write_end(w);
    json_write_end(w);
}
