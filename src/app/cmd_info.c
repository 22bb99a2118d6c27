/* cmd_info.c - what a network is and costs: read off the graph as the model wrote it, planned as it would run. */
#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/table.h"
#include "lib/model_file.h"
#include "pass/cost.h"

static const CliFlag flags[] = {
    {"json", 0, NULL, "print one JSON object", NULL, NULL, NULL},
    {"all", 'a', NULL, "a row per op instead of a row per block", NULL, NULL, NULL},
    {"batch", 'b', "N", "pictures at a time (1)", "batch-size", NULL, NULL},
};

/* Neighbouring nodes of one block: a row of the table. */
typedef struct {
    char name[128];
    Shape output;
    Cost cost;
    int64_t parameters, bytes;
} Row;

typedef struct {
    Row *rows;
    int count;
    Cost cost;
    int64_t parameters;
    size_t arena, naive, constants, train_arena;
} Table;

/* "layers.0.blocks.1.attn.qkvo.linear" -> "layers.0.blocks.1"; others up to the first dot, the stem as one. */
static void block_name(char *out, size_t room, const char *node) {
    snprintf(out, room, "%s", node);
    int dots = strncmp(node, "layers.", 7) != 0 ? 1 : strstr(node, ".downsample.") ? 3 : 4;
    for (char *p = out; *p; p++)
        if (*p == '.' && --dots == 0) *p = '\0';
}

static int64_t bytes_of(const Value *v) { return shape_count(&v->shape) * (int64_t)dtype_size(v->dtype); }

static void add_node(Table *t, const Graph *g, const Node *n, bool all) {
    char name[128];
    if (all)
        snprintf(name, sizeof name, "%s", n->name);
    else
        block_name(name, sizeof name, n->name);
    Row *row = t->count ? &t->rows[t->count - 1] : NULL;
    if (!row || all || strcmp(row->name, name) != 0) {
        row = &t->rows[t->count++];
        *row = (Row){0};
        snprintf(row->name, sizeof row->name, "%s", name);
    }
    Cost c = cost_node(g, n);
    row->cost.macs += c.macs;
    row->cost.bytes += c.bytes;
    row->output = *out_shape(g, n, 0);
    row->bytes += bytes_of(graph_value(g, node_out(g, n, 0)));
    for (int i = 0; i < n->n_in; i++) {
        Val v = node_in(g, n, i);
        if (v == NO_VAL || graph_value(g, v)->kind != V_STATE || graph_value(g, v)->role != ROLE_WEIGHT) continue;
        row->parameters += shape_count(&graph_value(g, v)->shape);
    }
}

/* Plans without weights: addresses are taken, nothing is run but the constants of zero weights. */
static bool plan_sizes(Table *t, const ClassifySpec *spec, const Config *c, int batch, Err *err) {
    Backend backend;
    if (!backend_open_cpu(&backend, 1, err)) return false;
    bool ok = true;
    for (int training = 0; ok && training < 2; training++) {
        ClassifyGraph g = training ? classify_train_graph(spec, batch, c->input.size[0], c->input.size[1])
                                   : classify_eval_graph(spec, batch, c->input.size[0], c->input.size[1],
                                                         classify_eval_fusion(&backend));
        State state = {0};
        Plan *plan = NULL;
        ok = state_new(&state, g.graph, &backend,
                       training ? classify_train_roles(spec) : 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, err) &&
             plan_new(&plan, g.graph, &backend, &state, &g.logits, 1, (PlanOptions){0}, err);
        if (ok && training) t->train_arena = plan->arena_bytes;
        if (ok && !training)
            t->arena = plan->arena_bytes, t->naive = plan->naive_bytes, t->constants = plan->constant_bytes;
        plan_free(plan);
        if (state.params) state_free(&state);
        classify_graph_free(&g);
    }
    backend.close(&backend);
    return ok;
}

