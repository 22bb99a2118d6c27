/* test_cuda.c - the CUDA backend's host side without a GPU, on the emulated device (tests/emulate/): memory, marks,
 * capture, staging and fetching, failures, and what `mala plan` predicts. The kernels have their own test,
 * test_cuda_ops.c. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/memory.h"
#include "lib/device.h"
#include "lib/model_file.h"
#include "lib/predictor.h"
#include "backend/cuda/cuda.h"
#include "base/rng.h"
#include "emulate/control.h"
#include "run/plan.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static int reset(void **state) {
    (void)state;
    err = (Err){0};
    emu_set_gpu(NULL);
    emu_set_late(0, false);
    emu_set_late(1, false);
    emu_fail_next(EMU_FAIL_NOTHING);
    return 0;
}

static void assert_says(const char *part) {
    if (!strstr(err.text, part)) fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

/* ---- finding a GPU ---- */

static void test_machines_without(void **state) {
    (void)state;
    static const struct {
        EmuGpu gpu;
        int device;
        const char *says;
    } cases[] = {
        {{0, false, 7, 5, 1 << 20, "75"}, 0, "no NVIDIA driver found"},
        {{0, true, 7, 5, 1 << 20, "75"}, 0, "no NVIDIA GPU found"},
        {{2, true, 7, 5, 1 << 20, "75"}, 2, "there is no cuda:2 - this machine has 2 GPUs, cuda:0 to cuda:1"},
        {{1, true, 6, 1, 1 << 20, "75"}, 0, "compute capability 6.1, mala needs 7.5"},
        {{1, true, 8, 6, 1 << 20, "90"}, 0, "CUDA_ARCHS=86"},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Backend b;
        err = (Err){0};
        emu_set_gpu(&cases[i].gpu);
        assert_false(backend_open_cuda(&b, cases[i].device, &err));
        assert_int_equal(err.code, EXIT_DEVICE);
        assert_says(cases[i].says);
        assert_null(b.self);
    }
    /* a newer minor version runs the code of an older one, a newer generation the portable form of the last */
    static const EmuGpu fine[] = {{1, true, 8, 6, 1 << 20, "75 80"}, {1, true, 12, 0, 1 << 20, "75 90"}};
    for (size_t i = 0; i < COUNTOF(fine); i++) {
        err = (Err){0};
        emu_set_gpu(&fine[i]);
        OK(backend_cuda_usable(0, &err));
    }
}

static void open_as(const char *device, DeviceKind kind, int index, const char *description, const char *chosen) {
    char override[64];
    snprintf(override, sizeof override, "device=%s", device);
    Config c;
    Backend b;
    int found;
    OK(config_load(&c, NULL, (char *[]){override}, 1, &err));
    assert_int_equal(config_device(&c, &found), kind);
    assert_int_equal(found, index);
    OK(config_open_backend(&b, &c, &err));
    assert_non_null(strstr(b.description, description));
    assert_string_equal(b.chosen, chosen);
    b.close(&b);
    config_free(&c);
}

static void test_device_option(void **state) {
    (void)state;
    emu_set_gpu(&(EmuGpu){2, true, 9, 0, (size_t)80 << 30, "75 80 90"});
    open_as("auto", DEVICE_AUTO, 0, "cuda:0: emulated GPU, 80 GiB, compute capability 9.0", "the first usable GPU");
    open_as("cpu", DEVICE_CPU, 0, "cpu: ", "");
    open_as("cuda", DEVICE_CUDA, 0, "cuda:0: ", "");
    open_as("cuda:1", DEVICE_CUDA, 1, "cuda:1: ", "");
    emu_hold(1);
    open_as("auto", DEVICE_AUTO, 0, "cuda:1: ", "the first usable GPU");
    emu_hold(3);
    open_as("auto", DEVICE_AUTO, 0, "cpu: ", "choosing a GPU: all CUDA-capable devices are busy or unavailable "
                                             "(cudaErrorDevicesUnavailable)");
    emu_set_gpu(&(EmuGpu){0, false, 0, 0, 0, "75"});
    open_as("auto", DEVICE_AUTO, 0, "cpu: ", "no NVIDIA driver found");
    static const char *const bad[] = {"device=cuda:", "device=cuda:x", "device=cuda:-1", "device=cuda:12345", "device=tpu"};
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        Config c;
        err = (Err){0};
        assert_false(config_load(&c, NULL, (char *[]){(char *)bad[i]}, 1, &err));
        assert_int_equal(err.code, EXIT_USAGE);
        assert_says("none of auto, cpu, cuda, cuda:N");
        config_free(&c);
    }
}

