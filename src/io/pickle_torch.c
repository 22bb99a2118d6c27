/* pickle_torch.c - the globals of torch's state dicts: storages, tensors, parameters, OrderedDict. Room io; every
 * argument's kind is checked, because a reader that trusts them reads memory of the attacker's choice. */
#include "io/pickle_torch.h"

#include <stdio.h>
#include <string.h>

#define UNTYPED STORED_TYPE_COUNT
#define MAX_RANK 64 /* torch's */

/* torch's element types by the names of their storages and of their dtypes; "" where there is none */
static const struct {
    const char *storage, *dtype;
    StoredType type;
} types[] = {
    {"torch\nFloatStorage", "torch\nfloat32", STORED_F32},
    {"torch\nDoubleStorage", "torch\nfloat64", STORED_F64},
    {"torch\nHalfStorage", "torch\nfloat16", STORED_F16},
    {"torch\nBFloat16Storage", "torch\nbfloat16", STORED_BF16},
    {"torch\nByteStorage", "torch\nuint8", STORED_U8},
    {"torch\nCharStorage", "torch\nint8", STORED_I8},
    {"torch\nShortStorage", "torch\nint16", STORED_I16},
    {"torch\nIntStorage", "torch\nint32", STORED_I32},
    {"torch\nLongStorage", "torch\nint64", STORED_I64},
    {"torch\nBoolStorage", "torch\nbool", STORED_BOOL},
    {"torch\nComplexFloatStorage", "torch\ncomplex64", STORED_C64},
    {"", "torch\nuint16", STORED_U16},
    {"", "torch\nuint32", STORED_U32},
    {"", "torch\nuint64", STORED_U64},
    {"torch\nUntypedStorage", "", UNTYPED},
    {"torch.storage\nUntypedStorage", "", UNTYPED},
};

bool pickle_text_is(PickleText text, const char *wanted) {
    return text.count == strlen(wanted) && text.count > 0 && memcmp(text.text, wanted, text.count) == 0;
}

bool pickle_stored_type(StoredType *out, bool *untyped, const Pickle *p, PickleId id) {
    const PickleValue *v = &p->values[id];
    if (v->kind != PICKLE_GLOBAL) return false;
    for (size_t i = 0; i < COUNTOF(types); i++) {
        if (!pickle_text_is(v->text, types[i].storage) && !pickle_text_is(v->text, types[i].dtype)) continue;
        *untyped = types[i].type == UNTYPED;
        *out = *untyped ? STORED_U8 : types[i].type;
        return true;
    }
    return false;
}

/* ---- arguments ---- */

/* The items of a tuple, at most room of them; their number. */
static size_t tuple_items(PickleId *out, size_t room, const Pickle *p, PickleId tuple) {
    size_t n = 0;
    for (uint32_t i = p->values[tuple].items.first; i && n < room; i = p->items[i].next) out[n++] = p->items[i].value;
    return p->values[tuple].items.count;
}

static bool is_kind(const Pickle *p, PickleId id, PickleKind kind) { return p->values[id].kind == kind; }

static bool is_type(const Pickle *p, PickleId id) {
    return is_kind(p, id, PICKLE_GLOBAL) || is_kind(p, id, PICKLE_OPAQUE);
}

/* The limit keeps a million tensors of one shape of a million dimensions from taking forever. */
static bool is_int_tuple(const Pickle *p, PickleId id) {
    if (!is_kind(p, id, PICKLE_TUPLE) || p->values[id].items.count > MAX_RANK) return false;
    for (uint32_t i = p->values[id].items.first; i; i = p->items[i].next)
        if (!is_kind(p, p->items[i].value, PICKLE_INT)) return false;
    return true;
}

static bool fail_arguments(const Pickle *p, PickleId global, PickleId about, const char *wanted, Err *err) {
    char name[120];
    return pickle_fail(p, about, err, "%s with other arguments than %s",
                       pickle_global_name(name, sizeof name, p, global), wanted);
}

/* ---- what the globals make ---- */

/* collections.OrderedDict() */
static bool make_dict(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err) {
    if (p->values[arguments].items.count != 0) return fail_arguments(p, global, arguments, "none", err);
    out->kind = PICKLE_DICT;
    return true;
}

