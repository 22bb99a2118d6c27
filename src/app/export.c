#include "app/export.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/strings.h"
#include "io/onnx.h"
#include "io/seal.h"
#include "lib/golden.h"
#include "run/plan.h"

#define PROBE 64 /* pixels of the picture that a network is tried on: two by two are left in the last stage */

static void export_graph(ExportModel *e, const Config *c, int classes) {
    ClassifySpec spec = config_classify(c, classes);
    Shape shape = SHAPE(1, c->input.size[0], c->input.size[1], 3);
    Graph *g = e->graph = graph_new();
    Nn nn = {.g = g, .counter = NO_VAL};
    Val stage[MAVIT_STAGES];
    const bool pixels = e->options.preprocess;
    e->input = graph_input(g, pixels ? "pixels" : "images", pixels ? DT_U8 : DT_F32, shape);
    Val x = pixels ? op_normalize(g, e->input, spec.mean, spec.std) : e->input;
    spec.model.classes = classes; /* the head's own, whatever the config says */
    mavit_features(&nn, &spec.model, x, stage);
    if (e->options.form == EXPORT_BACKBONE)
        mavit_extra_norms(&nn, e->features, stage);
    else
        e->logits = mavit_classifier(&nn, &spec.model, stage[MAVIT_STAGES - 1]);
}

static bool load_weights(ExportModel *e, const ModelFile *m, Err *err) {
    WeightsReport report;
    WeightsPolicy policy = config_weights_policy(&m->config, HEAD_STRICT, m->log);
    const bool backbone = e->options.form == EXPORT_BACKBONE;
    char allow[1024];
    snprintf(allow, sizeof allow, CLASSIFIER_ONLY "," BACKBONE_ONLY ",%s", policy.allow ? policy.allow : "");
    if (backbone) policy.allow = allow;
    if (!weights_attach(&report, &e->state, &m->file, &policy, err)) return false;
    weights_describe(&report, m->log);
    if (backbone && !tensor_file_find(&m->file, "extra_norms.0.norm.weight"))
        log_info(m->log, "%s: has no extra_norms: ones and zeros take their place",
                 m->file.path);
    return true;
}

/* Weights that are no numbers go nowhere. */
static bool check_values(State *s, const char *path, Err *err) {
    bool ok = true;
    for (int32_t p = 0; ok && p < s->n_params; p++) {
        size_t count = (size_t)state_count(s, p);
        void *values;
        ok = mem_try(&values, count * sizeof(float), err) && state_require(s, p, err) &&
             state_read(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, values, err);
        state_release(s, p);
        ok = ok && weights_check_values(values, (int64_t)count, s->params[p].name, path, err);
        free(values);
    }
    return ok;
}

bool export_open(ExportModel *out, const ModelFile *m, Backend *backend, ExportOptions options, Err *err) {
    *out = (ExportModel){.options = options, .logits = NO_VAL};
    for (int i = 0; i < MAVIT_STAGES; i++) out->features[i] = NO_VAL;
    if (options.form == EXPORT_CLASSIFIER && !model_file_has_classifier(m, err)) return false;
    export_graph(out, &m->config, m->class_count);
    if (state_new(&out->state, out->graph, backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, err) &&
        load_weights(out, m, err) && check_values(&out->state, m->file.path, err))
        return true;
    export_close(out);
    return false;
}

void export_close(ExportModel *e) {
    if (e->state.params) state_free(&e->state);
    graph_free(e->graph);
    *e = (ExportModel){0};
}

static bool run_once(ExportModel *e, Plan *p, const char *path, const Val *outputs, int count, Err *err) {
    const size_t bytes = (size_t)shape_count(&graph_value(e->graph, e->input)->shape);
    uint8_t *pixels = mem_zalloc(bytes, 1);
    golden_input(pixels, 0, PROBE, PROBE);
    bool ok = plan_upload(p, e->input, pixels, bytes, err);
    free(pixels);
    if (ok) plan_run(p);
    for (int i = 0; ok && i < count; i++) {
        const int64_t values = shape_count(&graph_value(e->graph, outputs[i])->shape);
        float *host = mem_zalloc((size_t)values, sizeof *host);
        ok = plan_download(p, outputs[i], host, (size_t)values * sizeof *host, err);
        if (ok && !classify_finite(host, values))
            ok = err_set(err, EXIT_INPUT, "%s: its answers are not finite - these weights do not compute", path);
        free(host);
    }
    return ok;
}

