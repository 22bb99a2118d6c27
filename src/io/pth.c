/* pth.c - finds the weights in a PyTorch checkpoint. Room io; refuses whatever a weight would need and torch's own
 * safe loader would not make. */
#include "io/pth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/pickle.h"
#include "io/zip.h"

#define NAME "\"%.120s\""
#define MAX_GATHERED 2 /* times the file's size */
#define MAX_NAMED 10   /* objects that are named as stepped over */
#define MAX_MARK 16    /* bytes of "little", "3" and the like */

typedef struct {
    TensorFile *file;
    Zip zip;
    Pickle pickle;
    uint8_t *pickle_bytes;
    size_t top; /* bytes of the folder's name and its '/' */
    enum { UNCHECKED = 0, CRC_CHECKED = 1, BOOL_CHECKED = 2 } *checked; /* [zip.count] */
    size_t gathered;
    size_t text_used;
} Reader;

bool pth_fits(const uint8_t *head) { return memcmp(head, "PK\3\4", 4) == 0; }

/* ---- the archive ---- */

static bool is_number(const char *text) { return text[0] && text[strspn(text, "0123456789")] == '\0'; }

/* Every entry is one that torch writes: what else is there might be meant for a reader that sees another file. */
static bool check_names(Reader *r, Err *err) {
    static const char *const known[] = {"data.pkl",           "version", "byteorder", ".format_version",
                                        ".storage_alignment", ".data/serialization_id"};
    const char *first = r->zip.entries[0].name, *path = r->file->path;
    r->top = strcspn(first, "/") + 1;
    for (size_t i = 0; i < r->zip.count; i++) {
        const char *name = r->zip.entries[i].name;
        bool fine = first[r->top - 1] == '/' && strncmp(name, first, r->top) == 0;
        const char *rest = fine ? name + r->top : name;
        if (fine && (strncmp(rest, "code/", 5) == 0 || strcmp(rest, "constants.pkl") == 0))
            return err_set(err, EXIT_INPUT,
                           "%s: is a TorchScript module, which is not read - save its state_dict() with "
                           "torch.save",
                           path);
        fine = fine && strncmp(rest, "data/", 5) == 0 && is_number(rest + 5);
        for (size_t k = 0; k < COUNTOF(known); k++) fine = fine || strcmp(rest, known[k]) == 0;
        if (!fine)
            return err_set(err, EXIT_INPUT, "%s: byte %zu: entry " NAME " is none of a PyTorch checkpoint", path,
                           r->zip.entries[i].begin, name);
    }
    return true;
}

/* The entry of the folder with this name, or NULL. */
static const ZipEntry *find_entry(const Reader *r, const char *name) {
    char full[ZIP_MAX_NAME + 32];
    snprintf(full, sizeof full, "%.*s%s", (int)r->top, r->zip.entries[0].name, name);
    return zip_find(&r->zip, full);
}

/* An entry of a word, without the end of its line; "" when there is no such entry or it is longer than any word. */
static bool read_mark(const Reader *r, const ZipEntry *e, char out[MAX_MARK], Err *err) {
    memset(out, 0, MAX_MARK);
    if (!e || e->bytes >= MAX_MARK) return true;
    if (!zip_read(&r->zip, e, out, err)) return false;
    char *last = out + strlen(out);
    if (last > out && last[-1] == '\n') last[-1] = '\0';
    return true;
}

static bool check_marks(const Reader *r, Err *err) {
    const ZipEntry *order = find_entry(r, "byteorder"), *version = find_entry(r, "version");
    const char *path = r->file->path;
    char order_is[MAX_MARK], version_is[MAX_MARK];
    if (!read_mark(r, order, order_is, err) || !read_mark(r, version, version_is, err)) return false;
    if (order && strcmp(order_is, "little") != 0)
        return err_set(err, EXIT_INPUT,
                       "%s: byte %zu: the byte order is not \"little\" - save the checkpoint again on a "
                       "little-endian machine",
                       path, order->begin);
    bool known = false;
    for (int i = 1; version && i <= 10; i++) { /* torch's kMinSupportedFileFormatVersion and kMax... */
        char text[12];
        snprintf(text, sizeof text, "%d", i);
        known = known || strcmp(version_is, text) == 0;
    }
    return known || err_set(err, EXIT_INPUT, "%s: byte %zu: the format's version is not stated or not 1..10", path,
                            version ? version->begin : (size_t)0);
}

