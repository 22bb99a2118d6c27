/* cmd_bench.c - how fast this machine runs a network: medians after a warm-up, on random pictures and weights. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "app/table.h"
#include "lib/memory.h"
#include "lib/predictor.h"
#include "base/rng.h"
#include "pass/cost.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print one JSON object", NULL, NULL, NULL},
    {"batch", 'b', "N", "pictures a step (1 for infer, 8 for train)", "batch-size", NULL, NULL},
    {"size", 0, "HxW", "height and width, or one number for both", "imgsz img-size", "input.size", NULL},
    {"no-capture", 0, NULL, "launch every step by itself instead of replaying a recorded run (GPU)", NULL, NULL, NULL},
    {"upload", 0, NULL, "bring new pictures for every step, as training does; times all as one", NULL, NULL, NULL},
    {"rounds", 0, "N", "timed steps (15)", NULL, NULL, NULL},
    {"ops", 0, NULL, "time and bytes moved by op, longest first; with --json, too", NULL, NULL, NULL},
    {"steps", 0, NULL, "time of every step, in order", NULL, NULL, NULL},
};

typedef struct {
    int batch, rounds;
    bool ops, steps, json, no_capture, upload;
    const char *what, *network; /* network: model.name */
    const Config *config;
    Val images; /* the network's input, and what is brought there with upload */
    const uint8_t *pixels;
    size_t pixel_bytes;
    Log *log;
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

/* ---- tables by kind of op ---- */

/* What the steps of one kind take together in a run. */
typedef struct {
    char name[48]; /* the op, and what makes its kernels differ: "dwconv 3x3", "attention mala" */
    int calls;
    double seconds, macs;
    double least, moved; /* bytes: every operand once; what the kernels go through */
} Kind;

static void name_kind(Kind *k, const Node *n) {
    const char *op = node_def(n)->name;
    snprintf(k->name, sizeof k->name, "%s", op);
    if (n->op == OP_attention || n->op == OP_attention_bwd)
        snprintf(k->name, sizeof k->name, "%s %s", op, attention_name(n->attr.attention.kind));
    if (n->op == OP_dwconv || n->op == OP_dwconv_dx || n->op == OP_dwconv_dw)
        snprintf(k->name, sizeof k->name, "%s %dx%d", op, n->attr.dwconv.kernel, n->attr.dwconv.kernel);
}

static int longer_first(const void *a, const void *b) {
    double x = ((const Kind *)a)->seconds, y = ((const Kind *)b)->seconds;
    return (x < y) - (x > y);
}

/* The kinds of a plan's steps, the longest first; to be freed. */
static Kind *find_kinds(const Plan *p, const double *seconds, int rounds, int *count) {
    Kind *kinds = mem_zalloc((size_t)p->n_steps, sizeof *kinds);
    *count = 0;
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++) {
        const Step *step = &p->steps[i];
        Kind one = {0};
        int k = 0;
        name_kind(&one, step->call.node);
        while (k < *count && strcmp(kinds[k].name, one.name) != 0) k++;
        if (k == *count) kinds[(*count)++] = one;
        double least = call_bytes(&step->call);
        kinds[k].calls++;
        kinds[k].seconds += seconds[i] / rounds;
        kinds[k].macs += cost_node(p->graph, step->call.node).macs;
        kinds[k].least += least;
        kinds[k].moved += step->kernel->moves ? step->kernel->moves(&step->call) : least;
    }
    qsort(kinds, (size_t)*count, sizeof *kinds, longer_first);
    return kinds;
}

static void print_kinds(const Kind *kinds, int count) {
    double total = 0;
    for (int i = 0; i < count; i++) total += kinds[i].seconds;
    printf("%-24s %6s %10s %7s %10s %8s\n", "op", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (const Kind *k = kinds; k < kinds + count; k++)
        printf("%-24s %6d %10.3f %6.1f%% %10.1f %8.1f\n", k->name, k->calls, 1e3 * k->seconds, 100 * k->seconds / total,
               2e-9 * k->macs / k->seconds, 1e-9 * k->moved / k->seconds);
}

static void write_kinds(JsonWriter *w, const Kind *kinds, int count) {
    json_write_key(w, "ops");
    json_write_array(w);
    for (const Kind *k = kinds; k < kinds + count; k++) {
        json_write_object(w);
        json_write_key(w, "op"), json_write_string(w, k->name);
        json_write_key(w, "calls"), json_write_int(w, k->calls);
        json_write_key(w, "ms"), json_write_double(w, 1e3 * k->seconds);
        json_write_key(w, "gflop"), json_write_double(w, 2e-9 * k->macs);
        json_write_key(w, "gb_least"), json_write_double(w, 1e-9 * k->least);
        json_write_key(w, "gb_moved"), json_write_double(w, 1e-9 * k->moved);
        json_write_end(w);
    }
    json_write_end(w);
}

static void print_steps(const Plan *p, const double *seconds, int rounds) {
    int longest = 0;
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++)
        longest = MAX(longest, (int)strlen(p->steps[i].call.node->name));
    const int width = table_name_width(longest, 46);
    table_name("step", width);
    printf(" %16s %9s %9s %8s\n", "output", "ms", "GFLOP/s", "GB/s");
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++) {
        const Node *n = p->steps[i].call.node;
        double macs = cost_node(p->graph, n).macs, bytes = call_bytes(&p->steps[i].call);
        if (p->steps[i].kernel->moves) bytes = p->steps[i].kernel->moves(&p->steps[i].call);
        char shape[96] = "";
        if (n->n_out) shape_print(shape, sizeof shape, out_shape(p->graph, n, 0));
        table_name(n->name, width);
        printf(" %16s %9.3f %9.1f %8.1f\n", shape, 1e3 * seconds[i] / rounds, 2e-9 * macs * rounds / seconds[i],
               1e-9 * bytes * rounds / seconds[i]);
    }
}

