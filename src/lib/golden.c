#include "lib/golden.h"
#include "lib/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/pth.h"
#include "io/safetensors.h"
#include "io/seal.h"

#define GENERATOR 1 /* version of golden_input: another rule takes another number */

static const char *const input_names[GOLDEN_INPUTS] = {"noise", "blocks"};

static uint8_t stream_byte(uint64_t start, uint64_t index) {
    uint64_t x = start + (index + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint8_t)((x ^ (x >> 31)) >> 56);
}

void golden_input(uint8_t *pixels, int index, int height, int width) {
    uint64_t start = 0xcbf29ce484222325u;
    for (const char *name = input_names[index]; *name; name++) start = (start ^ (uint8_t)*name) * 0x100000001b3u;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int64_t c = 0; c < 3; c++) {
                int64_t at = (y * width + x) * 3 + c;
                int64_t source = index == 0 ? at : (y * 8 / height * 8 + x * 8 / width) * 3 + c;
                pixels[at] = stream_byte(start, (uint64_t)source);
            }
}

/* logits[GOLDEN_INPUTS * classes] of the model, a picture at a time. */
static bool compute(float *logits, const ModelFile *m, const Config *machine, Err *err) {
    Runner runner;
    if (!runner_open(&runner, m, (RunnerOptions){.config = machine, .batch = 1, .exact = true}, err)) return false;
    uint8_t *pixels = mem_zalloc(runner.predictor.image_bytes, 1);
    bool ok = true;
    for (int i = 0; ok && i < GOLDEN_INPUTS; i++) {
        golden_input(pixels, i, m->config.input.size[0], m->config.input.size[1]);
        ok = predictor_run(&runner.predictor, logits + (size_t)i * (size_t)m->class_count, NULL, pixels, 1, err);
    }
    if (ok && !classify_finite(logits, GOLDEN_INPUTS * (int64_t)m->class_count))
        ok = err_set(err, EXIT_INPUT, "%s: its logits of the golden inputs are not finite - these weights do not "
                     "compute", m->file.path);
    free(pixels);
    runner_close(&runner);
    return ok;
}

static float *new_logits(const ModelFile *m) {
    return mem_zalloc(GOLDEN_INPUTS * (size_t)m->class_count, sizeof(float));
}

/* {"generator": 1, "size": [height, width], "inputs": {"noise": [logits], "blocks": [logits]}} */
static void write_json(JsonWriter *w, const ModelFile *m, const float *logits) {
    json_write_object(w);
    json_write_key(w, "generator"), json_write_int(w, GENERATOR);
    json_write_key(w, "size");
    json_write_array(w);
    for (int i = 0; i < 2; i++) json_write_int(w, m->config.input.size[i]);
    json_write_end(w);
    json_write_key(w, "inputs");
    json_write_object(w);
    for (int i = 0; i < GOLDEN_INPUTS; i++) {
        json_write_key(w, input_names[i]);
        json_write_array(w);
        for (int k = 0; k < m->class_count; k++) json_write_float(w, *logits++);
        json_write_end(w);
    }
    json_write_end(w);
    json_write_end(w);
}

/* The same tensors and metadata, but for one pair. */
static bool rewrite(const ModelFile *m, const char *golden, Err *err) {
    const TensorFile *f = &m->file;
    StoredPair *pairs = mem_zalloc(f->metadata_count + 1, sizeof *pairs);
    size_t count = 0;
    for (size_t i = 0; i < f->metadata_count; i++)
        if (strcmp(f->metadata[i].key, GOLDEN_KEY) != 0) pairs[count++] = f->metadata[i];
    pairs[count++] = (StoredPair){GOLDEN_KEY, golden};
    Seal seal;
    bool ok = seal_make(&seal, f->tensors, f->tensor_count, pairs, count, err);
    if (ok)
        ok = f->part ? pth_write(f->path, f->part, f->tensors, f->tensor_count, seal.pairs, seal.count, err)
                     : safetensors_write(f->path, f->tensors, f->tensor_count, seal.pairs, seal.count, err);
    seal_free(&seal);
    free(pairs);
    return ok;
}

static bool all_finite(const float *logits, const ModelFile *m, Err *err) {
    for (int64_t i = 0; i < GOLDEN_INPUTS * (int64_t)m->class_count; i++)
        if (!isfinite(logits[i]))
            return err_set(err, EXIT_INPUT, "%s: answers %g where a number belongs - its weights have diverged, take "
                           "earlier ones", m->file.path, (double)logits[i]);
    return true;
}

bool golden_add(const char *path, const Config *machine, Err *err) {
    ModelFile m;
    if (!model_file_open(&m, path, NULL, NULL, 0, NULL, err)) return false;
    float *logits = new_logits(&m);
    bool ok = config_check_tensors(&m.file, machine ? machine : &m.config, err) && compute(logits, &m, machine, err) &&
              all_finite(logits, &m, err);
    if (ok) {
        JsonWriter w = {0};
        write_json(&w, &m, logits);
        ok = rewrite(&m, json_writer_text(&w), err);
        json_writer_free(&w);
    }
    free(logits);
    model_file_close(&m);
    return ok;
}

