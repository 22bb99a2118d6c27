#include "lib/model_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/class_names.h"
#include "lib/hub.h"
#include "lib/model_metadata.h"
#include "base/file.h"
#include "base/parallel.h"
#include "data/imagenet_names.h"
#include "io/seal.h"

/* ---- from a config ---- */

ClassifySpec config_classify(const Config *c, int classes) {
    ClassifySpec s = {.model = config_mavit(c, classes),
                      .smoothing = (float)c->train.smoothing,
                      .ema = c->train.ema,
                      .recompute = c->train.recompute == RECOMPUTE_CHEAP};
    for (int i = 0; i < 3; i++) {
        s.mean[i] = (float)c->input.mean[i];
        s.std[i] = (float)c->input.std[i];
    }
    return s;
}

ClassifySpec config_classify_on(const Config *c, int classes, const Backend *backend) {
    ClassifySpec s = config_classify(c, classes);
    s.compute = backend->compute;
    if (c->train.recompute == RECOMPUTE_AUTO) s.recompute = !backend->host_memory;
    s.unfused = backend->host_memory; /* a CPU keeps a GELU in less time than it takes it twice: 3 % of a step */
    return s;
}

static ResizeFilter filter_of(const Config *c) {
    return c->input.interpolation == INTERPOLATION_BILINEAR ? FILTER_BILINEAR : FILTER_BICUBIC;
}

EvalTransform config_eval_transform(const Config *c) {
    return (EvalTransform){.width = c->input.size[1],
                           .height = c->input.size[0],
                           .filter = filter_of(c),
                           .crop_pct = config_crop_pct(c)};
}

static TrainTransform train_transform(const Config *c) {
    TrainTransform t = train_transform_defaults(c->input.size[1], c->input.size[0]);
    t.crop = c->aug.crop == CROP_RRC ? CROP_RESIZED : CROP_PADDED;
    t.pad = c->aug.crop == CROP_PAD ? c->aug.pad : 0;
    t.scale_min = c->aug.scale[0], t.scale_max = c->aug.scale[1];
    t.ratio_min = c->aug.ratio[0], t.ratio_max = c->aug.ratio[1];
    t.flip = c->aug.hflip;
    t.filter = filter_of(c);
    return t;
}

size_t config_picture_bytes(const Config *c) { return (size_t)3 * (size_t)c->input.size[0] * (size_t)c->input.size[1]; }

LoaderOptions config_loader(const Config *c, int batch, bool train) {
    LoaderOptions o = loader_defaults(batch, c->input.size[1], c->input.size[0], train);
    o.workers = config_workers(c);
    o.ahead = 0;
    o.seed = (uint64_t)c->train.seed;
    o.on_bad = c->data.on_bad_image == BAD_IMAGE_ERROR ? BAD_ERROR : BAD_SKIP;
    o.max_bad = c->data.max_bad;
    o.keep_bytes = (size_t)c->data.cache_mb << 20;
    o.train_transform = train_transform(c);
    o.eval_transform = config_eval_transform(c);
    return o;
}

WeightsPolicy config_weights_policy(const Config *c, HeadPolicy head, Log *log) {
    return (WeightsPolicy){.head = head, .allow = c->model.allow_missing, .log = log};
}

bool config_set_precision(Backend *b, const Config *c, bool training, Err *err) {
    static const DType types[] = {[PRECISION_FLOAT32] = DT_F32, [PRECISION_TF32] = DT_F32,
                                  [PRECISION_BFLOAT16] = DT_BF16, [PRECISION_FLOAT16] = DT_F16};
    int precision = training ? c->train.precision : c->eval.precision;
    if (precision == PRECISION_AUTO)
        precision = b->best == DT_BF16  ? PRECISION_BFLOAT16
                    : b->best == DT_F16 ? PRECISION_FLOAT16
                                        : PRECISION_FLOAT32;
    const char *name = precision == PRECISION_TF32 ? "tf32" : dtype_name(types[precision]);
    const char *key = training ? "train.precision" : "eval.precision";
    if (precision == PRECISION_FLOAT32) return true;
    if (!b->types)
        return options_fail(&c->options, key, err,
                            "%s needs a GPU, the %s backend computes in float32 - leave it at auto", name, b->name);
    if (!(b->types >> types[precision] & 1))
        return options_fail(&c->options, key, err, "%s is more than this GPU has (%s) - leave it at auto, here %s",
                            name, b->description, dtype_name(b->best));
    b->compute = types[precision];
    b->tf32 = precision == PRECISION_TF32;
    size_t used = strlen(b->description);
    snprintf(b->description + used, sizeof b->description - used, ", %s", name);
    return true;
}