/* ---- which weights ---- */

/* The value under a key of a dict, 0 when there is none. */
static bool dict_find(const Pickle *p, PickleId dict, const char *key, PickleId *out, Err *err) {
    *out = 0;
    for (uint32_t i = p->values[dict].items.first; i; i = p->items[i].next) {
        const PickleValue *k = &p->values[p->items[i].key];
        if (k->kind != PICKLE_STRING || !pickle_text_is(k->text, key)) continue;
        if (*out) return pickle_fail(p, p->items[i].key, err, "key \"%s\" appears twice", key);
        *out = p->items[i].value;
    }
    return true;
}

static bool fail_object(const Reader *r, PickleId id, const char *where, Err *err) {
    char name[200];
    return pickle_fail(&r->pickle, id, err, "%s%s is not read - save state_dict() of the model with torch.save", where,
                       pickle_global_name(name, sizeof name, &r->pickle, id));
}

static const struct {
    const char *key;
    bool averaged;
} parts[] = {{"model_ema", true}, {"state_dict_ema", true}, {"model", false}, {"state_dict", false}};

bool pth_is_part(const char *key) {
    for (size_t i = 0; i < COUNTOF(parts); i++)
        if (strcmp(key, parts[i].key) == 0) return true;
    return false;
}

static bool choose_part(Reader *r, PickleId *out, EmaChoice ema, Err *err) {
    const Pickle *p = &r->pickle;
    if (p->values[p->root].kind != PICKLE_DICT) return fail_object(r, p->root, "a checkpoint that is ", err);
    for (size_t i = 0; i < COUNTOF(parts); i++) {
        if (ema == (parts[i].averaged ? EMA_NO : EMA_YES)) continue;
        if (!dict_find(p, p->root, parts[i].key, out, err)) return false;
        const PickleValue *v = &p->values[*out];
        r->file->part = parts[i].key, r->file->averaged = parts[i].averaged;
        if (v->kind == PICKLE_DICT && v->items.count > 0) return true;
        char where[64];
        snprintf(where, sizeof where, "\"%s\" of kind ", parts[i].key);
        if (v->kind == PICKLE_OPAQUE) return fail_object(r, *out, where, err);
    }
    if (ema == EMA_YES)
        return err_set(err, EXIT_INPUT, "%s: has no averaged weights (model_ema or state_dict_ema) - leave --ema out",
                       r->file->path);
    r->file->part = "", r->file->averaged = false;
    *out = p->root;
    return true;
}

/* ---- tensors ---- */

static const char *keep_text(Reader *r, PickleText text) {
    char *kept = r->file->text + r->text_used;
    memcpy(kept, text.text, text.count);
    kept[text.count] = '\0';
    r->text_used += text.count + 1;
    return kept;
}

static bool take_name(Reader *r, StoredTensor *t, PickleId key, Err *err) {
    const Pickle *p = &r->pickle;
    const PickleValue *v = &p->values[key];
    if (v->kind != PICKLE_STRING)
        return pickle_fail(p, key, err, "%s is no name of a tensor", pickle_kind_name(v->kind));
    PickleText name = v->text;
    bool fine = name.count > 0 && json_utf8_valid(name.text, name.count);
    for (size_t i = 0; fine && i < name.count; i++) fine = (unsigned char)name.text[i] >= 0x20 && name.text[i] != 0x7f;
    if (!fine) return pickle_fail(p, key, err, "the name of a tensor is empty or no text");
    t->name = keep_text(r, name);
    return true;
}

/* Sizes and strides, none negative; their number. */
static bool take_shape(const Reader *r, StoredTensor *t, int64_t *strides, PickleId id, Err *err) {
    const Pickle *p = &r->pickle;
    const PickleValue *v = &p->values[id], *size = &p->values[v->tensor.size], *stride = &p->values[v->tensor.stride];
    if (size->items.count != stride->items.count || size->items.count > STORED_MAX_RANK)
        return pickle_fail(p, id, err, "tensor " NAME " has %u sizes and %u strides, at most %d", t->name,
                           size->items.count, stride->items.count, STORED_MAX_RANK);
    uint32_t s = stride->items.first;
    for (uint32_t i = size->items.first; i; i = p->items[i].next, s = p->items[s].next) {
        t->shape[t->rank] = p->values[p->items[i].value].integer;
        strides[t->rank] = p->values[p->items[s].value].integer;
        if (strides[t->rank++] < 0) return pickle_fail(p, id, err, "tensor " NAME " has a negative stride", t->name);
    }
    const char *problem = stored_tensor_measure(t);
    return !problem || pickle_fail(p, id, err, "tensor " NAME " has %s", t->name, problem);
}

