/* mala.c - see mala.h. Each call runs with a Rescue: what would end a program ends the call. */
#include "lib/mala.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/strings.h"
#include "base/thread.h"
#include "lib/caller.h"
#include "lib/runner.h"
#include "data/imagenet_names.h"
#include "pass/cost.h"

struct MalaModel {
    ModelFile file;
    MalaInfo info;
};

struct MalaRunner {
    const MalaModel *model;
    Runner runner;
    Resizer resizer;
    bool tensors;
    pid_t process; /* the process that made it */
    void *input; /* [batch] pictures of the network's size: u8, or float for tensors; [height][width][3] */
};

/* ---- errors ---- */

typedef bool Work(void *arg, Err *err);

/* Does the work; whatever goes wrong ends up in *error, and the caller's thread is as it was. */
static bool attempt(Work *work, void *arg, MalaError *error) {
    Rescue rescue;
    Caller caller;
    Err err = {0};
    caller_enter(&caller);
    Rescue *before = rescue_use(&rescue);
    bool ok = setjmp(rescue.at) == 0 ? work(arg, &err) : false;
    rescue_use(before);
    caller_leave(&caller);
    if (!ok && error) {
        const Err *what = err.code ? &err : &rescue.err;
        error->code = (int)what->code;
        text_printable(error->text, sizeof error->text, what->text);
    }
    return ok;
}

static bool usage(Err *err, const char *what) { return err_set(err, EXIT_USAGE, "%s", what); }

/* ---- models ---- */

const char *mala_version(void) { return MALA_VERSION; }

typedef struct {
    MalaModel *model;
    const char *path;
    const char *const *settings;
    int count;
} Opening;

static void describe(MalaModel *m) {
    const Config *c = &m->file.config;
    ClassifySpec spec = config_classify(c, m->file.class_count);
    ClassifyGraph g = classify_eval_graph(&spec, 1, c->input.size[0], c->input.size[1], 0);
    m->info = (MalaInfo){.classes = m->file.class_count,
                         .height = c->input.size[0],
                         .width = c->input.size[1],
                         .parameters = cost_parameters(g.graph, ""),
                         .macs = cost_total(g.graph, "").macs};
    classify_graph_free(&g);
}

static bool open_model(void *arg, Err *err) {
    Opening *o = arg;
    if (!o->path || o->count < 0 || (o->count > 0 && !o->settings)) return usage(err, "mala_model_open: needs a path");
    o->model = mem_zalloc(1, sizeof *o->model);
    ModelFile *file = &o->model->file;
    Settings settings = {(char *const *)o->settings, o->count, "settings"};
    if (!model_file_open_settings(file, o->path, settings, err)) return false;
    if (model_file_has_classifier(file, err)) {
        describe(o->model);
        return true;
    }
    model_file_close(file);
    return false;
}

MalaModel *mala_model_open(const char *path, const char *const *settings, int count, MalaError *error) {
    Opening o = {.path = path, .settings = settings, .count = count};
    if (attempt(open_model, &o, error)) return o.model;
    free(o.model);
    return NULL;
}

void mala_model_close(MalaModel *model) {
    if (!model) return;
    model_file_close(&model->file);
    free(model);
}

MalaInfo mala_model_info(const MalaModel *model) { return model->info; }

const char *mala_model_label(const MalaModel *model, int class_index) {
    if (class_index < 0 || class_index >= model->file.class_count) return NULL;
    return imagenet_label(model->file.classes[class_index]);
}

/* ---- runners ---- */

typedef struct {
    MalaRunner *runner;
    const MalaModel *model;
    MalaRunnerOptions options;
} Starting;

/* With the model's own config, but for what the options say instead. */
static bool open_runner(Runner *out, const MalaModel *m, const MalaRunnerOptions *o, Err *err) {
    char device[64], threads[64], *overrides[2];
    int count = 0;
    if (o->device) {
        snprintf(device, sizeof device, "device=%s", o->device);
        overrides[count++] = device;
    }
    if (o->threads) {
        snprintf(threads, sizeof threads, "train.threads=%d", o->threads);
        overrides[count++] = threads;
    }
    Config c;
    char *text = config_dump(&m->file.config);
    Settings settings = {overrides, count, "runner options"};
    bool ok = config_load_text_settings(&c, text, strlen(text), "the model's config", settings, err);
    RunnerOptions options = {.config = &c, .batch = MAX(o->batch, 1), .tensors = o->tensors};
    ok = ok && runner_open(out, &m->file, options, err);
    config_free(&c);
    free(text);
    return ok;
}

static bool new_runner(void *arg, Err *err) {
    Starting *s = arg;
    if (!s->model) return usage(err, "mala_runner_new: needs a model");
    if (s->options.batch < 0 || s->options.batch > BATCH_MOST || s->options.threads < 0)
        return usage(err, "mala_runner_new: batch is 0 to 65535, and threads a count");
    MalaRunner *r = s->runner = mem_zalloc(1, sizeof *r);
    r->model = s->model;
    r->tensors = s->options.tensors;
    r->process = getpid();
    const Predictor *p = &r->runner.predictor;
    if (!open_runner(&r->runner, s->model, &s->options, err)) return false;
    if (mem_try(&r->input, (size_t)p->batch * p->image_bytes, err)) return true;
    runner_close(&r->runner);
    return false;
}

