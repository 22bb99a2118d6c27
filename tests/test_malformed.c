/* test_malformed.c - from good files, tens of thousands of damaged ones: lengths, offsets, opcodes, numbers, pieces
 * repeated or cut. Whatever the damage: no crash, no wait, no flood of memory, and an error that names the file and the
 * place. MALFORMED=N makes N of each format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/config.h"
#include "base/file.h"
#include "io/tensor_file.h"
#include "damage.h"

#define CASES 12000
#define SECONDS 5        /* for one file */
#define MEMORY (64 << 10) /* KiB at most, of the whole program */

static int case_count(void) { return getenv("MALFORMED") ? atoi(getenv("MALFORMED")) : CASES; }

/* ---- damage ---- */

/* One of the numbers of a JSON text becomes another, or a sign of its grammar does. */
static void damage_text(Buffer *b, Rng *r) {
    static const char *const values[] = {"-1", "1e999", "2.5", "null", "\"\"", "[]", "{}", "[[[[[[[[[[", "007", "\"\\u0000\"",
                                         "true", "9007199254740993", "\"\xff\"", "1e-400"};
    if (b->count == 0) return;
    size_t at = rng_below(r, (uint32_t)b->count), end;
    while (at < b->count && (b->bytes[at] < '0' || b->bytes[at] > '9')) at++;
    for (end = at; end < b->count && b->bytes[end] >= '0' && b->bytes[end] <= '9';) end++;
    char number[24];
    uint32_t kind = rng_below(r, 3);
    if (kind == 0) {
        snprintf(number, sizeof number, "%ju", (uintmax_t)odd_number(r, b->count));
        splice(b, at, end - at, number, strlen(number));
    } else if (kind == 1) {
        const char *value = values[rng_below(r, COUNTOF(values))];
        splice(b, at, end - at, value, strlen(value));
    } else {
        at = rng_below(r, (uint32_t)b->count);
        b->bytes[at] = (uint8_t) "{}[]:,\"\\ 0-."[rng_below(r, 12)];
    }
}

/* One of the opcodes of a pickle becomes another; most bytes of one are opcodes or their short arguments. */
static void damage_pickle(Buffer *b, Rng *r) {
    static const char opcodes[] = "(.)]}NJKMGXUcRQqrhjabestu\x81\x85\x86\x87\x88\x89\x8a";
    if (b->count == 0) return;
    b->bytes[rng_below(r, (uint32_t)b->count)] = (uint8_t)opcodes[rng_below(r, sizeof opcodes - 1)];
}

/* ---- verdicts ---- */

/* The error names the file and, if it is not about the file as a whole ("m is a web page"), a byte, line or key. */
static void check_error(const Err *err, const char *name, ExitCode code, int number) {
    size_t n = strlen(name);
    bool placed = strncmp(err->text, name, n) == 0 && err->text[n] == ':';
    const char *what = err->text + n;
    placed = placed && (strstr(what, "byte") || strchr(what, '"') || strncmp(what, ": is ", 5) == 0 ||
                        (what[1] >= '0' && what[1] <= '9') || strncmp(what, ": not ", 6) == 0);
    /* what two options together make wrong has no one place: "config: model.heads: ..." */
    placed = placed || (code == EXIT_INPUT && strncmp(err->text, "config: ", 8) == 0 && strchr(err->text, '.'));
    if (err->code != code || !placed) fail_msg("case %d: exit %d: %s", number, err->code, err->text);
}

static bool try_tensors(const Buffer *b, const char *name, int number) {
    TensorFile f;
    Err err = {0};
    uint8_t *exact = malloc(b->count ? b->count : 1); /* so that a sanitizer sees what is read beyond it */
    assert_non_null(exact);
    if (b->count > 0) memcpy(exact, b->bytes, b->count);
    alarm(SECONDS);
    bool ok = tensor_file_open_memory(&f, name, exact, b->count, NULL, &err);
    for (size_t i = 0; ok && i < f.tensor_count; i++) {
        const StoredTensor *t = &f.tensors[i];
        if (t->count > 1 << 16) continue;
        float *values = mem_zalloc(t->count, sizeof *values);
        Err unreadable = {0};
        assert_ptr_equal(tensor_file_find(&f, t->name), t);
        if (!tensor_file_read_f32(values, &f, t, &unreadable)) check_error(&unreadable, name, EXIT_INPUT, number);
        free(values);
    }
    alarm(0);
    if (ok)
        tensor_file_close(&f);
    else
        check_error(&err, name, EXIT_INPUT, number);
    free(exact);
    return ok;
}

static bool try_config(const Buffer *b, const char *name, int number) {
    Config c;
    Err err = {0};
    alarm(SECONDS);
    bool ok = config_load_text(&c, (const char *)b->bytes, b->count, name, NULL, 0, &err);
    alarm(0);
    if (!ok) check_error(&err, name, EXIT_INPUT, number);
    config_free(&c);
    return ok;
}

