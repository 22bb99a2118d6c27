/* safetensors.c - reads and writes one safetensors file. Room io: bytes of strangers in, bytes for anyone out.
 *
 * Reading is one pass over the header, which checks each tensor by itself, and one over the sorted tensors, which
 * proves that they tile the data. Of the data only BOOLs are read. Every product and sum of numbers from the file is
 * checked before it is used. */
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the format is little-endian and this file copies its numbers as they lie"
#endif

#define LENGTH_BYTES ((size_t)8)
#define DATA_ALIGNMENT ((size_t)64)
#define METADATA_KEY "__metadata__"
#define NAME "\"%.120s\"" /* in messages: a name may be a megabyte long */

/* ---- reading ---- */

/* The header's length N, or 0 when the first bytes cannot begin such a file. */
static size_t header_length(const uint8_t head[SAFETENSORS_HEAD], size_t file_bytes) {
    uint64_t n = 0;
    if (file_bytes <= LENGTH_BYTES) return 0;
    memcpy(&n, head, LENGTH_BYTES);
    bool fits = n <= SAFETENSORS_MAX_HEADER && n <= file_bytes - LENGTH_BYTES;
    return fits && memchr(" \t\r\n{", head[LENGTH_BYTES], 5) ? (size_t)n : 0;
}

bool safetensors_fits(const uint8_t head[SAFETENSORS_HEAD], size_t file_bytes) {
    return header_length(head, file_bytes) > 0;
}

static bool fail_length(const TensorFile *st, const uint8_t head[SAFETENSORS_HEAD], Err *err) {
    const size_t file_bytes = st->reader->count;
    uint64_t n = 0;
    if (file_bytes <= LENGTH_BYTES)
        return err_set(err, EXIT_INPUT, "%s: %zu bytes are too short for a model file - fetch it again", st->path,
                       file_bytes);
    memcpy(&n, head, LENGTH_BYTES);
    if (n > 0 && n <= file_bytes - LENGTH_BYTES && n <= SAFETENSORS_MAX_HEADER)
        return err_set(err, EXIT_INPUT, "%s: byte 8: 0x%02x does not begin a header, '{' does - not a safetensors file",
                       st->path, head[LENGTH_BYTES]);
    if (n > 0 && n <= SAFETENSORS_MAX_HEADER)
        return err_set(err, EXIT_INPUT, "%s: byte 0: a header of %ju bytes in a file of %zu - cut off, fetch it again",
                       st->path, (uintmax_t)n, file_bytes);
    return err_set(err, EXIT_INPUT, "%s: byte 0: a header of %ju bytes, the format has 1..%d - not a safetensors file",
                   st->path, (uintmax_t)n, SAFETENSORS_MAX_HEADER);
}

typedef struct {
    TensorFile *st;
    JsonReader json;
    size_t data, data_bytes; /* where in the file they begin; how many there are */
    size_t text_used, tensor_capacity, metadata_capacity;
} Parser;

/* Keeps a decoded string. All of them together fit into as many bytes as the header has: a string loses its quotes,
 * gains a '\0', and no escape is shorter than what it stands for. So st->text never moves. */
static const char *keep(Parser *p, const JsonToken *token) {
    char *kept = p->st->text + p->text_used;
    memcpy(kept, token->text, token->count + 1);
    p->text_used += token->count + 1;
    return kept;
}

/* Makes room for one more item. */
static void *grown(void *items, size_t *capacity, size_t count, size_t size) {
    if (count < *capacity) return items;
    *capacity = MAX(2 * *capacity, (size_t)64);
    return mem_resize(items, *capacity, size);
}

static bool parse_metadata(Parser *p, Err *err) {
    JsonToken token;
    if (!json_expect(&p->json, &token, JSON_OBJECT, err)) return false;
    TensorFile *st = p->st;
    while (json_next(&p->json, &token, err)) {
        if (token.kind == JSON_OBJECT_END) return true;
        if (st->metadata_count == SAFETENSORS_MAX_METADATA)
            return json_fail(&p->json, &token, err, "more than %d metadata entries", SAFETENSORS_MAX_METADATA);
        StoredPair pair = {.key = keep(p, &token)};
        if (!json_expect(&p->json, &token, JSON_STRING, err)) return false;
        pair.value = keep(p, &token);
        st->metadata = grown(st->metadata, &p->metadata_capacity, st->metadata_count, sizeof pair);
        st->metadata[st->metadata_count++] = pair;
    }
    return false;
}

