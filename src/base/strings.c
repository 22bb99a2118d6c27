/* strings.c - UTF-8 by the table of RFC 3629; numbers through the C locale; the restricted edit distance (insert,
 * delete, replace, swap of neighbours) for suggestions. */
#include "base/strings.h"

#include <ctype.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t utf8_sequence(const char *text, size_t left) {
    const unsigned char *p = (const unsigned char *)text;
    if (left == 0) return 0;
    if (p[0] < 0x80) return 1;
    size_t length = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (length == 0 || left < length) return 0;
    /* the second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF */
    unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return length;
}

size_t utf8_encode(char out[4], uint32_t code_point) {
    CHECK(code_point < 0x110000 && (code_point < 0xd800 || code_point > 0xdfff), "code point %x", code_point);
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1; code_point >>= 6) out[i] = (char)(0x80 | (code_point & 0x3f));
    out[0] = (char)(lead[length] | code_point);
    return length;
}

size_t utf8_columns(const char *text) {
    size_t columns = 0;
    for (; *text; text++) columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

static bool is_escape(const char *text) {
    return text[0] == '\\' && text[1] == 'x' && is_hex(text[2]) && is_hex(text[3]);
}

/* Bytes at text that are written as \xNN. */
static size_t unprintable_bytes(const char *text, size_t length) {
    unsigned char c = (unsigned char)text[0];
    if (c < 0x20 || c == 0x7f || is_escape(text)) return 1;
    if (length == 2 && c == 0xc2 && (unsigned char)text[1] < 0xa0) return 2; /* C1 */
    return length == 0 && c < 0xa0 ? 1 : 0;
}

void text_printable(char *out, size_t size, const char *text) {
    size_t n = 0, left = strlen(text);
    while (left > 0) {
        size_t length = utf8_sequence(text, left), escaped = unprintable_bytes(text, length);
        size_t bytes = escaped ? escaped : MAX(length, (size_t)1), room = escaped ? 4 * escaped : bytes;
        if (n + room >= size) break;
        for (size_t i = 0; i < escaped; i++)
            n += (size_t)snprintf(out + n, size - n, "\\x%02x", (unsigned char)text[i]);
        if (!escaped) memcpy(out + n, text, bytes), n += bytes;
        text += bytes, left -= bytes;
    }
    out[n] = '\0';
}

char *text_printable_new(const char *text) {
    size_t size = 4 * strlen(text) + 1;
    char *out = mem_zalloc(size, 1);
    text_printable(out, size, text);
    return out;
}

void text_unprintable(char *text) {
    char *out = text;
    while (*text) {
        char hex[3] = "";
        bool escape = is_escape(text);
        if (escape) memcpy(hex, text + 2, 2);
        *out++ = escape ? (char)strtol(hex, NULL, 16) : *text;
        text += escape ? 4 : 1;
    }
    *out = '\0';
}

/* The locale of the program, whatever a library or a caller has set; the C library keeps one object for all. */
static locale_t enter_c_locale(void) { return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); }

double number_parse(const char *text) {
    locale_t before = enter_c_locale();
    char *end;
    double value = strtod(text, &end);
    uselocale(before);
    CHECK(*text && !*end, "\"%s\" is no number", text);
    return value;
}

/* %g alone would write 300 as 3e+02: as short, but nobody's way of writing it. */
static bool write_whole(char out[NUMBER_TEXT_SIZE], double value) {
    bool whole = value > -1e7 && value < 1e7 && value == (double)(long)value;
    if (whole) snprintf(out, NUMBER_TEXT_SIZE, "%.0f", value);
    return whole;
}

void number_text(char out[NUMBER_TEXT_SIZE], double value) {
    if (write_whole(out, value)) return;
    locale_t before = enter_c_locale();
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, NUMBER_TEXT_SIZE, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    uselocale(before);
}

void number_text_float(char out[NUMBER_TEXT_SIZE], float value) {
    if (write_whole(out, (double)value)) return;
    locale_t before = enter_c_locale();
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(out, NUMBER_TEXT_SIZE, "%.*g", digits, (double)value);
        if (strtof(out, NULL) == value) break;
    }
    uselocale(before);
}

static int fold(char c) { return c == '-' ? '_' : tolower((unsigned char)c); }

#define WORD_MAX 64 /* longer words get no suggestion */

static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    size_t rows[3][WORD_MAX + 1];
    for (size_t j = 0; j <= m; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t replace = above[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
            row[j] = MIN(replace, MIN(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]))
                row[j] = MIN(row[j], above2[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

const char *text_plural(int64_t count) { return count == 1 ? "" : "s"; }

const char *text_nearest(const char *word, const char *const *candidates, size_t count) {
    size_t length = strlen(word);
    if (length == 0 || length > WORD_MAX) return NULL;
    const char *best = NULL;
    size_t best_distance = 1 + (length + 1) / 3; /* one slip in every three letters or so */
    for (size_t i = 0; i < count; i++) {
        if (strlen(candidates[i]) > WORD_MAX) continue;
        size_t d = distance(word, candidates[i]);
        if (d < best_distance) best_distance = d, best = candidates[i];
    }
    return best;
}

/* Only the last '*' has to be tried with more bytes: an earlier one taking more would leave it less to choose from. */
static bool matches(const char *pattern, size_t count, const char *text) {
    size_t at = 0, star = SIZE_MAX;
    const char *retry = text;
    while (*text) {
        if (at < count && pattern[at] == '*') {
            star = at++;
            retry = text;
        } else if (at < count && (pattern[at] == '?' || pattern[at] == *text)) {
            at++, text++;
        } else if (star != SIZE_MAX) {
            at = star + 1;
            text = ++retry;
        } else {
            return false;
        }
    }
    while (at < count && pattern[at] == '*') at++;
    return at == count;
}

bool text_matches(const char *pattern, const char *text) { return matches(pattern, strlen(pattern), text); }

bool text_matches_any(const char *patterns, const char *text) {
    for (const char *at = patterns; *at;) {
        at += strspn(at, " ,");
        size_t length = strcspn(at, ","), count = length;
        while (count > 0 && at[count - 1] == ' ') count--;
        if (count > 0 && matches(at, count, text)) return true;
        at += length;
    }
    return false;
}