/* ---- the file ---- */

/* The directory of a training run, as mala train leaves it. */
static bool is_run(const char *path) {
    char *weights = path_join(path, "weights"), *hub = path_join(path, HUB_WEIGHTS);
    bool run = path_is_dir(weights) && access(hub, F_OK) != 0;
    free(weights), free(hub);
    return run;
}

static bool is_hub(const char *path) { return path_is_dir(path) && !is_run(path); }

/* The file that a path means: the best weights of a run, or the weights of a hub's folder. malloc'd; NULL: EXIT_INPUT,
 * of a run that has no best ones yet; EXIT_IO, where that cannot be seen. */
static char *weights_file(const char *path, Err *err) {
    if (!path_is_dir(path)) return mem_strdup(path);
    if (!is_run(path)) {
        char *hub = path_join(path, HUB_WEIGHTS);
        PathKind kind;
        const bool asked = path_kind(&kind, hub, err);
        if (asked && kind != PATH_NOTHING) return hub;
        if (asked)
            err_set(err, EXIT_INPUT, "%s: holds no weights: neither " RUN_BEST ", as a run's folder, nor " HUB_WEIGHTS
                    ", as a hub's - name a folder that does, or a file", path);
        free(hub);
        return NULL;
    }
    char *best = path_join(path, RUN_BEST), *last = path_join(path, RUN_LAST);
    PathKind kind, other;
    bool asked = path_kind(&kind, best, err), found = asked && kind != PATH_NOTHING;
    if (asked && !found && path_kind(&other, last, err))
        err_set(err, EXIT_INPUT, other ? "%s: has no " RUN_BEST " yet - " RUN_LAST " in it are the latest"
                                       : "%s: has no " RUN_BEST " - the run saved none", path);
    free(last);
    if (found) return best;
    free(best);
    return NULL;
}

bool config_open_weights(TensorFile *out, const char *path, const Config *c, Log *log, Err *err) {
    TensorFileOptions options = {.ema = (EmaChoice)c->model.weights_ema};
    char *file = weights_file(path, err);
    bool ok = file && tensor_file_open(out, file, &options, err);
    free(file);
    if (!ok) return false;
    if (!seal_check_metadata(out, err)) {
        tensor_file_close(out);
        return false;
    }
    if (out->part && out->part[0])
        log_info(log, "%s: takes \"%s\"%s", path, out->part,
                 out->averaged ? ", averaged weights (--no-ema: the raw ones)" : "");
    if (out->prefix) log_info(log, "%s: the tensors' names begin with \"%s\", which is taken off", path, out->prefix);
    if (out->stepped_over) log_info(log, "%s: holds objects beside the weights, not read: %s", path, out->stepped_over);
    return true;
}

bool config_check_tensors(const TensorFile *f, const Config *c, Err *err) {
    Team *team = team_new(config_threads(c)), *before = team_use(team);
    bool ok = seal_check_tensors(f, err);
    team_use(before);
    team_free(team);
    return ok;
}

static void take_class(char ***names, int *count, const char *name) {
    *names = mem_resize(*names, (size_t)*count + 1, sizeof **names);
    (*names)[(*count)++] = mem_strdup(name);
}

bool model_classes_read(char ***names, int *count, const TensorFile *file, Err *err) {
    const char *text = tensor_file_metadata(file, "mala.classes");
    JsonReader r;
    JsonToken t;
    char where[512];
    *names = NULL, *count = 0;
    if (!text) return true;
    snprintf(where, sizeof where, "%.400s: mala.classes", file->path);
    bool ok = json_open(&r, text, strlen(text), (JsonSource){.name = where, .code = EXIT_INPUT}, err) &&
              json_expect(&r, &t, JSON_ARRAY, err);
    while (ok && (ok = json_next(&r, &t, err)) && t.kind != JSON_ARRAY_END) {
        if (t.kind != JSON_STRING) ok = json_fail(&r, &t, err, "class names must be strings");
        if (ok) take_class(names, count, t.text);
    }
    json_close(&r);
    return ok && class_names_check(*names, *count, file->path, err);
}

