/* test_model_files.c - model files that were changed, wrapped or described otherwise, handed to the program. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/seal.h"
#include "program.h"

#define BEST "$T/run/weights/best.safetensors "

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static char *file_in(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- flipped bits ---- */

/* `name` becomes `source` with one bit turned. */
static void flip(const char *name, const char *source, size_t bit) {
    uint8_t *bytes;
    size_t count;
    OK(file_read(&bytes, &count, file_in(source), 64 << 20, &err));
    bit %= 8 * count;
    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    OK(file_write(file_in(name), bytes, count, &err));
    free(bytes);
}

static bool is_whole(const char *name) {
    TensorFile f;
    Err found = {0};
    if (!tensor_file_open(&f, file_in(name), NULL, &found)) return false;
    bool whole = seal_check_metadata(&f, &found) && seal_check_tensors(&f, &found);
    tensor_file_close(&f);
    return whole;
}

/* Anywhere in the file: in a tensor, most of which change no golden logit by more than machines differ, or in front. */
static void test_flipped_bits(void **state) {
    (void)state;
    Rng rng = rng_make(9, RNG_TEST, 0, 0);
    EXPECT(0, "verify " BEST);
    expect_text(output, "those that were written");
    for (int i = 0; i < 300; i++) {
        size_t bit = (size_t)rng_u32(&rng) % (i % 2 ? SIZE_MAX : 8 * 4000);
        flip("flipped.safetensors", "run/weights/best.safetensors", bit);
        if (is_whole("flipped.safetensors")) fail_msg("bit %zu is not found", bit);
        int code = i < 40 ? mala("verify $T/flipped.safetensors") : 3; /* the program says the same */
        if (code != 3) fail_msg("bit %zu: exit %d: %s%s", bit, code, output, errors);
    }
}

/* Files of before, or of others, have no digests: that is said, and what is left to compare is compared. */
static void test_without_digests(void **state) {
    (void)state;
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    OK(safetensors_write(file_in("old.safetensors"), f.tensors, f.tensor_count, f.metadata, f.metadata_count - 2, &err));
    tensor_file_close(&f);
    EXPECT(0, "verify $T/old.safetensors");
    expect_text(output, "carries no SHA-256");
    expect_text(output, ": verified");
    EXPECT(0, "import $T/old.safetensors $T/new.safetensors");
    EXPECT(0, "verify $T/new.safetensors");
    expect_text(output, "those that were written");
}

/* What works with the weights for seconds looks first; what answers at once looks at the metadata. */
static void test_changed_is_refused(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t count;
    OK(file_read(&bytes, &count, file_in("run/weights/best.safetensors"), 64 << 20, &err));
    free(bytes);
    flip("flipped.safetensors", "run/weights/best.safetensors", 8 * count - 20); /* in the last tensor */
    static const char *const refuse[] = {
        "verify $T/flipped.safetensors", "eval $T/flipped.safetensors --data $T/data",
        "export $T/flipped.safetensors $T/x.pth", "import $T/flipped.safetensors $T/x.pth",
        "train data.path=$T/data output=$T/x --weights $T/flipped.safetensors " SMALL "--epochs 1"};
    for (size_t i = 0; i < COUNTOF(refuse); i++) {
        EXPECT(3, refuse[i]);
        expect_text(errors, "its tensors are not those that were written");
    }
    shell("test ! -e x.pth");
    EXPECT(0, "infer $T/data/val --weights $T/flipped.safetensors");
    shell("sed 's/\\\\\"car\\\\\"/\\\\\"cab\\\\\"/' run/weights/best.safetensors >renamed.safetensors");
    EXPECT(3, "infer $T/data/val --weights $T/renamed.safetensors");
    expect_text(errors, "its metadata are not those that were written");
}

/* ---- wrapped names ---- */