/* What a precision means on the GPU, or that it is refused. */
static void precision_is(const char *precision, DType type, bool refused) {
    char override[64];
    snprintf(override, sizeof override, "train.precision=%s", precision);
    Config c;
    Backend b;
    err = (Err){0};
    OK(config_load(&c, NULL, (char *[]){override}, 1, &err) && backend_open_cuda(&b, 0, &err));
    assert_int_equal(config_set_precision(&b, &c, true, &err), !refused);
    if (refused) assert_says("is more than this GPU has (cuda:0: emulated GPU");
    if (!refused) assert_int_equal(b.compute, type);
    b.close(&b);
    config_free(&c);
}

static void test_precision_of_gpu(void **state) {
    (void)state;
    precision_is("auto", DT_BF16, false);
    precision_is("tf32", DT_F32, false);
    precision_is("float16", DT_F16, false);
    emu_set_gpu(&(EmuGpu){1, true, 7, 5, (size_t)16 << 30, "75"}); /* Turing: cuDNN has no bfloat16 there */
    precision_is("auto", DT_F16, false);
    precision_is("float32", DT_F32, false);
    precision_is("bfloat16", DT_BF16, true);
}

/* ---- memory and order ---- */

static void test_memory_and_copies(void **state) {
    (void)state;
    Backend b;
    OK(backend_open_cuda(&b, 0, &err));
    void *x = NULL, *y = NULL, *nothing = NULL;
    size_t now, most, beside;
    OK(b.alloc(&b, &x, 1000, &err) && b.alloc(&b, &y, 1000, &err) && b.alloc(&b, &nothing, 0, &err));
    assert_null(nothing);
    assert_int_equal((uintptr_t)x % 256, 0);
    char host[1000], back[1000];
    OK(b.download(&b, back, x, 1000, STREAM_COMPUTE, &err) && b.wait(&b, STREAM_COMPUTE, &err));
    for (int i = 0; i < 1000; i++) assert_int_equal(back[i], 0);
    for (int i = 0; i < 1000; i++) host[i] = (char)i;
    OK(b.upload(&b, x, host, 1000, STREAM_COMPUTE, &err) && b.copy(&b, y, x, 1000, STREAM_COMPUTE, &err) &&
       b.download(&b, back, y, 1000, STREAM_COMPUTE, &err) && b.wait(&b, STREAM_COMPUTE, &err));
    assert_memory_equal(host, back, 1000);
    b.memory_used(&b, &now, &most, &beside);
    assert_int_equal(now, 2000);
    b.free(&b, x);
    b.free(&b, y);
    b.memory_used(&b, &now, &most, &beside);
    assert_int_equal(now, 0);
    assert_int_equal(most, 2000);
    b.close(&b);
    assert_int_equal(emu_counts().now, 0);
}

/* Uploads on one stream, reads on the other: right with the mark, wrong without, when the upload comes late. */
static int read_across_streams(bool ordered) {
    Backend b;
    BackendMark *mark = NULL;
    void *x = NULL;
    int value = 7, got = 0;
    emu_set_late(1, true);
    OK(backend_open_cuda(&b, 0, &err) && b.alloc(&b, &x, 4, &err) && b.mark_new(&b, &mark, &err));
    OK(b.order(&b, STREAM_COMPUTE, mark, &err)); /* never set: nothing to wait for */
    OK(b.upload(&b, x, &value, 4, STREAM_UPLOAD, &err) && b.mark(&b, mark, STREAM_UPLOAD, &err));
    if (ordered) OK(b.order(&b, STREAM_COMPUTE, mark, &err));
    OK(b.download(&b, &got, x, 4, STREAM_COMPUTE, &err) && b.wait(&b, STREAM_COMPUTE, &err));
    OK(b.await(&b, mark, &err));
    b.mark_free(&b, mark);
    b.free(&b, x);
    b.close(&b);
    return got;
}

static void test_order(void **state) {
    (void)state;
    assert_int_equal(read_across_streams(true), 7);
    assert_int_equal(read_across_streams(false), 0);
}

/* ---- plans ---- */

