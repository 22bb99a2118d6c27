/* tensor_file.c - tells formats apart and holds what they share: types, lookup, conversion to float32. Room io; it
 * refuses what no reader here takes, saying what it is. */
#include "io/tensor_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "io/pth.h"
#include "io/safetensors.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the formats are little-endian and this room copies their numbers as they lie"
#endif

#define PIECE ((size_t)64 << 10) /* bytes that are read at once where they are converted */
#define NAME "\"%.120s\"" /* in messages: a name may be a megabyte long */

static const struct {
    const char *name;
    int bits;
} types[] = {
#define X(name, bits) {#name, bits},
    STORED_TYPES(X)
#undef X
};

const char *stored_type_name(StoredType type) { return types[type].name; }

int stored_type_bits(StoredType type) { return types[type].bits; }

/* A dimension of 0 does not excuse the others: whether [0, big, big] passes must not depend on the order of
 * multiplication. */
const char *stored_tensor_measure(StoredTensor *t) {
    size_t count = 1, bits;
    bool empty = false;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] < 0 || t->shape[i] > STORED_MAX_DIM) return "a dimension outside 0..2^40";
        empty |= t->shape[i] == 0;
        if (!size_mul(count, (size_t)MAX(t->shape[i], 1), &count)) return "a shape whose product overflows";
    }
    if (!size_mul(count, (size_t)types[t->dtype].bits, &bits)) return "a shape whose size in bytes overflows";
    t->count = empty ? 0 : count;
    t->bytes = empty ? 0 : bits / 8;
    return !empty && bits % 8 != 0 ? "a size that is not a whole number of bytes" : NULL;
}

bool stored_tensor_load(const void **out, void **owned, const StoredTensor *t, Err *err) {
    *owned = NULL;
    *out = t->data;
    if (t->data || t->bytes == 0) return true;
    if (!mem_try(owned, t->bytes, err)) return false;
    *out = *owned;
    if (file_reader_read(t->file, *owned, t->at, t->bytes, err)) return true;
    free(*owned);
    *owned = NULL;
    return false;
}

bool stored_bools_check(const StoredTensor *t, size_t at, size_t bytes, Err *err) {
    uint8_t piece[PIECE];
    for (size_t done = 0; done < bytes;) {
        size_t count = MIN(bytes - done, PIECE);
        if (!file_reader_read(t->file, piece, at + done, count, err)) return false;
        for (size_t i = 0; i < count; i++)
            if (piece[i] > 1)
                return err_set(err, EXIT_INPUT, "%s: byte %zu: BOOL tensor " NAME " holds %d", t->file->path,
                               at + done + i, t->name, piece[i]);
        done += count;
    }
    return true;
}

/* ---- opening ---- */

#define TAR_MAGIC_AT 257
#define RESAVE "save it again: torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), NEW)"

/* What people hand over instead. Asked only when the first bytes cannot be a format that is read. */
static const struct {
    const char *magic;
    size_t count;
    const char *what;
} foreign[] = {
    {"version https://git-lfs", 23, "is a Git-LFS pointer, not the file it points to - run `git lfs pull`"},
    {"\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8", 12,
     "is a PyTorch checkpoint of before version 1.6, which is not read - " RESAVE},
    {"\x80", 1, "is a Python pickle, which is not read - " RESAVE},
    {"<", 1, "is a web page, not a model - the download failed or needs a login, fetch the file again"},
    {"{", 1, "is JSON text, perhaps the index of a model in several files - name a .safetensors file"},
    {"\x1f\x8b", 2, "is compressed with gzip - unpack it first"},
    {"\xFD\x37zXZ", 5, "is compressed with xz - unpack it first"},
    {"\x28\xb5\x2f\xfd", 4, "is compressed with zstd - unpack it first"},
    {"GGUF", 4, "is a GGUF model, which is not read - use the safetensors file it was made from"},
    {"\x89HDF", 4, "is an HDF5 file, which is not read - save the weights as safetensors"},
    {"\x89PNG", 4, "is a picture, not a model"},
    {"\xff\xd8\xff", 3, "is a picture, not a model"},
};