/* Writes best's tensors with a prefix before every name, and its metadata, without the seal where not `sealed`. */
static void wrap(const char *name, const char *prefix, bool pth, bool sealed) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    char(*names)[256] = mem_zalloc(f.tensor_count, sizeof *names);
    for (size_t i = 0; i < f.tensor_count; i++) {
        snprintf(names[i], sizeof names[i], "%s%s", prefix, f.tensors[i].name);
        f.tensors[i].name = names[i];
    }
    size_t count = f.metadata_count - (sealed ? 0 : 2); /* it comes last */
    OK(pth ? pth_write(file_in(name), "model", f.tensors, f.tensor_count, f.metadata, count, &err)
           : safetensors_write(file_in(name), f.tensors, f.tensor_count, f.metadata, count, &err));
    free(names);
    tensor_file_close(&f);
}

static void test_wrapped_names(void **state) {
    (void)state;
    static const char *const known[] = {"module.", "_orig_mod.", "model.", "backbone.", "module.model._orig_mod."};
    EXPECT(0, "infer $T/data/val --weights " BEST "--json");
    char *meant = mem_strdup(output);
    for (size_t i = 0; i < 2 * COUNTOF(known); i++) {
        wrap("wrapped", known[i / 2], i % 2, true);
        EXPECT(0, "infer $T/data/val --weights $T/wrapped --json");
        assert_string_equal(output, meant);
        expect_text(errors, known[i / 2]); /* and it is said */
        EXPECT(0, "verify $T/wrapped");
    }
    free(meant);
    static const char *const others[] = {"infer $T/data/val --weights $T/wrapped", "export $T/wrapped $T/x.onnx",
                                         "train data.path=$T/data output=$T/x --weights $T/wrapped " SMALL};
    for (size_t i = 0; i < 2 * COUNTOF(others); i++) {
        wrap("wrapped", "teacher.net.", i % 2, false);
        EXPECT(3, others[i / 2]);
        expect_text(errors, "begin with \"teacher.net.\"");
        assert_null(strstr(errors, "is a backbone"));
    }
}

/* ---- folders of hubs ---- */

/* A folder as somebody else's: all that is known stands in config.json. */
static void make_hub(const char *change) {
    TensorFile f;
    char command[400];
    shell("rm -rf hub");
    EXPECT(0, "export " BEST "$T/hub --to hf -q");
    OK(tensor_file_open(&f, file_in("hub/model.safetensors"), NULL, &err));
    OK(safetensors_write(file_in("hub/model.safetensors"), f.tensors, f.tensor_count, NULL, 0, &err));
    tensor_file_close(&f);
    snprintf(command, sizeof command, "sed -i 's/%s/' hub/config.json", change);
    shell(command);
}

/* Each key that could change the pixels or the network is honoured or refused by its place in the file. */
static void test_hub_refusals(void **state) {
    (void)state;
    static const struct {
        const char *change, *message;
    } cases[] = {{"\"crop_mode\": \"center\"/\"crop_mode\": \"squash\"", "crop_mode: mala has \"center\""},
                 {"\"crop_mode\": \"center\"/\"crop_mode\": 1", "crop_mode"},
                 {"\"crop_mode\"/\"color_space\"", "\"color_space\" is not known"},
                 {"\"crop_mode\": \"center\"/\"test_input_size\": [3, 64, 64]", "test_input_size"},
                 {"\"crop_mode\": \"center\"/\"test_crop_pct\": 1", "test_crop_pct"},
                 {"\"num_classes\": 12/\"num_classes\": 11", "num_classes"},
                 {"bicubic/lanczos", "input.interpolation"},
                 {"\"mean\": \\[[^]]*\\]/\"mean\": [0.5]", "input.mean: expected a list of 3, found 1"},
                 {"\"std\": \\[[^]]*\\]/\"std\": [0.5, 0, 0.5]", "input.std[1]: 0 is out of range"},
                 {"\"crop_pct\": 0.875/\"crop_pct\": 7", "input.crop_pct: 7 is out of range"},
                 {"\\[3, 32, 32\\]/[3, 33, 32]", "input.size: 33 is no multiple of 32"},
                 {"\"avg\"/\"max\"", "global_pool"},
                 {"\"dims\": \\[8/\"dims\": [9", "model.heads: stage 0"}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        make_hub(cases[i].change);
        EXPECT(3, "infer $T/data/val --weights $T/hub");
        expect_text(errors, "hub/config.json:");
        expect_text(errors, cases[i].message);
    }
}