/* gelu of what is fed, over a graph whose kernels all backends have */
typedef struct {
    Backend backend;
    Graph *graph;
    Val x, bias, y;
    Plan *plan;
} Small;

enum { SIZE = 300 };

static void small_graph(Small *s) {
    *s = (Small){.graph = graph_new()};
    s->x = graph_input(s->graph, "x", DT_F32, SHAPE(SIZE));
    s->bias = graph_input(s->graph, "bias", DT_F32, SHAPE(SIZE));
    s->y = op_gelu(s->graph, op_add(s->graph, op_silu(s->graph, s->x), s->bias));
}

static void small_open(Small *s, PlanOptions options) {
    small_graph(s);
    OK(backend_open_cuda(&s->backend, 0, &err));
    OK(plan_new(&s->plan, s->graph, &s->backend, NULL, &s->y, 1, options, &err));
}

static void small_close(Small *s) {
    plan_free(s->plan);
    graph_free(s->graph);
    s->backend.close(&s->backend);
    assert_int_equal(emu_counts().now, 0);
}

static void fill(float *x, int step) {
    Rng r = rng_make(9, RNG_TEST, (uint64_t)step, 0);
    for (int i = 0; i < SIZE; i++) x[i] = 4 * rng_uniform(&r) - 2;
}

enum { STEPS = 7 };

/* Results of STEPS runs, each input staged while the run before is queued, each result read one run late. */
static void run_pipelined(float out[STEPS][SIZE], PlanOptions options) {
    Small s;
    float x[SIZE], bias[SIZE];
    small_open(&s, options);
    for (int i = 0; i < SIZE; i++) bias[i] = 0.25f;
    OK(plan_upload(s.plan, s.bias, bias, sizeof bias, &err)); /* keeps its value */
    for (int step = 0; step < STEPS; step++) {
        for (int again = 1; again >= 0; again--) { /* what is staged again replaces what was */
            fill(x, step + STEPS * again);
            OK(plan_stage(s.plan, s.x, x, sizeof x, &err));
        }
        assert_int_equal(s.plan->pipe.n_pending, 1);
        memset(x, 0x77, sizeof x); /* ours again */
        plan_run(s.plan);
        OK(plan_fetch_begin(s.plan, &err));
        if (step) OK(plan_fetch(s.plan, s.y, out[step - 1], sizeof x, 1, &err));
    }
    OK(plan_fetch(s.plan, s.y, out[STEPS - 1], sizeof x, 0, &err));
    small_close(&s);
}

static void run_simply(float out[STEPS][SIZE]) {
    Small s;
    float x[SIZE], bias[SIZE];
    small_open(&s, (PlanOptions){.no_capture = true});
    for (int i = 0; i < SIZE; i++) bias[i] = 0.25f;
    OK(plan_upload(s.plan, s.bias, bias, sizeof bias, &err));
    for (int step = 0; step < STEPS; step++) {
        fill(x, step);
        OK(plan_upload(s.plan, s.x, x, sizeof x, &err));
        plan_run(s.plan);
        OK(plan_download(s.plan, s.y, out[step], sizeof x, &err));
    }
    small_close(&s);
}

/* Whichever stream lags behind, staged inputs and late results are those of the simple way; so are captured runs. */
static void test_pipeline(void **state) {
    (void)state;
    static float want[STEPS][SIZE], got[STEPS][SIZE];
    run_simply(want);
    for (int late = 0; late < 4; late++) {
        for (int capture = 0; capture < 2; capture++) {
            emu_set_late(0, late & 1);
            emu_set_late(1, late & 2);
            memset(got, 0, sizeof got);
            int64_t before = emu_counts().graph_launches;
            run_pipelined(got, (PlanOptions){.no_capture = !capture});
            if (memcmp(want, got, sizeof want) != 0) fail_msg("late streams %d, capture %d: other results", late, capture);
            assert_int_equal(emu_counts().graph_launches - before, capture ? STEPS - 1 : 0);
        }
    }
}

/* Another thread than the one that opened the second GPU makes the plan and runs it. */
static void *run_elsewhere(void *arg) {
    Small *s = arg;
    float x[SIZE];
    fill(x, 0);
    Err e = {0};
    bool ok = plan_new(&s->plan, s->graph, &s->backend, NULL, &s->y, 1, (PlanOptions){0}, &e) &&
              plan_stage(s->plan, s->x, x, sizeof x, &e);
    for (int i = 0; ok && i < 3; i++) plan_run(s->plan);
    ok = ok && plan_fetch_begin(s->plan, &e) && plan_fetch(s->plan, s->y, x, sizeof x, 0, &e);
    return ok ? s : NULL;
}

