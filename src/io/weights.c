#include "io/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/rope.h"
#include "base/strings.h"
#include "io/safetensors.h"
#include "io/seal.h"

#define TABLE_ROWS 20 /* of each kind */
#define TABLE_NAME 60 /* columns of the widest name; longer ones push their row */

static bool is_head(const char *name) { return strncmp(name, "head.", 5) == 0; }

static bool same_shape(const StoredTensor *t, const Shape *s) {
    if (t->rank != s->rank) return false;
    for (int i = 0; i < s->rank; i++)
        if (t->shape[i] != s->dim[i]) return false;
    return true;
}

/* ---- what does not fit ---- */

typedef enum { MISSING, MISSHAPED, UNEXPECTED, MISFIT_KINDS } MisfitKind;

typedef struct {
    const char *name;
    const StoredTensor *stored; /* NULL: missing */
    const Shape *wanted;        /* NULL: unexpected */
} Misfit;

typedef struct {
    const WeightsPolicy *policy;
    Misfit rows[MISFIT_KINDS][TABLE_ROWS];
    int32_t count[MISFIT_KINDS], allowed;
} Misfits;

static void add_misfit(Misfits *m, MisfitKind kind, Misfit row) {
    if (m->policy->allow && text_matches_any(m->policy->allow, row.name))
        m->allowed++;
    else if (m->count[kind]++ < TABLE_ROWS)
        m->rows[kind][m->count[kind] - 1] = row;
}

static void shape_text(char out[128], const int64_t *dim, int rank) {
    size_t used = (size_t)snprintf(out, 128, rank ? "%lld" : "scalar", rank ? (long long)dim[0] : 0);
    for (int i = 1; i < rank && used < 128; i++)
        used += (size_t)snprintf(out + used, 128 - used, "x%lld", (long long)dim[i]);
}

static void log_misfits(const Misfits *m, Log *log) {
    static const char *const kinds[] = {"missing", "shape", "unexpected"};
    size_t width = strlen("tensor");
    for (int k = 0; k < MISFIT_KINDS; k++)
        for (int i = 0; i < MIN(m->count[k], TABLE_ROWS); i++) width = MAX(width, utf8_columns(m->rows[k][i].name));
    width = MIN(width, TABLE_NAME);
    log_row(log, LOG_ERROR, "%-10s  %-*s  %-16s  %s", "kind", (int)width, "tensor", "in the file", "in the model");
    for (int k = 0; k < MISFIT_KINDS; k++) {
        for (int i = 0; i < MIN(m->count[k], TABLE_ROWS); i++) {
            const Misfit *row = &m->rows[k][i];
            char stored[128] = "-", wanted[128] = "-";
            if (row->stored) shape_text(stored, row->stored->shape, row->stored->rank);
            if (row->wanted) shape_text(wanted, row->wanted->dim, row->wanted->rank);
            log_row(log, LOG_ERROR, "%-10s  %-*s  %-16s  %s", kinds[k], (int)width, row->name, stored, wanted);
        }
        if (m->count[k] > TABLE_ROWS)
            log_row(log, LOG_ERROR, "%-10s  ... and %d more", kinds[k], (int)(m->count[k] - TABLE_ROWS));
    }
}

/* ---- the check ---- */

/* "encoder." of "encoder.head.weight", when `ends` is "head.weight": bytes of it. 0: that is the whole name, or not. */
static size_t prefix_before(const char *name, const char *ends) {
    const size_t count = strlen(name), end = strlen(ends);
    return count > end + 1 && name[count - end - 1] == '.' && strcmp(name + count - end, ends) == 0 ? count - end : 0;
}

bool weights_check_names(const TensorFile *file, Err *err) {
    static const char *const sure[] = {"patch_embed.proj.0.weight", "head.weight"}; /* of any MAViT; of a classifier */
    for (size_t k = 0; k < COUNTOF(sure); k++)
        if (tensor_file_find(file, sure[k])) return true;
    for (size_t k = 0; k < COUNTOF(sure); k++)
        for (size_t i = 0; i < file->tensor_count; i++) {
            const char *name = file->tensors[i].name;
            const size_t length = prefix_before(name, sure[k]);
            if (length > 0)
                return err_set(err, EXIT_INPUT, "%s: its tensors' names begin with \"%.*s\" (\"%.120s\"), which is in "
                               "the way - save them without it", file->path, (int)MIN(length, (size_t)120), name, name);
        }
    return true;
}