static void test_hub_taken(void **state) {
    (void)state;
    static const char *const same[] = {"\"crop_mode\": \"center\"/\"crop_mode\": null",
                                       "\"crop_mode\"/\"url\"",
                                       "\"crop_mode\": \"center\"/\"test_input_size\": [3, 32,32]",
                                       "\"crop_mode\": \"center\"/\"test_crop_pct\": 0.875"};
    EXPECT(0, "infer $T/data/val --weights " BEST "--json");
    char *meant = mem_strdup(output);
    for (size_t i = 0; i < COUNTOF(same); i++) {
        make_hub(same[i]);
        EXPECT(0, "infer $T/data/val --weights $T/hub --json");
        assert_string_equal(output, meant);
    }
    make_hub("\"crop_pct\": 0.875/\"crop_pct\": 0.5");
    EXPECT(0, "export $T/hub $T/hub2 --to hf -q");
    shell("grep -q '\"crop_pct\": 0.5,' hub2/config.json");
    free(meant);
    /* names of classes count for fine-tuning, too */
    make_hub("\"car\"/\"automobile\"");
    EXPECT(0, "train data.path=$T/data output=$T/of-hub --weights $T/hub " SMALL "--epochs 1");
    expect_text(errors, "head starts anew");
}

/* Kinds of attention have the same tensors, and the input's scale has none: starting from others is said. */
static void test_other_start(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/same-start --weights " BEST SMALL "--epochs 1");
    assert_null(strstr(errors, "was trained with another"));
    EXPECT(0, "train data.path=$T/data output=$T/other --weights " BEST SMALL "--epochs 1 model.attention=linear");
    expect_text(errors, "was trained with another model.attention");
    make_hub("x/x");
    EXPECT(0, "train data.path=$T/data output=$T/other --weights $T/hub " SMALL "--epochs 1 'input.mean=[0,0,0]'");
    expect_text(errors, "was trained with another input.mean");
    shell("rm hub/config.json");
    EXPECT(3, "train data.path=$T/data output=$T/none --weights $T/hub " SMALL "--epochs 1");
}

/* Where the weights have metadata of their own, config.json may not say otherwise. */
static void test_hub_disagrees(void **state) {
    (void)state;
    static const struct {
        const char *change, *message;
    } cases[] = {{"s/\"crop_pct\": 0.875/\"crop_pct\": 0.9/", "input.crop_pct"},
                 {"s/bicubic/bilinear/", "input.interpolation"},
                 {"s/\"softmax\"/\"linear\"/", "model.attention"},
                 {"s/\"label_names\": \\[\"/&x/", "label_names: class 0"}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        char command[200];
        shell("rm -rf hub");
        EXPECT(0, "export " BEST "$T/hub --to hf -q");
        EXPECT(0, "verify $T/hub");
        snprintf(command, sizeof command, "sed -i '%s' hub/config.json", cases[i].change);
        shell(command);
        EXPECT(3, "infer $T/data/val --weights $T/hub");
        expect_text(errors, "hub/config.json:");
        expect_text(errors, cases[i].message);
        EXPECT(3, "verify $T/hub");
    }
    shell("rm hub/config.json"); /* the weights need nothing beside them */
    EXPECT(0, "infer $T/data/val --weights $T/hub");
}

