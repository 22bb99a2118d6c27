/* test_json.c - the strict reader: what it accepts, every refusal with its message and place, limits; the writer. */
#include "base/json.h"
#include "base/strings.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static const JsonSource CONFIG = {.name = "c.json", .code = EXIT_USAGE};

static const char *error_of(const char *text, size_t count) {
    static Err err;
    err = (Err){0};
    if (json_check(text, count, CONFIG, &err)) return "accepted";
    assert_int_equal(err.code, EXIT_USAGE);
    return err.text;
}

#define REFUSES(text, message) assert_string_equal(error_of(text, sizeof(text) - 1), "c.json:" message)
#define ACCEPTS(text) assert_string_equal(error_of(text, sizeof(text) - 1), "accepted")

static void test_grammar(void **state) {
    (void)state;
    ACCEPTS("{}");
    ACCEPTS(" [ 1 , -2.5e-3 , true,false,null, \"\\ud83d\\ude00 \\n\" ] \r\n\t");
    ACCEPTS("\"\xc3\xa9\xf4\x8f\xbf\xbf\"");
    ACCEPTS("-0");
    REFUSES("", "1:1: empty where JSON was expected");
    REFUSES(" \n ", "2:2: empty where JSON was expected");
    REFUSES("{\"a\": 1,}", "1:9: a comma before '}' - remove the comma");
    REFUSES("[1,]", "1:4: a comma before ']' - remove the comma");
    REFUSES("[,1]", "1:2: expected a value, found ','");
    REFUSES("{\"a\" 1}", "1:6: expected ':' after a key, found '1'");
    REFUSES("{\"a\": 1 \"b\": 2}", "1:9: expected ',' or '}', found '\"'");
    REFUSES("[1 2]", "1:4: expected ',' or ']', found '2'");
    REFUSES("[1}", "1:3: expected ',' or ']', found '}'");
    REFUSES("{a: 1}", "1:2: expected a key in double quotes, found 'a'");
    REFUSES("{'a': 1}", "1:2: expected a key in double quotes, found ''' - JSON strings are written in double quotes");
    REFUSES("{\"a\"", "1:5: the text ends after a key");
    REFUSES("{\"a\":", "1:6: the text ends inside an object");
    REFUSES("[1,\n2", "2:2: the text ends inside an array");
    REFUSES("tru", "1:1: expected a value, found 't'");
    REFUSES("truer", "1:1: expected a value, found 't'");
}

static void test_after_document(void **state) {
    (void)state;
    REFUSES("{} {}", "1:4: expected the end of the text after the JSON document, found '{'");
    REFUSES("{}\n// note",
            "2:1: expected the end of the text after the JSON document, found '/' - JSON has no comments");
    REFUSES("{\"a\": /* b */ 1}", "1:7: expected a value, found '/' - JSON has no comments");
    REFUSES("1\0", "1:1: this looks like UTF-16 - save the file as UTF-8");
    REFUSES("{}\0", "1:3: expected the end of the text after the JSON document, found byte 0x00");
    REFUSES("\xff\xfe{\0}\0", "1:1: this looks like UTF-16 - save the file as UTF-8");
    REFUSES("\xef\xbb\xbf{}", "1:1: a byte order mark - save the file as UTF-8 without one");
    REFUSES("{}\x01", "1:3: expected the end of the text after the JSON document, found byte 0x01");
}

static void test_numbers(void **state) {
    (void)state;
    REFUSES("NaN", "1:1: expected a value, found 'N' - JSON has no NaN and no infinity");
    REFUSES("Infinity", "1:1: expected a value, found 'I' - JSON has no NaN and no infinity");
    REFUSES("nan", "1:1: expected a value, found 'n' - JSON has no NaN and no infinity");
    REFUSES("[inf]", "1:2: expected a value, found 'i' - JSON has no NaN and no infinity");
    REFUSES("import", "1:1: expected a value, found 'i'"); /* no number, but no JSON at all */
    REFUSES("na", "1:1: expected a value, found 'n'");
    REFUSES("-Infinity", "1:1: a digit must follow '-'");
    REFUSES("-", "1:1: a digit must follow '-'");
    REFUSES("1e999", "1:1: number 1e999 is too large");
    REFUSES("[-1e999]", "1:2: number -1e999 is too large");
    REFUSES("1e-999", "1:1: number 1e-999 is too small: it would become 0");
    ACCEPTS("0e-999");
    REFUSES("007", "1:1: a number with a leading zero");
    REFUSES("-01", "1:1: a number with a leading zero");
    REFUSES("1.", "1:1: a digit must follow the '.' of a number");
    REFUSES("1.e5", "1:1: a digit must follow the '.' of a number");
    REFUSES("1e", "1:1: a digit must follow the exponent's 'e'");
    REFUSES(".5", "1:1: expected a value, found '.' - a number begins with a digit or '-'");
    REFUSES("+1", "1:1: expected a value, found '+' - a number begins with a digit or '-'");
    REFUSES("0x10", "1:1: malformed number");
    REFUSES("1_000", "1:1: malformed number");
    REFUSES("1.5.2", "1:1: malformed number");

    char digits[401];
    memset(digits, '9', 400);
    digits[400] = '\0';
    assert_string_equal(error_of(digits, 400),
                        "c.json:1:1: number 9999999999999999999999999999999999999999 is too large");
    digits[1] = '.';
    assert_string_equal(error_of(digits, 400), "accepted");
}