/* Some of the damaged files must pass and most must not, otherwise the damage tests nothing. */
static void conclude(const char *format, int accepted, int total) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    print_message("%d %s files, %d of them still good; %ld MiB at most\n", total, format, accepted, usage.ru_maxrss >> 10);
    assert_in_range(accepted, 1, total / 2);
#ifndef __SANITIZE_ADDRESS__
    assert_true(usage.ru_maxrss < MEMORY);
#endif
}

static Buffer seed_file(const char *path) {
    Buffer b = {0};
    Err err = {0};
    if (!file_read(&b.bytes, &b.count, path, 1 << 20, &err)) fail_msg("%s", err.text);
    b.capacity = b.count;
    return b;
}

/* ---- formats ---- */

static void test_safetensors(void **state) {
    (void)state;
    Buffer seed = seed_file("tests/fuzz/seeds/checkpoint.safetensors");
    int accepted = 0, total = case_count();
    uint64_t n;
    memcpy(&n, seed.bytes, 8);
    for (int i = 0; i < total; i++) {
        Rng r = rng_make(1, RNG_TEST, (uint64_t)i, 0);
        Buffer b = {0}, header = {0};
        if (i % 3 == 0) {
            b = copy_of(&seed);
            for (uint32_t k = rng_below(&r, 3) + 1; k > 0; k--) damage_bytes(&b, &r);
        } else { /* a damaged header of the right length */
            buffer_put(&header, seed.bytes + 8, (size_t)n);
            for (uint32_t k = rng_below(&r, 2) + 1; k > 0; k--) (i % 3 == 1 ? damage_text : damage_bytes)(&header, &r);
            buffer_put_uint(&b, header.count, 8);
            buffer_put(&b, header.bytes, header.count);
            buffer_put(&b, seed.bytes + 8 + n, seed.count - 8 - (size_t)n);
        }
        accepted += try_tensors(&b, "m.safetensors", i);
        buffer_free(&header);
        buffer_free(&b);
    }
    buffer_free(&seed);
    conclude("safetensors", accepted, total);
}

static void test_pth(void **state) {
    (void)state;
    static const float data[64] = {1, 2, 3};
    Buffer seed = seed_file("tests/golden/checkpoint.pth"), pickles[] = {{0}, seed_file("tests/fuzz/seeds/checkpoint.pkl")};
    buffer_put_pickle(&pickles[0], "x8002 } ( 'model' } ( 'a' " MATRIX " 'b' " TENSOR(SIX, "1", "2 2", "1 2") " u "
                      "'metadata' } ( 'a' 'b' 'c' 'd' u 'args' argparse:Namespace ) new } ( 'x' 1 u b u .");
    int accepted = 0, total = case_count();
    for (int i = 0; i < total; i++) {
        Rng r = rng_make(2, RNG_TEST, (uint64_t)i, 0);
        Buffer b = {0}, pickle = {0};
        if (i % 3 == 0) {
            b = copy_of(&seed);
            for (uint32_t k = rng_below(&r, 3) + 1; k > 0; k--) damage_bytes(&b, &r);
        } else { /* a damaged pickle in an archive that is right, CRC and all */
            Entry entries[PTH_ENTRIES + 8];
            size_t count = PTH_ENTRIES;
            char names[8][32];
            pickle = copy_of(&pickles[i % 2]);
            for (uint32_t k = rng_below(&r, 3) + 1; k > 0; k--) (rng_below(&r, 2) ? damage_pickle : damage_bytes)(&pickle, &r);
            pth_entries(entries, &pickle);
            for (int k = 1; i % 2 && k < 8; k++) { /* the storages that torch's own pickle names */
                static const size_t bytes[] = {48, 4, 4, 8, 8, 3, 8, 4};
                snprintf(names[k], sizeof names[k], "archive/data/%d", k);
                entries[count++] = (Entry){.name = names[k], .data = data, .bytes = bytes[k]};
            }
            if (i % 2) entries[2].data = data, entries[2].bytes = 48;
            buffer_put_zip(&b, NULL, entries, count);
        }
        accepted += try_tensors(&b, "m.pth", i);
        buffer_free(&pickle);
        buffer_free(&b);
    }
    buffer_free(&seed);
    buffer_free(&pickles[0]);
    buffer_free(&pickles[1]);
    conclude("PyTorch", accepted, total);
}

static void test_config(void **state) {
    (void)state;
    Buffer seed = seed_file("configs/demo.json");
    int accepted = 0, total = case_count();
    for (int i = 0; i < total; i++) {
        Rng r = rng_make(3, RNG_TEST, (uint64_t)i, 0);
        Buffer b = copy_of(&seed);
        for (uint32_t k = rng_below(&r, 2) + 1; k > 0; k--) (i % 2 ? damage_text : damage_bytes)(&b, &r);
        accepted += try_config(&b, "c.json", i);
        buffer_free(&b);
    }
    buffer_free(&seed);
    conclude("config", accepted, total);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_safetensors), cmocka_unit_test(test_pth),
                                       cmocka_unit_test(test_config)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