/* What a file says of itself is the file's fault (3), what is typed is the command's (2). */
static void test_fault_of_the_file(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
    } cases[] = {{"\"depths\": [1, 1, 1, 1]", "\"depths\": [1, 1, 1, 0]"}, {"\"batch_size\"", "\"batchsize\""},
                 {"\"heads\": [1, 1, 2, 2]", "\"heads\": [3, 1, 2, 2]"},   {"\"name\": \"custom\"", "\"name\": \"resnet\""}};
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        StoredPair pair = {"mala.config", NULL};
        const char *config = tensor_file_metadata(&f, "mala.config"), *at = strstr(config, cases[i].pattern);
        if (!at) fail_msg("'%s' is not in %s", cases[i].pattern, config);
        char *changed = mem_zalloc(strlen(config) + 40, 1);
        sprintf(changed, "%.*s%s%s", (int)(at - config), config, cases[i].text, at + strlen(cases[i].pattern));
        pair.value = changed;
        OK(safetensors_write(file_in("odd.safetensors"), f.tensors, f.tensor_count, &pair, 1, &err));
        free(changed);
        EXPECT(3, "infer $T/data/val --weights $T/odd.safetensors");
        expect_text(errors, "odd.safetensors: mala.config:");
    }
    tensor_file_close(&f);
    EXPECT(2, "infer $T/data/val --weights " BEST "'model.depths=[1,1,1,0]'");
    EXPECT(2, "infer $T/data/val --weights " BEST "'model.heads=[3,1,2,2]'");
}

/* ---- a full disk ---- */

/* Runs the program with files of at most `bytes`, as on a disk that fills up. The signal that comes with it, which would
 * end the program, is left at its default. */
static int mala_limited(rlim_t bytes, const char *arguments) {
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int code = mala(arguments);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    return code;
}

/* Nothing half is left, under no name, and what was there stays as it was. */
static void test_full_disk(void **state) {
    (void)state;
    static const char *const commands[] = {
        "export " BEST "$T/full/x.safetensors", "export " BEST "$T/full/x.pth", "export " BEST "$T/full/x.onnx",
        "import " BEST "$T/full/x.safetensors", "import " BEST "$T/full/x.pth", "export " BEST "$T/full/x --to hf"};
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        shell("rm -rf full && mkdir full");
        int code = mala_limited(8192, commands[i]);
        if (code != 4) fail_msg("%s: exit %d: %s", commands[i], code, errors);
        expect_text(errors, "/full/x");
        assert_null(strstr(errors, ".tmp."));
        shell("rmdir full");
    }
    EXPECT(0, "export " BEST "$T/kept --to hf");
    shell("cp -r kept before");
    assert_int_equal(mala_limited(8192, "export " BEST "$T/kept --to hf --license X --force"), 4);
    shell("diff -r kept before");
    EXPECT(0, "verify $T/kept");
    /* training is not ended by it before its end, and leaves its rows */
    assert_int_equal(mala_limited(8192, "train data.path=$T/data output=$T/full " SMALL), 4);
    expect_text(errors, "training goes on");
    expect_text(errors, "epoch 2/2");
    shell("rm full/.lock && test $(wc -l <full/results.csv) = 3 && test -z \"$(ls -A full/weights)\"");
}

/* Every picture of a data set that could not be finished is whole. */
static void test_full_disk_of_synth(void **state) {
    (void)state;
    assert_int_equal(mala_limited(700, "synth $T/pictures --train 3 --val 2 --scenes 0 --size 32 -t 2 -q"), 4);
    assert_null(strstr(errors, ".tmp."));
    shell("test -d pictures && test -z \"$(find pictures -name '*.tmp.*' -o -type f -empty)\"");
    shell("for f in $(find pictures -name '*.jpg'); do test \"$(tail -c 2 $f | od -An -tx1)\" = ' ff d9' || exit 1; done");
}

/* ---- values ---- */

/* Copies best with one element of a tensor set, and nothing else known of it than what it is. */
static void set_value(const char *name, const char *tensor, float value) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    const StoredTensor *t = tensor_file_find(&f, tensor);
    assert_non_null(t);
    float *values = mem_zalloc(t->count, sizeof *values);
    OK(tensor_file_read_f32(values, &f, t, &err));
    values[t->count / 2] = value;
    f.tensors[t - f.tensors].data = values;
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, f.metadata, f.metadata_count - 2, &err));
    free(values);
    tensor_file_close(&f);
}