static void test_thread_and_device(void **state) {
    (void)state;
    emu_set_gpu(&(EmuGpu){2, true, 9, 0, 1 << 20, "90"});
    Small s;
    pthread_t thread;
    void *done;
    small_graph(&s);
    OK(backend_open_cuda(&s.backend, 1, &err));
    assert_int_equal(pthread_create(&thread, NULL, run_elsewhere, &s), 0);
    assert_int_equal(pthread_join(thread, &done), 0);
    assert_ptr_equal(done, &s);
    small_close(&s);
}

/* The test above would see a forgotten order: the same steps on a backend whose order, or whose await, does nothing. */
static bool no_order(Backend *b, int stream, BackendMark *mark, Err *e) {
    (void)b, (void)stream, (void)mark, (void)e;
    return true;
}
static bool no_await(Backend *b, BackendMark *mark, Err *e) {
    (void)b, (void)mark, (void)e;
    return true;
}

static bool same_without(bool order, int late) {
    static float want[STEPS][SIZE], got[STEPS][SIZE];
    Small s;
    float x[SIZE];
    for (int round = 0; round < 2; round++) {
        emu_set_late(0, round && (late & 1));
        emu_set_late(1, round && (late & 2));
        small_open(&s, (PlanOptions){0});
        if (round && order) s.backend.order = no_order;
        if (round && !order) s.backend.await = no_await;
        for (int step = 0; step < STEPS; step++) {
            fill(x, step);
            OK(plan_stage(s.plan, s.x, x, sizeof x, &err));
            plan_run(s.plan);
            OK(plan_fetch_begin(s.plan, &err));
            OK(plan_fetch(s.plan, s.y, (round ? got : want)[step], sizeof x, 0, &err));
        }
        small_close(&s);
    }
    return memcmp(want, got, sizeof want) == 0;
}

static void test_forgotten_order_shows(void **state) {
    (void)state;
    assert_false(same_without(true, 2));  /* the run starts before its inputs are there */
    assert_false(same_without(false, 1)); /* the result is read before it is there */
}

/* In a step there are no allocations, and the host waits for marks of earlier steps alone. */
static void test_step_allocates_nothing(void **state) {
    (void)state;
    Small s;
    float x[SIZE], y[SIZE];
    small_open(&s, (PlanOptions){0});
    fill(x, 0);
    EmuCounts warm = {0};
    for (int step = 0; step < 6; step++) {
        if (step == 3) warm = emu_counts();
        OK(plan_stage(s.plan, s.x, x, sizeof x, &err));
        plan_run(s.plan);
        OK(plan_fetch_begin(s.plan, &err));
        if (step) OK(plan_fetch(s.plan, s.y, y, sizeof y, 1, &err));
    }
    assert_int_equal(emu_counts().allocations, warm.allocations);
    assert_int_equal(emu_counts().graph_launches - warm.graph_launches, 3);
    assert_int_equal(emu_counts().waits - warm.waits, 3 * 2); /* for a place two rounds old, and for the run before */
    small_close(&s);
}

static BackendMark *newest_upload;
static bool awaited_newest;
static Backend sound;

static bool watched_mark(Backend *b, BackendMark *mark, int stream, Err *e) {
    if (stream == STREAM_UPLOAD) newest_upload = mark;
    return sound.mark(b, mark, stream, e);
}

static bool watched_await(Backend *b, BackendMark *mark, Err *e) {
    awaited_newest |= mark == newest_upload;
    return sound.await(b, mark, e);
}

/* The two places take turns: what is staged waits for the upload before the last, never for the one on its way. */
static void test_staging_waits_for_no_upload_on_its_way(void **state) {
    (void)state;
    Small s;
    float x[SIZE];
    small_open(&s, (PlanOptions){0});
    sound = s.backend, newest_upload = NULL, awaited_newest = false;
    s.backend.mark = watched_mark, s.backend.await = watched_await;
    fill(x, 0);
    for (int step = 0; step < 5; step++) {
        OK(plan_stage(s.plan, s.x, x, sizeof x, &err));
        plan_run(s.plan);
        assert_non_null(newest_upload);
    }
    assert_false(awaited_newest);
    small_close(&s);
}

