/* test_seal.c - the digests of a file: what they are of, and that no bit can be changed behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/parallel.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/seal.h"
#include "scratch.h"
#include "stored.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static const float weights[6] = {0, 1, -2, 0.5f, 1e-3f, 1e9f};
static const StoredTensor tensors[] = {
    {.name = "head.weight", .dtype = STORED_F32, .rank = 2, .shape = {2, 3}, .data = weights},
    {.name = "norm.count", .dtype = STORED_I64, .rank = 0, .data = "\7\0\0\0\0\0\0"},
    {.name = "head.bias", .dtype = STORED_BF16, .rank = 1, .shape = {2}, .data = "\x80\x3f\0\xc0"},
    {.name = "none", .dtype = STORED_F32, .rank = 2, .shape = {0, 7}},
};
static const StoredPair pairs[] = {{"mala.classes", "[\"car\", \"\u00e4hre\"]"}, {"a", ""}, {"mala.arch", "mavit_t"}};

/* By Python's hashlib, from the words of seal.h. */
#define TENSORS "084fc928ebcb02d64f794cce069aafd311817ebc365a3539bf43b5e78e5827de"
#define METADATA "70bf9213731a28d0f8eced2e0b0b1a1fd9f5a235ca050ff4c4849da75fc78471"

static void write_sealed(const char *path, int format, const StoredTensor *of, const StoredPair *with) {
    Seal seal;
    OK(seal_make(&seal, of, COUNTOF(tensors), with, COUNTOF(pairs), &err));
    OK(format ? pth_write(path, "model", of, COUNTOF(tensors), seal.pairs, seal.count, &err)
              : safetensors_write(path, of, COUNTOF(tensors), seal.pairs, seal.count, &err));
    seal_free(&seal);
}

static char *file_in(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch_folder, name);
    return path;
}

/* ---- what is digested ---- */

static void test_definition(void **state) {
    (void)state;
    Seal seal;
    OK(seal_make(&seal, tensors, COUNTOF(tensors), pairs, COUNTOF(pairs), &err));
    assert_string_equal(seal.tensors, TENSORS);
    assert_string_equal(seal.metadata, METADATA);
    assert_int_equal(seal.count, COUNTOF(pairs) + 2);
    /* sealed again: the same, and each key once */
    Seal again;
    OK(seal_make(&again, tensors, COUNTOF(tensors), seal.pairs, seal.count, &err));
    assert_string_equal(again.metadata, METADATA);
    assert_int_equal(again.count, seal.count);
    seal_free(&again);
    seal_free(&seal);
}

/* Another order, another format, another number of threads: the same tensors are the same. */
static void test_order_and_format(void **state) {
    (void)state;
    StoredTensor turned[COUNTOF(tensors)];
    StoredPair turned_pairs[COUNTOF(pairs)];
    for (size_t i = 0; i < COUNTOF(tensors); i++) turned[i] = tensors[COUNTOF(tensors) - 1 - i];
    for (size_t i = 0; i < COUNTOF(pairs); i++) turned_pairs[i] = pairs[COUNTOF(pairs) - 1 - i];
    for (int k = 0; k < 4; k++) {
        TensorFile f;
        Team *team = k % 2 ? team_new(3) : NULL, *before = team_use(team);
        write_sealed(file_in("order"), k / 2, k % 2 ? turned : tensors, k % 2 ? turned_pairs : pairs);
        OK(tensor_file_open(&f, file_in("order"), NULL, &err));
        assert_true(seal_present(&f));
        assert_string_equal(tensor_file_metadata(&f, SEAL_TENSORS), TENSORS);
        assert_string_equal(tensor_file_metadata(&f, SEAL_METADATA), METADATA);
        OK(seal_check_metadata(&f, &err));
        OK(seal_check_tensors(&f, &err));
        tensor_file_close(&f);
        team_use(before);
        team_free(team);
    }
}

/* One tensor needs no order; a shape that no memory holds has no digest. */
static void test_one_and_impossible(void **state) {
    (void)state;
    char digest[SHA256_TEXT_SIZE], text[2 * SHA256_TEXT_SIZE];
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, tensors[0].data, sizeof weights);
    sha256_text(&s, digest);
    snprintf(text, sizeof text, "%s F32 [2,3] head.weight\n", digest);
    sha256_init(&s);
    sha256_add(&s, text, strlen(text));
    sha256_text(&s, text);
    OK(seal_digest_tensors(digest, tensors, 1, &err));
    assert_string_equal(digest, text);
    StoredTensor wrong = {.name = "huge", .dtype = STORED_F32, .rank = 2, .shape = {1ll << 40, 1ll << 40}, .data = weights};
    Seal seal;
    Err e = {0};
    assert_false(seal_make(&seal, &wrong, 1, pairs, COUNTOF(pairs), &e));
    seal_free(&seal);
    assert_int_equal(e.code, EXIT_INPUT);
    if (!strstr(e.text, "tensor \"huge\" has a shape")) fail_msg("%s", e.text);
}

static void test_unsealed(void **state) {
    (void)state;
    TensorFile f;
    OK(safetensors_write(file_in("bare"), tensors, COUNTOF(tensors), pairs, COUNTOF(pairs), &err));
    OK(tensor_file_open(&f, file_in("bare"), NULL, &err));
    assert_false(seal_present(&f));
    OK(seal_check_metadata(&f, &err));
    OK(seal_check_tensors(&f, &err));
    tensor_file_close(&f);
    /* one digest without the other is no file that was written so */
    for (int k = 0; k < 2; k++) {
        Seal seal;
        Err found = {0};
        OK(seal_make(&seal, tensors, COUNTOF(tensors), pairs, COUNTOF(pairs), &err));
        if (k) seal.pairs[seal.count - 2] = seal.pairs[seal.count - 1];
        OK(safetensors_write(file_in("half"), tensors, COUNTOF(tensors), seal.pairs, seal.count - 1, &err));
        OK(tensor_file_open(&f, file_in("half"), NULL, &err));
        assert_false(seal_check_metadata(&f, &found));
        assert_int_equal(found.code, EXIT_INPUT);
        tensor_file_close(&f);
        seal_free(&seal);
    }
}

