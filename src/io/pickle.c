/* pickle.c - the stack machine. Room io; what an opcode may do is written in step(), all else is refused. */
#include "io/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/pickle_torch.h"

const char *pickle_kind_name(PickleKind kind) {
    static const char *const names[] = {"None",   "a bool", "an integer", "a number",  "a string", "a tuple",
                                        "a list", "a dict", "a type",     "a storage", "a tensor", "an object"};
    return names[kind];
}

/* ---- the machine ---- */

typedef struct {
    Pickle *p;
    const uint8_t *bytes;
    size_t count, at, opcode; /* opcode: where the current one began */
    PickleId *stack;
    uint32_t depth, stack_capacity;
    uint32_t marks[PICKLE_MAX_DEPTH]; /* depths of the stack */
    int mark_count;
    PickleId *memo; /* 0: not set */
    uint32_t memo_capacity;
} Machine;

static bool fail_at(const Pickle *p, size_t at, Err *err, const char *format, va_list args) {
    char what[600];
    vsnprintf(what, sizeof what, format, args);
    return err_set(err, EXIT_INPUT, "%s: byte %zu: %s", p->path, p->first_byte + at, what);
}

bool pickle_fail(const Pickle *p, PickleId about, Err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_at(p, p->values[about].at, err, format, args);
    va_end(args);
    return false;
}

static bool fail(const Machine *m, Err *err, const char *format, ...) PRINTF_LIKE(3, 4);
static bool fail(const Machine *m, Err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_at(m->p, m->opcode, err, format, args);
    va_end(args);
    return false;
}

/* "module.name" */
static const char *text_of_global(char *out, size_t room, PickleText text) {
    const char *end = memchr(text.text, '\n', text.count);
    int module = (int)(end - text.text), name = (int)text.count - module - 1;
    snprintf(out, room, "%.*s.%.*s", module, text.text, name, end + 1);
    return out;
}

const char *pickle_global_name(char *out, size_t room, const Pickle *p, PickleId id) {
    const PickleValue *v = &p->values[id];
    if ((v->kind == PICKLE_GLOBAL || v->kind == PICKLE_OPAQUE) && v->text.count > 0)
        return text_of_global(out, room, v->text);
    snprintf(out, room, "%s", pickle_kind_name(v->kind));
    return out;
}

/* Makes room for one more item; NULL at the limit, which bounds what a pickle can cost. */
static void *grown(const Machine *m, void *items, uint32_t *capacity, uint32_t count, size_t size, Err *err) {
    if (count < *capacity) return items;
    if (count >= PICKLE_MAX_VALUES) {
        fail(m, err, "more than %d values", PICKLE_MAX_VALUES);
        return NULL;
    }
    *capacity = MIN(MAX(2 * *capacity, (uint32_t)256), (uint32_t)PICKLE_MAX_VALUES);
    return mem_resize(items, *capacity, size);
}

static bool push(Machine *m, PickleId id, Err *err) {
    PickleId *stack = grown(m, m->stack, &m->stack_capacity, m->depth, sizeof *m->stack, err);
    if (!stack) return false;
    m->stack = stack;
    m->stack[m->depth++] = id;
    return true;
}

static bool add_value(Machine *m, PickleId *out, PickleValue value, Err *err) {
    Pickle *p = m->p;
    PickleValue *values = grown(m, p->values, &p->value_capacity, p->value_count, sizeof value, err);
    if (!values) return false;
    p->values = values;
    value.at = m->opcode;
    *out = p->value_count;
    p->values[p->value_count++] = value;
    return true;
}

static bool push_value(Machine *m, PickleValue value, Err *err) {
    PickleId id = 0;
    return add_value(m, &id, value, err) && push(m, id, err);
}

/* Things below the last mark belong to what was begun before it. */
static bool pop(Machine *m, PickleId *out, Err *err) {
    uint32_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth <= floor) return fail(m, err, "an opcode with nothing to work on");
    *out = m->stack[--m->depth];
    return true;
}

