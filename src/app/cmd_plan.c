/* cmd_plan.c - mala plan: how much device memory a run will take, before it takes any, and without the device. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/memory.h"
#include "base/host_memory.h"
#include "lib/model_file.h"

/* What the CUDA context and the libraries' own code take beside the plan. An estimate: it differs between drivers and
 * GPUs, and nothing here can know it; nvidia-smi shows what it is. */
#define CUDA_CONTEXT_ESTIMATE ((size_t)512 << 20)

static const CliFlag flags[] = {
    {"json", 0, NULL, "print one JSON object", NULL, NULL, NULL},
    {"batch", 'b', "N", "pictures a step (1; with --train: train.batch_size)", "batch-size", NULL, NULL},
    {"size", 0, "HxW", "height and width, or one number for both", "imgsz img-size", "input.size", NULL},
    {"train", 0, NULL, "a training run instead of inference", "training", NULL, NULL},
};

static const struct {
    const char *name, *key;
    size_t offset;
} rows[] = {
    {"weights", "weights", offsetof(NetworkMemory, weights)},
    {"gradients", "gradients", offsetof(NetworkMemory, gradients)},
    {"moments", "moments", offsetof(NetworkMemory, moments)},
    {"moving average", "average", offsetof(NetworkMemory, average)},
    {"16-bit weights", "cast", offsetof(NetworkMemory, cast)},
    {"running statistics", "statistics", offsetof(NetworkMemory, statistics)},
    {"activations", "activations", offsetof(NetworkMemory, activations)},
    {"folded weights", "constants", offsetof(NetworkMemory, constants)},
    {"workspace", "workspace", offsetof(NetworkMemory, workspace)},
    {"inputs", "inputs", offsetof(NetworkMemory, inputs)},
    {"inputs, next step's", "staging", offsetof(NetworkMemory, staging)},
};

static size_t row_bytes(const NetworkMemory *n, size_t row) {
    return *(const size_t *)((const char *)n + rows[row].offset);
}

static void write_network(JsonWriter *w, const char *key, const NetworkMemory *n) {
    json_write_key(w, key);
    json_write_object(w);
    json_write_key(w, "batch"), json_write_int(w, n->batch);
    for (size_t i = 0; i < COUNTOF(rows); i++) json_write_key(w, rows[i].key), json_write_uint(w, row_bytes(n, i));
    json_write_key(w, "total"), json_write_uint(w, network_memory_total(n));
    json_write_key(w, "page_locked_host"), json_write_uint(w, n->transfers);
    json_write_end(w);
}

static void print_json(const MemoryNeeds *m, const Config *c, const Backend *b, bool train) {
    JsonWriter w = {0};
    json_write_object(&w);
    config_write_network(&w, c);
    json_write_key(&w, "device"), json_write_string(&w, b->name);
    if (train) write_network(&w, "training", &m->training);
    write_network(&w, train ? "evaluation" : "inference", &m->evaluation);
    json_write_key(&w, "total"), json_write_uint(&w, m->total);
    if (!b->host_memory) json_write_key(&w, "context_estimate"), json_write_uint(&w, CUDA_CONTEXT_ESTIMATE);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

static void print_text(const MemoryNeeds *m, const Config *c, const Backend *b, bool train) {
    char *name = config_word(c, "model.name");
    printf("MiB of %s on %s, %d x %d, batch %d", name, b->name, c->input.size[0], c->input.size[1],
           train ? m->training.batch : m->evaluation.batch);
    free(name);
    printf(train ? ", evaluation %d\n%-20s %12s %12s\n" : "%.0d\n%-20s %12s\n", train ? m->evaluation.batch : 0, "",
           train ? "training" : "inference", "evaluation");
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        size_t first = row_bytes(train ? &m->training : &m->evaluation, i),
               second = train ? row_bytes(&m->evaluation, i) : 0;
        if (first + second == 0) continue;
        printf("%-20s %12.1f", rows[i].name, (double)first / 0x1p20);
        if (train) printf(" %12.1f", (double)second / 0x1p20);
        putchar('\n');
    }
    printf("%-20s %12.1f\n", "in all", (double)m->total / 0x1p20);
    const char *limit;
    size_t left;
    if (host_memory_allowed(&left, &limit, NULL) && b->host_memory && left != SIZE_MAX)
        printf("%-20s %12.1f (%s)%s\n", "left", (double)left / 0x1p20, limit, m->total > left ? ": too little" : "");
    if (!b->host_memory)
        printf("page-locked on the host %.1f\n", (double)(m->training.transfers + m->evaluation.transfers) / 0x1p20);
    if (!b->host_memory)
        printf("and the CUDA context with its libraries, about %.0f (an estimate, not part of the sum)\n",
               (double)CUDA_CONTEXT_ESTIMATE / 0x1p20);
}

static bool run(const Cli *cli, Log *log, Err *err) {
    (void)log;
    Config c;
    Backend b = {0};
    MemoryNeeds m;
    size_t left;
    const char *limit;
    bool train = cli_flag(cli, "train") != NULL;
    bool ok = host_memory_allowed(&left, &limit, err); /* before the table is begun */
    ok = config_load(&c, cli->config, cli->overrides, cli->override_count, err) && ok;
    int64_t batch = ok && train ? c.train.batch_size : 1;
    ok = ok && cli_flag_int(cli, "batch", &batch, 1, BATCH_MOST, err) && config_open_measuring(&b, &c, err) &&
         config_set_precision(&b, &c, train, err) &&
         memory_predict(&m, &c, c.model.num_classes == AUTO_INT ? 1000 : c.model.num_classes, (int)batch, train, &b,
                        err);
    if (ok) (cli_flag(cli, "json") ? print_json : print_text)(&m, &c, &b, train);
    if (b.close) b.close(&b);
    config_free(&c);
    return ok;
}

const CliCommand command_plan = {.name = "plan",
                                 .also = "memory",
                                 .summary = "memory that a run will take, before it takes any",
                                 .flags = flags,
                                 .flag_count = COUNTOF(flags),
                                 .uses = USES_NETWORK ",model.drop_path,input.size,train.batch_size,train.ema,"
                                         "train.precision,train.recompute,eval.batch_size,eval.precision,device",
                                 .run = run};
