#include "run/plan.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

/* ---- which nodes run, and when ---- */

typedef struct {
    bool *needed;   /* [n_nodes] */
    bool *constant; /* [n_nodes]: computed by plan_refresh */
    int32_t *order; /* [n_steps]: node of each step, constants first */
    int32_t n_steps, n_constant;
} Schedule;

static bool writes_state(const Graph *g, const Node *n) {
    if (node_def(n)->mutates) return true;
    for (int i = 0; i < n->n_out; i++)
        if (graph_value(g, node_out(g, n, i))->kind == V_STATE) return true;
    return false;
}

static void find_needed(const Graph *g, const Val *keep, int n_keep, bool *needed) {
    bool *wanted = mem_zalloc((size_t)g->n_values, sizeof(bool));
    for (int i = 0; i < n_keep; i++) wanted[keep[i]] = true;
    for (int32_t id = g->n_nodes - 1; id >= 0; id--) {
        const Node *n = &g->nodes[id];
        needed[id] = writes_state(g, n);
        for (int i = 0; i < n->n_out; i++) needed[id] |= wanted[node_out(g, n, i)];
        for (int i = 0; needed[id] && i < n->n_in; i++)
            if (node_in(g, n, i) != NO_VAL) wanted[node_in(g, n, i)] = true;
    }
    free(wanted);
}

/* A node is constant when all it reads is constant: weights and statistics, in a graph that writes no state. */
static void find_constants(const Graph *g, const bool *needed, bool *constant) {
    for (int32_t id = 0; id < g->n_nodes; id++)
        if (needed[id] && writes_state(g, &g->nodes[id])) return;
    for (int32_t id = 0; id < g->n_nodes; id++) {
        const Node *n = &g->nodes[id];
        constant[id] = needed[id] && !(node_def(n)->flags & OPF_RANDOM);
        for (int i = 0; constant[id] && i < n->n_in; i++) {
            Val v = node_in(g, n, i);
            if (v == NO_VAL) continue;
            const Value *x = graph_value(g, v);
            constant[id] = x->kind == V_STATE || (x->kind == V_ACT && constant[x->def]);
        }
    }
}

static Schedule make_schedule(const Graph *g, const Val *keep, int n_keep) {
    size_t n = (size_t)g->n_nodes;
    Schedule s = {mem_zalloc(n, sizeof(bool)), mem_zalloc(n, sizeof(bool)), mem_zalloc(n, sizeof(int32_t)), 0, 0};
    find_needed(g, keep, n_keep, s.needed);
    find_constants(g, s.needed, s.constant);
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t id = 0; id < g->n_nodes; id++)
            if (s.needed[id] && s.constant[id] == (pass == 0)) s.order[s.n_steps++] = id;
        if (pass == 0) s.n_constant = s.n_steps;
    }
    return s;
}

static void schedule_free(Schedule *s) {
    free(s->needed);
    free(s->constant);
    free(s->order);
}

/* ---- where every activation lies ---- */

static int64_t value_bytes(const Value *v) { return shape_count(&v->shape) * (int64_t)dtype_size(v->dtype); }

size_t plan_device_bytes(const Plan *p) {
    size_t staged = p->backend->host_memory ? 0 : p->input_bytes;
    return p->arena_bytes + p->constant_bytes + p->work_bytes + p->input_bytes + p->borrowed_bytes + staged;
}

#define VALUE_MOST 0x1p44 /* bytes: sums of so many values as there are stay far below what a size_t holds */

/* No machine has the memory; here it is said before sums of it wrap around. */
static bool check_values(const Graph *g, Err *err) {
    for (Val v = 0; v < g->n_values; v++) {
        const Value *x = graph_value(g, v);
        double bytes = (double)dtype_size(x->dtype);
        for (int i = 0; i < x->shape.rank; i++) bytes *= (double)x->shape.dim[i];
        if (bytes > VALUE_MOST)
            return err_set(err, EXIT_MEMORY, "memory: %s alone would take %.0f TiB - use a smaller batch or input size",
                           x->name, bytes / 0x1p40);
    }
    return true;
}

