#include "io/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Buffers of released checkpoints that follow from the configuration or are mere counters. */
static bool is_known_extra(const char *name) {
    return ends_with(name, ".RoPE.angle") || ends_with(name, "num_batches_tracked");
}

static bool is_head(const char *name) { return strncmp(name, "head.", 5) == 0; }

static bool same_shape(const StoredTensor *t, const Shape *s) {
    if (t->rank != s->rank) return false;
    for (int i = 0; i < s->rank; i++)
        if (t->shape[i] != s->dim[i]) return false;
    return true;
}

/* Collects the first few names of a kind of misfit for one line of text. */
typedef struct {
    int count;
    char names[300];
} Misfits;

static void misfit_add(Misfits *m, const char *name) {
    size_t used = strlen(m->names);
    if (m->count++ < 3) snprintf(m->names + used, sizeof m->names - used, "%s%s", used ? ", " : "", name);
}

static const char *more(const Misfits *m) { return m->count > 3 ? ", ..." : ""; }

bool weights_check(WeightsReport *report, const State *s, const TensorFile *file, HeadPolicy head, Err *err) {
    *report = (WeightsReport){0};
    Misfits missing = {0}, unexpected = {0}, shaped = {0};
    for (int32_t p = 0; p < s->n_params; p++) {
        const StoredTensor *t = tensor_file_find(file, s->params[p].name);
        if (!t) {
            misfit_add(&missing, s->params[p].name);
        } else if (same_shape(t, &s->params[p].shape)) {
            report->tensors++;
            report->parameters += state_count(s, p);
        } else if (head == HEAD_REPLACE && is_head(t->name)) {
            report->head_replaced = true;
        } else {
            misfit_add(&shaped, t->name);
        }
    }
    for (size_t i = 0; i < file->tensor_count; i++) {
        const char *name = file->tensors[i].name;
        if (state_find(s, name) < 0 && !is_known_extra(name)) misfit_add(&unexpected, name);
    }
    if (missing.count + unexpected.count + shaped.count == 0) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: does not fit the model: %d tensors missing%s%s%s%s, %d unexpected%s%s%s%s, %d of another "
                   "shape%s%s%s%s - check --model, model.attention and the sizes",
                   file->path, missing.count, missing.count ? " (" : "", missing.names, more(&missing), missing.count ? ")" : "",
                   unexpected.count, unexpected.count ? " (" : "", unexpected.names, more(&unexpected),
                   unexpected.count ? ")" : "", shaped.count, shaped.count ? " (" : "", shaped.names, more(&shaped),
                   shaped.count ? ")" : "");
}

static bool read_tensor(void *self, const State *s, int32_t param, float *host, Err *err) {
    const TensorFile *file = self;
    const StoredTensor *t = tensor_file_find(file, s->params[param].name);
    if (!tensor_file_read_f32(host, file, t, err)) return false;
    tensor_file_drop_pages(file, t);
    return true;
}

bool weights_load(WeightsReport *report, State *s, const TensorFile *file, HeadPolicy head, Err *err) {
    if (!weights_check(report, s, file, head, err)) return false;
    for (int32_t p = 0; p < s->n_params; p++) {
        const StoredTensor *t = tensor_file_find(file, s->params[p].name);
        if (!same_shape(t, &s->params[p].shape)) continue;
        float *host;
        if (!mem_try((void **)&host, t->count * sizeof(float), err)) return false;
        bool ok = read_tensor((void *)file, s, p, host, err) &&
                  state_write(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, err);
        free(host);
        if (!ok) return false;
    }
    return true;
}

bool weights_attach(WeightsReport *report, State *s, const TensorFile *file, Err *err) {
    if (!weights_check(report, s, file, HEAD_STRICT, err)) return false;
    state_attach(s, (StateSource){.read = read_tensor, .self = (void *)file});
    return true;
}

bool weights_save(const char *path, const State *s, StateRole role, const StoredPair *metadata, size_t count, Err *err) {
    StoredTensor *tensors = mem_zalloc((size_t)s->n_params, sizeof *tensors);
    bool ok = true;
    int32_t done = 0;
    for (; ok && done < s->n_params; done++) {
        const ParamSpec *spec = &s->params[done];
        StoredTensor *t = &tensors[done];
        *t = (StoredTensor){.name = spec->name, .dtype = STORED_F32, .rank = spec->shape.rank};
        for (int i = 0; i < t->rank; i++) t->shape[i] = spec->shape.dim[i];
        void *host;
        ok = mem_try(&host, (size_t)state_count(s, done) * sizeof(float), err);
        t->data = host;
        ok = ok && state_read(s, spec->buffer ? ROLE_BUFFER : role, done, host, err);
    }
    ok = ok && safetensors_write(path, tensors, (size_t)s->n_params, metadata, count, err);
    for (int32_t i = 0; i < done; i++) free((void *)tensors[i].data);
    free(tensors);
    return ok;
}
