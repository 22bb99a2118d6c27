/* cmd_bench.c - how fast this machine runs a network: medians after a warm-up, on random pictures and weights. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/predictor.h"
#include "base/rng.h"
#include "pass/cost.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print one JSON object", NULL, NULL, NULL},
    {"batch", 'b', "N", "pictures a step (1 for infer, 8 for train)", "batch-size", NULL, NULL},
    {"size", 0, "HxW", "height and width, or one number for both", "imgsz img-size", "input.size", NULL},
    {"no-capture", 0, NULL, "launch every step by itself instead of replaying a recorded run (GPU)", NULL, NULL, NULL},
    {"rounds", 0, "N", "timed steps (15)", NULL, NULL, NULL},
    {"ops", 0, NULL, "time by op, largest first", NULL, NULL, NULL},
    {"steps", 0, NULL, "time of every step, in order", NULL, NULL, NULL},
};

typedef struct {
    int batch, rounds;
    bool ops, steps, json, no_capture;
    const char *what;
} Bench;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double peak_rss_mib(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static void print_ops(const Plan *p, const double *seconds, int rounds) {
    double by_op[OP_COUNT] = {0}, macs[OP_COUNT] = {0}, total = 0;
    int calls[OP_COUNT] = {0};
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++) {
        const Node *n = p->steps[i].call.node;
        by_op[n->op] += seconds[i] / rounds;
        macs[n->op] += cost_node(p->graph, n).macs;
        calls[n->op]++;
        total += seconds[i] / rounds;
    }
    printf("%-20s %6s %10s %7s %10s\n", "op", "calls", "ms", "share", "GFLOP/s");
    for (;;) {
        int top = -1;
        for (int op = 0; op < OP_COUNT; op++)
            if (calls[op] && (top < 0 || by_op[op] > by_op[top])) top = op;
        if (top < 0) break;
        printf("%-20s %6d %10.3f %6.1f%% %10.1f\n", op_def[top]->name, calls[top], 1e3 * by_op[top],
               100 * by_op[top] / total, 2e-9 * macs[top] / by_op[top]);
        calls[top] = 0;
    }
}

static void print_steps(const Plan *p, const double *seconds, int rounds) {
    printf("%-48s %18s %10s %10s %8s\n", "step", "output", "ms", "GFLOP/s", "GB/s");
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++) {
        const Node *n = p->steps[i].call.node;
        Cost c = cost_node(p->graph, n);
        char shape[96] = "";
        if (n->n_out) shape_print(shape, sizeof shape, out_shape(p->graph, n, 0));
        printf("%-48s %18s %10.3f %10.1f %8.1f\n", n->name, shape, 1e3 * seconds[i] / rounds,
               2e-9 * c.macs * rounds / seconds[i], 1e-9 * c.bytes * rounds / seconds[i]);
    }
}

/* Milliseconds of each round on the device's own clock, after a warm-up that also records the run where it can be. */
static bool time_rounds(const Bench *b, Plan *p, double *ms, Err *err) {
    Backend *d = p->backend;
    BackendMark *mark[2] = {0};
    bool ok = d->mark_new(d, &mark[0], err) && d->mark_new(d, &mark[1], err);
    for (int i = -3; ok && i < b->rounds; i++) {
        double seconds = 0;
        ok = d->mark(d, mark[0], STREAM_COMPUTE, err);
        plan_run(p);
        ok = ok && d->mark(d, mark[1], STREAM_COMPUTE, err) && d->await(d, mark[1], err) &&
             d->elapsed(d, mark[0], mark[1], &seconds, err) && plan_healthy(p, err);
        if (i >= 0) ms[i] = 1e3 * seconds;
    }
    for (int i = 0; i < 2; i++)
        if (mark[i]) d->mark_free(d, mark[i]);
    return ok;
}

/* MiB of device memory held at most; 0 where that is the host's. */
static double device_mib(const Plan *p) {
    size_t now = 0, most = 0;
    if (p->backend->memory_used) p->backend->memory_used(p->backend, &now, &most);
    return (double)most / 0x1p20;
}

static bool measure(const Bench *b, Plan *p, const char *device, double macs, Err *err) {
    double *ms = mem_zalloc((size_t)b->rounds, sizeof *ms), *seconds = mem_zalloc((size_t)p->n_steps, sizeof *seconds);
    p->options.no_capture = b->no_capture;
    if (!time_rounds(b, p, ms, err)) {
        free(seconds);
        free(ms);
        return false;
    }
    qsort(ms, (size_t)b->rounds, sizeof *ms, by_size);
    double median = ms[b->rounds / 2], gflops = 2e-6 * macs / median;
    if (b->json) {
        JsonWriter w = {0};
        json_write_object(&w);
        json_write_key(&w, "what"), json_write_string(&w, b->what);
        json_write_key(&w, "device"), json_write_string(&w, device);
        json_write_key(&w, "batch"), json_write_int(&w, b->batch);
        json_write_key(&w, "ms"), json_write_double(&w, median);
        json_write_key(&w, "ms_best"), json_write_double(&w, ms[0]);
        json_write_key(&w, "images_per_s"), json_write_double(&w, 1e3 * b->batch / median);
        json_write_key(&w, "gflops"), json_write_double(&w, gflops);
        json_write_key(&w, "arena_mb"), json_write_double(&w, (double)p->arena_bytes / 0x1p20);
        json_write_key(&w, "device_mb"), json_write_double(&w, device_mib(p));
        json_write_key(&w, "peak_rss_mb"), json_write_double(&w, peak_rss_mib());
        json_write_end(&w);
        puts(json_writer_text(&w));
        json_writer_free(&w);
    } else {
        printf("%s, batch %d on %s: %.2f ms median (%.2f best), %.1f images/s, %.1f GFLOP/s, peak memory %.0f MiB\n",
               b->what, b->batch, device, median, ms[0], 1e3 * b->batch / median, gflops, peak_rss_mib());
    }
    bool ok = true;
    for (int i = 0; ok && i < b->rounds && (b->ops || b->steps); i++) ok = plan_run_timed(p, seconds, err);
    if (b->ops) print_ops(p, seconds, b->rounds);
    if (b->steps) print_steps(p, seconds, b->rounds);
    free(seconds);
    free(ms);
    return ok;
}