bool model_classes_read_at(char ***names, int *count, const char *path, const TensorFile *file, Err *err) {
    if (!model_classes_read(names, count, file, err)) return false;
    if (*count || !is_hub(path)) return true;
    HubConfig hub;
    bool ok = hub_read(&hub, path, err);
    *names = hub.classes, *count = hub.class_count;
    hub.classes = NULL, hub.class_count = 0;
    hub_free(&hub);
    return ok;
}

void model_classes_free(char **names, int count) {
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
}

/* Names from the metadata; the number of classes is what the head's shape says. A thousand without names are taken for
 * ImageNet's, as every released classifier has them. */
static bool find_classes(ModelFile *m, Err *err) {
    const StoredTensor *head = tensor_file_find(&m->file, "head.weight");
    if (!head && !weights_check_names(&m->file, err)) return false;
    if (!head) {
        model_classes_free(m->classes, m->class_count);
        m->classes = NULL, m->class_count = 0;
        return true;
    }
    if (head->rank < 2 || head->shape[0] < 1 || head->shape[0] > 1000000)
        return err_set(err, EXIT_INPUT, "%s: head.weight is no classifier's - not a MAViT's weights", m->file.path);
    if (!m->classes && !model_classes_read(&m->classes, &m->class_count, &m->file, err)) return false;
    if (m->class_count && m->class_count != head->shape[0])
        return err_set(err, EXIT_INPUT, "%s: names %d classes but its head has %lld - the file is damaged",
                       m->file.path, m->class_count, (long long)head->shape[0]);
    m->named = m->class_count > 0 || head->shape[0] == IMAGENET_CLASSES;
    for (int64_t i = m->class_count; i < head->shape[0]; i++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)i);
        take_class(&m->classes, &m->class_count, head->shape[0] == IMAGENET_CLASSES ? imagenet_names[i].id : number);
    }
    return true;
}

/* What a folder's config.json says stands in for the metadata that its weights lack. */
static bool load_hub_config(ModelFile *m, const char *folder, Settings settings, Err *err) {
    HubConfig hub;
    bool ok = hub_read(&hub, folder, err);
    if (ok) {
        config_free(&m->config);
        ok = config_load_values(&m->config, hub.values, hub.value_count, settings, err);
        m->classes = hub.classes, m->class_count = hub.class_count;
        hub.classes = NULL, hub.class_count = 0;
    }
    hub_free(&hub);
    return ok;
}

static bool load_inner_config(Config *out, const TensorFile *f, Settings settings, Err *err) {
    const char *text = tensor_file_metadata(f, "mala.config");
    char name[512];
    snprintf(name, sizeof name, "%.400s: mala.config", f->path);
    return config_load_embedded(out, text, strlen(text), name, settings, err);
}

static bool load_folders_config(Config *out, const char *folder, Err *err) {
    HubConfig hub;
    *out = (Config){0};
    bool ok = hub_read(&hub, folder, err) && config_load_values(out, hub.values, hub.value_count, (Settings){0}, err);
    hub_free(&hub);
    return ok;
}

bool model_file_warn_start(const TensorFile *f, const char *path, const Config *c, Log *log, Err *err) {
    const bool inner = tensor_file_metadata(f, "mala.config") != NULL;
    if (!inner && !is_hub(path)) return true;
    Config was;
    bool ok = inner ? load_inner_config(&was, f, (Settings){0}, err) : load_folders_config(&was, path, err);
    const struct {
        const char *option;
        const void *was, *is;
        size_t bytes;
    } options[] = {{"model.attention", was.model.attention, c->model.attention, sizeof was.model.attention},
                   {"input.mean", was.input.mean, c->input.mean, sizeof was.input.mean},
                   {"input.std", was.input.std, c->input.std, sizeof was.input.std}};
    for (size_t i = 0; ok && i < COUNTOF(options); i++)
        if (memcmp(options[i].was, options[i].is, options[i].bytes) != 0)
            log_warning(log, "%s: was trained with another %s than this run's", path, options[i].option);
    config_free(&was);
    return ok;
}

/* " KEY=1,2,3,4"; its length. */
static int put_list(char *out, size_t size, const char *key, const int v[MAVIT_STAGES]) {
    return snprintf(out, size, " %s=%d,%d,%d,%d", key, v[0], v[1], v[2], v[3]);
}

