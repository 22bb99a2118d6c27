/* test_safetensors.c - every refusal of the reader and of the writer, limits, damage at every byte and bit, and that
 * what was written comes back bit for bit. Files are made here; ids such as ST-05 number the known attacks. */
#include "io/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "safetensors_cases.h"
#include "scratch.h"
#include "stored.h"

static char dir[SCRATCH_PATH];
static char path[sizeof dir + 32];
static uint8_t big[1 << 12];

static int make_dir(void **state) {
    (void)state;
    scratch_make(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    scratch_remove(dir);
    return 0;
}

/* A new file each time: file systems flush one that is written over, and there are thousands. */
static FILE *new_file(void) {
    unlink(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    return f;
}

static void put_bytes(const void *bytes, size_t count) {
    FILE *f = new_file();
    assert_int_equal(fwrite(bytes, 1, count, f), count);
    assert_int_equal(fclose(f), 0);
}

/* A file of length field n, a header and zeros for data. */
static void put_file(uint64_t n, const char *header, size_t header_bytes, size_t data_bytes) {
    FILE *f = new_file();
    assert_int_equal(fwrite(&n, 8, 1, f), 1);
    assert_int_equal(fwrite(header, 1, header_bytes, f), header_bytes);
    assert_true(data_bytes <= sizeof big);
    assert_int_equal(fwrite(big, 1, data_bytes, f), data_bytes);
    assert_int_equal(fclose(f), 0);
}

/* "accepted", or the message after "PATH: ". Whatever the file: a result, one line, exit code 3. */
static const char *verdict(void) {
    static Err err;
    TensorFile st;
    err = (Err){0};
    if (tensor_file_open(&st, path, NULL, &err)) {
        tensor_file_close(&st);
        return "accepted";
    }
    assert_int_equal(err.code, EXIT_INPUT);
    size_t prefix = strlen(path);
    if (strncmp(err.text, path, prefix) != 0 || strncmp(err.text + prefix, ": ", 2) != 0)
        fail_msg("does not begin with the file: %s", err.text);
    return err.text + prefix + 2;
}

static void test_cases(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        const Case *c = &cases[i];
        put_file(c->header_bytes, c->header, c->header_bytes, c->data_bytes);
        const char *got = verdict();
        if (strncmp(got, c->verdict, strlen(c->verdict)) != 0) fail_msg("%s: %s", c->id, got);
    }
}

/* ST-01, F-01 */
static void test_length(void **state) {
    (void)state;
    const char header[] = W("[1]", "[0,4]");
    const size_t bytes = sizeof header - 1, whole = bytes + 4;
    const uint64_t lengths[] = {0,          1,          2,          whole + 1,      bytes - 1,       bytes + 1,
                                1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX - 8, UINT64_MAX - 7u, UINT64_MAX};
    for (size_t i = 0; i < COUNTOF(lengths); i++) {
        put_file(lengths[i], header, bytes, 4);
        assert_string_not_equal(verdict(), "accepted");
    }
    put_file(bytes, header, bytes, 4);
    assert_string_equal(verdict(), "accepted");
    put_file(100, header, 40, 0);
    assert_string_equal(verdict(), "byte 0: a header of 100 bytes in a file of 48 - cut off, fetch it again");
    for (size_t count = 0; count <= 8; count++) {
        put_bytes("\2\0\0\0\0\0\0\0", count);
        assert_non_null(strstr(verdict(), "too short for a model file"));
    }
}

/* BOOL data of a stranger may hold any byte, and 2 is neither true nor false. */
static void test_bool(void **state) {
    (void)state;
    uint8_t file[128];
    const char header[] = "{\"mask\":" F("BOOL", "[3]", "[0,3]") "}";
    const uint64_t n = sizeof header - 1;
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    memcpy(file + 8 + n, "\1\0\1", 3);
    put_bytes(file, 8 + n + 3);
    assert_string_equal(verdict(), "accepted");
    file[8 + n + 2] = 2;
    put_bytes(file, 8 + n + 3);
    assert_string_equal(verdict(), "byte 68: BOOL tensor \"mask\" holds 2");
}

static void test_foreign(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        const char *what;
    } files[] = {
        {H("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "is a Git-LFS pointer"},
        {H("<!DOCTYPE html><html><body>Not Found</body></html>"), "is a web page"},
        {H("<html lang=\"en\">"), "is a web page"},
        {H("PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0archive/data.pkl"), "byte 10: no end record of a zip archive"},
        {H("PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0"), "byte 0: too short for a zip archive"},
        {H("\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8"), "is a PyTorch checkpoint of before version 1.6"},
        {H("\x80\4\x95\0\0\0\0\0\0\0\0"), "is a Python pickle"},
        {H("{\"weight_map\": {}}"), "is JSON text"},
        {H("\x1f\x8b\x08\0\0\0\0\0\0\3\0"), "is compressed with gzip"},
        {H("\xFD\x37zXZ\0\0\4\xe6"), "is compressed with xz"},
        {H("GGUF\3\0\0\0\0\0"), "is a GGUF model"},
        {H("\x89PNG\r\n\x1a\n\0\0"), "is a picture"},
        {H("\x08\x07\x12\x04mala\x1a\x00"), "is an ONNX model"},
        {H("\x08\x0a\x12\x07pytorch"), "is an ONNX model"},
    };
    for (size_t i = 0; i < COUNTOF(files); i++) {
        put_bytes(files[i].bytes, files[i].count);
        const char *got = verdict();
        if (strncmp(got, files[i].what, strlen(files[i].what)) != 0) fail_msg("file %zu: %s", i, got);
    }
}

/* F-06: what is no regular file is refused at once. */
static void test_no_file(void **state) {
    (void)state;
    unlink(path);
    assert_string_not_equal(verdict(), "accepted");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_string_not_equal(verdict(), "accepted");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_string_not_equal(verdict(), "accepted");
    assert_int_equal(rmdir(path), 0);
}

/* ---- damage ---- */

static const uint32_t odd_floats[] = {0x7f800001, 0xffc12345, 0x7f800000, 0x80000000, 0x00000001, 0x3f800000};
static const uint64_t odd_doubles[] = {0x7ff0000000000001, 0x8000000000000000};

/* A small file with odd values, names, and every kind of shape. */
static const StoredTensor sample[] = {
    {.name = "layers.0.blocks.0.attn.qkvo.weight", .dtype = STORED_F32, .rank = 2, .shape = {2, 3}, .data = odd_floats},
    {.name = "scalar", .dtype = STORED_U8, .data = "\x2a"},
    {.name = "empty", .dtype = STORED_F32, .rank = 3, .shape = {4, 0, 1}},
    {.name = "a \"quoted\" \\ n\xc3\xa4me", .dtype = STORED_F64, .rank = 1, .shape = {2}, .data = odd_doubles},
    {.name = "mask", .dtype = STORED_BOOL, .rank = 1, .shape = {3}, .data = "\1\0\1"},
};
static const StoredPair sample_metadata[] = {{"format", "pt"}, {"mala.config", "{\"epochs\": 3}\n\x1b"}, {"", ""}};
#define SAMPLE_METADATA 2 /* the third pair has no key and is for the test of the writer */

static void put_sample(uint8_t **bytes, size_t *count) {
    Err err = {0};
    if (!safetensors_write(path, sample, COUNTOF(sample), sample_metadata, SAMPLE_METADATA, &err))
        fail_msg("%s", err.text);
    if (bytes && !file_read(bytes, count, path, 1 << 20, &err)) fail_msg("%s", err.text);
}

/* F-02, F-05 */
static void test_truncation(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t count;
    put_sample(&bytes, &count);
    for (size_t n = 0; n < count; n++) {
        put_bytes(bytes, n);
        if (strcmp(verdict(), "accepted") == 0) fail_msg("accepted with %zu of %zu bytes", n, count);
    }
    uint8_t *twice = mem_zalloc(2, count);
    memcpy(twice, bytes, count);
    memcpy(twice + count, bytes, count);
    put_bytes(twice, count + 1);
    assert_non_null(strstr(verdict(), "the last 1 bytes belong to no tensor"));
    put_bytes(twice, 2 * count);
    assert_string_not_equal(verdict(), "accepted");
    free(twice);
    free(bytes);
}

/* F-03: a flipped bit may leave a valid file (another letter in a name), never a crash or another exit code. */
static void test_bit_flips(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t count, refused = 0;
    uint64_t n;
    put_sample(&bytes, &count);
    memcpy(&n, bytes, 8);
    for (size_t bit = 0; bit < 8 * (8 + (size_t)n); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        put_bytes(bytes, count);
        refused += strcmp(verdict(), "accepted") != 0;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(refused > 8 * 8);
    put_bytes(bytes, count);
    assert_string_equal(verdict(), "accepted");
    free(bytes);
}

/* F-04: words of the length field and of the header */
static void test_words(void **state) {
    (void)state;
    static const uint64_t values[] = {0, 1, UINT64_MAX, 0x7fffffffffffffff, 1ull << 63, 0x7fffffff7fffffff};
    uint8_t *bytes;
    size_t count;
    put_sample(&bytes, &count);
    uint64_t n;
    memcpy(&n, bytes, 8);
    for (size_t at = 0; at < 8 + n; at += 8)
        for (size_t i = 0; i < COUNTOF(values); i++) {
            uint64_t kept;
            memcpy(&kept, bytes + at, 8);
            memcpy(bytes + at, &values[i], 8);
            put_bytes(bytes, count);
            assert_string_not_equal(verdict(), "accepted");
            memcpy(bytes + at, &kept, 8);
        }
    free(bytes);
}

/* ---- what is written comes back ---- */

static void check_sample(const TensorFile *st) {
    assert_int_equal(st->tensor_count, COUNTOF(sample));
    for (size_t i = 0; i < COUNTOF(sample); i++) {
        const StoredTensor *want = &sample[i], *got = tensor_file_find(st, want->name);
        assert_non_null(got);
        assert_ptr_equal(got, &st->tensors[i]);
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->rank, want->rank);
        assert_memory_equal(got->shape, want->shape, sizeof got->shape);
        assert_true(stored_same_data(got, want));
    }
    assert_int_equal(st->tensors[0].bytes, sizeof odd_floats);
    assert_int_equal(st->tensors[1].count, 1);
    assert_int_equal(st->tensors[2].count, 0);
    assert_null(tensor_file_find(st, "scala"));
    assert_null(tensor_file_find(st, ""));
    assert_int_equal(st->metadata_count, SAMPLE_METADATA);
    assert_string_equal(tensor_file_metadata(st, "format"), "pt");
    assert_string_equal(tensor_file_metadata(st, "mala.config"), sample_metadata[1].value);
    assert_null(tensor_file_metadata(st, "mala"));
}

static void test_round_trip(void **state) {
    (void)state;
    Err err = {0};
    uint8_t *first, *second;
    size_t first_bytes, second_bytes;
    TensorFile st;
    put_sample(&first, &first_bytes);
    if (!tensor_file_open(&st, path, NULL, &err)) fail_msg("%s", err.text);
    check_sample(&st);
    assert_int_equal(st.tensors[0].at % 64, 0);
    /* ST-23: over the file that is being read */
    if (!safetensors_write(path, st.tensors, st.tensor_count, st.metadata, st.metadata_count, &err))
        fail_msg("%s", err.text);
    check_sample(&st);
    tensor_file_close(&st);
    assert_true(file_read(&second, &second_bytes, path, 1 << 20, &err));
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
}

static void test_nothing(void **state) {
    (void)state;
    Err err = {0};
    TensorFile st;
    assert_true(safetensors_write(path, NULL, 0, NULL, 0, &err));
    assert_true(tensor_file_open(&st, path, NULL, &err));
    assert_int_equal(st.tensor_count, 0);
    assert_null(tensor_file_find(&st, "w"));
    assert_null(tensor_file_metadata(&st, "w"));
    tensor_file_close(&st);
}

/* ST-24: the target stays as it was. */
static void test_writer_refuses(void **state) {
    (void)state;
    char *huge = mem_zalloc(SAFETENSORS_MAX_HEADER, 1);
    memset(huge, 'x', SAFETENSORS_MAX_HEADER - 1);
    const StoredTensor bad[][2] = {
        {{.name = "w", .dtype = STORED_U8, .data = "x"}, {.name = "w", .dtype = STORED_U8, .data = "y"}},
        {{.name = ""}},
        {{.name = "__metadata__"}},
        {{.name = "\xff"}},
        {{.name = "a\nb"}},
        {{.name = "w", .dtype = STORED_F4, .rank = 1, .shape = {3}, .data = "xx"}},
        {{.name = "w", .rank = 1, .shape = {-1}}},
        {{.name = "w", .rank = 2, .shape = {STORED_MAX_DIM, STORED_MAX_DIM}}},
        {{.name = huge, .data = "x"}},
    };
    const StoredPair bad_metadata[][2] = {
        {{"a", "1"}, {"a", "2"}}, {{"b", "2"}, {"", "1"}}, {{"a", "\xff"}, {"b", ""}}, {{"a\n", "1"}, {"b", ""}}};
    Err err = {0};
    put_sample(NULL, NULL);
    for (size_t i = 0; i < COUNTOF(bad); i++, err = (Err){0}) {
        assert_false(safetensors_write(path, bad[i], bad[i][1].name ? 2 : 1, NULL, 0, &err));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_non_null(strstr(err.text, "not written"));
    }
    for (size_t i = 0; i < COUNTOF(bad_metadata); i++, err = (Err){0}) {
        assert_false(safetensors_write(path, NULL, 0, bad_metadata[i], 2, &err));
        assert_int_equal(err.code, EXIT_INPUT);
    }
    TensorFile st;
    assert_true(tensor_file_open(&st, path, NULL, &err));
    check_sample(&st);
    tensor_file_close(&st);
    free(huge);
}

/* ---- numbers ---- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void test_float32(void **state) {
    (void)state;
    enum { ALL = 1 << 16 };
    static uint16_t halves[ALL];
    static float out[ALL];
    for (int i = 0; i < ALL; i++) halves[i] = (uint16_t)i;
    const double doubles[] = {0.1, -1e-300, INFINITY, 16777217.0, 3.4028234e38, 1e39};
    const StoredTensor tensors[] = {
        {.name = "odd", .dtype = STORED_U8, .data = "x"}, /* what follows lies at odd addresses: ST-17 */
        {.name = "f16", .dtype = STORED_F16, .rank = 1, .shape = {ALL}, .data = halves},
        {.name = "bf16", .dtype = STORED_BF16, .rank = 1, .shape = {ALL}, .data = halves},
        {.name = "f32", .dtype = STORED_F32, .rank = 1, .shape = {6}, .data = odd_floats},
        {.name = "f64", .dtype = STORED_F64, .rank = 1, .shape = {5}, .data = doubles},
        {.name = "too large", .dtype = STORED_F64, .rank = 1, .shape = {6}, .data = doubles},
    };
    Err err = {0};
    TensorFile st;
    assert_true(safetensors_write(path, tensors, COUNTOF(tensors), NULL, 0, &err));
    assert_true(tensor_file_open(&st, path, NULL, &err));
    assert_true(tensor_file_read_f32(out, &st, tensor_file_find(&st, "f16"), &err));
    for (int i = 0; i < ALL; i++) {
        int exponent = i >> 10 & 31, fraction = i & 1023;
        double want = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        if (exponent == 31)
            assert_int_equal(bits_of(out[i]), (uint32_t)(i & 0x8000) << 16 | 0x7f800000u | (uint32_t)fraction << 13);
        else
            assert_int_equal(bits_of(out[i]), bits_of((float)(i & 0x8000 ? -want : want)));
    }
    assert_true(tensor_file_read_f32(out, &st, tensor_file_find(&st, "bf16"), &err));
    for (int i = 0; i < ALL; i++) assert_int_equal(bits_of(out[i]), (uint32_t)i << 16);
    assert_true(tensor_file_read_f32(out, &st, tensor_file_find(&st, "f32"), &err));
    assert_memory_equal(out, odd_floats, sizeof odd_floats);
    assert_true(tensor_file_read_f32(out, &st, tensor_file_find(&st, "f64"), &err));
    assert_true(out[0] == 0.1f && out[1] == 0.0f && signbit(out[1]) && isinf(out[2]) && out[3] == 16777216.0f);
    assert_false(tensor_file_read_f32(out, &st, tensor_file_find(&st, "too large"), &err));
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "tensor \"too large\": element 5 is 1e+39, beyond float32"));
    err = (Err){0};
    assert_false(tensor_file_read_f32(out, &st, tensor_file_find(&st, "odd"), &err));
    assert_non_null(strstr(err.text, "tensor \"odd\" is U8, expected F32, F16, BF16 or F64"));
    tensor_file_close(&st);
}