/* The values above the last mark, which goes; they stay in m->stack[m->depth ...] until the next push. */
static bool pop_mark(Machine *m, uint32_t *count, Err *err) {
    if (m->mark_count == 0) return fail(m, err, "an opcode without its mark");
    uint32_t floor = m->marks[--m->mark_count];
    *count = m->depth - floor;
    m->depth = floor;
    return true;
}

/* The value on top, which stays. */
static bool top(Machine *m, PickleId *out, Err *err) {
    if (!pop(m, out, err)) return false;
    m->depth++;
    return true;
}

static bool take_bytes(Machine *m, const uint8_t **out, size_t count, Err *err) {
    if (count > m->count - m->at) return fail(m, err, "an opcode that runs past the end of the pickle");
    *out = m->bytes + m->at;
    m->at += count;
    return true;
}

/* A little-endian number of up to 8 bytes that follows the opcode. */
static bool take_uint(Machine *m, uint64_t *out, size_t bytes, Err *err) {
    const uint8_t *p = NULL;
    if (!take_bytes(m, &p, bytes, err)) return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++) *out |= (uint64_t)p[i] << 8 * i;
    return true;
}

/* ---- opcodes ---- */

static bool push_integer(Machine *m, size_t bytes, Err *err) {
    uint64_t value;
    if (!take_uint(m, &value, bytes, err)) return false;
    int64_t integer = bytes == 4 ? (int32_t)(uint32_t)value : (int64_t)value; /* BININT alone has a sign */
    return push_value(m, (PickleValue){.kind = PICKLE_INT, .integer = integer}, err);
}

/* LONG1: two's complement of any length; beyond 64 bits it is of no use here */
static bool push_long(Machine *m, Err *err) {
    uint64_t bytes;
    const uint8_t *p = NULL;
    if (!take_uint(m, &bytes, 1, err) || !take_bytes(m, &p, (size_t)bytes, err)) return false;
    if (bytes > 8) return push_value(m, (PickleValue){.kind = PICKLE_OPAQUE}, err);
    uint64_t value = bytes > 0 && p[bytes - 1] >= 128 ? UINT64_MAX : 0;
    for (size_t i = (size_t)bytes; i-- > 0;) value = value << 8 | p[i];
    return push_value(m, (PickleValue){.kind = PICKLE_INT, .integer = (int64_t)value}, err);
}

static bool push_float(Machine *m, Err *err) {
    const uint8_t *p = NULL;
    if (!take_bytes(m, &p, 8, err)) return false;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* big-endian, the only number here that is */
    PickleValue v = {.kind = PICKLE_FLOAT};
    memcpy(&v.number, &bits, 8);
    return push_value(m, v, err);
}

static bool push_text(Machine *m, size_t length_bytes, Err *err) {
    uint64_t count;
    const uint8_t *p = NULL;
    if (!take_uint(m, &count, length_bytes, err) || !take_bytes(m, &p, (size_t)count, err)) return false;
    return push_value(m, (PickleValue){.kind = PICKLE_STRING, .text = {(const char *)p, (size_t)count}}, err);
}

/* "module\nname\n", each of printable ASCII: a name that only looks like torch's is another name. */
static bool take_global(Machine *m, PickleText *out, Err *err) {
    size_t begin = m->at;
    for (int line = 0; line < 2; line++) {
        size_t first = m->at;
        while (m->at < m->count && m->bytes[m->at] > 0x20 && m->bytes[m->at] < 0x7f) m->at++;
        if (m->at == first || m->at - first > PICKLE_MAX_LINE || m->at == m->count || m->bytes[m->at] != '\n')
            return fail(m, err, "a global whose name is no line of 1..%d printable characters", PICKLE_MAX_LINE);
        m->at++;
    }
    *out = (PickleText){(const char *)m->bytes + begin, m->at - 1 - begin};
    return true;
}