static JsonToken only_token(const char *text, JsonReader *r) {
    JsonToken token;
    Err err = {0};
    assert_true(json_open(r, text, strlen(text), CONFIG, &err));
    assert_true(json_next(r, &token, &err));
    return token;
}

static void test_exact_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_uint;
        uint64_t integer;
        double number;
    } cases[] = {
        {"0", true, 0, 0},
        {"9007199254740993", true, 9007199254740993u, 9007199254740992.0},
        {"18446744073709551615", true, UINT64_MAX, 0x1p64},
        {"18446744073709551616", false, 0, 0x1p64},
        {"-1", false, 0, -1},
        {"1.0", false, 0, 1},
        {"1e2", false, 0, 100},
        {"0.1", false, 0, 0.1},
        {"123456789012345678e-17", false, 0, 1.23456789012345678},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        JsonReader r;
        JsonToken token = only_token(cases[i].text, &r);
        assert_int_equal(token.kind, JSON_NUMBER);
        assert_int_equal(token.is_uint, cases[i].is_uint);
        assert_true(token.integer == cases[i].integer);
        assert_true(token.number == cases[i].number);
        json_close(&r);
    }
}

static void test_strings(void **state) {
    (void)state;
    JsonReader r;
    JsonToken token = only_token("\"\\u0041\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20ac\\ud83d\\ude00\xe2\x82\xac\"", &r);
    assert_int_equal(token.kind, JSON_STRING);
    assert_string_equal(token.text, "A\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x82\xac");
    assert_int_equal(token.count, strlen(token.text));
    json_close(&r);
    token = only_token("\"\\ud7ff\\ue000\\ud800\\udc00\\udbff\\udfff\"", &r); /* U+D7FF, E000, 10000, 10FFFF */
    assert_string_equal(token.text, "\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
    json_close(&r);

    REFUSES("\"a\x80\"", "1:3: invalid UTF-8 in a string");
    REFUSES("\"\xc0\x80\"", "1:2: invalid UTF-8 in a string");
    REFUSES("\"\xe0\x80\xaf\"", "1:2: invalid UTF-8 in a string");
    REFUSES("\"\xed\xa0\x80\"", "1:2: invalid UTF-8 in a string");
    REFUSES("\"\xf4\x90\x80\x80\"", "1:2: invalid UTF-8 in a string");
    REFUSES("\"\xe2\x82", "1:2: invalid UTF-8 in a string");
    REFUSES("\"abc", "1:1: the text ends inside a string");
    REFUSES("\"\\", "1:2: unknown escape after '\\'");
    REFUSES("\"\\x41\"", "1:2: unknown escape after '\\'");
    REFUSES("\"\\u12g4\"", "1:2: \\u needs four hexadecimal digits");
    REFUSES("\"\\u0000\"", "1:2: U+0000 is not allowed in a string");
    REFUSES("\"\\ud800\"", "1:2: half of a surrogate pair");
    REFUSES("\"\\ud800\\u0041\"", "1:2: half of a surrogate pair");
    REFUSES("\"\\ud800\\ue000\"", "1:2: half of a surrogate pair"); /* what follows is beyond the lower halves */
    REFUSES("\"\\ud800\\udbff\"", "1:2: half of a surrogate pair"); /* and before them */
    REFUSES("\"\\udc00\"", "1:2: half of a surrogate pair");
    REFUSES("\"\\udc00\\udc00\"", "1:2: half of a surrogate pair"); /* two lower ones are no character */
    REFUSES("\"\\udfff\\udfff\"", "1:2: half of a surrogate pair");
    REFUSES("\"a\nb\"", "1:3: control character 0x0a in a string - write it as an escape");
    REFUSES("\"a\0b\"", "1:3: control character 0x00 in a string - write it as an escape");
    REFUSES("{\"a\\u001b\": 1}", "1:4: control character 0x1b in a key");
    REFUSES("[\"\xc3\xa9\xc3\xa9\", x]", "1:8: expected a value, found 'x'");
}

static void test_duplicate_keys(void **state) {
    (void)state;
    REFUSES("{\"lr\": 1,\n  \"lr\": 2}", "2:3: key \"lr\" appears twice, first at line 1, column 2 - keep one");
    REFUSES("{\"lr\": 1, \"\\u006cr\": 2}", "1:11: key \"lr\" appears twice, first at line 1, column 2 - keep one");
    REFUSES("{\"\\u006c\\u0072\": 1, \"lr\": 2}",
            "1:21: key \"lr\" appears twice, first at line 1, column 2 - keep one");
    REFUSES("[{\"a\": {\"\": 1, \"\": 1}}]", "1:16: key \"\" appears twice, first at line 1, column 9 - keep one");
    ACCEPTS("{\"a\": {\"a\": [{\"a\": 1}, {\"a\": 2}]}, \"A\": 1}");

    Err err = {0};
    const char *text = "{\"w\": 1, \"w\": 2}";
    JsonSource header = {.name = "m.safetensors", .code = EXIT_INPUT, .bytes = true, .first_byte = 8};
    assert_false(json_check(text, strlen(text), header, &err));
    assert_string_equal(err.text, "m.safetensors: byte 17: key \"w\" appears twice, first at byte 9");
    assert_int_equal(err.code, EXIT_INPUT);
}

static char *repeat(const char *part, size_t times) {
    size_t length = strlen(part);
    char *text = malloc(length * times + 1);
    for (size_t i = 0; i < times; i++) memcpy(text + i * length, part, length);
    text[length * times] = '\0';
    return text;
}

static void test_depth(void **state) {
    (void)state;
    for (size_t depth = 63; depth <= 65; depth++) {
        char text[200] = "";
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_string_equal(error_of(text, 2 * depth),
                            depth <= 64 ? "accepted" : "c.json:1:65: nested deeper than 64 levels");
    }
    char *open = repeat("[", 1000000), *objects = repeat("{\"a\":", 1000000);
    assert_string_equal(error_of(open, 1000000), "c.json:1:65: nested deeper than 64 levels");
    assert_string_equal(error_of(objects, 5000000), "c.json:1:321: nested deeper than 64 levels");
    free(open);
    free(objects);
}

/* A million keys in one object, then a million small objects that use the large table again. */
static void test_many_keys(void **state) {
    (void)state;
    enum { COUNT = 1000000 };
    size_t capacity = COUNT * 48, n = 1;
    char *text = malloc(capacity);
    text[0] = '[';
    text[n++] = '{';
    for (int i = 0; i < COUNT; i++) n += (size_t)snprintf(text + n, capacity - n, "%s\"k%d\":0", i ? "," : "", i);
    n += (size_t)snprintf(text + n, capacity - n, "}");
    for (int i = 0; i < COUNT; i++) n += (size_t)snprintf(text + n, capacity - n, ",{\"a\":[0,4],\"b\":1}");
    n += (size_t)snprintf(text + n, capacity - n, "]");
    double begin = time_now();
    assert_string_equal(error_of(text, n), "accepted");
    assert_true(time_now() - begin < 30); /* one second or so; a quadratic lookup takes hours */
    char *first = strstr(text, "\"k123456\""), *last = strstr(text, "\"k999999\""), expected[200];
    memcpy(last, first, 9);
    snprintf(expected, sizeof expected,
             "c.json:1:%d: key \"k123456\" appears twice, first at line 1, column %d - keep one",
             (int)(last - text) + 1, (int)(first - text) + 1);
    assert_string_equal(error_of(text, n), expected);
    free(text);
}

static void test_reader_events(void **state) {
    (void)state;
    const char *text = "{\"a\": {\"x\": [1, {\"y\": 2}]}, \"b\": [3, \"s\"], \"c\": 4}";
    Err err = {0};
    JsonReader r;
    JsonToken token;
    assert_true(json_open(&r, text, strlen(text), CONFIG, &err));
    assert_true(json_expect(&r, &token, JSON_OBJECT, &err));
    assert_true(json_expect(&r, &token, JSON_KEY, &err));
    assert_string_equal(token.text, "a");
    assert_true(json_skip(&r, &err));
    assert_true(json_expect(&r, &token, JSON_KEY, &err));
    assert_string_equal(token.text, "b");
    assert_int_equal(token.offset, 28);
    assert_true(json_expect(&r, &token, JSON_ARRAY, &err));
    assert_true(json_expect(&r, &token, JSON_NUMBER, &err));
    assert_false(json_expect(&r, &token, JSON_NUMBER, &err));
    assert_string_equal(err.text, "c.json:1:38: expected a number, found a string");
    json_close(&r);
}

static void test_locate(void **state) {
    (void)state;
    const char *text =
        "{\"model\": {\"name\": \"x\",\n  \"attention\": [\"a\", [1, 2], {\"z\": 1}, \"d\"]},\n \"a.b\": 3}";
    size_t count = strlen(text);
    JsonPlace p;
    assert_true(json_locate(&p, text, count, (JsonStep[]){{"model", 0}, {"attention", 0}}, 2));
    assert_int_equal(p.key_line, 2), assert_int_equal(p.key_column, 3);
    assert_int_equal(p.line, 2), assert_int_equal(p.column, 16);
    assert_true(json_locate(&p, text, count, (JsonStep[]){{"model", 0}, {"attention", 0}, {NULL, 3}}, 3));
    assert_int_equal(p.line, 2), assert_int_equal(p.column, 40);
    assert_true(json_locate(&p, text, count, (JsonStep[]){{"model", 0}, {"attention", 0}, {NULL, 2}, {"z", 0}}, 4));
    assert_int_equal(p.column, 36);
    assert_true(json_locate(&p, text, count, (JsonStep[]){{"a.b", 0}}, 1));
    assert_int_equal(p.key_line, 3), assert_int_equal(p.key_column, 2), assert_int_equal(p.column, 9);
    assert_false(json_locate(&p, text, count, (JsonStep[]){{"a", 0}, {"b", 0}}, 2));
    assert_false(json_locate(&p, text, count, (JsonStep[]){{"model", 0}, {"attention", 0}, {NULL, 4}}, 3));
}

/* Every truncation and every flipped bit of a small document: an answer, never a crash. */
static void test_damage(void **state) {
    (void)state;
    char text[] = "{\"a\": [1.5e-3, true, null, \"\\u00e9\xc3\xa9\\n\"], \"b\": {\"c\": -12, \"d\": {}}}";
    size_t count = sizeof text - 1;
    assert_string_equal(error_of(text, count), "accepted");
    for (size_t i = 0; i < count; i++) {
        char *cut = malloc(i + 1); /* exact size: the sanitizer sees a read past the end */
        memcpy(cut, text, i);
        assert_string_not_equal(error_of(cut, i), "accepted");
        free(cut);
    }
    int refused = 0;
    for (size_t bit = 0; bit < count * 8; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
        refused += strcmp(error_of(text, count), "accepted") != 0;
        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
    }
    assert_in_range(refused, count * 2, count * 8);
}

static void test_writer(void **state) {
    (void)state;
    JsonWriter w = {.indent = 2};
    json_write_object(&w);
    json_write_key(&w, "list");
    json_write_array(&w);
    json_write_float(&w, 0.1f);
    json_write_double(&w, 0.1);
    json_write_object(&w);
    json_write_key(&w, "x");
    json_write_null(&w);
    json_write_key(&w, "y");
    json_write_bool(&w, true);
    json_write_end(&w);
    json_write_end(&w);
    json_write_key(&w, "empty");
    json_write_object(&w);
    json_write_end(&w);
    json_write_key(&w, "in\"ner\x01");
    json_write_object(&w);
    json_write_key(&w, "u");
    json_write_uint(&w, UINT64_MAX);
    json_write_key(&w, "i");
    json_write_int(&w, INT64_MIN);
    json_write_end(&w);
    json_write_end(&w);
    assert_string_equal(json_writer_text(&w),
                        "{\n  \"list\": [0.1, 0.1, {\"x\": null, \"y\": true}],\n  \"empty\": {},\n"
                        "  \"in\\\"ner\\u0001\": {\n    \"u\": 18446744073709551615,\n"
                        "    \"i\": -9223372036854775808\n  }\n}");
    json_writer_free(&w);

    json_write_object(&w);
    json_write_path(&w, "a", "caf\xc3\xa9");
    json_write_path(&w, "b", "caf\xe9"); /* these two differ in nothing that UTF-8 can say */
    json_write_path(&w, "c", "caf\xe8");
    json_write_end(&w);
    assert_string_equal(json_writer_text(&w),
                        "{\"a\":\"caf\xc3\xa9\",\"b\":\"caf\xef\xbf\xbd\",\"b_bytes\":\"636166e9\","
                        "\"c\":\"caf\xef\xbf\xbd\",\"c_bytes\":\"636166e8\"}");
    json_writer_free(&w);

    json_write_array(&w);
    json_write_string(&w, "a\n\t\\\xc3\xa9\xff|");
    json_write_double(&w, (double)NAN);
    json_write_double(&w, (double)INFINITY);
    json_write_array(&w);
    json_write_end(&w);
    json_write_end(&w);
    assert_string_equal(json_writer_text(&w), "[\"a\\n\\t\\\\\xc3\xa9\xef\xbf\xbd|\",null,null,[]]");
    json_writer_free(&w);
}

static void test_number_text(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.0, "-0"},
                 {1, "1"},
                 {5e-4, "0.0005"},
                 {1e-5, "1e-05"},
                 {1.0 / 3, "0.3333333333333333"},
                 {0x1p64, "1.8446744073709552e+19"},
                 {5e-324, "5e-324"},
                 {300, "300"}};
    char text[NUMBER_TEXT_SIZE];
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        number_text(text, cases[i].value);
        assert_true(number_parse(text) == cases[i].value);
        assert_string_equal(text, cases[i].text);
    }
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        double value;
        float small;
        memcpy(&value, &x, 8);
        memcpy(&small, &x, 4);
        if (isfinite(value)) number_text(text, value), assert_true(number_parse(text) == value);
        if (isfinite(small)) number_text_float(text, small), assert_true((float)number_parse(text) == small);
    }
}