static void test_timed_run(void **state) {
    (void)state;
    Small s;
    small_open(&s, (PlanOptions){0});
    double *seconds = mem_zalloc((size_t)s.plan->n_steps, sizeof *seconds);
    OK(plan_run_timed(s.plan, seconds, &err));
    for (int i = 0; i < s.plan->n_steps; i++) assert_true(seconds[i] >= 0 && seconds[i] < 60);
    free(seconds);
    small_close(&s);
}

/* ---- failures ---- */

static void test_out_of_memory(void **state) {
    (void)state;
    Backend b;
    void *x = NULL, *y = NULL;
    emu_set_gpu(&(EmuGpu){1, true, 7, 5, 100 << 20, "75"});
    OK(backend_open_cuda(&b, 0, &err));
    OK(b.alloc(&b, &x, 60 << 20, &err));
    assert_false(b.alloc(&b, &y, 50 << 20, &err));
    assert_int_equal(err.code, EXIT_DEVICE);
    assert_says("no memory for 50 MiB beside the 60 MiB taken, 40 MiB of 100 are free");
    assert_says("use a smaller batch");
    assert_null(y);
    b.free(&b, x);
    b.close(&b);
}

/* What fails in the middle of a run is said by the next call, once and for all. */
static void test_failures_are_said(void **state) {
    (void)state;
    static const struct {
        EmuFailure what;
        const char *says;
    } cases[] = {{EMU_FAIL_UPLOAD, "cudaErrorLaunchFailure"}, {EMU_FAIL_WAIT, "cudaErrorIllegalAddress"}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Small s;
        float x[SIZE], y[SIZE];
        err = (Err){0};
        small_open(&s, (PlanOptions){0});
        fill(x, 0);
        bool ok = true;
        for (int step = 0; ok && step < 4; step++) {
            if (step == 1) emu_fail_next(cases[i].what);
            ok = plan_stage(s.plan, s.x, x, sizeof x, &err);
            if (ok) plan_run(s.plan);
            ok = ok && plan_fetch_begin(s.plan, &err) && plan_fetch(s.plan, s.y, y, sizeof y, 0, &err);
        }
        assert_false(ok);
        assert_int_equal(err.code, EXIT_DEVICE);
        assert_says(cases[i].says);
        small_close(&s);
    }
}

/* A library may call in a step what no recording holds: its launch is refused, and the recording with it. */
static bool (*real_capture_end)(Backend *b, void **captured, Err *e);
static bool refused_capture_end(Backend *b, void **captured, Err *e) {
    cuda_launch_failed(b, "layers.0.gelu", 9);
    emu_fail_next(EMU_FAIL_CAPTURE);
    return real_capture_end(b, captured, e);
}

static void test_what_cannot_be_recorded_is_launched_step_by_step(void **state) {
    (void)state;
    static float want[STEPS][SIZE];
    run_simply(want);
    for (int refused = 0; refused < 2; refused++) {
        Small s;
        Log log;
        float x[SIZE], y[SIZE];
        char *said = NULL;
        size_t count;
        FILE *out = open_memstream(&said, &count);
        log_init(&log, out, LOG_INFO, COLOR_NEVER);
        small_open(&s, (PlanOptions){.log = &log});
        int64_t before = emu_counts().graph_launches;
        real_capture_end = s.backend.capture_end;
        if (refused)
            s.backend.capture_end = refused_capture_end;
        else
            emu_fail_next(EMU_FAIL_CAPTURE);
        for (int i = 0; i < SIZE; i++) x[i] = 0.25f;
        OK(plan_upload(s.plan, s.bias, x, sizeof x, &err));
        for (int step = 0; step < STEPS; step++) {
            fill(x, step);
            OK(plan_upload(s.plan, s.x, x, sizeof x, &err));
            plan_run(s.plan);
            OK(plan_download(s.plan, s.y, y, sizeof y, &err));
            assert_memory_equal(y, want[step], sizeof y);
        }
        assert_int_equal(emu_counts().graph_launches, before);
        small_close(&s);
        log_close(&log);
        fclose(out);
        const char *warning = strstr(said, "steps are launched one by one, which is slower: they cannot be recorded (");
        assert_non_null(warning);
        assert_non_null(strstr(warning, refused ? "layers.0.gelu" : "cudaErrorStreamCaptureImplicit"));
        assert_null(strstr(warning + 1, "steps are launched"));
        free(said);
    }
}