/* Weights that diverged are no network, and half precision holds no more than 65504. */
static void test_values(void **state) {
    (void)state;
    static const char *const exports[] = {"x.safetensors", "x.pth", "x.onnx", "x/"};
    for (size_t i = 0; i < 2 * COUNTOF(exports); i++) {
        char arguments[100];
        set_value("nan.safetensors", "head.bias", i % 2 ? NAN : INFINITY);
        snprintf(arguments, sizeof arguments, "export $T/nan.safetensors $T/%s", exports[i / 2]);
        EXPECT(3, arguments);
        expect_text(errors, "head.bias holds values that are not finite");
    }
    EXPECT(3, "import $T/nan.safetensors $T/x.safetensors");
    expect_text(errors, "not finite");
    set_value("large.safetensors", "head.bias", 1e-9f);
    EXPECT(0, "export $T/large.safetensors $T/small.pth --dtype float16");
    expect_text(errors, " weights are too small for float16");
    set_value("large.safetensors", "head.bias", FLT_MAX);
    EXPECT(3, "export $T/large.safetensors $T/x.pth --dtype bfloat16");
    expect_text(errors, "is beyond bfloat16");
    set_value("large.safetensors", "head.bias", 70000);
    EXPECT(3, "export $T/large.safetensors $T/x.pth --dtype float16");
    expect_text(errors, "70000 is beyond float16");
    shell("test ! -e x && test -z \"$(ls -d x.* 2>/dev/null)\"");
}

/* Finite values that compute none: a variance below 0 counts in evaluation alone, so training would find it at the end;
 * large weights only where they meet. */
static void test_values_that_do_not_compute(void **state) {
    (void)state;
    static const char *const refuse[] = {
        "export $T/odd.safetensors $T/x.onnx", "export $T/odd.safetensors $T/x.pth --as backbone",
        "export $T/odd.safetensors $T/x.onnx --as backbone", "export $T/odd.safetensors $T/x/",
        "import $T/odd.safetensors $T/x.pth --key ''",
        "train data.path=$T/data output=$T/x --weights $T/odd.safetensors " SMALL "--epochs 1"};
    set_value("odd.safetensors", "layers.3.blocks.0.attn.proj.weight", 1); /* such a start is one */
    EXPECT(0, "export $T/odd.safetensors $T/fine.onnx");
    set_value("odd.safetensors", "patch_embed.proj.1.running_var", -1);
    for (size_t i = 0; i < COUNTOF(refuse); i++) {
        EXPECT(3, refuse[i]);
        expect_text(errors, "odd.safetensors: patch_embed.proj.1.running_var holds a variance below 0 (-1)");
    }
    set_value("odd.safetensors", "patch_embed.proj.1.running_var", INFINITY);
    EXPECT(3, refuse[COUNTOF(refuse) - 1]);
    set_value("odd.safetensors", "patch_embed.proj.0.weight", FLT_MAX);
    for (size_t i = 0; i < 4; i++) {
        EXPECT(3, refuse[i]);
        expect_text(errors, "do not compute");
    }
    shell("test ! -e x && test -z \"$(ls -d x.* 2>/dev/null)\"");
}

/* What a command line names to be read is not replaced by what it writes, --force or not, by whatever name. */
static void test_nothing_replaces_what_is_read(void **state) {
    (void)state;
    static const char *const commands[] = {"import " BEST "$T/names.pth --classes $T/names.pth --force",
                                           "import " BEST "$T/link.pth --classes $T/names.pth --force",
                                           "export --config $T/c.onnx " BEST "$T/c.onnx --force",
                                           "export --config $T/c.onnx " BEST "$T/c.onnx"};
    shell("echo '{}' >c.onnx && cp run/classes.txt names.pth && ln -s names.pth link.pth");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        EXPECT(2, commands[i]);
        expect_text(errors, ": is read, too - give another name");
        shell("test $(cat c.onnx) = '{}' && cmp names.pth run/classes.txt");
    }
}