static void find_lifetimes(Plan *p, const Schedule *s, const Val *keep, int n_keep) {
    const Graph *g = p->graph;
    for (Val v = 0; v < g->n_values; v++) p->place[v] = (Placement){.offset = -1, .first = -1, .last = -1};
    for (int32_t step = 0; step < s->n_steps; step++) {
        const Node *n = &g->nodes[s->order[step]];
        for (int i = 0; i < n->n_in; i++) {
            Val v = node_in(g, n, i);
            if (v != NO_VAL) p->place[v].last = step;
        }
        for (int i = 0; i < n->n_out; i++) {
            Placement *out = &p->place[node_out(g, n, i)];
            out->first = out->last = step;
            out->constant = step < s->n_constant;
        }
    }
    /* A constant that a run reads stands for ever without more: only constants share memory with it, and the last of
     * them is written before the run. */
    for (int i = 0; i < n_keep; i++) p->place[keep[i]].last = s->n_steps;
}

/* The input whose memory output 0 of a node takes over, or NO_VAL. */
static Val inplace_source(const Plan *p, const Node *n, int32_t step) {
    if (!(node_def(n)->flags & OPF_INPLACE0) || p->options.no_reuse) return NO_VAL;
    const Graph *g = p->graph;
    Val source = node_in(g, n, 0), target = node_out(g, n, 0);
    const Value *from = graph_value(g, source), *to = graph_value(g, target);
    if (from->kind != V_ACT || to->kind != V_ACT || value_bytes(from) != value_bytes(to)) return NO_VAL;
    if (p->place[source].last != step || p->place[source].constant != p->place[target].constant) return NO_VAL;
    for (int i = 1; i < n->n_in; i++)
        if (node_in(g, n, i) == source) return NO_VAL;
    return source;
}

/* One piece of memory: a value, or a chain of values that took it over in place. */
typedef struct {
    int64_t bytes, offset;
    int32_t first, last;
    bool constant;
} Block;

static int larger_first(const void *a, const void *b) {
    const Block *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) return (*x)->bytes < (*y)->bytes ? 1 : -1;
    return (*x)->first - (*y)->first;
}