bool weights_check_kind(const TensorFile *file, Err *err) {
    if (!weights_check_names(file, err)) return false;
    if (tensor_file_find(file, "patch_embed.proj.0.weight")) return true;
    return err_set(err, EXIT_INPUT, "%s: is no MAViT: \"patch_embed.proj.0.weight\" is not among its %zu tensors - "
                   "name a file of MAViT's weights", file->path, file->tensor_count);
}

/* The angles follow from the size of a head. A file of halves has them rounded, one of another embedding has others. */
static bool check_angles(const TensorFile *file, const StoredTensor *t, Err *err) {
    void *angle;
    int pairs = (int)(t->count / 2);
    if (t->rank != 1 || t->count % 2 || t->count > 4096)
        return err_set(err, EXIT_INPUT, "%s: %s: not the angles of a rotary embedding - not a MAViT's weights",
                       file->path, t->name);
    if (!mem_try(&angle, t->count * sizeof(float), err)) return false;
    bool ok = tensor_file_read_f32(angle, file, t, err);
    for (int i = 0; ok && i < 2 * pairs; i++) {
        float is = ((const float *)angle)[i], expected = rope_angle(i / 2, pairs);
        if (!(fabsf(is - expected) <= 0.01f * expected)) /* NaN, too */
            ok = err_set(err, EXIT_INPUT, "%s: %s: angle %d is %g instead of %g - made for another rotary embedding",
                         file->path, t->name, i, (double)is, (double)expected);
    }
    free(angle);
    return ok;
}

/* Tensors of the file that the model has no parameter for. */
static bool check_extras(Misfits *m, const WeightsReport *report, const State *s, const TensorFile *file, Err *err) {
    for (size_t i = 0; i < file->tensor_count; i++) {
        const StoredTensor *t = &file->tensors[i];
        if (state_find(s, t->name) >= 0 || text_matches("*num_batches_tracked", t->name)) continue;
        if (report->backbone && text_matches(BACKBONE_ONLY, t->name)) continue;
        if (!text_matches("*.RoPE.angle", t->name))
            add_misfit(m, UNEXPECTED, (Misfit){t->name, t, NULL});
        else if (!check_angles(file, t, err))
            return false;
    }
    return true;
}

/* Is the file's classifier left out? Only a head of another number of classes is: any other difference is a misfit. */
static bool head_left_out(const State *s, const StoredTensor *t, HeadPolicy head) {
    if (head == HEAD_NEW) return true;
    int32_t p = state_find(s, "head.weight");
    if (p < 0 || t->rank != s->params[p].shape.rank) return false;
    for (int i = 1; i < t->rank; i++)
        if (t->shape[i] != s->params[p].shape.dim[i]) return false;
    return t->shape[0] != s->params[p].shape.dim[0];
}

static WeightsReport choose_head(const State *s, const TensorFile *file, HeadPolicy head) {
    const StoredTensor *t = tensor_file_find(file, "head.weight");
    if (head == HEAD_STRICT) return (WeightsReport){0};
    return (WeightsReport){.head_new = !t || head_left_out(s, t, head), .backbone = !t};
}

/* t: the file's tensor of this name, or NULL */
static bool starts_anew(const WeightsReport *report, const char *name, const StoredTensor *t) {
    if (report->backbone) return !t && text_matches_any(CLASSIFIER_ONLY, name);
    return report->head_new && is_head(name);
}

static void compare(WeightsReport *report, Misfits *m, const State *s, const TensorFile *file) {
    for (int32_t p = 0; p < s->n_params; p++) {
        const ParamSpec *spec = &s->params[p];
        const StoredTensor *t = tensor_file_find(file, spec->name);
        int64_t trainable = spec->buffer ? 0 : state_count(s, p);
        report->wanted_tensors++;
        report->wanted_parameters += trainable;
        if (starts_anew(report, spec->name, t)) continue;
        if (!t)
            add_misfit(m, MISSING, (Misfit){spec->name, NULL, &spec->shape});
        else if (!same_shape(t, &spec->shape))
            add_misfit(m, MISSHAPED, (Misfit){spec->name, t, &spec->shape});
        else
            report->tensors++, report->parameters += trainable;
    }
}