/* A ModelProto begins with its ir_version and the name of what wrote it. */
static bool is_onnx(const uint8_t *head) { return head[0] == 0x08 && head[1] < 0x80 && head[2] == 0x12; }

static bool read_any(TensorFile *f, const TensorFileOptions *options, Err *err) {
    uint8_t head[TAR_MAGIC_AT + 5] = {0};
    const size_t count = MIN(sizeof head, f->reader->count);
    if (!file_reader_read(f->reader, head, 0, count, err)) return false;
    if (safetensors_fits(head, f->reader->count)) return safetensors_read(f, err);
    if (pth_fits(head)) return pth_read(f, options, err);
    for (size_t i = 0; i < COUNTOF(foreign); i++)
        if (count >= foreign[i].count && memcmp(head, foreign[i].magic, foreign[i].count) == 0)
            return err_set(err, EXIT_INPUT, "%s: %s", f->path, foreign[i].what);
    if (is_onnx(head))
        return err_set(err, EXIT_INPUT, "%s: is an ONNX model, which is not read - use the weights that it was made from",
                       f->path);
    if (memcmp(head + TAR_MAGIC_AT, "ustar", 5) == 0)
        return err_set(err, EXIT_INPUT,
                       "%s: is a tar archive, as PyTorch's first checkpoints were, which is not read - " RESAVE,
                       f->path);
    return safetensors_read(f, err); /* for its message */
}

/* Takes a prefix off each name, or, `shared`, off all names or none. */
static bool take_off(TensorFile *f, const char *prefix, bool shared) {
    const size_t length = strlen(prefix);
    size_t with = 0;
    for (size_t i = 0; i < f->tensor_count; i++) with += strncmp(f->tensors[i].name, prefix, length) == 0;
    if (with == 0 || (shared && with < f->tensor_count)) return false;
    for (size_t i = 0; i < f->tensor_count; i++)
        if (strncmp(f->tensors[i].name, prefix, length) == 0) f->tensors[i].name += length;
    return true;
}

static bool unwrap_names(TensorFile *f, Err *err) {
    static const struct {
        const char *text;
        bool shared;
    } prefixes[] = {{"module.", false}, {"_orig_mod.", false}, {"model.", true}, {"backbone.", true}};
    const char **before = mem_zalloc(f->tensor_count, sizeof *before);
    for (size_t i = 0; i < f->tensor_count; i++) before[i] = f->tensors[i].name;
    for (size_t i = 0; i < COUNTOF(prefixes); i++)
        if (take_off(f, prefixes[i].text, prefixes[i].shared)) i = SIZE_MAX; /* from the beginning: they are stacked */
    bool ok = true;
    for (size_t i = 0; ok && i < f->tensor_count; i++) {
        const size_t length = (size_t)(f->tensors[i].name - before[i]);
        if (length > 0 && !f->prefix) f->prefix = memcpy(mem_zalloc(length + 1, 1), before[i], length);
        if (length > 0 && !f->tensors[i].name[0])
            ok = err_set(err, EXIT_INPUT, "%s: a tensor is named " NAME " and nothing else", f->path, before[i]);
    }
    free(before);
    return ok;
}