/* Of two classes of one name no answer can be told; an empty name is none. Files of others may hold either. */
static void test_names_are_classes(void **state) {
    (void)state;
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    static const char *const lists[] = {"[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"a\",\"h\",\"i\",\"j\",\"k\",\"l\"]",
                                        "[\"a\",\"b\",\"c\",\"d\",\"\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\",\"l\"]",
                                        "{\"a\": 0}"};
    static const char *const messages[] = {"classes 0 and 6 are both named \"a\"", "class 4 has an empty name",
                                           "odd.safetensors: mala.classes:1:1: expected an array"};
    for (size_t i = 0; i < COUNTOF(lists); i++) {
        StoredPair pairs[] = {{"mala.config", tensor_file_metadata(&f, "mala.config")}, {"mala.classes", lists[i]}};
        OK(safetensors_write(file_in("odd.safetensors"), f.tensors, f.tensor_count, pairs, COUNTOF(pairs), &err));
        EXPECT(3, "eval $T/odd.safetensors --data $T/data");
        expect_text(errors, messages[i]);
        EXPECT(3, "train data.path=$T/data output=$T/x --weights $T/odd.safetensors " SMALL "--epochs 1");
        expect_text(errors, messages[i]);
    }
    tensor_file_close(&f);
    make_hub("\"car\"/\"\"");
    EXPECT(3, "infer $T/data/val --weights $T/hub");
    expect_text(errors, "hub/config.json: class ");
    make_hub("\"label_names\": \\[\"[a-z]*\", \"[a-z]*\"/\"label_names\": [\"x\", \"x\"");
    EXPECT(3, "infer $T/data/val --weights $T/hub");
    expect_text(errors, "classes 0 and 1 are both named \"x\"");
    shell("printf '%s\\n' a b c d e f g h i j k a >twice");
    EXPECT(3, "import " BEST "$T/x.safetensors --classes $T/twice");
    expect_text(errors, "twice: classes 0 and 11 are both named \"a\"");
}

/* Names that no key of a reader of JSON may be: what a folder says is read back before it stands there. */
static void test_hub_of_odd_names(void **state) {
    (void)state;
    shell("printf '%s\\n' 'a\tb' n01443537 '\"q\"' '\\' d e f g h i j k >odd");
    EXPECT(0, "import " BEST "$T/odd.safetensors --classes $T/odd --force");
    EXPECT(0, "export $T/odd.safetensors $T/odd.hub --to hf");
    EXPECT(0, "verify $T/odd.hub");
    EXPECT(0, "infer $T/data/val --weights $T/odd.hub");
}

/* A file that is imported over itself stays the network that it was. */
static void test_import_onto_itself(void **state) {
    (void)state;
    EXPECT(0, "import " BEST "$T/self.safetensors");
    shell("cp self.safetensors once.safetensors");
    EXPECT(2, "import $T/self.safetensors $T/self.safetensors");
    EXPECT(0, "import $T/self.safetensors $T/self.safetensors --force");
    shell("cmp self.safetensors once.safetensors");
    EXPECT(0, "verify $T/self.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_replaces_what_is_read),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_without_digests),
        cmocka_unit_test(test_changed_is_refused),
        cmocka_unit_test(test_wrapped_names),
        cmocka_unit_test(test_hub_refusals),
        cmocka_unit_test(test_hub_taken),
        cmocka_unit_test(test_other_start),
        cmocka_unit_test(test_hub_disagrees),
        cmocka_unit_test(test_fault_of_the_file),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_full_disk_of_synth),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_values_that_do_not_compute),
        cmocka_unit_test(test_names_are_classes),
        cmocka_unit_test(test_hub_of_odd_names),
        cmocka_unit_test(test_import_onto_itself),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
