/* test_model_files.c - model files that were changed, wrapped or described otherwise, handed to the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "io/pth.h"
#include "io/safetensors.h"
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

/* Anywhere in the file: in a tensor, most of which change no golden logit by more than machines differ, or in front. */
static void test_flipped_bits(void **state) {
    (void)state;
    Rng rng = rng_make(9, RNG_TEST, 0, 0);
    EXPECT(0, "verify " BEST);
    expect_text(output, "those that were written");
    for (int i = 0; i < 300; i++) {
        size_t bit = (size_t)rng_u32(&rng) % (i % 2 ? SIZE_MAX : 8 * 4000);
        flip("flipped.safetensors", "run/weights/best.safetensors", bit);
        int code = mala("verify $T/flipped.safetensors");
        if (code != 3) fail_msg("bit %zu: exit %d: %s%s", bit, code, output, errors);
    }
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_changed_is_refused),
        cmocka_unit_test(test_wrapped_names),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