/* The entry with a storage's elements and their number, which must be what the pickle says. Sets t->dtype. */
static bool find_storage(Reader *r, const ZipEntry **out, size_t *elements, StoredTensor *t, PickleId id, Err *err) {
    const Pickle *p = &r->pickle;
    const PickleValue *v = &p->values[id], *storage = &p->values[v->tensor.storage];
    PickleId type = storage->storage.type;
    bool untyped, untyped_view;
    size_t size = 1, bytes;
    char name[200];
    if (pickle_stored_type(&t->dtype, &untyped, p, type) && v->tensor.type) type = v->tensor.type;
    if (!pickle_stored_type(&t->dtype, &untyped_view, p, type) || (v->tensor.type && untyped_view))
        return pickle_fail(p, id, err, "tensor " NAME " has elements of type %s, which is not read", t->name,
                           pickle_global_name(name, sizeof name, p, type));
    if (!untyped) size = (size_t)stored_type_bits(t->dtype) / 8;
    snprintf(name, sizeof name, "data/%u", storage->storage.record);
    *out = find_entry(r, name);
    if (!*out) return pickle_fail(p, id, err, "tensor " NAME " needs \"%s\", which is not in the file", t->name, name);
    if (!size_mul((size_t)storage->storage.elements, size, &bytes) || bytes != (*out)->bytes)
        return pickle_fail(p, id, err, "tensor " NAME " needs %jd elements in \"%s\", which has %zu bytes", t->name,
                           (intmax_t)storage->storage.elements, name, (*out)->bytes);
    *elements = bytes / ((size_t)stored_type_bits(t->dtype) / 8);
    return true;
}

/* Of a storage that is used: its CRC, and its BOOLs, which of a stranger may be any byte. Once, however many tensors
 * view it. */
static bool check_storage(Reader *r, const ZipEntry *e, const StoredTensor *t, Err *err) {
    size_t index = (size_t)(e - r->zip.entries);
    if (r->checked[index] == UNCHECKED && !zip_check(&r->zip, e, err)) return false;
    r->checked[index] = MAX(r->checked[index], CRC_CHECKED);
    if (t->dtype != STORED_BOOL || r->checked[index] == BOOL_CHECKED) return true;
    if (!stored_bools_check(t, e->data, e->bytes, err)) return false;
    r->checked[index] = BOOL_CHECKED;
    return true;
}

/* Does the view stay inside its storage, and is it no larger? *span: elements from its first to behind its last. */
static bool check_view(size_t *span, const Reader *r, const StoredTensor *t, const int64_t *strides, size_t elements,
                       PickleId id, Err *err) {
    int64_t offset = r->pickle.values[id].tensor.offset;
    size_t last = offset < 0 ? SIZE_MAX : (size_t)offset;
    for (int i = 0; i < t->rank && t->count > 0; i++) {
        size_t way;
        if (!size_mul((size_t)t->shape[i] - 1, (size_t)strides[i], &way) || !size_add(last, way, &last))
            last = SIZE_MAX;
    }
    if (t->count > 0 ? last >= elements : last > elements)
        return pickle_fail(&r->pickle, id, err, "tensor " NAME " reaches outside its storage of %zu elements", t->name,
                           elements);
    if (t->count > elements)
        return pickle_fail(&r->pickle, id, err, "tensor " NAME " repeats elements: %zu of a storage of %zu - save it "
                           "with .contiguous()", t->name, t->count, elements);
    *span = t->count > 0 ? last - (size_t)offset + 1 : 0;
    return true;
}

static bool is_row_major(const StoredTensor *t, const int64_t *strides) {
    int64_t expected = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && strides[i] != expected) return false;
        expected *= t->shape[i];
    }
    return true;
}

static void gather(uint8_t *out, const uint8_t *data, const StoredTensor *t, const int64_t *strides) {
    size_t size = (size_t)stored_type_bits(t->dtype) / 8, at = 0; /* at: in elements */
    int64_t index[STORED_MAX_RANK] = {0};
    for (size_t i = 0; i < t->count; i++) {
        memcpy(out + i * size, data + at * size, size);
        for (int d = t->rank - 1; d >= 0; d--) {
            at += (size_t)strides[d];
            if (++index[d] < t->shape[d]) break;
            at -= (size_t)strides[d] * (size_t)t->shape[d];
            index[d] = 0;
        }
    }
}