static bool parse_dtype(Parser *p, StoredTensor *t, Err *err) {
    JsonToken token;
    if (!json_expect(&p->json, &token, JSON_STRING, err)) return false;
    for (int i = 0; i < STORED_TYPE_COUNT; i++) {
        t->dtype = (StoredType)i;
        if (strcmp(token.text, stored_type_name((StoredType)i)) == 0) return true;
    }
    return json_fail(&p->json, &token, err, "tensor " NAME " has an unknown dtype " NAME, t->name, token.text);
}

static bool parse_shape(Parser *p, StoredTensor *t, Err *err) {
    JsonToken token;
    if (!json_expect(&p->json, &token, JSON_ARRAY, err)) return false;
    while (json_next(&p->json, &token, err)) {
        if (token.kind == JSON_ARRAY_END) return true;
        if (token.kind != JSON_NUMBER || !token.is_uint || token.integer > (uint64_t)STORED_MAX_DIM)
            return json_fail(&p->json, &token, err, "tensor " NAME " has a dimension that is no integer in 0..2^40",
                             t->name);
        if (t->rank == STORED_MAX_RANK)
            return json_fail(&p->json, &token, err, "tensor " NAME " has more than %d dimensions", t->name,
                             STORED_MAX_RANK);
        t->shape[t->rank++] = (int64_t)token.integer;
    }
    return false;
}

/* Sets t->at and *range: the bytes that data_offsets claims, inside the file. */
static bool parse_offsets(Parser *p, StoredTensor *t, size_t *range, Err *err) {
    JsonToken open, token;
    uint64_t at[2];
    if (!json_expect(&p->json, &open, JSON_ARRAY, err)) return false;
    for (int i = 0; i < 2; i++) {
        if (!json_expect(&p->json, &token, JSON_NUMBER, err)) return false;
        if (!token.is_uint)
            return json_fail(&p->json, &token, err, "tensor " NAME " has an offset that is no integer", t->name);
        at[i] = token.integer;
    }
    if (!json_expect(&p->json, &token, JSON_ARRAY_END, err)) return false;
    if (at[0] > at[1]) return json_fail(&p->json, &open, err, "tensor " NAME " ends before it begins", t->name);
    if (at[1] > p->data_bytes)
        return json_fail(&p->json, &open, err,
                         "tensor " NAME " ends at byte %ju of the data, the file has %zu - cut off, fetch it again",
                         t->name, (uintmax_t)at[1], p->data_bytes);
    t->at = p->data + (size_t)at[0];
    *range = (size_t)(at[1] - at[0]);
    return true;
}

/* Reads the value of a tensor's key and adds the tensor. */
static bool parse_tensor(Parser *p, const JsonToken *key, Err *err) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    TensorFile *st = p->st;
    StoredTensor t = {.name = keep(p, key), .file = st->reader};
    size_t range = 0;
    int seen = 0;
    JsonToken token;
    if (st->tensor_count == SAFETENSORS_MAX_TENSORS)
        return json_fail(&p->json, key, err, "more than %d tensors", SAFETENSORS_MAX_TENSORS);
    if (!json_expect(&p->json, &token, JSON_OBJECT, err)) return false;
    for (;;) {
        if (!json_next(&p->json, &token, err)) return false;
        if (token.kind == JSON_OBJECT_END) break;
        bool fine;
        if (strcmp(token.text, "dtype") == 0)
            seen |= DTYPE, fine = parse_dtype(p, &t, err);
        else if (strcmp(token.text, "shape") == 0)
            seen |= SHAPE, fine = parse_shape(p, &t, err);
        else if (strcmp(token.text, "data_offsets") == 0)
            seen |= OFFSETS, fine = parse_offsets(p, &t, &range, err);
        else
            fine = json_fail(&p->json, &token, err, "tensor " NAME " has an unknown key " NAME, t.name, token.text);
        if (!fine) return false;
    }
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return json_fail(&p->json, &token, err, "tensor " NAME " has no %s", t.name,
                         !(seen & DTYPE)   ? "dtype"
                         : !(seen & SHAPE) ? "shape"
                                           : "data_offsets");
    const char *problem = stored_tensor_measure(&t);
    if (problem) return json_fail(&p->json, &token, err, "tensor " NAME " has %s", t.name, problem);
    if (t.bytes != range)
        return json_fail(&p->json, &token, err, "tensor " NAME " needs %zu bytes, its offsets span %zu", t.name,
                         t.bytes, range);
    if (t.dtype == STORED_BOOL && !stored_bools_check(&t, t.at, t.bytes, err)) return false;
    st->tensors = grown(st->tensors, &p->tensor_capacity, st->tensor_count, sizeof t);
    st->tensors[st->tensor_count++] = t;
    return true;
}