/* Metadata that are sealed, but know of no tensors: those would pass whatever they are. The digest by the words of
 * seal.h, not by its code. */
static void test_sealed_metadata_alone(void **state) {
    (void)state;
    static const char sealed[] = "1:a2:bc9:mala.arch7:mavit_t";
    char digest[SHA256_TEXT_SIZE];
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, sealed, strlen(sealed));
    sha256_text(&s, digest);
    const StoredPair with[] = {{"mala.arch", "mavit_t"}, {"a", "bc"}, {SEAL_METADATA, digest}};
    TensorFile f;
    Err found = {0};
    OK(safetensors_write(file_in("alone"), tensors, COUNTOF(tensors), with, COUNTOF(with), &err));
    OK(tensor_file_open(&f, file_in("alone"), NULL, &err));
    assert_false(seal_check_metadata(&f, &found));
    assert_int_equal(found.code, EXIT_INPUT);
    if (!strstr(found.text, "its metadata lack mala.tensors_sha256 - ")) fail_msg("%s", found.text);
    tensor_file_close(&f);
}

/* A tensor that is read in several pieces, the last of them smaller, has the digest of its bytes. */
static void test_a_tensor_of_several_pieces(void **state) {
    (void)state;
    enum { BYTES = 3 * 65536 + 7 };
    uint8_t *bytes = mem_zalloc(BYTES, 1);
    for (int i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 7 + i / 251);
    const StoredTensor large = {.name = "large", .dtype = STORED_U8, .rank = 1, .shape = {BYTES}, .data = bytes};
    char want[SHA256_TEXT_SIZE], line[2 * SHA256_TEXT_SIZE], is[SHA256_TEXT_SIZE];
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, bytes, BYTES);
    sha256_text(&s, want);
    snprintf(line, sizeof line, "%s U8 [%d] large\n", want, BYTES);
    sha256_init(&s);
    sha256_add(&s, line, strlen(line));
    sha256_text(&s, want);
    TensorFile f;
    OK(safetensors_write(file_in("large"), &large, 1, NULL, 0, &err));
    OK(tensor_file_open(&f, file_in("large"), NULL, &err));
    OK(seal_digest_tensors(is, f.tensors, f.tensor_count, &err));
    assert_string_equal(is, want);
    tensor_file_close(&f);
    free(bytes);
}

/* ---- flipped bits ---- */

static bool same_content(const TensorFile *a, const TensorFile *b) {
    if (a->tensor_count != b->tensor_count || a->metadata_count != b->metadata_count) return false;
    for (size_t i = 0; i < a->tensor_count; i++) {
        const StoredTensor *x = &a->tensors[i], *y = tensor_file_find(b, x->name);
        if (!y || x->dtype != y->dtype || x->rank != y->rank || memcmp(x->shape, y->shape, sizeof x->shape) != 0 ||
            !stored_same_data(x, y))
            return false;
    }
    for (size_t i = 0; i < a->metadata_count; i++) {
        const char *value = tensor_file_metadata(b, a->metadata[i].key);
        if (!value || strcmp(value, a->metadata[i].value) != 0) return false;
    }
    return true;
}

/* Is the file found out when it is opened, or by its seal? False: it means what it did. */
static bool noticed(const uint8_t *bytes, size_t count, const TensorFile *whole) {
    TensorFile f;
    Err found = {0};
    if (!tensor_file_open_memory(&f, "flipped", bytes, count, NULL, &found)) {
        assert_int_equal(found.code, EXIT_INPUT);
        return true;
    }
    bool holds = seal_check_metadata(&f, &found) && seal_check_tensors(&f, &found);
    if (!holds) assert_int_equal(found.code, EXIT_INPUT);
    if (holds && !(seal_present(&f) && same_content(&f, whole))) fail_msg("a changed file passes");
    tensor_file_close(&f);
    return !holds;
}

/* Every bit of a small file, one after the other; of zip archives alone some have no meaning: dates, versions,
 * attributes. */
static void test_every_bit(void **state) {
    (void)state;
    for (int format = 0; format < 2; format++) {
        uint8_t *bytes;
        size_t count, missed = 0;
        TensorFile whole;
        write_sealed(file_in("whole"), format, tensors, pairs);
        OK(file_read(&bytes, &count, file_in("whole"), 1 << 20, &err));
        OK(tensor_file_open(&whole, file_in("whole"), NULL, &err));
        assert_false(noticed(bytes, count, &whole));
        for (size_t bit = 0; bit < 8 * count; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            missed += !noticed(bytes, count, &whole);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(format ? missed < count * 8 / 10 : missed == 0);
        print_message("%s: %zu of %zu bits have no meaning\n", format ? "pth" : "safetensors", missed, 8 * count);
        tensor_file_close(&whole);
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_order_and_format),
        cmocka_unit_test(test_one_and_impossible),
        cmocka_unit_test(test_unsealed),
        cmocka_unit_test(test_sealed_metadata_alone),
        cmocka_unit_test(test_a_tensor_of_several_pieces),
        cmocka_unit_test(test_every_bit),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