static void warn_of_network(const Config *was, const Config *c, const char *path, Log *log) {
    const MavitConfig a = config_classify(was, 2).model, b = config_classify(c, 2).model;
    if (memcmp(a.dims, b.dims, sizeof a.dims) == 0 && memcmp(a.depths, b.depths, sizeof a.depths) == 0) return;
    char text[400], *name = config_word(was, "model.name");
    int size, used = snprintf(text, sizeof text, "model.name=%s", name);
    free(name);
    if (!config_find_size(&size, a.dims, a.depths)) {
        used += put_list(text + used, sizeof text - (size_t)used, "model.dims", a.dims);
        used += put_list(text + used, sizeof text - (size_t)used, "model.depths", a.depths);
        used += put_list(text + used, sizeof text - (size_t)used, "model.heads", a.heads);
        snprintf(text + used, sizeof text - (size_t)used, " model.mlp_ratio=%.17g model.projection=%d", a.mlp_ratio,
                 a.projection);
    }
    log_warning(log, "%s: holds another network than this run's - for its own add %s", path, text);
}

void model_file_warn_misfit(const TensorFile *f, const char *path, const Config *c, Log *log) {
    Err err = {0};
    Config was;
    const bool inner = tensor_file_metadata(f, "mala.config") != NULL;
    if (!inner && !is_hub(path)) return;
    if (inner ? load_inner_config(&was, f, (Settings){0}, &err) : load_folders_config(&was, path, &err))
        warn_of_network(&was, c, path, log);
    config_free(&was);
}

/* Neither the folder's config.json nor the metadata of the weights in it is passed over: what both say must be one. */
static bool check_hub(const ModelFile *m, const char *folder, Err *err) {
    HubConfig hub;
    Config inner;
    const bool described = tensor_file_metadata(&m->file, "mala.config") != NULL;
    char *config = path_join(folder, "config.json");
    PathKind kind;
    const bool asked = path_kind(&kind, config, err);
    free(config);
    if (!asked) return false;
    if (described && kind == PATH_NOTHING) return true;
    bool ok = hub_read(&hub, folder, err) && hub_check_classes(&hub, m->classes, m->class_count, err);
    if (ok && described) {
        ok = load_inner_config(&inner, &m->file, (Settings){0}, err) && hub_check_config(&hub, &inner, err);
        config_free(&inner);
    }
    hub_free(&hub);
    return ok;
}

/* A released checkpoint does not say what it is, but no two of the released sizes have the same shapes. */
static bool recognise(int *name, const TensorFile *f) {
    int dims[MAVIT_STAGES], depths[MAVIT_STAGES];
    for (int i = 0; i < MAVIT_STAGES; i++) {
        char block[64];
        const StoredTensor *t;
        for (depths[i] = 0;; depths[i]++) {
            snprintf(block, sizeof block, "layers.%d.blocks.%d.attn.proj.weight", i, depths[i]);
            t = tensor_file_find(f, block);
            if (!t || t->rank < 2 || t->shape[0] > INT_MAX) break;
            dims[i] = (int)t->shape[0];
        }
        if (depths[i] == 0) return false;
    }
    return config_find_size(name, dims, depths);
}

static bool load_config(ModelFile *m, const char *path, const char *config_file, Settings settings, Err *err) {
    const char *text = tensor_file_metadata(&m->file, "mala.config");
    m->described = true;
    if (text && !config_file) {
        config_free(&m->config);
        return load_inner_config(&m->config, &m->file, settings, err);
    }
    if (is_hub(path) && !config_file) return load_hub_config(m, path, settings, err);
    m->described = config_file || options_given(&m->config.options, "model.name") ||
                   options_given(&m->config.options, "model.dims");
    if (!m->described && recognise(&m->config.model.name, &m->file)) {
        char *name = config_word(&m->config, "model.name");
        m->described = true;
        log_info(m->log, "%s: has the shapes of %s, and is taken for one", m->file.path, name);
        free(name);
    }
    return true;
}

/* The head's own shape says how many classes there are; whoever says otherwise means another file. */
static bool check_class_count(const ModelFile *m, const char *config_file, Settings settings, Err *err) {
    const StoredTensor *head = tensor_file_find(&m->file, "head.weight");
    const int said = m->config.model.num_classes;
    if (said == AUTO_INT || !head || head->rank == 0 || head->shape[0] == said) return true;
    const char *where = options_where(&m->config.options, "model.num_classes");
    const bool asked = config_file || !where || (settings.place && strcmp(where, settings.place) == 0);
    options_fail(&m->config.options, "model.num_classes", err, "%d, but head.weight in %s has %lld - leave it at auto",
                 said, m->file.path, (long long)head->shape[0]);
    if (!asked) err->code = EXIT_INPUT;
    return false;
}

