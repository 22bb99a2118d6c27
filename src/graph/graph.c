#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

size_t dtype_size(DType dtype) {
    static const uint8_t size[] = {[DT_F32] = 4, [DT_U8] = 1, [DT_I32] = 4, [DT_U64] = 8, [DT_BF16] = 2, [DT_F16] = 2};
    return size[dtype];
}

const char *dtype_name(DType dtype) {
    static const char *const name[] = {[DT_F32] = "float32", [DT_U8] = "uint8",      [DT_I32] = "int32",
                                       [DT_U64] = "uint64",  [DT_BF16] = "bfloat16", [DT_F16] = "float16"};
    return name[dtype];
}

int64_t shape_count(const Shape *s) {
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dim[i];
    return n;
}

bool shape_equal(const Shape *a, const Shape *b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

int64_t shape_last(const Shape *s) { return s->rank ? s->dim[s->rank - 1] : 1; }

int64_t shape_rows(const Shape *s) {
    int64_t n = 1;
    for (int i = 0; i + 1 < s->rank; i++) n *= s->dim[i];
    return n;
}

const char *shape_print(char *text, size_t capacity, const Shape *s) {
    size_t at = 0;
    snprintf(text, capacity, "scalar");
    for (int i = 0; i < s->rank && at < capacity; i++)
        at += (size_t)snprintf(text + at, capacity - at, "%s%lld", i ? "x" : "", (long long)s->dim[i]);
    return text;
}

Graph *graph_new(void) { return mem_zalloc(1, sizeof(Graph)); }

void graph_free(Graph *g) {
    if (!g) return;
    for (int32_t i = 0; i < g->n_strings; i++) free(g->strings[i]);
    free(g->strings);
    free(g->values);
    free(g->nodes);
    free(g->operand);
    free(g->params);
    free(g);
}

/* Makes room for one more element of an array that doubles. */
#define RESERVE(array, count, capacity) \
    do { \
        if ((count) == (capacity)) { \
            (capacity) = (capacity) ? 2 * (capacity) : 64; \
            (array) = mem_resize((array), (size_t)(capacity), sizeof *(array)); \
        } \
    } while (0)

static const char *keep_string(Graph *g, const char *prefix, const char *text) {
    size_t bytes = strlen(prefix) + strlen(text) + 1;
    char *copy = mem_zalloc(bytes, 1);
    snprintf(copy, bytes, "%s%s", prefix, text);
    RESERVE(g->strings, g->n_strings, g->cap_strings);
    return g->strings[g->n_strings++] = copy;
}

void graph_push(Graph *g, const char *format, ...) {
    size_t used = strlen(g->scope);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(g->scope + used, sizeof g->scope - used, format, args);
    va_end(args);
    CHECK(n > 0 && used + (size_t)n + 2 < sizeof g->scope, "scope too long: %s", g->scope);
    CHECK(g->scope_depth < (int)COUNTOF(g->scope_mark), "scopes too deep: %s", g->scope);
    g->scope_mark[g->scope_depth++] = (int32_t)used;
    g->scope[used + (size_t)n] = '.';
    g->scope[used + (size_t)n + 1] = '\0';
}

void graph_pop(Graph *g) {
    CHECK(g->scope_depth > 0, "pop without push");
    g->scope[g->scope_mark[--g->scope_depth]] = '\0';
}

static Val add_value(Graph *g, Value v) {
    RESERVE(g->values, g->n_values, g->cap_values);
    g->values[g->n_values] = v;
    return g->n_values++;
}

Val graph_input(Graph *g, const char *name, DType dtype, Shape shape) {
    return add_value(
        g,
        (Value){
            .shape = shape, .dtype = dtype, .kind = V_INPUT, .name = keep_string(g, "", name), .def = -1, .param = -1});
}

static Val find_state(const Graph *g, StateRole role, int32_t param, int32_t group) {
    for (Val v = 0; v < g->n_values; v++) {
        const Value *x = &g->values[v];
        if (x->kind == V_STATE && x->role == role && x->param == param && (param >= 0 || x->group == group)) return v;
    }
    return NO_VAL;
}

Val graph_param(Graph *g, ParamSpec spec) {
    const char *name = keep_string(g, g->scope, spec.name);
    for (int32_t p = 0; p < g->n_params; p++) {
        if (strcmp(g->params[p].name, name) != 0) continue;
        CHECK(shape_equal(&g->params[p].shape, &spec.shape), "%s declared twice with different shapes", name);
        return find_state(g, spec.buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, 0);
    }
    RESERVE(g->params, g->n_params, g->cap_params);
    spec.name = name;
    g->params[g->n_params++] = spec;
    return graph_state(g, spec.buffer ? ROLE_BUFFER : ROLE_WEIGHT, g->n_params - 1);
}

Val graph_state(Graph *g, StateRole role, int32_t param) {
    CHECK(param >= 0 && param < g->n_params, "parameter %d of %d", param, g->n_params);
    CHECK(g->params[param].buffer == (role == ROLE_BUFFER), "%s has no such role", g->params[param].name);
    Val v = find_state(g, role, param, 0);
    if (v != NO_VAL) return v;
    return add_value(g, (Value){.shape = g->params[param].shape, .dtype = DT_F32, .kind = V_STATE,
                                .name = g->params[param].name, .def = -1, .role = role, .param = param});
}

Val graph_state_group(Graph *g, StateRole role, int32_t group) {
    static const char *const names[] = {"decayed parameters", "other parameters", "all parameters"};
    Val v = find_state(g, role, -1, group);
    if (v != NO_VAL) return v;
    FlatLayout layout = graph_flat_layout(g);
    free(layout.offset);
    int64_t count = group == PARAMS_DECAYED ? layout.decayed
                    : group == PARAMS_OTHER ? layout.total - layout.decayed
                                            : layout.total;
    return add_value(g, (Value){.shape = SHAPE(count),
                                .dtype = DT_F32,
                                .kind = V_STATE,
                                .name = names[group],
                                .def = -1,
                                .role = role,
                                .param = -1,
                                .group = group});
}

FlatLayout graph_flat_layout(const Graph *g) {
    FlatLayout f = {.offset = mem_zalloc((size_t)g->n_params, sizeof(int64_t))};
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t p = 0; p < g->n_params; p++) {
            const ParamSpec *s = &g->params[p];
            if (s->buffer || s->decay != (pass == 0)) continue;
            f.offset[p] = f.total;
            f.total += ROUND_UP(shape_count(&s->shape), 16);
        }
        if (pass == 0) f.decayed = f.total;
    }
    for (int32_t p = 0; p < g->n_params; p++) {
        if (!g->params[p].buffer) continue;
        f.offset[p] = f.buffers;
        f.buffers += ROUND_UP(shape_count(&g->params[p].shape), 16);
    }
    return f;
}