/* ---- limits ---- */

/* Opens a header of `count` entries made by a printf format that takes the index twice; returns the verdict. */
static const char *verdict_of_many(const char *begin, const char *entry, const char *end, size_t count) {
    size_t capacity = 128 + count * 96, used;
    char *header = mem_zalloc(capacity, 1);
    used = (size_t)snprintf(header, capacity, "%s", begin);
    for (size_t i = 0; i < count; i++) {
        char item[96];
        int n = snprintf(item, sizeof item, entry, i, i);
        assert_true(n > 0 && (size_t)n < sizeof item);
        if (i > 0) header[used++] = ',';
        memcpy(header + used, item, (size_t)n);
        used += (size_t)n;
    }
    used += (size_t)snprintf(header + used, capacity - used, "%s", end);
    put_file(used, header, used, 0);
    free(header);
    double start = time_now();
    const char *got = verdict();
    print_message("%zu entries, %zu bytes of header: %.2f s\n", count, used, time_now() - start);
    assert_true(time_now() - start < 60); /* quadratic work would take hours */
    return got;
}

/* ST-02, ST-07, ST-18 */
static void test_many(void **state) {
    (void)state;
    const char *tensor = "\"t%zu\":{\"dtype\":\"U8\",\"shape\":[0,%zu],\"data_offsets\":[0,0]}";
    assert_string_equal(verdict_of_many("{", tensor, "}", SAFETENSORS_MAX_TENSORS), "accepted");
    assert_non_null(
        strstr(verdict_of_many("{", tensor, "}", SAFETENSORS_MAX_TENSORS + 1), "more than 1000000 tensors"));
    const char *pair = "\"k%zu\":\"%zu\"";
    assert_string_equal(verdict_of_many("{\"__metadata__\":{", pair, "}}", SAFETENSORS_MAX_METADATA), "accepted");
    assert_non_null(strstr(verdict_of_many("{\"__metadata__\":{", pair, "}}", SAFETENSORS_MAX_METADATA + 1),
                           "more than 100000 metadata entries"));
}