static bool open_file(ModelFile *out, const char *path, const char *config_file, Settings settings, Log *log,
                      Err *err) {
    *out = (ModelFile){.log = log};
    bool loaded = config_load_settings(&out->config, config_file, settings, err);
    if (loaded && !path) path = out->config.model.weights;
    if (loaded && !path)
        loaded = options_fail(&out->config.options, "model.weights", err, "not given - add --weights FILE");
    if (!loaded) {
        config_free(&out->config);
        return false;
    }
    if (!config_open_weights(&out->file, path, &out->config, log, err)) {
        config_free(&out->config);
        return false;
    }
    path = mem_strdup(path); /* loading another config frees where it may lie */
    bool ok = load_config(out, path, config_file, settings, err) &&
              check_class_count(out, config_file, settings, err) &&
              (!out->described || find_classes(out, err)) &&
              (config_file || !is_hub(path) || check_hub(out, path, err));
    free((char *)path);
    if (ok) return true;
    model_file_close(out);
    return false;
}

/* What was opened says what it is. */
static bool is_described(ModelFile *m, Err *err) {
    if (m->described) return true;
    if (weights_check_kind(&m->file, err))
        err_set(err, EXIT_USAGE, "%s: does not say its architecture, nor has it the shapes of a released size - give "
                "model.dims, model.depths and model.heads", m->file.path);
    model_file_close(m);
    return false;
}

bool model_file_open_any(ModelFile *out, const char *path, const char *config_file, char *const *overrides, int count,
                         Log *log, Err *err) {
    return open_file(out, path, config_file, (Settings){overrides, count, COMMAND_LINE}, log, err);
}

bool model_file_open(ModelFile *out, const char *path, const char *config_file, char *const *overrides, int count,
                     Log *log, Err *err) {
    return model_file_open_any(out, path, config_file, overrides, count, log, err) && is_described(out, err);
}

bool model_file_open_settings(ModelFile *out, const char *path, Settings settings, Err *err) {
    return open_file(out, path, NULL, settings, NULL, err) && is_described(out, err);
}

bool model_file_has_classifier(const ModelFile *m, Err *err) {
    return m->class_count > 0 ||
           err_set(err, EXIT_INPUT, "%s: is a backbone, without a classifier (head.weight) - mala train --weights "
                   "trains one on it, mala export --as backbone takes it as it is", m->file.path);
}

void model_file_close(ModelFile *m) {
    model_classes_free(m->classes, m->class_count);
    config_free(&m->config);
    tensor_file_close(&m->file);
    *m = (ModelFile){0};
}

bool model_file_save(const char *path, const State *s, StateRole role, const Config *config, char *const *classes,
                     int class_count, const ModelFacts *facts, Err *err) {
    ModelMetadata metadata;
    model_metadata_init(&metadata, config, classes, class_count, facts);
    bool ok = weights_save(path, s, role, metadata.pairs, metadata.count, err);
    model_metadata_free(&metadata);
    return ok;
}

/* The readers themselves are asked. */
static bool read_back(const ModelMetadata *written, char *const *classes, int class_count, int outputs, Err *err) {
    const TensorFile file = {.path = "what training would save",
                             .metadata = (StoredPair *)written->pairs,
                             .metadata_count = written->count};
    char **names;
    int count;
    Config config;
    const char *text = tensor_file_metadata(&file, "mala.config");
    bool ok = config_load_text(&config, text, strlen(text), file.path, NULL, 0, err);
    config_free(&config);
    ok = model_classes_read(&names, &count, &file, err) && ok;
    bool same = count == class_count && count == outputs;
    for (int i = 0; same && i < count; i++) same = strcmp(names[i], classes[i]) == 0;
    model_classes_free(names, count);
    if (ok && !same)
        return err_set(err, EXIT_USAGE, "%s: the %d classes cannot be read back for %d outputs - rename their folders",
                       file.path, class_count, outputs);
    return ok;
}

bool model_file_check(const Config *config, char *const *classes, int class_count, int outputs, Err *err) {
    ModelMetadata metadata;
    Err why = {0};
    model_metadata_init(&metadata, config, classes, class_count, &(ModelFacts){0});
    bool ok = read_back(&metadata, classes, class_count, outputs, &why);
    model_metadata_free(&metadata);
    return ok || err_set(err, why.code == EXIT_INPUT ? EXIT_USAGE : why.code, "%s", why.text);
}