static void print_json(const Table *t, const ClassifySpec *spec, const Config *c, int batch) {
    JsonWriter w = {0};
    json_write_object(&w);
    config_write_network(&w, c);
    json_write_key(&w, "batch"), json_write_int(&w, batch);
    json_write_key(&w, "classes"), json_write_int(&w, spec->model.classes);
    json_write_key(&w, "parameters"), json_write_int(&w, t->parameters);
    json_write_key(&w, "macs"), json_write_double(&w, t->cost.macs);
    json_write_key(&w, "activation_bytes"), json_write_uint(&w, t->arena);
    json_write_key(&w, "activation_bytes_without_reuse"), json_write_uint(&w, t->naive);
    json_write_key(&w, "training_activation_bytes"), json_write_uint(&w, t->train_arena);
    json_write_key(&w, "layers");
    json_write_array(&w);
    for (int i = 0; i < t->count; i++) {
        const Row *r = &t->rows[i];
        json_write_object(&w);
        json_write_key(&w, "name"), json_write_string(&w, r->name);
        json_write_key(&w, "output");
        json_write_array(&w);
        for (int k = 0; k < r->output.rank; k++) json_write_int(&w, r->output.dim[k]);
        json_write_end(&w);
        json_write_key(&w, "parameters"), json_write_int(&w, r->parameters);
        json_write_key(&w, "macs"), json_write_double(&w, r->cost.macs);
        json_write_key(&w, "output_bytes"), json_write_int(&w, r->bytes);
        json_write_end(&w);
    }
    json_write_end(&w);
    json_write_end(&w);
    puts(json_writer_text(&w));
    json_writer_free(&w);
}

static void print_text(const Table *t, int batch) {
    int longest = 0;
    for (int i = 0; i < t->count; i++) longest = MAX(longest, (int)strlen(t->rows[i].name));
    const int width = table_name_width(longest, 47);
    table_name("layer", width);
    printf(" %14s %11s %10s %8s\n", "output", "parameters", "M mul-adds", "MiB");
    for (int i = 0; i < t->count; i++) {
        const Row *r = &t->rows[i];
        char shape[96];
        table_name(r->name, width);
        printf(" %14s %11lld %10.1f %8.2f\n", shape_print(shape, sizeof shape, &r->output), (long long)r->parameters,
               r->cost.macs / 1e6, (double)r->bytes / 0x1p20);
    }
    printf("\nparameters            %lld\n", (long long)t->parameters);
    printf("multiply-adds         %.3f G for a batch of %d\n", t->cost.macs / 1e9, batch);
    printf("inference activations %.1f MiB (%.1f without reuse)\n", (double)t->arena / 0x1p20,
           (double)t->naive / 0x1p20);
    printf("training activations  %.1f MiB\n", (double)t->train_arena / 0x1p20);
}

static bool run_config(const Config *c, int classes, const Cli *cli, Err *err) {
    int64_t batch = 1;
    if (!cli_flag_int(cli, "batch", &batch, 1, BATCH_MOST, err)) return false;
    ClassifySpec spec = config_classify(c, classes);
    spec.unfused = true; /* as the CPU trains */
    ClassifyGraph g = classify_eval_graph(&spec, (int)batch, c->input.size[0], c->input.size[1], 0);
    Table t = {.rows = mem_zalloc((size_t)g.graph->n_nodes, sizeof(Row)), .cost = cost_total(g.graph, ""),
               .parameters = cost_parameters(g.graph, "")};
    for (int32_t i = 0; i < g.graph->n_nodes; i++)
        add_node(&t, g.graph, &g.graph->nodes[i], cli_flag(cli, "all") != NULL);
    bool ok = plan_sizes(&t, &spec, c, (int)batch, err);
    if (ok && cli_flag(cli, "json"))
        print_json(&t, &spec, c, (int)batch);
    else if (ok)
        print_text(&t, (int)batch);
    free(t.rows);
    classify_graph_free(&g);
    return ok;
}

static bool run(const Cli *cli, Log *log, Err *err) {
    const char *path;
    if (!cli_weights(cli, &path, 1, err)) return false;
    Config config;
    bool ok = config_load(&config, cli->config, cli->overrides, cli->override_count, err);
    if (ok && !path) path = config.model.weights;
    if (ok && path) {
        ModelFile model;
        ok = model_file_open(&model, path, cli->config, cli->overrides, cli->override_count, log, err);
        if (ok) {
            ok = model_file_has_classifier(&model, err) && run_config(&model.config, model.class_count, cli, err);
            model_file_close(&model);
        }
    } else if (ok) {
        ok = run_config(&config, 1000, cli, err);
    }
    config_free(&config);
    return ok;
}

const CliCommand command_info = {.name = "info",
                                 .also = "summary",
                                 .arguments = "[WEIGHTS]",
                                 .summary = "layers, parameters, multiply-adds and memory of a network",
                                 .flags = flags,
                                 .flag_count = COUNTOF(flags),
                                 .uses = USES_NETWORK ",model.weights,model.weights_ema,model.drop_path,input.size,"
                                         "train.recompute",
                                 .run = run};
