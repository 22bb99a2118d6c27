/* onnx_build.c - names, constants and nodes of an ONNX file being put together. */
#include "io/onnx_build.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void onnx_builder_free(OnnxBuilder *b) {
    for (int32_t i = 0; i < b->initializer_count; i++) free(b->initializers[i].data);
    for (int32_t i = 0; i < b->string_count; i++) free(b->strings[i]);
    free(b->initializers);
    free(b->ropes);
    free(b->strings);
    free(b->tensor);
    protobuf_free(&b->proto);
    *b = (OnnxBuilder){0};
}

Tensor onnx_name(OnnxBuilder *b, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK(n > 0 && (size_t)n < sizeof text, "a name of %d bytes", n);
    b->strings = mem_resize(b->strings, (size_t)b->string_count + 1, sizeof *b->strings);
    return b->strings[b->string_count++] = mem_strdup(text);
}

/* ---- constants ---- */

static Tensor find_initializer(const OnnxBuilder *b, const char *name) {
    for (int32_t i = 0; i < b->initializer_count; i++)
        if (strcmp(b->initializers[i].name, name) == 0) return b->initializers[i].name;
    return NULL;
}

static Tensor add_initializer(OnnxBuilder *b, OnnxInitializer x) {
    b->initializers = mem_resize(b->initializers, (size_t)b->initializer_count + 1, sizeof *b->initializers);
    b->initializers[b->initializer_count++] = x;
    return x.name;
}

Tensor onnx_operand(OnnxBuilder *b, Val v) {
    if (b->tensor[v]) return b->tensor[v];
    const Value *x = graph_value(b->graph, v);
    CHECK(x->kind == V_STATE && x->param >= 0, "%s: used before it was emitted", x->name);
    OnnxInitializer i = {.name = x->name, .type = ONNX_FLOAT, .shape = x->shape, .param = x->param};
    return b->tensor[v] = add_initializer(b, i);
}

Tensor onnx_parameter(OnnxBuilder *b, Val v, Shape shape) {
    if (shape_equal(&graph_value(b->graph, v)->shape, &shape)) return onnx_operand(b, v);
    return onnx_node(b, "Reshape", IN(onnx_operand(b, v), onnx_ints(b, shape.dim, shape.rank)), NO_ATTR);
}

Tensor onnx_floats(OnnxBuilder *b, Tensor name, Shape shape, float *data) {
    Tensor same = find_initializer(b, name);
    if (same) free(data);
    return same ? same : add_initializer(b, (OnnxInitializer){name, ONNX_FLOAT, shape, -1, data});
}

Tensor onnx_scalar(OnnxBuilder *b, float value) {
    float *data = mem_zalloc(1, sizeof *data);
    *data = value;
    return onnx_floats(b, onnx_name(b, "constant/%.9g", (double)value), (Shape){0}, data);
}

Tensor onnx_ints(OnnxBuilder *b, const int64_t *values, int count) {
    char name[128] = "constant/[";
    for (int i = 0; i < count; i++) {
        size_t used = strlen(name);
        snprintf(name + used, sizeof name - used, "%s%lld", i ? "," : "", (long long)values[i]);
    }
    size_t used = strlen(name);
    snprintf(name + used, sizeof name - used, "]");
    Tensor same = find_initializer(b, name);
    if (same) return same;
    int64_t *data = mem_zalloc((size_t)count, sizeof *data);
    memcpy(data, values, (size_t)count * sizeof *data);
    return add_initializer(b, (OnnxInitializer){onnx_name(b, "%s", name), ONNX_INT64, SHAPE(count), -1, data});
}

/* ---- nodes: field numbers of NodeProto and AttributeProto ---- */

static void write_attr(Protobuf *p, const OnnxAttr *a) {
    size_t begin = protobuf_begin(p, 5);
    protobuf_string(p, 1, a->name);
    CHECK(isfinite(a->number), "attribute %s is %g", a->name, (double)a->number);
    if (a->type == ATTR_FLOAT) protobuf_float(p, 2, a->number);
    if (a->type == ATTR_INT) protobuf_int(p, 3, a->ints[0]);
    for (int i = 0; a->type == ATTR_INTS && i < a->count; i++) protobuf_int(p, 8, a->ints[i]);
    protobuf_int(p, 20, a->type);
    protobuf_end(p, begin);
}

void onnx_nodes(OnnxBuilder *b, const char *type, const Tensor *in, int n_in, const OnnxAttr *attr, int n_attr,
                Tensor *out, int n_out) {
    Tensor name = onnx_name(b, "%s/%s_%d", b->scope, type, b->serial++);
    size_t begin = protobuf_begin(&b->proto, 1);
    for (int i = 0; i < n_in; i++) protobuf_string(&b->proto, 1, in[i]);
    for (int i = 0; i < n_out; i++) {
        out[i] = n_out == 1 ? name : onnx_name(b, "%s:%d", name, i);
        protobuf_string(&b->proto, 2, out[i]);
    }
    protobuf_string(&b->proto, 3, name);
    protobuf_string(&b->proto, 4, type);
    for (int i = 0; i < n_attr; i++) write_attr(&b->proto, &attr[i]);
    protobuf_end(&b->proto, begin);
}

Tensor onnx_node(OnnxBuilder *b, const char *type, const Tensor *in, int n_in, const OnnxAttr *attr, int n_attr) {
    Tensor out;
    onnx_nodes(b, type, in, n_in, attr, n_attr, &out, 1);
    return out;
}