MalaRunner *mala_runner_new(const MalaModel *model, const MalaRunnerOptions *options, MalaError *error) {
    Starting s = {.model = model};
    if (options) s.options = *options;
    if (attempt(new_runner, &s, error)) return s.runner;
    free(s.runner); /* what a Rescue left half made is not looked into */
    return NULL;
}

void mala_runner_free(MalaRunner *r) {
    if (!r) return;
    runner_close(&r->runner);
    resizer_free(&r->resizer);
    free(r->input);
    free(r);
}

/* ---- pictures ---- */

typedef struct {
    MalaImage *out;
    const char *path;
} Loading;

static bool load_image(void *arg, Err *err) {
    Loading *l = arg;
    Image image;
    if (!l->out || !l->path) return usage(err, "mala_image_load: needs a path");
    if (!image_load(&image, l->path, err)) return false;
    *l->out = (MalaImage){image.width, image.height, image.pixels};
    return true;
}

bool mala_image_load(MalaImage *out, const char *path, MalaError *error) {
    if (out) *out = (MalaImage){0};
    return attempt(load_image, &(Loading){out, path}, error);
}

void mala_image_free(MalaImage *image) {
    image_free(&(Image){image->width, image->height, image->pixels});
    *image = (MalaImage){0};
}

/* ---- running ---- */

typedef struct {
    MalaRunner *runner;
    float *logits, *prob;
    const MalaImage *images;
    const float *tensors;
    int count;
} Running;

static bool put_image(MalaRunner *r, int at, const MalaImage *image, Err *err) {
    Image view = {image->width, image->height, image->pixels};
    if (!view.pixels || view.width < 1 || view.height < 1) return usage(err, "mala_run_images: an empty picture");
    uint8_t *pixels = (uint8_t *)r->input + (size_t)at * r->runner.predictor.image_bytes;
    return transform_eval(&r->resizer, pixels, &view, &r->runner.transform, err);
}

/* planes [3][H][W] to pixels [H][W][3] */
static void put_tensor(MalaRunner *r, int at, const float *planes) {
    int64_t pixels = (int64_t)r->model->info.height * r->model->info.width;
    float *out = (float *)r->input + at * pixels * 3;
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < pixels; i++) out[i * 3 + c] = planes[c * pixels + i];
}

static bool run(void *arg, Err *err) {
    Running *x = arg;
    MalaRunner *r = x->runner;
    if (!r || x->count < 0) return usage(err, "mala_run: needs a runner and a count");
    if (r->tensors != (x->tensors != NULL) || r->tensors == (x->images != NULL))
        return usage(err, r->tensors ? "mala_run: this runner was made for tensors, and needs them - for pictures, "
                                       "one without MalaRunnerOptions.tensors"
                                     : "mala_run: this runner was made for pictures, and needs them - for tensors, "
                                       "one with MalaRunnerOptions.tensors");
    if (r->process != getpid() && !r->runner.backend.host_memory)
        return err_set(err, EXIT_DEVICE, "mala_run: a GPU does not come along through fork() - start the child before "
                       "it is used");
    Predictor *p = &r->runner.predictor;
    int64_t classes = r->model->info.classes, plane = 3 * (int64_t)r->model->info.height * r->model->info.width;
    for (int done = 0; done < x->count; done += p->batch) {
        int n = MIN(p->batch, x->count - done);
        for (int i = 0; i < n; i++) {
            if (r->tensors)
                put_tensor(r, i, x->tensors + (done + i) * plane);
            else if (!put_image(r, i, &x->images[done + i], err))
                return false;
        }
        float *logits = x->logits ? x->logits + done * classes : NULL;
        float *prob = x->prob ? x->prob + done * classes : NULL;
        if (!predictor_run(p, logits, prob, r->input, n, err)) return false;
        if ((logits && !classify_finite(logits, n * classes)) || (prob && !classify_finite(prob, n * classes)))
            return err_set(err, EXIT_INPUT,
                           "mala_run: answers are not finite - the weights or the input do not compute");
    }
    return true;
}

bool mala_run_images(MalaRunner *runner, float *logits, float *prob, const MalaImage *images, int count,
                     MalaError *error) {
    return attempt(run, &(Running){runner, logits, prob, images, NULL, count}, error);
}

bool mala_run_tensors(MalaRunner *runner, float *logits, float *prob, const float *images, int count,
                      MalaError *error) {
    return attempt(run, &(Running){runner, logits, prob, NULL, images, count}, error);
}

void mala_top(int32_t *top, const float *scores, int classes, int k) {
    Caller caller;
    caller_enter(&caller); /* so that subnormal scores are told apart */
    classify_top(top, scores, classes, k);
    caller_leave(&caller);
}