static uint8_t *random_pixels(size_t bytes) {
    uint8_t *pixels = mem_zalloc(bytes, 1);
    Rng r = rng_make(0, RNG_TEST, 0, 0);
    for (size_t i = 0; i < bytes; i++) pixels[i] = (uint8_t)rng_u32(&r);
    return pixels;
}

static bool bench_infer(const Bench *b, const Config *c, int classes, Backend *backend, Err *err) {
    Predictor p;
    if (!predictor_open_random(&p, c, classes, backend, b->batch, true, err)) return false;
    uint8_t *pixels = random_pixels(p.image_bytes * (size_t)b->batch);
    ClassifySpec spec = config_classify(c, classes);
    ClassifyGraph plain = classify_eval_graph(&spec, b->batch, c->input.size[0], c->input.size[1], 0);
    bool ok = predictor_run(&p, NULL, NULL, pixels, b->batch, err) &&
              measure(b, p.plan, backend->description, cost_total(plain.graph, "").macs, err);
    classify_graph_free(&plain);
    free(pixels);
    predictor_close(&p);
    return ok;
}

static bool bench_train(const Bench *b, const Config *c, int classes, Backend *backend, Err *err) {
    ClassifySpec spec = config_classify(c, classes);
    spec.compute = backend->compute;
    ClassifyGraph g = classify_train_graph(&spec, b->batch, c->input.size[0], c->input.size[1]);
    State s = {0};
    Plan *p = NULL;
    OptimizerConfig o = {.lr = 1e-5f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    float hyper[HYPER_COUNT];
    optimizer_hyper(&o, 0, hyper);
    size_t bytes = (size_t)b->batch * (size_t)c->input.size[0] * (size_t)c->input.size[1] * 3;
    uint8_t *pixels = random_pixels(bytes);
    int32_t *labels = mem_zalloc((size_t)b->batch, sizeof *labels);
    bool ok = state_new(&s, g.graph, backend, classify_train_roles(&spec), err) && state_init(&s, 0, err) &&
              plan_new(&p, g.graph, backend, &s, &g.loss, 1, (PlanOptions){0}, err) &&
              plan_upload(p, g.images, pixels, bytes, err) &&
              plan_upload(p, g.targets, labels, (size_t)b->batch * sizeof *labels, err) &&
              plan_upload(p, g.scale, &(float){1}, sizeof(float), err) &&
              plan_upload(p, g.counter, (uint64_t[]){0, 0}, 16, err) &&
              plan_upload(p, g.hyper, hyper, sizeof hyper, err) &&
              measure(b, p, backend->description, cost_total(g.graph, "").macs, err);
    free(labels);
    free(pixels);
    plan_free(p);
    if (s.params) state_free(&s);
    classify_graph_free(&g);
    return ok;
}

static bool bench_peak(const Bench *b, Backend *backend, Err *err) {
    if (!backend->peak_gflops)
        return err_set(err, EXIT_USAGE, "command line: bench peak measures the processor - add --device cpu");
    if (backend->enter) backend->enter(backend);
    double gflops = backend->peak_gflops();
    if (b->json)
        printf("{\"what\":\"peak\",\"gflops\":%.1f}\n", gflops);
    else
        printf("peak on %s: %.1f GFLOP/s\n", backend->description, gflops);
    return true;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    const char *what = cli->argument_count ? cli->arguments[0] : "infer";
    bool training = strcmp(what, "train") == 0, peak = strcmp(what, "peak") == 0;
    if (cli->argument_count > 1 || (!training && !peak && strcmp(what, "infer") != 0))
        return err_set(err, EXIT_USAGE, "command line: bench takes infer, train or peak");
    int64_t batch = training ? 8 : 1, rounds = 15;
    Config config;
    Backend backend = {0};
    bool ok = config_load(&config, cli->config, cli->overrides, cli->override_count, err) &&
              cli_flag_int(cli, "batch", &batch, 1, 65536, err) &&
              cli_flag_int(cli, "rounds", &rounds, 1, 100000, err) && config_open_backend(&backend, &config, err) &&
              config_set_precision(&backend, &config, true, err);
    if (ok) {
        device_announce(&backend, log);
        Bench b = {.batch = (int)batch,
                   .rounds = (int)rounds,
                   .ops = cli_flag(cli, "ops"),
                   .steps = cli_flag(cli, "steps"),
                   .json = cli_flag(cli, "json"),
                   .no_capture = cli_flag(cli, "no-capture"),
                   .what = what};
        int classes = config.model.num_classes == AUTO_INT ? 1000 : config.model.num_classes;
        ok = peak       ? bench_peak(&b, &backend, err)
             : training ? bench_train(&b, &config, classes, &backend, err)
                        : bench_infer(&b, &config, classes, &backend, err);
    }
    if (backend.close) backend.close(&backend);
    config_free(&config);
    return ok;
}

const CliCommand command_bench = {
    .name = "bench",
    .also = "benchmark",
    .arguments = "infer|train|peak",
    .summary = "time inference or a training step on random pictures, or the processor's own peak",
    .flags = flags,
    .flag_count = COUNTOF(flags),
    .config = true,
    .run = run};
