/* seal.c - computes and compares the digests. Tensors are digested by themselves, so that they can be at the same
 * time; only the list of their digests is one after the other. */
#include "io/seal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"

#define PIECE ((size_t)64 << 10) /* bytes that are read at once */

/* ---- tensors ---- */

typedef struct {
    const StoredTensor *tensor;
    char digest[SHA256_TEXT_SIZE];
} Line;

typedef struct {
    Line *lines;
    pthread_mutex_t lock; /* err */
    bool failed;
    Err err;
} Digesting;

static bool digest_tensor(char out[SHA256_TEXT_SIZE], const StoredTensor *tensor, Err *err) {
    StoredTensor t = *tensor;
    Sha256 s;
    sha256_init(&s);
    const char *problem = stored_tensor_measure(&t);
    if (problem) return err_set(err, EXIT_INPUT, "tensor \"%.120s\" has %s", t.name, problem);
    if (t.data) sha256_add(&s, t.data, t.bytes);
    uint8_t piece[PIECE];
    for (size_t done = 0; !t.data && done < t.bytes;) {
        size_t count = MIN(t.bytes - done, PIECE);
        if (!file_reader_read(t.file, piece, t.at + done, count, err)) return false;
        sha256_add(&s, piece, count);
        done += count;
    }
    sha256_text(&s, out);
    return true;
}

static void digest_one(void *arg, int index, int thread) {
    (void)thread;
    Digesting *d = arg;
    Err err = {0};
    if (digest_tensor(d->lines[index].digest, d->lines[index].tensor, &err)) return;
    pthread_mutex_lock(&d->lock);
    if (!d->failed) d->err = err;
    d->failed = true;
    pthread_mutex_unlock(&d->lock);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const Line *)a)->tensor->name, ((const Line *)b)->tensor->name);
}

static void add_text(Sha256 *s, const char *text) { sha256_add(s, text, strlen(text)); }

static void add_line(Sha256 *s, const Line *l) {
    const StoredTensor *t = l->tensor;
    char shape[STORED_MAX_RANK * 21 + 3] = "[";
    size_t used = 1;
    for (int i = 0; i < t->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    shape[used] = ']', shape[used + 1] = '\0';
    const char *parts[] = {l->digest, " ", stored_type_name(t->dtype), " ", shape, " ", t->name, "\n"};
    for (size_t i = 0; i < COUNTOF(parts); i++) add_text(s, parts[i]);
}

bool seal_digest_tensors(char out[SHA256_TEXT_SIZE], const StoredTensor *tensors, size_t count, Err *err) {
    Digesting d = {.lines = mem_zalloc(count, sizeof *d.lines), .lock = PTHREAD_MUTEX_INITIALIZER};
    for (size_t i = 0; i < count; i++) d.lines[i].tensor = &tensors[i];
    parallel_for((int)count, digest_one, &d);
    pthread_mutex_destroy(&d.lock);
    if (count > 1) qsort(d.lines, count, sizeof *d.lines, by_name);
    Sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < count; i++) add_line(&s, &d.lines[i]);
    sha256_text(&s, out);
    free(d.lines);
    return !d.failed || err_set(err, d.err.code, "%s", d.err.text);
}

/* ---- metadata ---- */

static bool is_key(const StoredPair *p, const char *key) { return strcmp(p->key, key) == 0; }

static int by_key(const void *a, const void *b) {
    return strcmp(((const StoredPair *)a)->key, ((const StoredPair *)b)->key);
}

static void digest_metadata(char out[SHA256_TEXT_SIZE], const StoredPair *pairs, size_t count) {
    StoredPair *sorted = mem_zalloc(count, sizeof *sorted);
    if (count) memcpy(sorted, pairs, count * sizeof *sorted);
    if (count > 1) qsort(sorted, count, sizeof *sorted, by_key);
    Sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < count; i++) {
        if (is_key(&sorted[i], SEAL_METADATA)) continue;
        const char *texts[] = {sorted[i].key, sorted[i].value};
        for (int k = 0; k < 2; k++) {
            char length[24];
            snprintf(length, sizeof length, "%zu:", strlen(texts[k]));
            add_text(&s, length), add_text(&s, texts[k]);
        }
    }
    sha256_text(&s, out);
    free(sorted);
}

/* ---- the seal ---- */

bool seal_make(Seal *out, const StoredTensor *tensors, size_t count, const StoredPair *pairs, size_t pair_count,
               Err *err) {
    *out = (Seal){.pairs = mem_zalloc(pair_count + 2, sizeof *out->pairs)};
    if (!seal_digest_tensors(out->tensors, tensors, count, err)) return false;
    for (size_t i = 0; i < pair_count; i++)
        if (!is_key(&pairs[i], SEAL_TENSORS) && !is_key(&pairs[i], SEAL_METADATA)) out->pairs[out->count++] = pairs[i];
    out->pairs[out->count++] = (StoredPair){SEAL_TENSORS, out->tensors};
    digest_metadata(out->metadata, out->pairs, out->count);
    out->pairs[out->count++] = (StoredPair){SEAL_METADATA, out->metadata};
    return true;
}

void seal_free(Seal *s) {
    free(s->pairs);
    s->pairs = NULL, s->count = 0;
}

bool seal_present(const TensorFile *f) {
    return tensor_file_metadata(f, SEAL_TENSORS) || tensor_file_metadata(f, SEAL_METADATA);
}

static bool compare(const TensorFile *f, const char *stated, const char *is, const char *what, Err *err) {
    return (stated && strcmp(stated, is) == 0) ||
           err_set(err, EXIT_INPUT, "%s: its %s are not those that were written (SHA-256 %.12s..., stated %.12s...) - "
                   "damaged or changed by another program, take the file anew from where it came", f->path, what, is,
                   stated ? stated : "none");
}

bool seal_check_metadata(const TensorFile *f, Err *err) {
    if (!seal_present(f)) return true;
    char is[SHA256_TEXT_SIZE];
    digest_metadata(is, f->metadata, f->metadata_count);
    const char *metadata = tensor_file_metadata(f, SEAL_METADATA);
    return compare(f, metadata, is, "metadata", err) &&
           (tensor_file_metadata(f, SEAL_TENSORS) ||
            err_set(err, EXIT_INPUT, "%s: its metadata lack %s - damaged, fetch it again", f->path, SEAL_TENSORS));
}

bool seal_check_tensors(const TensorFile *f, Err *err) {
    if (!seal_present(f)) return true;
    char is[SHA256_TEXT_SIZE];
    return seal_digest_tensors(is, f->tensors, f->tensor_count, err) &&
           compare(f, tensor_file_metadata(f, SEAL_TENSORS), is, "tensors", err);
}