static bool push_global(Machine *m, Err *err) {
    PickleValue v = {.kind = PICKLE_GLOBAL};
    if (!take_global(m, &v.text, err)) return false;
    if (pickle_global_known(v.text)) return push_value(m, v, err);
    v.kind = PICKLE_OPAQUE;
    if (pickle_global_inert(v.text)) return push_value(m, v, err);
    char name[200];
    return fail(m, err, "names %s, which no weights need and is not among the values that are stepped over - save "
                "state_dict() of the model with torch.save", text_of_global(name, sizeof name, v.text));
}

/* Opcodes that torch.save does not write; two of them name a global, which is worth saying. */
static bool fail_opcode(Machine *m, uint8_t opcode, Err *err) {
    PickleText global = {0};
    char name[200] = "";
    Err no_name = {0};
    const PickleValue *values = m->p->values;
    if (opcode == 'i' && take_global(m, &global, &no_name)) { /* INST */
        text_of_global(name, sizeof name, global);
    } else if (opcode == 0x93 && m->depth >= 2) { /* STACK_GLOBAL */
        const PickleValue *module = &values[m->stack[m->depth - 2]], *last = &values[m->stack[m->depth - 1]];
        if (module->kind == PICKLE_STRING && last->kind == PICKLE_STRING)
            snprintf(name, sizeof name, "%.*s.%.*s", (int)MIN(module->text.count, PICKLE_MAX_LINE), module->text.text,
                     (int)MIN(last->text.count, PICKLE_MAX_LINE), last->text.text);
    }
    return fail(m, err, "opcode 0x%02x%s%s, which torch.save does not write - save the checkpoint's state_dict again",
                opcode, name[0] ? " for " : "", name);
}

static bool fail_depth(const Machine *m, Err *err) {
    return fail(m, err, "values nested deeper than %d", PICKLE_MAX_DEPTH);
}

/* Depths are a promise about what a checkpoint may look like, not what keeps this reader safe: nothing here descends.
 * So a container that is already in another and gets deeper does not tell it. */
static bool add_item(Machine *m, PickleId container, PickleId key, PickleId value, Err *err) {
    Pickle *p = m->p;
    PickleValue *c = &p->values[container];
    PickleItem *items = grown(m, p->items, &p->item_capacity, p->item_count, sizeof *items, err);
    if (!items) return false;
    p->items = items;
    if (p->values[value].depth >= PICKLE_MAX_DEPTH) return fail_depth(m, err);
    c->depth = MAX(c->depth, (uint16_t)(p->values[value].depth + 1));
    p->items[p->item_count] = (PickleItem){.key = key, .value = value};
    if (c->items.count++ == 0)
        c->items.first = p->item_count;
    else
        p->items[c->items.last].next = p->item_count;
    c->items.last = p->item_count++;
    return true;
}

/* A tuple of `count` values, which were popped and lie above the stack's top. */
static bool push_tuple(Machine *m, uint32_t count, Err *err) {
    PickleId tuple = 0;
    if (!add_value(m, &tuple, (PickleValue){.kind = PICKLE_TUPLE}, err)) return false;
    for (uint32_t i = 0; i < count; i++)
        if (!add_item(m, tuple, 0, m->stack[m->depth + i], err)) return false;
    return push(m, tuple, err);
}

static bool push_small_tuple(Machine *m, uint32_t count, Err *err) {
    PickleId unused;
    for (uint32_t i = 0; i < count; i++)
        if (!pop(m, &unused, err)) return false;
    return push_tuple(m, count, err);
}

/* Appends to the list on top `count` popped values. An object's items go where the object goes: nowhere. */
static bool append(Machine *m, uint32_t count, Err *err) {
    PickleId list = 0;
    const uint32_t first = m->depth;
    if (!top(m, &list, err)) return false;
    PickleKind kind = m->p->values[list].kind;
    if (kind == PICKLE_OPAQUE) return true;
    if (kind != PICKLE_LIST) return fail(m, err, "items are appended to %s", pickle_kind_name(kind));
    for (uint32_t i = 0; i < count; i++)
        if (!add_item(m, list, 0, m->stack[first + i], err)) return false;
    return true;
}