static bool parse_header(Parser *p, Err *err) {
    JsonToken token;
    if (!json_expect(&p->json, &token, JSON_OBJECT, err)) return false;
    for (;;) {
        if (!json_next(&p->json, &token, err)) return false;
        if (token.kind == JSON_OBJECT_END) return json_expect(&p->json, &token, JSON_END, err);
        bool fine = strcmp(token.text, METADATA_KEY) == 0 ? parse_metadata(p, err) : parse_tensor(p, &token, err);
        if (!fine) return false;
    }
}

static int by_data(const void *a, const void *b) {
    const StoredTensor *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty ones before the one that lies there */
    return strcmp(x->name, y->name);
}

/* No byte of the data belongs to no tensor or to two: nothing can hide, and nothing is read as two things. */
static bool check_tiling(const TensorFile *st, size_t data, Err *err) {
    size_t at = data, end = st->reader->count;
    for (size_t i = 0; i < st->tensor_count; i++) {
        const StoredTensor *t = &st->tensors[i];
        if (t->at < at)
            return err_set(err, EXIT_INPUT, "%s: byte %zu: tensor " NAME " overlaps the one before it by %zu bytes",
                           st->path, t->at, t->name, at - t->at);
        if (t->at > at)
            return err_set(err, EXIT_INPUT, "%s: byte %zu: the %zu bytes before tensor " NAME " belong to no tensor",
                           st->path, at, t->at - at, t->name);
        at = t->at + t->bytes;
    }
    if (at != end)
        return err_set(err, EXIT_INPUT, "%s: byte %zu: the last %zu bytes belong to no tensor", st->path, at, end - at);
    return true;
}

bool safetensors_read(TensorFile *st, Err *err) {
    uint8_t head[SAFETENSORS_HEAD] = {0};
    const size_t file_bytes = st->reader->count;
    if (!file_reader_read(st->reader, head, 0, MIN(sizeof head, file_bytes), err)) return false;
    size_t n = header_length(head, file_bytes);
    void *text, *header = NULL;
    if (n == 0) return fail_length(st, head, err);
    if (!mem_try(&text, n, err)) return false;
    st->text = text;
    Parser p = {.st = st, .data = LENGTH_BYTES + n, .data_bytes = file_bytes - LENGTH_BYTES - n};
    JsonSource source = {.name = st->path, .code = EXIT_INPUT, .bytes = true, .first_byte = LENGTH_BYTES};
    bool ok = mem_try(&header, n, err) && file_reader_read(st->reader, header, LENGTH_BYTES, n, err) &&
              json_open(&p.json, header, n, source, err) && parse_header(&p, err);
    json_close(&p.json);
    free(header);
    if (!ok) return false;
    if (st->tensor_count > 1) qsort(st->tensors, st->tensor_count, sizeof *st->tensors, by_data);
    return check_tiling(st, p.data, err);
}

/* ---- writing ---- */

