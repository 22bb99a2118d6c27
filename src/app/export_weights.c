#include "app/export_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hub.h"
#include "lib/runner.h"
#include "base/file.h"
#include "base/half.h"
#include "base/strings.h"

typedef struct {
    StoredTensor *tensors;
    size_t count, owned; /* the data of the first `owned` are malloc'd */
    int64_t vanished;    /* values that half precision made 0 */
} Tensors;

static void tensors_free(Tensors *t) {
    for (size_t i = 0; i < t->owned; i++) free((void *)t->tensors[i].data);
    free(t->tensors);
    *t = (Tensors){0};
}

/* In place: a half is stored where a float was, never after one that is still to be read. */
static bool to_half(Tensors *out, float *values, StoredTensor *t, const char *path, Err *err) {
    const bool f16 = t->dtype == STORED_F16;
    for (size_t i = 0; i < t->count; i++) {
        uint16_t half = f16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
        if ((half & 0x7fff) == (f16 ? 0x7c00 : 0x7f80) && isfinite(values[i]))
            return err_set(err, EXIT_INPUT, "%s: tensor %s: %g is beyond %s - take --dtype %s", path, t->name,
                           (double)values[i], f16 ? "float16" : "bfloat16", f16 ? "bfloat16" : "float32");
        out->vanished += (half & 0x7fff) == 0 && values[i] != 0;
        memcpy((uint8_t *)values + 2 * i, &half, sizeof half);
    }
    return true;
}

static bool add_parameter(Tensors *out, State *s, int32_t p, StoredType dtype, const char *path, Err *err) {
    const ParamSpec *spec = &s->params[p];
    StoredTensor *t = &out->tensors[out->count];
    void *values;
    *t = (StoredTensor){.name = spec->name, .dtype = spec->buffer ? STORED_F32 : dtype, .rank = spec->shape.rank,
                        .count = (size_t)state_count(s, p)};
    for (int i = 0; i < t->rank; i++) t->shape[i] = spec->shape.dim[i];
    if (!mem_try(&values, t->count * sizeof(float), err)) return false;
    t->data = values;
    out->count = ++out->owned;
    bool ok = state_require(s, p, err) && state_read(s, spec->buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, values, err);
    state_release(s, p);
    return ok && (t->dtype == STORED_F32 || to_half(out, values, t, path, err));
}

/* What released checkpoints carry beside the parameters: where this one has it, it goes along as it is. */
static void add_extras(Tensors *out, const ExportModel *e, const TensorFile *file) {
    for (size_t i = 0; i < file->tensor_count; i++) {
        const StoredTensor *t = &file->tensors[i];
        bool wanted = text_matches_any("*.num_batches_tracked,*.RoPE.angle", t->name);
        bool of_head = text_matches_any(CLASSIFIER_ONLY, t->name);
        if (wanted && !(of_head && e->options.form == EXPORT_BACKBONE)) out->tensors[out->count++] = *t;
    }
}

static bool collect(Tensors *out, ExportModel *e, const ModelFile *m, StoredType dtype, Err *err) {
    State *s = &e->state;
    *out = (Tensors){.tensors = mem_zalloc((size_t)s->n_params + m->file.tensor_count, sizeof *out->tensors)};
    for (int32_t p = 0; p < s->n_params; p++)
        if (!add_parameter(out, s, p, dtype, m->file.path, err)) return false;
    add_extras(out, e, &m->file);
    return true;
}

/* As a hub's folder, or as a file. */
static bool write_all(const char *path, const Tensors *t, const ExportModel *e, const ModelFile *m,
                      const WeightsExport *options, Err *err) {
    const int classes = e->options.form == EXPORT_CLASSIFIER ? m->class_count : 0;
    ModelWriteOptions how = {.format = options->format == WEIGHTS_PTH ? MODEL_PTH : MODEL_SAFETENSORS,
                             .license = options->license ? options->license : tensor_file_metadata(&m->file, "license"),
                             .only_new = options->only_new, .judge = options->judge, .judge_arg = options->judge_arg};
    if (options->format != WEIGHTS_HUB) return model_write(path, t->tensors, t->count, m, &how, err);
    HubWriter hub;
    how.only_new = false;
    if (!hub_writer_open(&hub, path, &m->config, m->classes, classes, how.license, options->only_new, err))
        return false;
    return model_write(hub.weights.temporary, t->tensors, t->count, m, &how, err) ? hub_writer_commit(&hub, err)
                                                                                  : hub_writer_fail(&hub, err);
}