void graph_emit(Graph *g, OpId op, Attr attr, const Val *in, int n_in, Val *out) {
    const OpDef *def = op_def[op];
    const char *name = keep_string(g, g->scope, def->name);
    CHECK(n_in >= def->min_in && n_in <= def->max_in, "%s: %d inputs", name, n_in);
    Node n = {.op = op, .n_in = def->max_in, .n_out = def->n_out, .first = g->n_operands, .attr = attr, .name = name};
    for (int i = 0; i < def->max_in; i++) {
        Val v = i < n_in ? in[i] : NO_VAL;
        CHECK(v >= NO_VAL && v < g->n_values, "%s: input %d does not exist yet", name, i);
        CHECK(v != NO_VAL || i >= def->min_in, "%s: input %d is absent", name, i);
        RESERVE(g->operand, g->n_operands, g->cap_operands);
        g->operand[g->n_operands++] = v;
    }
    Type types[MAX_OUT];
    const char *misfit = def->infer(g, &n, types);
    if (!misfit) misfit = op_check_types(g, &n, types);
    CHECK(!misfit, "%s: %s", name, misfit);
    int32_t id = g->n_nodes;
    for (int i = 0; i < def->n_out; i++) {
        Val v = add_value(
            g,
            (Value){
                .shape = types[i].shape, .dtype = types[i].dtype, .kind = V_ACT, .name = name, .def = id, .param = -1});
        RESERVE(g->operand, g->n_operands, g->cap_operands);
        g->operand[g->n_operands++] = v;
        if (out) out[i] = v;
    }
    RESERVE(g->nodes, g->n_nodes, g->cap_nodes);
    g->nodes[g->n_nodes++] = n;
}