/* A view that is not row-major is gathered from the bytes that it spans, which are read for it. */
static bool take_data(Reader *r, StoredTensor *t, const int64_t *strides, size_t span, const ZipEntry *e, PickleId id,
                      Err *err) {
    const size_t size = (size_t)stored_type_bits(t->dtype) / 8;
    t->at = e->data + (size_t)r->pickle.values[id].tensor.offset * size;
    if (t->count == 0 || is_row_major(t, strides)) return true;
    r->gathered += MAX(span * size, t->bytes);
    if (r->gathered > MAX_GATHERED * r->file->reader->count)
        return pickle_fail(&r->pickle, id, err, "tensor " NAME " is one of too many views of the same data - save them "
                           "with .contiguous()", t->name);
    void *owned, *data = NULL;
    if (!mem_try(&owned, t->bytes, err)) return false;
    r->file->owned = mem_resize(r->file->owned, r->file->owned_count + 1, sizeof *r->file->owned);
    r->file->owned[r->file->owned_count++] = owned;
    bool ok = mem_try(&data, span * size, err) && file_reader_read(r->file->reader, data, t->at, span * size, err);
    if (ok) gather(owned, data, t, strides);
    free(data);
    t->data = owned;
    return ok;
}

static bool take_tensor(Reader *r, const PickleItem *item, Err *err) {
    const Pickle *p = &r->pickle;
    StoredTensor t = {.file = r->file->reader};
    int64_t strides[STORED_MAX_RANK];
    const ZipEntry *entry = NULL;
    size_t elements = 0, span = 0;
    PickleKind kind = p->values[item->value].kind;
    char name[200];
    if (!take_name(r, &t, item->key, err)) return false;
    if (kind != PICKLE_TENSOR)
        return pickle_fail(p, item->value, err, NAME " is %s where a tensor belongs - weights lie under model_ema, "
                           "state_dict_ema, model or state_dict, or are all the file holds", t.name,
                           pickle_global_name(name, sizeof name, p, item->value));
    if (!find_storage(r, &entry, &elements, &t, item->value, err) || !take_shape(r, &t, strides, item->value, err) ||
        !check_view(&span, r, &t, strides, elements, item->value, err) || !check_storage(r, entry, &t, err) ||
        !take_data(r, &t, strides, span, entry, item->value, err))
        return false;
    r->file->tensors[r->file->tensor_count++] = t;
    return true;
}

/* text_bytes: of the metadata, which are kept with the names */
static bool take_tensors(Reader *r, PickleId dict, size_t text_bytes, Err *err) {
    const Pickle *p = &r->pickle;
    const uint32_t first = p->values[dict].items.first, count = p->values[dict].items.count;
    if (count > PTH_MAX_TENSORS) return pickle_fail(p, dict, err, "more than %d tensors", PTH_MAX_TENSORS);
    for (uint32_t i = first; i; i = p->items[i].next) {
        const PickleValue *key = &p->values[p->items[i].key];
        size_t bytes = key->kind == PICKLE_STRING ? key->text.count + 1 : 0;
        /* a key that is shared counts each time: a pickle of a few bytes may repeat a long one a million times */
        if (!size_add(text_bytes, bytes, &text_bytes) || text_bytes > PICKLE_MAX_BYTES)
            return pickle_fail(p, p->items[i].key, err, "more than %zu bytes of names and metadata", PICKLE_MAX_BYTES);
    }
    r->file->text = mem_zalloc(text_bytes, 1);
    r->file->tensors = mem_zalloc(count, sizeof *r->file->tensors);
    for (uint32_t i = first; i; i = p->items[i].next)
        if (!take_tensor(r, &p->items[i], err)) return false;
    return true;
}

/* ---- metadata ---- */

static bool is_plain_text(const PickleValue *v) {
    return v->kind == PICKLE_STRING && !memchr(v->text.text, 0, v->text.count) &&
           json_utf8_valid(v->text.text, v->text.count);
}