static bool set_items(Machine *m, uint32_t count, Err *err) {
    PickleId dict = 0;
    const uint32_t first = m->depth;
    if (!top(m, &dict, err)) return false;
    PickleKind kind = m->p->values[dict].kind;
    if (count % 2 != 0) return fail(m, err, "a key without its value");
    if (kind == PICKLE_OPAQUE) return true;
    if (kind != PICKLE_DICT) return fail(m, err, "items are set in %s", pickle_kind_name(kind));
    for (uint32_t i = 0; i < count; i += 2) {
        PickleId key = m->stack[first + i];
        PickleKind key_kind = m->p->values[key].kind;
        if (key_kind == PICKLE_LIST || key_kind == PICKLE_DICT || key_kind == PICKLE_TENSOR)
            return fail(m, err, "%s is a key", pickle_kind_name(key_kind));
        if (!add_item(m, dict, key, m->stack[first + i + 1], err)) return false;
    }
    return true;
}

/* REDUCE and NEWOBJ. What a global that is stepped over makes keeps its name and nothing else. */
static bool call(Machine *m, bool is_new, Err *err) {
    PickleId arguments = 0, callable = 0;
    if (!pop(m, &arguments, err) || !pop(m, &callable, err)) return false;
    const PickleValue *f = &m->p->values[callable];
    if (m->p->values[arguments].kind != PICKLE_TUPLE)
        return fail(m, err, "%s stands where a tuple of arguments belongs",
                    pickle_kind_name(m->p->values[arguments].kind));
    if (f->kind == PICKLE_OPAQUE && f->text.count > 0)
        return push_value(m, (PickleValue){.kind = PICKLE_OPAQUE, .text = f->text}, err);
    char name[120];
    if (f->kind != PICKLE_GLOBAL || is_new)
        return fail(m, err, "%s is called", pickle_global_name(name, sizeof name, m->p, callable));
    PickleValue made = {0};
    return pickle_reduce(&made, m->p, callable, arguments, err) && push_value(m, made, err);
}

/* BUILD: attributes of an object; state dicts carry a _metadata that nobody needs. */
static bool build(Machine *m, Err *err) {
    PickleId state = 0, object = 0;
    if (!pop(m, &state, err) || !top(m, &object, err)) return false;
    PickleKind kind = m->p->values[object].kind;
    return kind == PICKLE_DICT || kind == PICKLE_OPAQUE ||
           fail(m, err, "attributes are set in %s", pickle_kind_name(kind));
}

static bool push_storage(Machine *m, Err *err) {
    PickleId id = 0;
    PickleValue v = {0};
    return pop(m, &id, err) && pickle_persistent(&v, m->p, id, err) && push_value(m, v, err);
}

static bool memo_put(Machine *m, size_t bytes, Err *err) {
    uint64_t index;
    PickleId value = 0;
    if (!take_uint(m, &index, bytes, err) || !top(m, &value, err)) return false;
    if (index >= PICKLE_MAX_VALUES)
        return fail(m, err, "memo entry %ju, at most %d", (uintmax_t)index, PICKLE_MAX_VALUES);
    if (index >= m->memo_capacity) {
        uint32_t capacity = MAX((uint32_t)index + 1, MIN(2 * m->memo_capacity, (uint32_t)PICKLE_MAX_VALUES));
        m->memo = mem_resize(m->memo, capacity, sizeof *m->memo);
        memset(m->memo + m->memo_capacity, 0, (capacity - m->memo_capacity) * sizeof *m->memo);
        m->memo_capacity = capacity;
    }
    if (m->memo[index]) return fail(m, err, "memo entry %ju is set twice", (uintmax_t)index);
    m->memo[index] = value;
    return true;
}

static bool memo_get(Machine *m, size_t bytes, Err *err) {
    uint64_t index;
    if (!take_uint(m, &index, bytes, err)) return false;
    if (index >= m->memo_capacity || !m->memo[index])
        return fail(m, err, "memo entry %ju is used before it is set", (uintmax_t)index);
    return push(m, m->memo[index], err);
}

static bool push_mark(Machine *m, Err *err) {
    if (m->mark_count == PICKLE_MAX_DEPTH) return fail_depth(m, err);
    m->marks[m->mark_count++] = m->depth;
    return true;
}

