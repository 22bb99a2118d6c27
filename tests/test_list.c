/* test_list.c - lists of paths: line ends and NULs, byte order marks, and what is refused because it would be cut in
 * silence. Every list is read from memory, from a stream, and from both, cut at every byte. */
#include "data/list.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* The entries with a '|' behind each, or the error. */
static void join(char *out, size_t room, ListReader r) {
    Err err = {0};
    const char *entry;
    size_t used = 0;
    out[0] = '\0';
    while (list_next(&r, &entry, &err) && entry) used += (size_t)snprintf(out + used, room - used, "%s|", entry);
    if (!err.code) return;
    assert_int_equal(err.code, EXIT_INPUT);
    snprintf(out, room, "%s", err.text);
}

static void expect_list(const char *bytes, size_t count, const char *want) {
    static char got[3 * DATASET_PATH_MAX];
    for (size_t cut = 0; cut <= count; cut += 1 + (count > 100) * 997) { /* 0: from the stream alone */
        FILE *rest = tmpfile();
        assert_non_null(rest);
        assert_int_equal(fwrite(bytes + cut, 1, count - cut, rest), count - cut);
        rewind(rest);
        join(got, sizeof got, list_reader("L", bytes, cut, rest));
        fclose(rest);
        assert_string_equal(got, want);
    }
    join(got, sizeof got, list_reader("L", bytes, count, NULL));
    assert_string_equal(got, want);
}

#define EXPECT_LIST(bytes, want) expect_list(bytes, sizeof(bytes) - 1, want)

static void test_lines(void **state) {
    (void)state;
    EXPECT_LIST("", "");
    EXPECT_LIST("\n\r\n\n", "");
    EXPECT_LIST("a.jpg", "a.jpg|");
    EXPECT_LIST("a.jpg\nb c.jpg\r\n\n\r\n/d.png\n", "a.jpg|b c.jpg|/d.png|");
    EXPECT_LIST("a\rb\n", "a\rb|"); /* no line end inside a line */
    EXPECT_LIST("\xff\n", "\xff|"); /* paths are bytes */
}

static void test_nul_separated(void **state) {
    (void)state;
    EXPECT_LIST("a.jpg\0b.jpg\0", "a.jpg|b.jpg|");
    EXPECT_LIST("a.jpg\0b.jpg", "a.jpg|b.jpg|");
    EXPECT_LIST("a\0b\nc\r\0\0d\r\0", "a|b\nc\r|d\r|"); /* line ends are part of names then */
}

static void test_byte_order_marks(void **state) {
    (void)state;
    EXPECT_LIST("\xef\xbb\xbf" "a.jpg\nb.jpg\n", "a.jpg|b.jpg|");
    EXPECT_LIST("\xef\xbb\xbf" "a.jpg\0b.jpg\0", "a.jpg|b.jpg|");
    EXPECT_LIST("\xef\xbb\xbf\r\na.jpg", "a.jpg|");
    EXPECT_LIST("\xef\xbb\xbf", "");
    EXPECT_LIST("a\n\xef\xbb\xbf" "b\n", "a|\xef\xbb\xbf" "b|"); /* the start alone */
    EXPECT_LIST("\xff\xfe" "a\0.\0j\0\n\0", "L: is UTF-16 text - save it as UTF-8");
    EXPECT_LIST("\xfe\xff\0a\0\n", "L: is UTF-16 text - save it as UTF-8");
}

static void test_nothing_is_cut(void **state) {
    (void)state;
    EXPECT_LIST("a\n\nb\0c\n", "L: line 3 holds a NUL - end all entries with a line end, or all with a NUL");
    char *line = malloc(DATASET_PATH_MAX), *want = malloc(DATASET_PATH_MAX + 1);
    memset(line, 'x', DATASET_PATH_MAX);
    expect_list(line, DATASET_PATH_MAX, "L: entry 1 is longer than 4095 bytes - give one path a line");
    snprintf(want, DATASET_PATH_MAX + 1, "%.*s|", DATASET_PATH_MAX - 1, line);
    expect_list(line, DATASET_PATH_MAX - 1, want);
    free(line), free(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_nul_separated),
                                       cmocka_unit_test(test_byte_order_marks), cmocka_unit_test(test_nothing_is_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