/* A header of n bytes: spaces, or a tensor with a name of a length. */
static const char *verdict_of_header(uint64_t n, size_t name) {
    char *header = mem_zalloc(n, 1);
    memset(header, ' ', n);
    if (name > 0) {
        memset(header, 'n', name + 2);
        memcpy(header, "{\"", 2);
        memcpy(header + name + 2, "\":" F4 "}", sizeof("\":" F4 "}") - 1);
    }
    put_file(n, header, n, name > 0 ? 4 : 0);
    free(header);
    return verdict();
}

static void test_large_headers(void **state) {
    (void)state;
    assert_non_null(strstr(verdict_of_header(SAFETENSORS_MAX_HEADER, 0), "empty"));
    assert_non_null(strstr(verdict_of_header(SAFETENSORS_MAX_HEADER + 1, 0), "the format has 1..100000000"));
    assert_string_equal(verdict_of_header(SAFETENSORS_MAX_HEADER, 50000000), "accepted");
    assert_string_equal(verdict_of_header(2000000, 1000000), "accepted");
}

/* ST-19 */
static void test_nesting(void **state) {
    (void)state;
    enum { DEEP = 1000000 };
    const char begin[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":";
    char *header = mem_zalloc(sizeof begin + DEEP, 1);
    memcpy(header, begin, sizeof begin - 1);
    memset(header + sizeof begin - 1, '[', DEEP);
    put_file(sizeof begin - 1 + DEEP, header, sizeof begin - 1 + DEEP, 0);
    free(header);
    assert_non_null(strstr(verdict(), "tensor \"w\" has a dimension that is no integer"));
}

/* F-07: sparse files of a terabyte */
static void test_sparse(void **state) {
    (void)state;
    put_file(0, "", 0, 0);
    if (truncate(path, (off_t)1 << 40) != 0) skip(); /* the file system has smaller files */
    assert_non_null(strstr(verdict(), "a header of 0 bytes"));
    put_file(2, "{}", 2, 0);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    assert_non_null(strstr(verdict(), "the last 1099511627766 bytes belong to no tensor"));
}

/* ---- a file of another program ---- */

static void test_golden(void **state) {
    (void)state;
    Err err = {0};
    TensorFile st;
    if (!tensor_file_open(&st, "tests/golden/attention_mala.safetensors", NULL, &err)) fail_msg("%s", err.text);
    const StoredTensor *x = tensor_file_find(&st, "x"), *weight = tensor_file_find(&st, "d.qkvo.weight");
    assert_non_null(x);
    assert_non_null(weight);
    assert_int_equal(x->dtype, STORED_F32);
    assert_int_equal(x->rank, 4);
    assert_memory_equal(x->shape, ((int64_t[]){2, 32, 5, 7}), 4 * sizeof(int64_t));
    assert_memory_equal(weight->shape, ((int64_t[]){128, 32, 1, 1}), 4 * sizeof(int64_t));
    assert_non_null(tensor_file_metadata(&st, "rule"));
    assert_null(tensor_file_find(&st, "d.qkvo"));
    float values[2 * 32 * 5 * 7];
    assert_true(tensor_file_read_f32(values, &st, x, &err));
    for (size_t i = 0; i < x->count; i++) assert_true(values[i] >= -1 && values[i] < 1);
    tensor_file_close(&st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),     cmocka_unit_test(test_length),         cmocka_unit_test(test_bool),
        cmocka_unit_test(test_foreign),   cmocka_unit_test(test_no_file),        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_bit_flips), cmocka_unit_test(test_words),          cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_nothing),   cmocka_unit_test(test_writer_refuses), cmocka_unit_test(test_float32),
        cmocka_unit_test(test_many),      cmocka_unit_test(test_large_headers),  cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_sparse),    cmocka_unit_test(test_golden),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
