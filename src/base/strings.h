/* strings.h - small questions about text: UTF-8, numbers as text in every locale, near misses of a name. */
#ifndef MALA_STRINGS_H
#define MALA_STRINGS_H

#include "base/base.h"

/* Bytes of the UTF-8 sequence at text with `left` bytes to read: 1 to 4; 0 when there is no valid one (overlong,
 * surrogate, above U+10FFFF, cut off). */
size_t utf8_sequence(const char *text, size_t left);
/* Writes code point (not a surrogate) as 1 to 4 bytes; returns how many. */
size_t utf8_encode(char out[4], uint32_t code_point);
/* Characters on a terminal, one per code point: enough to align columns of names, not for East Asian widths. */
size_t utf8_columns(const char *text);

/* The fewest digits that read back as the same value, '.' in every locale. */
#define NUMBER_TEXT_SIZE 32
void number_text(char out[NUMBER_TEXT_SIZE], double value);
void number_text_float(char out[NUMBER_TEXT_SIZE], float value);
/* The double a number in JSON's grammar spells; infinity when it overflows. Any other text is a programmer's error. */
double number_parse(const char *text);

/* Names come from files and folders, and may carry escape sequences and line ends: control characters (C0, DEL, and C1
 * in UTF-8 or as bytes that are none) become \xNN, and so does a backslash that would read like one of them; all else
 * stays, and one name stays one line. What does not fit is cut. */
void text_printable(char *out, size_t size, const char *text);
/* The same of any length, malloc'd. */
char *text_printable_new(const char *text);
/* What text_printable was given, from what it wrote whole; in place. */
void text_unprintable(char *text);

/* "" for one, "s" for any other number of things. */
const char *text_plural(int64_t count);

/* The candidate nearest to word, for "did you mean"; NULL when none is near enough to be a typing error of it.
 * Case and '_' against '-' cost nothing. */
const char *text_nearest(const char *word, const char *const *candidates, size_t count);

/* Does the whole text fit the pattern? '*' stands for any bytes, also none, '?' for one; the rest for itself. Time is
 * at most the product of the lengths. */
bool text_matches(const char *pattern, const char *text);
/* One of several patterns, apart by commas; blanks around them do not count. */
bool text_matches_any(const char *patterns, const char *text);

#endif