static void test_comma_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE.utf8", "de_DE"};
    bool found = false;
    for (size_t i = 0; !found && i < COUNTOF(names); i++) found = setlocale(LC_NUMERIC, names[i]) != NULL;
    if (!found) {
        print_message("no locale with a decimal comma is installed\n");
        skip();
    }
    char text[NUMBER_TEXT_SIZE];
    number_text(text, 0.5);
    double value = number_parse("0.5");
    setlocale(LC_NUMERIC, "C");
    assert_string_equal(text, "0.5");
    assert_true(value == 0.5);
}

static void test_nearest(void **state) {
    (void)state;
    static const char *const words[] = {"epochs", "batch_size", "lr", "seed"};
    assert_string_equal(text_nearest("epoch", words, COUNTOF(words)), "epochs");
    assert_string_equal(text_nearest("Batch-Size", words, COUNTOF(words)), "batch_size");
    assert_string_equal(text_nearest("rl", words, COUNTOF(words)), "lr");
    static const char *const near[] = {"batchsize", "batch_size", "LX", "lr", "epochs", "epics"};
    assert_string_equal(text_nearest("batch-size", near, COUNTOF(near)), "batch_size"); /* nothing, before one byte */
    assert_string_equal(text_nearest("LR", near, COUNTOF(near)), "lr");
    assert_string_equal(text_nearest("epoch", near, COUNTOF(near)), "epochs"); /* one byte, before two of a later one */
    assert_null(text_nearest("zebra", words, COUNTOF(words)));
    assert_null(text_nearest("", words, COUNTOF(words)));
    char longer[1000];
    memset(longer, 'a', sizeof longer);
    longer[999] = '\0';
    const char *const with_a_long_one[] = {longer, "lr"};
    assert_null(text_nearest(longer, words, COUNTOF(words)));
    assert_string_equal(text_nearest("lrx", with_a_long_one, COUNTOF(with_a_long_one)), "lr");
}