static bool check_name(const char *path, const char *name, Err *err) {
    if (name[0] == '\0' || strcmp(name, METADATA_KEY) == 0)
        return err_set(err, EXIT_INPUT, "%s: not written: " NAME " cannot be a name", path, name);
    bool control = false;
    for (const char *c = name; *c; c++) control |= (unsigned char)*c < 0x20;
    if (control || !json_utf8_valid(name, strlen(name)))
        return err_set(err, EXIT_INPUT, "%s: not written: the name " NAME " is not UTF-8 text", path, name);
    return true;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Sorts names to see whether two are equal. */
static bool check_unique(const char *path, const char **names, size_t count, Err *err) {
    if (count > 1) qsort(names, count, sizeof *names, by_text);
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return err_set(err, EXIT_INPUT, "%s: not written: two are named " NAME, path, names[i]);
    return true;
}

static bool check_all(const char *path, const StoredTensor *tensors, size_t tensor_count, const StoredPair *metadata,
                      size_t metadata_count, Err *err) {
    if (tensor_count > SAFETENSORS_MAX_TENSORS || metadata_count > SAFETENSORS_MAX_METADATA)
        return err_set(err, EXIT_INPUT, "%s: not written: %zu tensors and %zu metadata entries, at most %d and %d",
                       path, tensor_count, metadata_count, SAFETENSORS_MAX_TENSORS, SAFETENSORS_MAX_METADATA);
    const char **names = mem_zalloc(MAX(tensor_count, metadata_count), sizeof *names);
    bool ok = true;
    for (size_t i = 0; ok && i < tensor_count; i++) ok = check_name(path, names[i] = tensors[i].name, err);
    ok = ok && check_unique(path, names, tensor_count, err);
    for (size_t i = 0; ok && i < metadata_count; i++) {
        ok = check_name(path, names[i] = metadata[i].key, err);
        if (ok && !json_utf8_valid(metadata[i].value, strlen(metadata[i].value)))
            ok = err_set(err, EXIT_INPUT, "%s: not written: the metadata " NAME " is not UTF-8 text", path, names[i]);
    }
    ok = ok && check_unique(path, names, metadata_count, err);
    free(names);
    return ok;
}

/* One tensor's header entry; *at, its offset, moves to its end. */
static bool write_entry(JsonWriter *w, const char *path, const StoredTensor *tensor, size_t *at, Err *err) {
    StoredTensor t = *tensor;
    size_t end;
    CHECK(t.rank >= 0 && t.rank <= STORED_MAX_RANK && t.dtype < STORED_TYPE_COUNT, "%s", t.name);
    const char *problem = stored_tensor_measure(&t);
    if (!problem && !size_add(*at, t.bytes, &end)) problem = "a size that overflows the file";
    if (problem) return err_set(err, EXIT_INPUT, "%s: not written: tensor " NAME " has %s", path, t.name, problem);
    json_write_key(w, t.name);
    json_write_object(w);
    json_write_key(w, "dtype");
    json_write_string(w, stored_type_name(t.dtype));
    json_write_key(w, "shape");
    json_write_array(w);
    for (int i = 0; i < t.rank; i++) json_write_int(w, t.shape[i]);
    json_write_end(w);
    json_write_key(w, "data_offsets");
    json_write_array(w);
    json_write_uint(w, *at);
    json_write_uint(w, end);
    json_write_end(w);
    json_write_end(w);
    *at = end;
    return true;
}

static bool write_header(JsonWriter *w, const char *path, const StoredTensor *tensors, size_t tensor_count,
                         const StoredPair *metadata, size_t metadata_count, Err *err) {
    size_t at = 0;
    json_write_object(w);
    if (metadata_count > 0) {
        json_write_key(w, METADATA_KEY);
        json_write_object(w);
        for (size_t i = 0; i < metadata_count; i++) {
            json_write_key(w, metadata[i].key);
            json_write_string(w, metadata[i].value);
        }
        json_write_end(w);
    }
    for (size_t i = 0; i < tensor_count; i++)
        if (!write_entry(w, path, &tensors[i], &at, err)) return false;
    json_write_end(w);
    if (ROUND_UP(LENGTH_BYTES + w->count, DATA_ALIGNMENT) - LENGTH_BYTES > SAFETENSORS_MAX_HEADER)
        return err_set(err, EXIT_INPUT, "%s: not written: a header of %zu bytes, at most %d", path, w->count,
                       SAFETENSORS_MAX_HEADER);
    return true;
}

static bool write_file(const char *path, const JsonWriter *header, const StoredTensor *tensors, size_t tensor_count,
                       Err *err) {
    static const char spaces[] = "                                                               ";
    _Static_assert(sizeof spaces == 64, "one space less than DATA_ALIGNMENT suffices");
    size_t padded = ROUND_UP(LENGTH_BYTES + header->count, DATA_ALIGNMENT) - LENGTH_BYTES;
    uint64_t n = padded;
    FileWriter file;
    if (!file_writer_open(&file, path, err)) return false;
    bool ok = file_writer_append(&file, &n, LENGTH_BYTES, err) &&
              file_writer_append(&file, header->text, header->count, err) &&
              file_writer_append(&file, spaces, padded - header->count, err);
    for (size_t i = 0; ok && i < tensor_count; i++) {
        StoredTensor t = tensors[i];
        const void *data;
        void *owned;
        stored_tensor_measure(&t);
        ok = stored_tensor_load(&data, &owned, &t, err) &&
             (t.bytes == 0 || file_writer_append(&file, data, t.bytes, err));
        free(owned);
    }
    if (ok) return file_writer_commit(&file, err);
    file_writer_discard(&file);
    return false;
}

bool safetensors_write(const char *path, const StoredTensor *tensors, size_t tensor_count, const StoredPair *metadata,
                       size_t metadata_count, Err *err) {
    JsonWriter header = {0};
    bool ok = check_all(path, tensors, tensor_count, metadata, metadata_count, err) &&
              write_header(&header, path, tensors, tensor_count, metadata, metadata_count, err) &&
              write_file(path, &header, tensors, tensor_count, err);
    json_writer_free(&header);
    return ok;
}