static int lower_first(const void *a, const void *b) {
    const Block *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Greedy by size: the largest first, each at the lowest offset where nothing that lives at the same time lies.
 * Returns the bytes needed. */
static int64_t place_blocks(Block **blocks, int count, bool reuse) {
    int64_t top = 0;
    Block **busy = mem_zalloc((size_t)count, sizeof *busy);
    if (reuse) qsort(blocks, (size_t)count, sizeof *blocks, larger_first);
    for (int i = 0; i < count; i++) {
        Block *b = blocks[i];
        int n_busy = 0;
        for (int j = 0; j < i; j++)
            if (!reuse || (blocks[j]->first <= b->last && b->first <= blocks[j]->last)) busy[n_busy++] = blocks[j];
        qsort(busy, (size_t)n_busy, sizeof *busy, lower_first);
        int64_t at = 0;
        for (int j = 0; j < n_busy && busy[j]->offset < at + b->bytes; j++)
            at = MAX(at, busy[j]->offset + busy[j]->bytes);
        b->offset = at;
        top = MAX(top, at + b->bytes);
    }
    free(busy);
    return top;
}

static void place_activations(Plan *p, const Schedule *s) {
    const Graph *g = p->graph;
    size_t n_values = (size_t)g->n_values;
    Block *blocks = mem_zalloc(n_values, sizeof *blocks), **sorted = mem_zalloc(n_values, sizeof *sorted);
    int32_t *block_of = mem_zalloc(n_values, sizeof *block_of);
    int n_blocks = 0;
    for (int32_t step = 0; step < s->n_steps; step++) {
        const Node *n = &g->nodes[s->order[step]];
        for (int i = 0; i < n->n_out; i++) {
            Val v = node_out(g, n, i);
            const Placement *at = &p->place[v];
            block_of[v] = -1;
            if (graph_value(g, v)->kind != V_ACT) continue;
            Val source = i == 0 ? inplace_source(p, n, step) : NO_VAL;
            if (source != NO_VAL) {
                block_of[v] = block_of[source];
                blocks[block_of[v]].last = MAX(blocks[block_of[v]].last, at->last);
                continue;
            }
            if (at->last == at->first) continue; /* nobody reads it: the kernel gets NULL */
            int64_t bytes = ROUND_UP(value_bytes(graph_value(g, v)), ALIGNMENT);
            block_of[v] = n_blocks;
            blocks[n_blocks++] =
                (Block){.bytes = bytes, .first = at->first, .last = at->last, .constant = at->constant};
            if (!at->constant) p->naive_bytes += (size_t)bytes;
        }
    }
    for (int constant = 0; constant < 2; constant++) {
        int count = 0;
        for (int i = 0; i < n_blocks; i++)
            if (blocks[i].constant == (bool)constant) sorted[count++] = &blocks[i];
        size_t bytes = (size_t)place_blocks(sorted, count, !p->options.no_reuse);
        *(constant ? &p->constant_bytes : &p->arena_bytes) = bytes;
    }
    for (Val v = 0; v < g->n_values; v++) {
        bool produced = p->place[v].first >= 0 && graph_value(g, v)->kind == V_ACT;
        if (produced && block_of[v] >= 0) p->place[v].offset = blocks[block_of[v]].offset;
    }
    free(block_of);
    free(sorted);
    free(blocks);
}

/* ---- binding: addresses, kernels, calls ---- */

/* The backend's kernel for a node, or what is missing. */
static bool find_kernel(const Plan *p, const Node *n, Err *err) {
    const Kernel *k = p->backend->kernels[n->op];
    const char *op = node_def(n)->name, *backend = p->backend->name;
    if (!k) return err_set(err, EXIT_BUG, "%s: backend %s has no kernel for %s", n->name, backend, op);
    DType type = node_compute_type(p->graph, n);
    if ((k->types ? k->types : 1u << DT_F32) & 1u << type) return true;
    return err_set(err, EXIT_BUG, "%s: backend %s has no %s kernel for %s", n->name, backend, dtype_name(type), op);
}

static bool prepare_steps(Plan *p, const Schedule *s, Err *err) {
    const Graph *g = p->graph;
    p->steps = mem_zalloc((size_t)s->n_steps, sizeof *p->steps);
    p->n_constant_steps = s->n_constant;
    for (int32_t i = 0; i < s->n_steps; i++) {
        const Node *n = &g->nodes[s->order[i]];
        Step *step = &p->steps[i];
        if (!find_kernel(p, n, err)) return false;
        step->kernel = p->backend->kernels[n->op];
        step->call = (KernelCall){.graph = g, .node = n, .backend = p->backend};
        p->n_steps = i + 1;
        if (!p->backend->alloc) continue; /* kernels without a device: to be measured, not run */
        if (step->kernel->prepare && !step->kernel->prepare(g, n, p->backend, &step->call.prepared, err)) return false;
    }
    return true;
}

static size_t step_workspace(const Step *step) {
    const Kernel *k = step->kernel;
    if (k->prepared_workspace && step->call.backend->alloc) return k->prepared_workspace(step->call.prepared);
    return k->workspace ? k->workspace(step->call.graph, step->call.node) : 0;
}

bool plan_borrows(const Plan *p, int32_t step, Val operand) {
    if (step >= p->n_constant_steps || operand == NO_VAL || !p->state || !p->state->source.read) return false;
    const Value *x = graph_value(p->graph, operand);
    return x->kind == V_STATE && x->param >= 0;
}

static size_t borrowed_bytes(const Plan *p, int32_t step) {
    const Node *n = p->steps[step].call.node;
    size_t bytes = 0;
    for (int i = 0; i < n->n_in; i++)
        if (plan_borrows(p, step, node_in(p->graph, n, i)))
            bytes += (size_t)ROUND_UP(value_bytes(graph_value(p->graph, node_in(p->graph, n, i))), ALIGNMENT);
    return bytes;
}

static void find_sizes(Plan *p) {
    const Graph *g = p->graph;
    for (Val v = 0; v < g->n_values; v++)
        if (graph_value(g, v)->kind == V_INPUT)
            p->input_bytes += (size_t)ROUND_UP(value_bytes(graph_value(g, v)), ALIGNMENT);
    for (int32_t i = 0; i < p->n_steps; i++) p->work_bytes = MAX(p->work_bytes, step_workspace(&p->steps[i]));
    for (int32_t i = 0; i < p->n_constant_steps; i++) p->borrowed_bytes = MAX(p->borrowed_bytes, borrowed_bytes(p, i));
}

static bool take_memory(Plan *p, Err *err) {
    Backend *b = p->backend;
    return b->alloc(b, (void **)&p->arena, p->arena_bytes, err) &&
           b->alloc(b, (void **)&p->constants, p->constant_bytes, err) &&
           b->alloc(b, (void **)&p->work, p->work_bytes, err) &&
           b->alloc(b, (void **)&p->inputs, p->input_bytes, err) &&
           b->alloc(b, (void **)&p->borrowed, p->borrowed_bytes, err);
}

static void *state_address(const Plan *p, const Value *v) {
    const State *s = p->state;
    CHECK(s && s->buffer[v->role], "%s: the state keeps no such role (%d)", v->name, v->role);
    int64_t offset = v->group == PARAMS_OTHER ? s->layout.decayed : 0;
    if (v->param >= 0) {
        int32_t param = state_find(s, v->name);
        CHECK(param >= 0 && state_count(s, param) == shape_count(&v->shape), "%s: not in the state", v->name);
        offset = s->layout.offset[param];
    }
    return (char *)s->buffer[v->role] + offset * (int64_t)dtype_size(v->dtype);
}

static void find_addresses(Plan *p) {
    size_t input = 0;
    for (Val v = 0; v < p->graph->n_values; v++) {
        const Value *x = graph_value(p->graph, v);
        const Placement *at = &p->place[v];
        if (x->kind == V_INPUT) {
            p->address[v] = p->inputs + input;
            input += (size_t)ROUND_UP(value_bytes(x), ALIGNMENT);
        } else if (x->kind == V_STATE) {
            if (at->first >= 0 || at->last >= 0) p->address[v] = state_address(p, x);
        } else if (at->offset >= 0) {
            p->address[v] = (at->constant ? p->constants : p->arena) + at->offset;
        }
    }
}

static void bind_steps(Plan *p) {
    const Graph *g = p->graph;
    p->operands = mem_zalloc((size_t)g->n_operands, sizeof *p->operands);
    for (int32_t i = 0; i < p->n_steps; i++) {
        KernelCall *call = &p->steps[i].call;
        const Node *n = call->node;
        size_t borrowed = 0;
        for (int k = 0; k < n->n_in + n->n_out; k++) {
            Val v = g->operand[n->first + k];
            p->operands[n->first + k] = v == NO_VAL ? NULL : p->address[v];
            if (k >= n->n_in || !plan_borrows(p, i, v)) continue;
            p->operands[n->first + k] = p->borrowed + borrowed;
            borrowed += (size_t)ROUND_UP(value_bytes(graph_value(g, v)), ALIGNMENT);
        }
        call->in = p->operands + n->first;
        call->out = p->operands + n->first + n->n_in;
        call->work = p->work;
    }
}

bool plan_new(Plan **out, const Graph *g, Backend *backend, State *state, const Val *keep, int n_keep,
              PlanOptions options, Err *err) {
    *out = NULL;
    if (!check_values(g, err)) return false;
    Plan *p = *out = mem_zalloc(1, sizeof *p);
    p->graph = g;
    p->backend = backend;
    p->state = state;
    p->options = options;
    p->place = mem_zalloc((size_t)g->n_values, sizeof *p->place);
    p->address = mem_zalloc((size_t)g->n_values, sizeof *p->address);
    p->keep = mem_zalloc((size_t)n_keep, sizeof *p->keep);
    memcpy(p->keep, keep, (size_t)n_keep * sizeof *keep);
    p->n_keep = n_keep;
    plan_enter(p);
    Schedule s = make_schedule(g, keep, n_keep);
    find_lifetimes(p, &s, keep, n_keep);
    place_activations(p, &s);
    bool ok = prepare_steps(p, &s, err);
    if (ok) find_sizes(p);
    if (ok && options.measure) {
        schedule_free(&s);
        return true;
    }
    ok = ok && take_memory(p, err) && plan_pipe_open(p, err);
    if (ok) {
        find_addresses(p);
        bind_steps(p);
    }
    schedule_free(&s);
    if (ok && plan_refresh(p, err)) return true;
    plan_free(p);
    *out = NULL;
    return false;
}

void plan_free(Plan *p) {
    if (!p) return;
    for (int32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].call.prepared && p->steps[i].kernel->release)
            p->steps[i].kernel->release(p->steps[i].call.prepared);
    plan_pipe_close(p);
    char *memory[] = {p->arena, p->constants, p->work, p->inputs, p->borrowed};
    for (size_t i = 0; i < COUNTOF(memory); i++)
        if (memory[i]) p->backend->free(p->backend, memory[i]);
    free(p->steps);
    free(p->operands);
    free(p->address);
    free(p->place);
    free(p->keep);
    free(p);
}