bool export_check_computes(const ModelFile *m, Backend *backend, ExportForm form, Err *err) {
    ExportModel e;
    Plan *p = NULL;
    ModelFile probe = *m;
    probe.log = NULL;
    for (int i = 0; i < 2; i++) probe.config.input.size[i] = PROBE;
    if (!export_open(&e, &probe, backend, (ExportOptions){.form = form, .preprocess = true}, err)) return false;
    const bool backbone = form == EXPORT_BACKBONE;
    const Val *outputs = backbone ? e.features : &e.logits;
    const int count = backbone ? MAVIT_STAGES : 1;
    bool ok = plan_new(&p, e.graph, backend, &e.state, outputs, count, (PlanOptions){0}, err) &&
              run_once(&e, p, m->file.path, outputs, count, err);
    plan_free(p);
    export_close(&e);
    return ok;
}

/* ---- ONNX ---- */

static void write_doubles(JsonWriter *w, const double *values, int count) {
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_double(w, values[i]);
    json_write_end(w);
}

bool export_onnx(const char *path, ExportModel *e, const ModelFile *m, bool dynamic_size, const char *license,
                 Err *err) {
    static const char *const stage_names[MAVIT_STAGES] = {"stage0", "stage1", "stage2", "stage3"};
    const Config *c = &m->config;
    bool backbone = e->options.form == EXPORT_BACKBONE;
    JsonWriter names = {0}, size = {0}, mean = {0}, std = {0};
    json_write_array(&names);
    for (int i = 0; i < m->class_count; i++) json_write_string(&names, m->classes[i]);
    json_write_end(&names);
    write_doubles(&size, (double[]){c->input.size[0], c->input.size[1]}, 2);
    write_doubles(&mean, c->input.mean, 3);
    write_doubles(&std, c->input.std, 3);
    char crop[NUMBER_TEXT_SIZE];
    number_text(crop, config_crop_pct(c));
    if (!license) license = tensor_file_metadata(&m->file, "license");

    const char *weights = tensor_file_metadata(&m->file, SEAL_TENSORS);
    StoredPair metadata[] = {
        {"task", backbone ? "features" : "classify"},
        {"imgsz", json_writer_text(&size)},
        {"mean", json_writer_text(&mean)},
        {"std", json_writer_text(&std)},
        {"crop_pct", crop},
        {"interpolation", c->input.interpolation == INTERPOLATION_BILINEAR ? "bilinear" : "bicubic"},
        {"stride", "32"},
        {"version", "mala " MALA_VERSION},
        {"license", license ? license : "not stated: that of the weights"},
        {"weights_sha256", weights ? weights : "not stated"},
        {"names", json_writer_text(&names)}};
    OnnxOutput outputs[MAVIT_STAGES] = {{e->logits, "logits"}};
    for (int i = 0; backbone && i < MAVIT_STAGES; i++) outputs[i] = (OnnxOutput){e->features[i], stage_names[i]};
    OnnxSpec spec = {.name = backbone ? "mavit_backbone" : "mavit_classifier",
                     .outputs = outputs,
                     .output_count = backbone ? MAVIT_STAGES : 1,
                     .dynamic_size = dynamic_size,
                     .metadata = metadata,
                     .metadata_count = COUNTOF(metadata) - backbone}; /* a backbone has no class names */
    bool ok = onnx_export(path, e->graph, &e->state, &spec, err);
    JsonWriter *all[] = {&names, &size, &mean, &std};
    for (size_t i = 0; i < COUNTOF(all); i++) json_writer_free(all[i]);
    return ok;
}