static bool time_between(Backend *d, BackendMark *const mark[2], double *ms, Err *err) {
    double seconds = 0;
    bool ok = d->mark(d, mark[1], STREAM_COMPUTE, err) && d->await(d, mark[1], err) &&
              d->elapsed(d, mark[0], mark[1], &seconds, err);
    *ms = 1e3 * seconds;
    return ok;
}

/* Milliseconds of each round on the device's own clock, after a warm-up that also records the run where it can be. With
 * upload nothing waits between rounds, and each is given its share of the time of all. */
static bool time_rounds(const Bench *b, Plan *p, double *ms, Err *err) {
    Backend *d = p->backend;
    BackendMark *mark[2] = {0};
    bool ok = d->mark_new(d, &mark[0], err) && d->mark_new(d, &mark[1], err);
    for (int i = -3; ok && i < b->rounds; i++) {
        if (b->upload) ok = plan_stage(p, b->images, b->pixels, b->pixel_bytes, err);
        if (!b->upload || i <= 0) ok = ok && d->mark(d, mark[0], STREAM_COMPUTE, err);
        plan_run(p);
        if (!b->upload) ok = ok && time_between(d, mark, &ms[MAX(i, 0)], err) && plan_healthy(p, err);
    }
    if (ok && b->upload) {
        ok = time_between(d, mark, &ms[0], err) && plan_healthy(p, err);
        for (int i = b->rounds - 1; i >= 0; i--) ms[i] = ms[0] / b->rounds;
    }
    for (int i = 0; i < 2; i++)
        if (mark[i]) d->mark_free(d, mark[i]);
    return ok;
}

/* Bytes of device memory held at most, and taken beside; 0 where that is the host's. */
static void device_bytes(const Plan *p, size_t *most, size_t *beside) {
    size_t now;
    *most = *beside = 0;
    if (p->backend->memory_used) p->backend->memory_used(p->backend, &now, most, beside);
}