bool weights_check(WeightsReport *report, const State *s, const TensorFile *file, const WeightsPolicy *policy,
                   Err *err) {
    Misfits m = {.policy = policy};
    if (!weights_check_names(file, err)) return false;
    *report = choose_head(s, file, policy->head);
    compare(report, &m, s, file);
    if (!check_extras(&m, report, s, file, err)) return false;
    report->allowed = m.allowed;
    if (m.count[MISSING] + m.count[MISSHAPED] + m.count[UNEXPECTED] == 0) return true;
    log_misfits(&m, policy->log);
    return err_set(err, EXIT_INPUT,
                   "%s: does not fit the model: %d tensors missing, %d of another shape, %d unexpected - check "
                   "--model, model.attention and the sizes, or name in --allow-missing what may differ",
                   file->path, (int)m.count[MISSING], (int)m.count[MISSHAPED], (int)m.count[UNEXPECTED]);
}

static void count_text(char out[32], int64_t count) {
    if (count < 10000)
        snprintf(out, 32, "%lld", (long long)count);
    else if (count < 1000000)
        snprintf(out, 32, "%.1f k", (double)count / 1e3);
    else
        snprintf(out, 32, "%.1f M", (double)count / 1e6);
}

void weights_describe(const WeightsReport *r, Log *log) {
    char count[32], share[32] = "100", allowed[64] = "";
    count_text(count, r->parameters);
    if (r->parameters < r->wanted_parameters) /* never rounded up to 100 */
        snprintf(share, sizeof share, "%.1f", floor(1000 * (double)r->parameters / (double)r->wanted_parameters) / 10);
    if (r->allowed) snprintf(allowed, sizeof allowed, "; %d misfits allowed", (int)r->allowed);
    log_info(log, "loaded %d of %d tensors, %s parameters (%s %%)%s%s", (int)r->tensors, (int)r->wanted_tensors, count,
             share,
             r->backbone   ? "; a backbone: its classifier starts anew"
             : r->head_new ? "; the classes are others: their head starts anew"
                           : "",
             allowed);
}

/* ---- reading ---- */

/* A parameter that the policy let be missing is drawn, as in an untrained network. */
static bool read_tensor(void *self, const State *s, int32_t param, float *host, Err *err) {
    static const uint64_t seed = 0;
    const TensorFile *file = self;
    const StoredTensor *t = tensor_file_find(file, s->params[param].name);
    if (!t || !same_shape(t, &s->params[param].shape)) {
        StateSource drawn = state_initial_source(&seed);
        return drawn.read(drawn.self, s, param, host, err);
    }
    return tensor_file_read_f32(host, file, t, err);
}

bool weights_check_values(const float *values, int64_t count, const char *name, const char *path, Err *err) {
    const bool variance = text_matches("*.running_var", name);
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            return err_set(err, EXIT_INPUT, "%s: %s holds values that are not finite - these weights do not compute",
                           path, name);
        if (variance && values[i] < 0)
            return err_set(err, EXIT_INPUT, "%s: %s holds a variance below 0 (%g) - these weights do not compute", path,
                           name, (double)values[i]);
    }
    return true;
}

bool weights_load(WeightsReport *report, State *s, const TensorFile *file, const WeightsPolicy *policy, Err *err) {
    if (!weights_check(report, s, file, policy, err)) return false;
    for (int32_t p = 0; p < s->n_params; p++) {
        const StoredTensor *t = tensor_file_find(file, s->params[p].name);
        if (starts_anew(report, s->params[p].name, t) || !t || !same_shape(t, &s->params[p].shape)) continue;
        void *host;
        if (!mem_try(&host, t->count * sizeof(float), err)) return false;
        bool ok = read_tensor((void *)file, s, p, host, err) &&
                  weights_check_values(host, state_count(s, p), s->params[p].name, file->path, err) &&
                  state_write(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, err);
        free(host);
        if (!ok) return false;
    }
    return true;
}

bool weights_attach(WeightsReport *report, State *s, const TensorFile *file, const WeightsPolicy *policy, Err *err) {
    CHECK(policy->head == HEAD_STRICT, "a head that starts anew is for training");
    if (!weights_check(report, s, file, policy, err)) return false;
    state_attach(s, (StateSource){.read = read_tensor, .self = (void *)file});
    return true;
}

bool weights_save(const char *path, const State *s, StateRole role, const StoredPair *metadata, size_t count,
                  Err *err) {
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
    Seal seal = {0};
    ok = ok && seal_make(&seal, tensors, (size_t)s->n_params, metadata, count, err) &&
         safetensors_write(path, tensors, (size_t)s->n_params, seal.pairs, seal.count, err);
    seal_free(&seal);
    for (int32_t i = 0; i < done; i++) free((void *)tensors[i].data);
    free(tensors);
    return ok;
}