static void test_failed_launch_is_kept(void **state) {
    (void)state;
    Small s;
    float y[SIZE];
    small_open(&s, (PlanOptions){0});
    plan_run(s.plan);
    cuda_launch_failed(&s.backend, "layers.0.gelu", 9);
    assert_false(plan_download(s.plan, s.y, y, sizeof y, &err));
    assert_int_equal(err.code, EXIT_DEVICE);
    assert_says("layers.0.gelu");
    small_close(&s);
}

/* No memory for a plan: nothing of it stays behind. */
static void test_plan_without_memory(void **state) {
    (void)state;
    Backend b;
    Graph *g = graph_new();
    Val y = op_gelu(g, graph_input(g, "x", DT_F32, SHAPE(1 << 20)));
    for (size_t mib = 1; mib < 13; mib++) {
        emu_set_gpu(&(EmuGpu){1, true, 7, 5, mib << 20, "75"});
        err = (Err){0};
        OK(backend_open_cuda(&b, 0, &err));
        Plan *p = NULL;
        bool ok = plan_new(&p, g, &b, NULL, &y, 1, (PlanOptions){0}, &err);
        assert_int_equal(ok, mib >= 12); /* x, its staged copy, y */
        if (!ok) assert_says("no memory for");
        plan_free(p);
        assert_int_equal(emu_counts().now, 0);
        b.close(&b);
    }
    graph_free(g);
}

/* ---- whole training steps ---- */

static void tiny_config(Config *c) {
    char *overrides[] = {"model.name=custom", "model.dims=8,16,24,32", "model.depths=1,1,1,1", "model.heads=1,2,3,2",
                         "model.attention=mala,inline,linear,softmax", "model.projection=40", "model.drop_path=0.2",
                         "input.size=32x64", "train.ema=true", "model.layer_scale=1"};
    OK(config_load(c, NULL, overrides, COUNTOF(overrides), &err));
}

enum { BATCH = 2, CLASSES = 5, TRAIN_STEPS = 3 };

/* Losses of a few steps, with inputs staged and results read late, as the trainer does. */
static void train_tiny(float loss[TRAIN_STEPS], Backend *b, PlanOptions options) {
    Config c;
    tiny_config(&c);
    ClassifySpec spec = config_classify(&c, CLASSES);
    ClassifyGraph g = classify_train_graph(&spec, BATCH, c.input.size[0], c.input.size[1]);
    State state;
    Plan *p = NULL;
    OptimizerConfig o = {.lr = 3e-3f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 1,
                         .ema_decay = 0.9f, .total_steps = TRAIN_STEPS};
    OK(state_new(&state, g.graph, b, classify_train_roles(&spec), &err) && state_init(&state, 5, &err) &&
       state_copy_role(&state, ROLE_EMA, ROLE_WEIGHT, &err) &&
       plan_new(&p, g.graph, b, &state, (Val[]){g.loss, g.norm}, 2, options, &err));
    OK(plan_verify(p, &err));
    OK(plan_upload(p, g.scale, &(float){1}, sizeof(float), &err));
    for (int step = 0; step < TRAIN_STEPS; step++) {
        uint8_t pixels[BATCH * 32 * 64 * 3];
        float hyper[HYPER_COUNT];
        Rng r = rng_make(3, RNG_TEST, (uint64_t)step, 0);
        for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)rng_u32(&r);
        optimizer_hyper(&o, step, hyper);
        OK(plan_stage(p, g.images, pixels, sizeof pixels, &err) && plan_stage(p, g.targets, (int32_t[]){1, 4}, 8, &err) &&
           plan_stage(p, g.counter, (uint64_t[]){5, (uint64_t)step}, 16, &err) &&
           plan_stage(p, g.hyper, hyper, sizeof hyper, &err));
        plan_run(p);
        OK(plan_fetch_begin(p, &err));
        if (step) OK(plan_fetch(p, g.loss, &loss[step - 1], sizeof(float), 1, &err));
    }
    OK(plan_fetch(p, g.loss, &loss[TRAIN_STEPS - 1], sizeof(float), 0, &err));
    plan_free(p);
    state_free(&state);
    classify_graph_free(&g);
    config_free(&c);
}