static void print_json(const Bench *b, const Plan *p, const char *device, const double *ms, double gflops,
                       const Kind *kinds, int n_kinds) {
    double median = ms[b->rounds / 2];
    size_t most, beside;
    device_bytes(p, &most, &beside);
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_key(&w, "what"), json_write_string(&w, b->what);
    config_write_network(&w, b->config);
    json_write_key(&w, "device"), json_write_string(&w, device);
    json_write_key(&w, "batch"), json_write_int(&w, b->batch);
    json_write_key(&w, "upload"), json_write_bool(&w, b->upload);
    json_write_key(&w, "capture"), json_write_bool(&w, p->pipe.captured != NULL);
    json_write_key(&w, "ms"), json_write_double(&w, median);
    json_write_key(&w, "ms_best"), json_write_double(&w, ms[0]);
    json_write_key(&w, "images_per_s"), json_write_double(&w, 1e3 * b->batch / median);
    json_write_key(&w, "gflops"), json_write_double(&w, gflops);
    json_write_key(&w, "arena_mb"), json_write_double(&w, (double)p->arena_bytes / 0x1p20);
    json_write_key(&w, "device_mb"), json_write_double(&w, (double)most / 0x1p20);
    json_write_key(&w, "beside_mb"), json_write_double(&w, (double)beside / 0x1p20);
    json_write_key(&w, "peak_rss_mb"), json_write_double(&w, peak_rss_mib());
    if (b->ops) write_kinds(&w, kinds, n_kinds);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

static bool measure(const Bench *b, Plan *p, const char *device, double macs, Err *err) {
    double *ms = mem_zalloc((size_t)b->rounds, sizeof *ms), *seconds = mem_zalloc((size_t)p->n_steps, sizeof *seconds);
    p->options.no_capture = b->no_capture, p->options.log = b->log;
    bool ok = time_rounds(b, p, ms, err);
    for (int i = 0; ok && i < b->rounds && (b->ops || b->steps); i++) ok = plan_run_timed(p, seconds, err);
    if (ok) {
        int n_kinds;
        Kind *kinds = find_kinds(p, seconds, b->rounds, &n_kinds);
        qsort(ms, (size_t)b->rounds, sizeof *ms, by_size);
        double median = ms[b->rounds / 2], gflops = 2e-6 * macs / median;
        if (b->json)
            print_json(b, p, device, ms, gflops, kinds, n_kinds);
        else
            printf("%s of %s, %d x %d, batch %d on %s\n"
                   "%.2f ms median (%.2f best), %.1f images/s, %.1f GFLOP/s, peak memory %.0f MiB\n",
                   b->what, b->network, b->config->input.size[0], b->config->input.size[1], b->batch, device, median,
                   ms[0], 1e3 * b->batch / median, gflops, peak_rss_mib());
        if (b->ops && !b->json) print_kinds(kinds, n_kinds);
        if (b->steps) print_steps(p, seconds, b->rounds);
        free(kinds);
    }
    free(seconds);
    free(ms);
    return ok;
}

/* What computes no numbers is not timed, or was timed in vain. */
static bool expect_finite(const float *values, int64_t count, Err *err) {
    return classify_finite(values, count) ||
           err_set(err, EXIT_HEALTH, "bench: the network's results are not finite - change the config");
}

static uint8_t *random_pixels(size_t bytes) {
    uint8_t *pixels = mem_zalloc(bytes, 1);
    Rng r = rng_make(0, RNG_TEST, 0, 0);
    for (size_t i = 0; i < bytes; i++) pixels[i] = (uint8_t)rng_u32(&r);
    return pixels;
}

static bool bench_infer(Bench *b, const Config *c, int classes, Backend *backend, Err *err) {
    Predictor p;
    if (!predictor_open_random(&p, c, classes, backend, b->batch, true, err)) return false;
    uint8_t *pixels = random_pixels(p.image_bytes * (size_t)b->batch);
    ClassifySpec spec = config_classify(c, classes);
    ClassifyGraph plain = classify_eval_graph(&spec, b->batch, c->input.size[0], c->input.size[1], 0);
    b->images = p.graph.images, b->pixels = pixels, b->pixel_bytes = p.image_bytes * (size_t)b->batch;
    float *logits = mem_zalloc((size_t)b->batch * (size_t)classes, sizeof *logits);
    bool ok = predictor_run(&p, logits, NULL, pixels, b->batch, err) &&
              expect_finite(logits, (int64_t)b->batch * classes, err) &&
              measure(b, p.plan, backend->description, cost_total(plain.graph, "").macs, err);
    classify_graph_free(&plain);
    free(logits);
    free(pixels);
    predictor_close(&p);
    return ok;
}

static bool bench_train(Bench *b, const Config *c, int classes, Backend *backend, Err *err) {
    ClassifySpec spec = config_classify_on(c, classes, backend);
    ClassifyGraph g = classify_train_graph(&spec, b->batch, c->input.size[0], c->input.size[1]);
    State s = {0};
    Plan *p = NULL;
    OptimizerConfig o = {.lr = 1e-5f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    float hyper[HYPER_COUNT], loss;
    optimizer_hyper(&o, 0, hyper);
    size_t bytes = (size_t)b->batch * (size_t)c->input.size[0] * (size_t)c->input.size[1] * 3;
    int32_t *labels = mem_zalloc((size_t)b->batch, sizeof *labels);
    bool ok = state_new(&s, g.graph, backend, classify_train_roles(&spec), err) && state_init(&s, 0, err) &&
              plan_new(&p, g.graph, backend, &s, &g.loss, 1, (PlanOptions){0}, err);
    uint8_t *pixels = ok ? random_pixels(bytes) : NULL;
    b->images = g.images, b->pixels = pixels, b->pixel_bytes = bytes;
    ok = ok && plan_upload(p, g.images, pixels, bytes, err) &&
         plan_upload(p, g.targets, labels, (size_t)b->batch * sizeof *labels, err) &&
         plan_upload(p, g.scale, &(float){1}, sizeof(float), err) &&
         plan_upload(p, g.counter, (uint64_t[]){0, 0}, 16, err) &&
         plan_upload(p, g.hyper, hyper, sizeof hyper, err) &&
         measure(b, p, backend->description, cost_total(g.graph, "").macs, err) &&
         plan_download(p, g.loss, &loss, sizeof loss, err) && expect_finite(&loss, 1, err);
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

/* Bytes read and written by the device's own copy of what no cache holds: what kernels are held against. */
static bool bench_copy(const Bench *b, Backend *d, Err *err) {
    const size_t bytes = d->host_memory ? (size_t)64 << 20 : (size_t)1 << 30;
    void *from = NULL, *to = NULL;
    BackendMark *mark[2] = {0};
    double *ms = mem_zalloc((size_t)b->rounds, sizeof *ms);
    bool ok = d->alloc(d, &from, bytes, err) && d->alloc(d, &to, bytes, err) && d->mark_new(d, &mark[0], err) &&
              d->mark_new(d, &mark[1], err);
    for (int i = -3; ok && i < b->rounds; i++) {
        double seconds = 0;
        ok = d->mark(d, mark[0], STREAM_COMPUTE, err) && d->copy(d, to, from, bytes, STREAM_COMPUTE, err) &&
             d->mark(d, mark[1], STREAM_COMPUTE, err) && d->await(d, mark[1], err) &&
             d->elapsed(d, mark[0], mark[1], &seconds, err);
        if (i >= 0) ms[i] = 1e3 * seconds;
    }
    qsort(ms, (size_t)b->rounds, sizeof *ms, by_size);
    double median = ms[b->rounds / 2], gb_per_s = 2e-6 * (double)bytes / median;
    if (ok && b->json)
        printf("{\"what\":\"copy\",\"ms\":%.4f,\"gb_per_s\":%.1f}\n", median, gb_per_s);
    else if (ok)
        printf("copy on %s: %.1f GB/s, bytes read and written\n", d->description, gb_per_s);
    for (int i = 0; i < 2; i++)
        if (mark[i]) d->mark_free(d, mark[i]);
    d->free(d, from);
    d->free(d, to);
    free(ms);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    const char *what = cli->argument_count ? cli->arguments[0] : "infer";
    bool training = strcmp(what, "train") == 0, peak = strcmp(what, "peak") == 0, copy = strcmp(what, "copy") == 0;
    if (cli->argument_count > 1 || (!training && !peak && !copy && strcmp(what, "infer") != 0))
        return err_set(err, EXIT_USAGE, "command line: bench takes infer, train, peak or copy");
    static const char *const of_networks[] = {"batch", "no-capture", "upload", "ops", "steps"};
    for (size_t i = 0; i < COUNTOF(of_networks); i++)
        if ((peak || copy) && cli_flag(cli, of_networks[i]))
            return err_set(err, EXIT_USAGE, "command line: bench %s does not use --%s - it is for infer, train", what,
                           of_networks[i]);
    if (peak && cli_flag(cli, "rounds"))
        return err_set(err, EXIT_USAGE, "command line: bench peak does not use --rounds - it is for the others");
    int64_t batch = training ? 8 : 1, rounds = 15;
    Config config;
    Backend backend = {0};
    bool ok = config_load(&config, cli->config, cli->overrides, cli->override_count, err) &&
              cli_flag_int(cli, "batch", &batch, 1, BATCH_MOST, err) &&
              cli_flag_int(cli, "rounds", &rounds, 1, 100000, err) && config_open_backend(&backend, &config, err) &&
              config_set_precision(&backend, &config, true, err);
    if (ok) {
        device_announce(&backend, log);
        char *network = config_word(&config, "model.name");
        Bench b = {.batch = (int)batch,
                   .rounds = (int)rounds,
                   .ops = cli_flag(cli, "ops"),
                   .steps = cli_flag(cli, "steps"),
                   .json = cli_flag(cli, "json"),
                   .no_capture = cli_flag(cli, "no-capture"),
                   .upload = cli_flag(cli, "upload"),
                   .what = what,
                   .network = network,
                   .config = &config,
                   .log = log};
        int classes = config.model.num_classes == AUTO_INT ? 1000 : config.model.num_classes;
        MemoryRun run = {.config = &config, .backend = &backend, .classes = classes, .train = training,
                         .batch = b.batch, .eval_most = training ? 0 : b.batch};
        size_t spare;
        ok = peak       ? bench_peak(&b, &backend, err)
             : copy     ? bench_copy(&b, &backend, err)
             : training ? memory_check(&spare, &run, err) && bench_train(&b, &config, classes, &backend, err)
                        : memory_check(&spare, &run, err) && bench_infer(&b, &config, classes, &backend, err);
        free(network);
    }
    if (backend.close) backend.close(&backend);
    config_free(&config);
    return ok;
}

const CliCommand command_bench = {
    .name = "bench",
    .also = "benchmark",
    .arguments = "[infer|train|peak|copy]",
    .summary = "time a network on random pictures, or what the machine can do",
    .flags = flags,
    .flag_count = COUNTOF(flags),
    .uses = USES_NETWORK "," USES_DEVICE ",model.drop_path,input.size,train.ema,train.precision,train.recompute",
    .run = run};
