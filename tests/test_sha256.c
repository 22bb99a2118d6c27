/* test_sha256.c - SHA-256 of FIPS 180-4's and NIST's messages, whole and in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/sha256.h"

static void expect(const char *text, size_t count, const char *wanted) {
    for (size_t piece = 1; piece <= count + 1; piece += piece < 8 ? 1 : 61) {
        Sha256 s;
        char got[SHA256_TEXT_SIZE];
        sha256_init(&s);
        for (size_t at = 0; at < count; at += piece) sha256_add(&s, text + at, MIN(piece, count - at));
        sha256_text(&s, got);
        assert_string_equal(got, wanted);
    }
}

static void test_known(void **state) {
    (void)state;
    static char many[1000];
    memset(many, 'a', sizeof many);
    expect("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect(many, sizeof many, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
}

/* Whether or not this processor has instructions for it, the same comes out. */
static void test_portable(void **state) {
    (void)state;
    uint8_t bytes[64 * 9];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * i * 31 + i / 7);
    for (size_t blocks = 0; blocks <= 9; blocks++) {
        Sha256 s, plain;
        sha256_init(&s);
        plain = s;
        sha256_add(&s, bytes, 64 * blocks);
        sha256_portable_add(plain.state, bytes, blocks);
        assert_memory_equal(s.state, plain.state, sizeof s.state);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_portable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