bool export_weights(const char *path, ExportModel *e, const ModelFile *m, const WeightsExport *options, Err *err) {
    Tensors t;
    bool ok = collect(&t, e, m, options->dtype, err) && write_all(path, &t, e, m, options, err);
    if (ok && t.vanished)
        log_warning(m->log, "%s: %lld weights are too small for float16 and have become 0 - bfloat16 keeps them", path,
                    (long long)t.vanished);
    tensors_free(&t);
    return ok;
}

/* ---- original and export, side by side ---- */

typedef struct {
    Runner original, exported;
    Resizer resizer;
    uint8_t *pixels;
    float *logits[2];
} Pair;

static bool compare_picture(ExportComparison *out, Pair *p, const char *path, int classes, Err *err) {
    Image image;
    if (!image_load(&image, path, err)) return false;
    bool ok = transform_eval(&p->resizer, p->pixels, &image, &p->original.transform, err) &&
              predictor_run(&p->original.predictor, p->logits[0], NULL, p->pixels, 1, err) &&
              predictor_run(&p->exported.predictor, p->logits[1], NULL, p->pixels, 1, err);
    image_free(&image);
    if (!ok) return false;
    for (int k = 0; k < 2; k++)
        if (!classify_finite(p->logits[k], classes))
            return err_set(err, EXIT_INPUT, "%s: the logits of %s are not finite - its weights do not compute", path,
                           k ? "the export" : "the original");
    int32_t top[2];
    for (int k = 0; k < 2; k++) classify_top(&top[k], p->logits[k], classes, 1);
    out->pictures++;
    out->same_top1 += top[0] == top[1];
    for (int i = 0; i < classes; i++) {
        double difference = fabs((double)p->logits[0][i] - (double)p->logits[1][i]);
        out->difference = fmax(out->difference, difference);
        out->magnitude = fmax(out->magnitude, fabs((double)p->logits[0][i]));
    }
    return true;
}

static bool compare_pictures(ExportComparison *out, Pair *p, int classes, const char *folder, Log *log, Err *err) {
    Dataset pictures;
    if (!dataset_open_pictures(&pictures, folder, err)) return false;
    passed_report(&pictures.passed, folder, log);
    bool ok = true;
    for (size_t i = 0; ok && i < pictures.count; i++) {
        char path[DATASET_PATH_MAX];
        dataset_path(&pictures, i, path);
        ok = compare_picture(out, p, path, classes, err);
    }
    dataset_close(&pictures);
    return ok;
}

bool export_compare(ExportComparison *out, const char *path, const ModelFile *original, const char *folder, Log *log,
                    Err *err) {
    *out = (ExportComparison){0};
    ModelFile exported = *original; /* the architecture and preprocessing of the original, which it has to fit */
    exported.log = log;
    if (!config_open_weights(&exported.file, path, &original->config, NULL, err)) return false;
    const RunnerOptions options = {.batch = 1, .exact = true};
    Pair p = {0};
    bool ok = runner_open(&p.original, original, options, err) && runner_open(&p.exported, &exported, options, err);
    if (ok) {
        p.pixels = mem_zalloc(p.original.predictor.image_bytes, 1);
        for (int k = 0; k < 2; k++) p.logits[k] = mem_zalloc((size_t)original->class_count, sizeof(float));
        ok = compare_pictures(out, &p, original->class_count, folder, log, err);
        free(p.pixels), free(p.logits[0]), free(p.logits[1]);
    }
    runner_close(&p.exported);
    runner_close(&p.original);
    resizer_free(&p.resizer);
    tensor_file_close(&exported.file);
    return ok;
}