static void test_patterns(void **state) {
    (void)state;
    static const struct {
        const char *patterns, *text;
        bool expected;
    } rows[] = {{"a*c", "abbc", true},   {"a*c", "abcb", false},   {"a?c", "abc", true},   {"a?c", "ac", false},
                {"abc", "abcd", false},  {"abcd", "abc", false},   {"*", "", true},        {"", "", false},
                {"a**", "a", true},      {"a*b*c", "aXbYbZc", true}, {"x, a* ,y", "ab", true}, {" , ,", "", false},
                {"x,y ", "y", true},     {"x  ", "x", true},       {"x y", "x y", true},   {"x,y", "z", false},
                {"*ab", "aab", true},    {"*ab*", "xxabxx", true}, {"ab*ab", "ab", false}, {"?", "", false}};
    for (size_t i = 0; i < COUNTOF(rows); i++)
        if (text_matches_any(rows[i].patterns, rows[i].text) != rows[i].expected)
            fail_msg("\"%s\" of \"%s\"", rows[i].patterns, rows[i].text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),       cmocka_unit_test(test_after_document),
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_exact_integers),
        cmocka_unit_test(test_strings),       cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_depth),         cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_reader_events), cmocka_unit_test(test_locate),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_patterns), cmocka_unit_test(test_number_text),   cmocka_unit_test(test_comma_locale),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