static int by_name(const void *a, const void *b) {
    const StoredTensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static bool index_names(TensorFile *f, Err *err) {
    f->by_name = mem_zalloc(f->tensor_count, sizeof *f->by_name);
    for (size_t i = 0; i < f->tensor_count; i++) f->by_name[i] = &f->tensors[i];
    if (f->tensor_count > 1) qsort(f->by_name, f->tensor_count, sizeof *f->by_name, by_name);
    for (size_t i = 1; i < f->tensor_count; i++)
        if (strcmp(f->by_name[i - 1]->name, f->by_name[i]->name) == 0)
            return err_set(err, EXIT_INPUT, "%s: two tensors are named " NAME, f->path, f->by_name[i]->name);
    return true;
}

static bool read_or_close(TensorFile *f, const TensorFileOptions *options, Err *err) {
    static const TensorFileOptions defaults;
    if (read_any(f, options ? options : &defaults, err) && unwrap_names(f, err) && index_names(f, err)) return true;
    tensor_file_close(f);
    return false;
}

bool tensor_file_open(TensorFile *out, const char *path, const TensorFileOptions *options, Err *err) {
    *out = (TensorFile){.path = mem_strdup(path), .reader = mem_zalloc(1, sizeof *out->reader)};
    if (file_reader_open(out->reader, out->path, err)) return read_or_close(out, options, err);
    tensor_file_close(out);
    return false;
}

bool tensor_file_open_memory(TensorFile *out, const char *name, const void *bytes, size_t count,
                             const TensorFileOptions *options, Err *err) {
    *out = (TensorFile){.path = mem_strdup(name), .reader = mem_zalloc(1, sizeof *out->reader)};
    *out->reader = file_reader_of(out->path, bytes, count);
    return read_or_close(out, options, err);
}

void tensor_file_close(TensorFile *f) {
    if (f->reader) file_reader_close(f->reader);
    free(f->reader);
    free(f->path);
    free(f->tensors);
    free(f->metadata);
    free(f->by_name);
    free(f->text);
    free(f->prefix);
    free(f->stepped_over);
    for (size_t i = 0; i < f->owned_count; i++) free(f->owned[i]);
    free(f->owned);
    *f = (TensorFile){0};
}

const StoredTensor *tensor_file_find(const TensorFile *f, const char *name) {
    StoredTensor wanted = {.name = name};
    const StoredTensor *key = &wanted;
    const StoredTensor **found = bsearch(&key, f->by_name, f->tensor_count, sizeof *f->by_name, by_name);
    return found ? *found : NULL;
}

const char *tensor_file_metadata(const TensorFile *f, const char *key) {
    for (size_t i = 0; i < f->metadata_count; i++)
        if (strcmp(f->metadata[i].key, key) == 0) return f->metadata[i].value;
    return NULL;
}

/* ---- conversion ---- */

/* out[count] = elements of a half type or F64 at `data`; the index of the first that float32 cannot hold, or count. */
static size_t convert(float *out, const uint8_t *data, StoredType type, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        double value;
        if (type == STORED_F64) {
            memcpy(&value, data + 8 * i, 8);
            out[i] = (float)value;
            if (isinf(out[i]) && !isinf(value)) return i;
        } else {
            memcpy(&half, data + 2 * i, 2);
            out[i] = type == STORED_F16 ? f16_to_f32(half) : bf16_to_f32(half);
        }
    }
    return count;
}

bool tensor_file_read_f32(float *out, const TensorFile *f, const StoredTensor *t, Err *err) {
    if (t->dtype != STORED_F32 && t->dtype != STORED_F64 && t->dtype != STORED_F16 && t->dtype != STORED_BF16)
        return t->count == 0 || err_set(err, EXIT_INPUT, "%s: tensor " NAME " is %s, expected F32, F16, BF16 or F64",
                                        f->path, t->name, stored_type_name(t->dtype));
    const FileReader in_memory = file_reader_of(f->path, t->data, t->bytes);
    const FileReader *reader = t->data ? &in_memory : t->file;
    const size_t begin = t->data ? 0 : t->at, size = (size_t)types[t->dtype].bits / 8;
    if (t->dtype == STORED_F32) return t->count == 0 || file_reader_read(reader, out, begin, t->bytes, err);
    uint8_t piece[PIECE];
    for (size_t done = 0; done < t->count;) {
        size_t count = MIN(t->count - done, PIECE / size);
        if (!file_reader_read(reader, piece, begin + done * size, count * size, err)) return false;
        size_t good = convert(out + done, piece, t->dtype, count);
        if (good < count) {
            double value;
            memcpy(&value, piece + 8 * good, 8);
            return err_set(err, EXIT_INPUT, "%s: tensor " NAME ": element %zu is %g, beyond float32", f->path, t->name,
                           done + good, value);
        }
        done += count;
    }
    return true;
}