static bool stop(Machine *m, Err *err) {
    if (!pop(m, &m->p->root, err)) return false;
    if (m->depth != 0 || m->mark_count != 0) return fail(m, err, "the pickle ends with more than one value");
    m->opcode = m->at;
    return m->at == m->count || fail(m, err, "bytes after the end of the pickle");
}

static bool step(Machine *m, uint8_t opcode, Err *err) {
    uint32_t count = 0;
    PickleId value = 0;
    switch (opcode) {
    case '(': return push_mark(m, err);
    case ')': return push_tuple(m, 0, err);
    case 't': return pop_mark(m, &count, err) && push_tuple(m, count, err);
    case 0x85: return push_small_tuple(m, 1, err);
    case 0x86: return push_small_tuple(m, 2, err);
    case 0x87: return push_small_tuple(m, 3, err);
    case ']': return push_value(m, (PickleValue){.kind = PICKLE_LIST}, err);
    case '}': return push_value(m, (PickleValue){.kind = PICKLE_DICT}, err);
    case 'a': return pop(m, &value, err) && append(m, 1, err);
    case 'e': return pop_mark(m, &count, err) && append(m, count, err);
    case 's': return pop(m, &value, err) && pop(m, &value, err) && set_items(m, 2, err);
    case 'u': return pop_mark(m, &count, err) && set_items(m, count, err);
    case 'N': return push_value(m, (PickleValue){.kind = PICKLE_NONE}, err);
    case 0x88: return push_value(m, (PickleValue){.kind = PICKLE_BOOL, .integer = 1}, err);
    case 0x89: return push_value(m, (PickleValue){.kind = PICKLE_BOOL}, err);
    case 'J': return push_integer(m, 4, err);
    case 'K': return push_integer(m, 1, err);
    case 'M': return push_integer(m, 2, err);
    case 0x8a: return push_long(m, err);
    case 'G': return push_float(m, err);
    case 'X': return push_text(m, 4, err);
    case 'U': return push_text(m, 1, err); /* a str of Python 2 */
    case 'c': return push_global(m, err);
    case 'R': return call(m, false, err);
    case 0x81: return call(m, true, err);
    case 'b': return build(m, err);
    case 'Q': return push_storage(m, err);
    case 'q': return memo_put(m, 1, err);
    case 'r': return memo_put(m, 4, err);
    case 'h': return memo_get(m, 1, err);
    case 'j': return memo_get(m, 4, err);
    default: return fail_opcode(m, opcode, err);
    }
}

static bool run(Machine *m, Err *err) {
    CHECK(m->count <= PICKLE_MAX_BYTES, "%zu", m->count);
    if (m->count < 2 || m->bytes[0] != 0x80 || m->bytes[1] != 2)
        return fail(m, err, "not a pickle of protocol 2 - save the checkpoint with torch.save and its defaults");
    for (m->at = 2; m->at < m->count;) {
        m->opcode = m->at++;
        uint8_t opcode = m->bytes[m->opcode];
        if (opcode == '.') return stop(m, err);
        if (!step(m, opcode, err)) return false;
    }
    m->opcode = m->at;
    return fail(m, err, "the pickle does not end");
}

bool pickle_read(Pickle *out, const char *path, size_t first_byte, const uint8_t *bytes, size_t count, Err *err) {
    *out = (Pickle){.path = path, .first_byte = first_byte, .value_count = 1, .item_count = 1};
    Machine *m = mem_zalloc(1, sizeof *m);
    *m = (Machine){.p = out, .bytes = bytes, .count = count};
    out->values = mem_zalloc(out->value_capacity = 256, sizeof *out->values); /* [0]: none */
    out->items = mem_zalloc(out->item_capacity = 256, sizeof *out->items);
    bool ok = run(m, err);
    free(m->stack);
    free(m->memo);
    free(m);
    return ok;
}

void pickle_free(Pickle *p) {
    free(p->values);
    free(p->items);
    p->values = NULL, p->items = NULL;
}
