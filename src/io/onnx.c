#include "io/onnx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "io/onnx_build.h"

#define IR_VERSION 8                   /* the one that came with opset 17 */
#define MAX_FILE ((uint64_t)INT32_MAX) /* protobuf's limit for a message */

/* ---- the graph ---- */

/* Which nodes lead to the outputs; malloc'd. */
static bool *needed_nodes(const Graph *g, const OnnxSpec *spec) {
    bool *needed = mem_zalloc((size_t)g->n_nodes + 1, sizeof *needed);
    for (int i = 0; i < spec->output_count; i++) {
        int32_t def = graph_value(g, spec->outputs[i].value)->def;
        if (def >= 0) needed[def] = true;
    }
    for (int32_t k = g->n_nodes - 1; k >= 0; k--) {
        for (int i = 0; needed[k] && i < g->nodes[k].n_in; i++) {
            Val v = node_in(g, &g->nodes[k], i);
            if (v != NO_VAL && g->values[v].def >= 0) needed[g->values[v].def] = true;
        }
    }
    return needed;
}

static bool emit_nodes(OnnxBuilder *b, const OnnxSpec *spec, Err *err) {
    const Graph *g = b->graph;
    bool *needed = needed_nodes(g, spec), ok = true;
    for (int32_t k = 0; ok && k < g->n_nodes; k++) {
        const Node *n = &g->nodes[k];
        if (!needed[k]) continue;
        b->scope = n->name;
        if (onnx_emitter[n->op])
            onnx_emitter[n->op](b, n);
        else
            ok = err_set(err, EXIT_BUG, "%s: op %s has no ONNX form - export the evaluation graph, unfused", n->name,
                         op_def[n->op]->name);
    }
    free(needed);
    return ok;
}

/* ---- inputs and outputs: field numbers of ValueInfoProto, TypeProto, TensorShapeProto ---- */

static void write_dimension(Protobuf *p, int64_t value, const char *symbol) {
    size_t begin = protobuf_begin(p, 1);
    if (symbol)
        protobuf_string(p, 2, symbol);
    else
        protobuf_int(p, 1, value);
    protobuf_end(p, begin);
}

/* "height", or "height/8" of a map an eighth as high as the picture */
static void write_side(Protobuf *p, const char *name, int64_t picture, int64_t side, bool dynamic) {
    char symbol[48];
    if (side == picture)
        snprintf(symbol, sizeof symbol, "%s", name);
    else
        snprintf(symbol, sizeof symbol, "%s/%lld", name, (long long)(picture / side));
    write_dimension(p, side, dynamic ? symbol : NULL);
}

/* A tensor (B,...) of the graph as it stands in the file. picture: the input's (B,H,W,3). */
static void write_value(Protobuf *p, int field, const char *name, const Value *v, const Shape *picture, bool dynamic) {
    size_t value = protobuf_begin(p, field);
    protobuf_string(p, 1, name);
    size_t type = protobuf_begin(p, 2), tensor = protobuf_begin(p, 1);
    protobuf_int(p, 1, v->dtype == DT_U8 ? ONNX_UINT8 : ONNX_FLOAT);
    size_t shape = protobuf_begin(p, 2);
    write_dimension(p, 0, "batch");
    bool map = v->shape.rank == 4, channels_last = v->dtype == DT_U8;
    if (map && !channels_last) write_dimension(p, v->shape.dim[3], NULL);
    if (map) {
        write_side(p, "height", picture->dim[1], v->shape.dim[1], dynamic);
        write_side(p, "width", picture->dim[2], v->shape.dim[2], dynamic);
    }
    if (!map || channels_last) write_dimension(p, shape_last(&v->shape), NULL);
    protobuf_end(p, shape);
    protobuf_end(p, tensor);
    protobuf_end(p, type);
    protobuf_end(p, value);
}

static const Value *picture_input(const Graph *g) {
    for (Val v = 0; v < g->n_values; v++)
        if (g->values[v].kind == V_INPUT && g->values[v].shape.rank == 4) return &g->values[v];
    CHECK(false, "a graph without pictures");
}

static void write_interface(OnnxBuilder *b, const OnnxSpec *spec) {
    const Graph *g = b->graph;
    const Value *picture = picture_input(g);
    write_value(&b->proto, 11, picture->name, picture, &picture->shape, b->dynamic_size);
    for (int i = 0; i < spec->output_count; i++) {
        const OnnxOutput *o = &spec->outputs[i];
        b->scope = o->name;
        size_t begin = protobuf_begin(&b->proto, 1); /* an Identity gives the output its name */
        protobuf_string(&b->proto, 1, onnx_operand(b, o->value));
        protobuf_string(&b->proto, 2, o->name);
        protobuf_string(&b->proto, 3, onnx_name(b, "%s/Identity", o->name));
        protobuf_string(&b->proto, 4, "Identity");
        protobuf_end(&b->proto, begin);
        write_value(&b->proto, 12, o->name, graph_value(g, o->value), &picture->shape, b->dynamic_size);
    }
    protobuf_string(&b->proto, 2, spec->name);
}

/* ---- the file ---- */