/* Against the cpu; then the same bits with and without capture, and whichever stream lags behind: hyper-parameters, the
 * step's number and the loss change under a captured run. */
static void test_training(void **state) {
    (void)state;
    float cpu[TRAIN_STEPS], cuda[TRAIN_STEPS], again[TRAIN_STEPS];
    Backend b;
    OK(backend_open_cpu(&b, 2, &err));
    train_tiny(cpu, &b, (PlanOptions){0});
    b.close(&b);
    for (int variant = 0; variant < 4; variant++) {
        emu_set_late(0, variant == 2);
        emu_set_late(1, variant == 3);
        OK(backend_open_cuda(&b, 0, &err));
        train_tiny(variant ? again : cuda, &b, (PlanOptions){.no_capture = variant == 1});
        b.close(&b);
        assert_int_equal(emu_counts().now, 0);
        if (variant && memcmp(cuda, again, sizeof cuda) != 0) fail_msg("variant %d gives other bits", variant);
    }
    for (int i = 0; i < TRAIN_STEPS; i++)
        if (!(cpu[i] - cuda[i] < 1e-4f && cuda[i] - cpu[i] < 1e-4f))
            fail_msg("step %d: loss %.7f on the cpu, %.7f on the emulated device", i, (double)cpu[i], (double)cuda[i]);
}

/* ---- what mala plan predicts is what is taken ---- */

static void assert_predicted(size_t predicted, size_t taken) {
    if (taken == 0 || predicted < taken * 0.98 || predicted > taken * 1.02)
        fail_msg("predicted %zu bytes, taken %zu", predicted, taken);
}

static void test_prediction(void **state) {
    (void)state;
    Config c;
    Backend b, kernels;
    tiny_config(&c);
    for (int train = 0; train < 2; train++) {
        MemoryNeeds m;
        Predictor predictor;
        State weights = {0};
        Plan *p = NULL;
        emu_set_gpu(&(EmuGpu){0, false, 0, 0, 0, "75"}); /* it needs no GPU */
        free(c.device);
        c.device = mem_strdup("cuda");
        OK(config_open_measuring(&kernels, &c, &err) && memory_predict(&m, &c, CLASSES, 4, train, &kernels, &err));
        emu_set_gpu(NULL);
        OK(backend_open_cuda(&b, 0, &err));
        ClassifySpec spec = config_classify_on(&c, CLASSES, &b);
        ClassifyGraph g = classify_train_graph(&spec, 4, c.input.size[0], c.input.size[1]);
        if (train)
            OK(state_new(&weights, g.graph, &b, classify_train_roles(&spec), &err) &&
               plan_new(&p, g.graph, &b, &weights, (Val[]){g.loss, g.norm}, 2, (PlanOptions){0}, &err));
        OK(predictor_open_random(&predictor, &c, CLASSES, &b, 4, !train, &err));
        assert_predicted(m.total, emu_counts().most);
        if (train) assert_int_equal(m.training.batch, 4);
        predictor_close(&predictor);
        plan_free(p);
        if (train) state_free(&weights);
        classify_graph_free(&g);
        b.close(&b);
    }
    config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_machines_without, reset),
        cmocka_unit_test_setup(test_device_option, reset),
        cmocka_unit_test_setup(test_precision_of_gpu, reset),
        cmocka_unit_test_setup(test_memory_and_copies, reset),
        cmocka_unit_test_setup(test_order, reset),
        cmocka_unit_test_setup(test_pipeline, reset),
        cmocka_unit_test_setup(test_thread_and_device, reset),
        cmocka_unit_test_setup(test_forgotten_order_shows, reset),
        cmocka_unit_test_setup(test_step_allocates_nothing, reset),
        cmocka_unit_test_setup(test_staging_waits_for_no_upload_on_its_way, reset),
        cmocka_unit_test_setup(test_timed_run, reset),
        cmocka_unit_test_setup(test_out_of_memory, reset),
        cmocka_unit_test_setup(test_failures_are_said, reset),
        cmocka_unit_test_setup(test_what_cannot_be_recorded_is_launched_step_by_step, reset),
        cmocka_unit_test_setup(test_failed_launch_is_kept, reset),
        cmocka_unit_test_setup(test_plan_without_memory, reset),
        cmocka_unit_test_setup(test_training, reset),
        cmocka_unit_test_setup(test_prediction, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