/* The dict of metadata, which only is one if it has a few texts and nothing else, or 0; bytes that they take. */
static bool find_metadata(const Reader *r, PickleId *out, size_t *bytes, Err *err) {
    const Pickle *p = &r->pickle;
    *out = 0, *bytes = 0;
    if (!r->file->part[0]) return true; /* the root is the weights */
    PickleId dict;
    if (!dict_find(p, p->root, PTH_METADATA, &dict, err)) return false;
    const PickleValue *v = &p->values[dict];
    if (v->kind != PICKLE_DICT || v->items.count > PTH_MAX_METADATA) return true;
    for (uint32_t i = v->items.first; i; i = p->items[i].next) {
        const PickleValue *key = &p->values[p->items[i].key], *value = &p->values[p->items[i].value];
        if (!is_plain_text(key) || !is_plain_text(value)) return true;
        *bytes += key->text.count + value->text.count + 2;
    }
    *out = dict;
    return true;
}

static bool take_metadata(Reader *r, PickleId dict, Err *err) {
    const Pickle *p = &r->pickle;
    TensorFile *f = r->file;
    if (!dict) return true;
    f->metadata = mem_zalloc(p->values[dict].items.count, sizeof *f->metadata);
    for (uint32_t i = p->values[dict].items.first; i; i = p->items[i].next) {
        const PickleValue *key = &p->values[p->items[i].key], *value = &p->values[p->items[i].value];
        StoredPair pair = {.key = keep_text(r, key->text)};
        if (tensor_file_metadata(f, pair.key))
            return pickle_fail(p, p->items[i].key, err, "key " NAME " of the metadata appears twice", pair.key);
        pair.value = keep_text(r, value->text);
        f->metadata[f->metadata_count++] = pair;
    }
    return true;
}

/* ---- the whole ---- */

/* Names the kinds of objects that the pickle makes and nobody reads, each once. */
static void note_objects(Reader *r) {
    const Pickle *p = &r->pickle;
    const PickleValue *seen[MAX_NAMED];
    char text[MAX_NAMED * 130 + 8], name[128];
    size_t count = 0, used = 0;
    for (uint32_t id = 1; id < p->value_count; id++) {
        const PickleValue *v = &p->values[id];
        bool known = v->kind != PICKLE_OPAQUE || v->text.count == 0;
        for (size_t i = 0; i < count && !known; i++)
            known =
                seen[i]->text.count == v->text.count && memcmp(seen[i]->text.text, v->text.text, v->text.count) == 0;
        if (known) continue;
        bool full = count == MAX_NAMED;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "",
                                 full ? "..." : pickle_global_name(name, sizeof name, p, id));
        if (full) break;
        seen[count++] = v;
    }
    if (used > 0) r->file->stepped_over = mem_strdup(text);
}

static bool read_pickle(Reader *r, Err *err) {
    const char *path = r->file->path;
    const ZipEntry *e = find_entry(r, "data.pkl");
    void *bytes;
    if (!e) return err_set(err, EXIT_INPUT, "%s: is a zip archive without a data.pkl - not a PyTorch checkpoint", path);
    if (e->bytes > PICKLE_MAX_BYTES)
        return err_set(err, EXIT_INPUT, "%s: byte %zu: a pickle of %zu bytes, at most %zu", path, e->data, e->bytes,
                       PICKLE_MAX_BYTES);
    if (!mem_try(&bytes, e->bytes, err)) return false;
    r->pickle_bytes = bytes;
    return zip_read(&r->zip, e, bytes, err) && pickle_read(&r->pickle, path, e->data, bytes, e->bytes, err);
}

static bool read_archive(Reader *r, EmaChoice ema, Err *err) {
    PickleId weights = 0, metadata = 0;
    size_t metadata_bytes = 0;
    if (!zip_open(&r->zip, r->file->reader, err) || !check_names(r, err)) return false;
    r->checked = mem_zalloc(r->zip.count, sizeof *r->checked);
    if (!check_marks(r, err) || !read_pickle(r, err) || !choose_part(r, &weights, ema, err) ||
        !find_metadata(r, &metadata, &metadata_bytes, err) || !take_tensors(r, weights, metadata_bytes, err) ||
        !take_metadata(r, metadata, err))
        return false;
    note_objects(r);
    return true;
}

bool pth_read(TensorFile *file, const TensorFileOptions *options, Err *err) {
    Reader r = {.file = file};
    bool ok = read_archive(&r, options->ema, err);
    pickle_free(&r.pickle);
    zip_close(&r.zip);
    free(r.checked);
    free(r.pickle_bytes);
    return ok;
}