static bool check_metadata(const char *path, const OnnxSpec *spec, Err *err) {
    for (size_t i = 0; i < spec->metadata_count; i++) {
        const StoredPair *pair = &spec->metadata[i];
        if (!json_utf8_valid(pair->value, strlen(pair->value)))
            return err_set(err, EXIT_INPUT, "%s: metadata \"%s\" are not UTF-8 - rename the classes", path, pair->key);
    }
    return true;
}

/* A TensorProto up to its data, which the caller writes behind. */
static void write_tensor_head(Protobuf *p, const OnnxInitializer *x, size_t bytes) {
    for (int i = 0; i < x->shape.rank; i++) protobuf_int(p, 1, x->shape.dim[i]);
    protobuf_int(p, 2, x->type);
    protobuf_string(p, 8, x->name);
    protobuf_announce(p, 9, bytes);
}

static size_t data_bytes(const OnnxInitializer *x) {
    return (size_t)shape_count(&x->shape) * (x->type == ONNX_INT64 ? sizeof(int64_t) : sizeof(float));
}

/* Everything of a GraphProto.initializer but the data. */
static void write_initializer_head(Protobuf *p, const OnnxInitializer *x) {
    Protobuf head = {0};
    size_t bytes = data_bytes(x);
    write_tensor_head(&head, x, bytes);
    protobuf_announce(p, 5, head.count + bytes);
    protobuf_append(p, head.bytes, head.count);
    protobuf_free(&head);
}

static uint64_t initializers_bytes(const OnnxBuilder *b) {
    uint64_t total = 0;
    Protobuf head = {0};
    for (int32_t i = 0; i < b->initializer_count; i++) {
        head.count = 0;
        write_initializer_head(&head, &b->initializers[i]);
        total += head.count + data_bytes(&b->initializers[i]);
    }
    protobuf_free(&head);
    return total;
}

/* The ModelProto but its graph's content, which follows. */
static void write_model_head(Protobuf *p, const OnnxSpec *spec, uint64_t graph_bytes) {
    protobuf_int(p, 1, IR_VERSION);
    protobuf_string(p, 2, "mala");
    protobuf_string(p, 3, MALA_VERSION);
    size_t opset = protobuf_begin(p, 8);
    protobuf_string(p, 1, ""); /* the standard operators */
    protobuf_int(p, 2, ONNX_OPSET);
    protobuf_end(p, opset);
    for (size_t i = 0; i < spec->metadata_count; i++) {
        size_t pair = protobuf_begin(p, 14);
        protobuf_string(p, 1, spec->metadata[i].key);
        protobuf_string(p, 2, spec->metadata[i].value);
        protobuf_end(p, pair);
    }
    protobuf_announce(p, 7, graph_bytes);
}

static bool append_data(FileWriter *w, State *s, const OnnxInitializer *x, Err *err) {
    if (x->param < 0) return file_writer_append(w, x->data, data_bytes(x), err);
    int32_t p = state_find(s, x->name);
    CHECK(p >= 0 && shape_equal(&s->params[p].shape, &x->shape), "%s: another graph's state", x->name);
    void *host;
    if (!mem_try(&host, data_bytes(x), err)) return false;
    bool ok = state_require(s, p, err) &&
              state_read(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, err) &&
              file_writer_append(w, host, data_bytes(x), err);
    state_release(s, p);
    free(host);
    return ok;
}

static bool append_initializers(FileWriter *w, const OnnxBuilder *b, State *s, Err *err) {
    Protobuf head = {0};
    bool ok = true;
    for (int32_t i = 0; ok && i < b->initializer_count; i++) {
        head.count = 0;
        write_initializer_head(&head, &b->initializers[i]);
        ok = file_writer_append(w, head.bytes, head.count, err) && append_data(w, s, &b->initializers[i], err);
    }
    protobuf_free(&head);
    return ok;
}

static bool write_file(const char *path, const OnnxBuilder *b, State *s, const OnnxSpec *spec, Err *err) {
    uint64_t graph_bytes = b->proto.count + initializers_bytes(b);
    Protobuf model = {0};
    FileWriter w;
    write_model_head(&model, spec, graph_bytes);
    bool ok = model.count + graph_bytes <= MAX_FILE ||
              err_set(err, EXIT_INPUT, "%s: would have %.1f GiB, and ONNX files end at 2 GiB - export as safetensors",
                      path, (double)(model.count + graph_bytes) / (1 << 30));
    if (ok && (ok = file_writer_open(&w, path, err))) {
        ok = file_writer_append(&w, model.bytes, model.count, err) &&
             file_writer_append(&w, b->proto.bytes, b->proto.count, err) && append_initializers(&w, b, s, err);
        if (ok)
            ok = file_writer_commit(&w, err);
        else
            file_writer_discard(&w);
    }
    protobuf_free(&model);
    return ok;
}

bool onnx_export(const char *path, const Graph *g, State *s, const OnnxSpec *spec, Err *err) {
    OnnxBuilder b = {.graph = g, .dynamic_size = spec->dynamic_size};
    b.tensor = mem_zalloc((size_t)g->n_values, sizeof *b.tensor);
    for (Val v = 0; v < g->n_values; v++)
        if (g->values[v].kind == V_INPUT) b.tensor[v] = g->values[v].name;
    bool ok = check_metadata(path, spec, err) && emit_nodes(&b, spec, err);
    if (ok) {
        write_interface(&b, spec);
        ok = write_file(path, &b, s, spec, err);
    }
    onnx_builder_free(&b);
    return ok;
}