/* torch.Size((2, 3)) */
static bool make_size(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err) {
    PickleId a[1] = {0};
    if (tuple_items(a, 1, p, arguments) != 1 || !is_int_tuple(p, a[0]))
        return fail_arguments(p, global, arguments, "a tuple of up to 64 integers", err);
    out->kind = PICKLE_TUPLE;
    out->items = p->values[a[0]].items;
    return true;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]) and
 * _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]) */
static bool make_tensor(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err) {
    PickleId a[8] = {0};
    bool typed = pickle_text_is(p->values[global].text, "torch._utils\n_rebuild_tensor_v3");
    size_t n = tuple_items(a, 8, p, arguments), least = typed ? 7 : 6;
    if ((n != least && n != least + 1) || !is_kind(p, a[0], PICKLE_STORAGE) || !is_kind(p, a[1], PICKLE_INT) ||
        !is_int_tuple(p, a[2]) || !is_int_tuple(p, a[3]) || !is_kind(p, a[4], PICKLE_BOOL) ||
        (typed && !is_type(p, a[6])))
        return fail_arguments(p, global, arguments, "a storage, offset, size, stride, flag and hooks", err);
    out->kind = PICKLE_TENSOR;
    out->tensor.storage = a[0];
    out->tensor.offset = p->values[a[1]].integer;
    out->tensor.size = a[2];
    out->tensor.stride = a[3];
    out->tensor.type = typed ? a[6] : 0;
    return true;
}

/* _rebuild_parameter(tensor, requires_grad, hooks): a parameter is its tensor */
static bool make_parameter(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err) {
    PickleId a[3] = {0};
    if (tuple_items(a, 3, p, arguments) != 3 || !is_kind(p, a[0], PICKLE_TENSOR) || !is_kind(p, a[1], PICKLE_BOOL))
        return fail_arguments(p, global, arguments, "a tensor, flag and hooks", err);
    *out = p->values[a[0]];
    return true;
}

static const struct {
    const char *global;
    bool (*make)(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err);
} makers[] = {
    {"collections\nOrderedDict", make_dict},
    {"torch\nSize", make_size},
    {"torch._utils\n_rebuild_tensor_v2", make_tensor},
    {"torch._utils\n_rebuild_tensor_v3", make_tensor},
    {"torch._utils\n_rebuild_parameter", make_parameter},
};

bool pickle_global_known(PickleText text) {
    for (size_t i = 0; i < COUNTOF(types); i++)
        if (pickle_text_is(text, types[i].storage) || pickle_text_is(text, types[i].dtype)) return true;
    for (size_t i = 0; i < COUNTOF(makers); i++)
        if (pickle_text_is(text, makers[i].global)) return true;
    return false;
}

bool pickle_reduce(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err) {
    for (size_t i = 0; i < COUNTOF(makers); i++)
        if (pickle_text_is(p->values[global].text, makers[i].global))
            return makers[i].make(out, p, global, arguments, err);
    char name[120];
    return pickle_fail(p, global, err, "%s is a type and no function",
                       pickle_global_name(name, sizeof name, p, global));
}

/* A storage's key: a decimal number, as torch counts them. */
static bool read_record(uint32_t *out, PickleText text) {
    uint32_t value = 0;
    if (text.count == 0 || text.count > 9 || (text.count > 1 && text.text[0] == '0')) return false;
    for (size_t i = 0; i < text.count; i++) {
        if (text.text[i] < '0' || text.text[i] > '9') return false;
        value = 10 * value + (uint32_t)(text.text[i] - '0');
    }
    *out = value;
    return true;
}

bool pickle_persistent(PickleValue *out, const Pickle *p, PickleId id, Err *err) {
    PickleId a[5] = {0};
    if (!is_kind(p, id, PICKLE_TUPLE) || tuple_items(a, 5, p, id) != 5 || !is_kind(p, a[0], PICKLE_STRING) ||
        !pickle_text_is(p->values[a[0]].text, "storage") || !is_type(p, a[1]) || !is_kind(p, a[2], PICKLE_STRING) ||
        !is_kind(p, a[3], PICKLE_STRING) || !is_kind(p, a[4], PICKLE_INT))
        return pickle_fail(p, id, err, "a persistent id that is not (\"storage\", type, key, device, elements)");
    out->kind = PICKLE_STORAGE;
    out->storage.type = a[1];
    out->storage.elements = p->values[a[4]].integer;
    if (out->storage.elements < 0 || !read_record(&out->storage.record, p->values[a[2]].text))
        return pickle_fail(p, id, err, "a storage whose key is no number or whose size is negative");
    return true;
}