/* ---- reading ---- */

static bool read_int(JsonReader *r, int *out, int low, int high, Err *err) {
    JsonToken t;
    if (!json_expect(r, &t, JSON_NUMBER, err)) return false;
    if (!t.is_uint || t.integer < (uint64_t)low || t.integer > (uint64_t)high)
        return json_fail(r, &t, err, "expected a whole number from %d to %d", low, high);
    *out = (int)t.integer;
    return true;
}

static bool read_size(JsonReader *r, int size[2], Err *err) {
    JsonToken t;
    return json_expect(r, &t, JSON_ARRAY, err) && read_int(r, &size[0], 32, 8192, err) &&
           read_int(r, &size[1], 32, 8192, err) && json_expect(r, &t, JSON_ARRAY_END, err);
}

/* A logit that was not finite stands as null. */
static bool read_logits(JsonReader *r, float *out, int count, Err *err) {
    JsonToken t;
    if (!json_expect(r, &t, JSON_ARRAY, err)) return false;
    for (int k = 0; k < count; k++) {
        if (!json_next(r, &t, err)) return false;
        if (t.kind != JSON_NUMBER && t.kind != JSON_NULL) return json_fail(r, &t, err, "expected %d logits", count);
        out[k] = t.kind == JSON_NULL ? NAN : (float)t.number;
    }
    return json_expect(r, &t, JSON_ARRAY_END, err);
}

static bool read_inputs(JsonReader *r, float *logits, int classes, Err *err) {
    JsonToken t;
    if (!json_expect(r, &t, JSON_OBJECT, err)) return false;
    for (int i = 0; i < GOLDEN_INPUTS; i++) {
        if (!json_expect(r, &t, JSON_KEY, err)) return false;
        if (strcmp(t.text, input_names[i]) != 0)
            return json_fail(r, &t, err, "expected the input \"%s\"", input_names[i]);
        if (!read_logits(r, logits + (size_t)i * (size_t)classes, classes, err)) return false;
    }
    return json_expect(r, &t, JSON_OBJECT_END, err);
}

static bool read_member(JsonReader *r, const JsonToken *key, int size[2], float *logits, int classes, unsigned *seen,
                        Err *err) {
    int generator;
    if (strcmp(key->text, "generator") == 0) {
        *seen |= 1;
        return read_int(r, &generator, GENERATOR, GENERATOR, err);
    }
    if (strcmp(key->text, "size") == 0) {
        *seen |= 2;
        return read_size(r, size, err);
    }
    if (strcmp(key->text, "inputs") == 0) {
        *seen |= 4;
        return read_inputs(r, logits, classes, err);
    }
    return json_skip(r, err);
}

static bool read_golden(ModelFile *m, float *logits, Err *err) {
    const char *text = tensor_file_metadata(&m->file, GOLDEN_KEY);
    if (!text)
        return err_set(err, EXIT_INPUT, "%s: carries no golden logits, so there is nothing to verify against - what "
                       "mala train, import and export write carries them", m->file.path);
    char name[300];
    snprintf(name, sizeof name, "%.200s: %s", m->file.path, GOLDEN_KEY);
    JsonReader r;
    JsonToken t;
    unsigned seen = 0;
    int size[2];
    bool ok = json_open(&r, text, strlen(text), (JsonSource){.name = name, .code = EXIT_INPUT}, err) &&
              json_expect(&r, &t, JSON_OBJECT, err);
    while (ok && (ok = json_next(&r, &t, err)) && t.kind == JSON_KEY)
        ok = read_member(&r, &t, size, logits, m->class_count, &seen, err);
    json_close(&r);
    if (!ok) return false;
    if (seen != 7 || size[0] % 32 != 0 || size[1] % 32 != 0)
        return err_set(err, EXIT_INPUT, "%s: lacks a generator, a size in steps of 32 or inputs - the file is damaged",
                       name);
    for (int i = 0; i < 2; i++) m->config.input.size[i] = size[i]; /* whatever is asked for by now */
    return true;
}

bool golden_check(GoldenResult *out, ModelFile *m, double limit, Err *err) {
    *out = (GoldenResult){.inputs = GOLDEN_INPUTS, .classes = m->class_count};
    float *meant = new_logits(m), *here = new_logits(m);
    bool ok = model_file_has_classifier(m, err) && read_golden(m, meant, err) && compute(here, m, NULL, err);
    bool numbers = true;
    for (int64_t i = 0; ok && i < GOLDEN_INPUTS * (int64_t)m->class_count; i++) {
        double difference = fabs((double)meant[i] - (double)here[i]);
        numbers = numbers && isfinite(difference);
        out->difference = fmax(out->difference, difference);
        out->magnitude = fmax(out->magnitude, fabs((double)meant[i]));
    }
    if (!numbers) out->difference = NAN;
    out->agree = out->difference <= limit * out->magnitude;
    free(meant);
    free(here);
    return ok;
}
