#include "lib/model_write.h"

#include <string.h>

#include "lib/golden.h"
#include "lib/model_metadata.h"
#include "base/file.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/seal.h"

/* Where pictures lay and runs went is nobody else's business. */
static Config without_paths(const Config *c) {
    static char output[] = "runs/classify/train";
    Config shared = *c;
    shared.model.weights = shared.data.path = NULL;
    shared.output = output;
    return shared;
}

static void describe(ModelMetadata *out, const ModelFile *m, bool classifier, const char *license) {
    const TensorFile *f = &m->file;
    const char *ema = tensor_file_metadata(f, "mala.ema");
    ModelFacts facts = {.task = classifier ? "classify" : "features",
                        .ema = ema ? strcmp(ema, "true") == 0 : f->averaged,
                        .metrics = classifier ? tensor_file_metadata(f, "mala.metrics") : NULL,
                        .dataset_sha256 = tensor_file_metadata(f, "mala.dataset_sha256"),
                        .license = license ? license : tensor_file_metadata(f, "license")};
    Config shared = without_paths(&m->config);
    shared.options.target = &shared;
    model_metadata_init(out, m->described ? &shared : NULL, m->classes, classifier && m->named ? m->class_count : 0,
                        &facts);
}

static bool write_tensors(const char *path, const StoredTensor *tensors, size_t count, const ModelMetadata *metadata,
                          ModelFormat format, const char *key, Err *err) {
    Seal seal;
    bool ok = seal_make(&seal, tensors, count, metadata->pairs, metadata->count, err);
    if (ok)
        ok = format == MODEL_PTH ? pth_write(path, key, tensors, count, seal.pairs, key ? seal.count : 0, err)
                                 : safetensors_write(path, tensors, count, seal.pairs, seal.count, err);
    seal_free(&seal);
    return ok;
}

bool model_write(const char *path, const StoredTensor *tensors, size_t count, const ModelFile *m,
                 const ModelWriteOptions *options, Err *err) {
    const char *key = !options->key ? "model" : options->key[0] ? options->key : NULL;
    bool classifier = false;
    for (size_t i = 0; i < count; i++) classifier = classifier || strcmp(tensors[i].name, "head.weight") == 0;
    const bool whole = m->described && classifier && !m->config.model.allow_missing;
    FileWriter file;
    ModelMetadata metadata;
    if (!file_writer_open(&file, path, err)) return false;
    file.only_new = options->only_new;
    describe(&metadata, m, classifier, options->license);
    bool ok = write_tensors(file.temporary, tensors, count, &metadata, options->format, key, err);
    model_metadata_free(&metadata);
    if (ok && whole && (options->format != MODEL_PTH || key)) ok = golden_add(file.temporary, &m->config, err);
    ok = ok && (!options->judge || options->judge(options->judge_arg, file.temporary, err));
    return ok ? file_writer_commit(&file, err) : file_writer_fail(&file, err);
}
