/* option_text.c - tables of options as text: finding rows by name and near misses, words of enums, dumps, help. */
#include "base/option.h"
#include "base/strings.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

const Option *option_find(const Option *table, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(table[i].name, name)) return &table[i];
    return NULL;
}

static const char *leaf_of(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Copies the index'th word of a list apart by spaces; false when there are fewer. */
static bool nth_word(char *out, size_t size, const char *list, int index) {
    const char *at = list ? list : "";
    for (;; index--) {
        size_t length = strcspn(at, " ");
        if (length == 0) return false;
        if (index == 0) {
            snprintf(out, size, "%.*s", (int)length, at);
            return true;
        }
        at += length + (at[length] == ' ');
    }
}

/* First a key of the right name in the wrong section, then a near miss of a whole name, then of a last part or of a
 * word that other programs use for it. */
const Option *option_nearest(const Option *table, int count, const char *name) {
    const char *leaf = leaf_of(name);
    for (int i = 0; i < count; i++)
        if (!strcmp(leaf_of(table[i].name), leaf)) return &table[i];

    enum { WORDS_PER_OPTION = 8, WORD_SIZE = 40 };
    size_t capacity = (size_t)count * WORDS_PER_OPTION, words = 0;
    const char **names = mem_zalloc(capacity, sizeof *names);
    const Option **rows = mem_zalloc(capacity, sizeof *rows);
    char(*also)[WORD_SIZE] = mem_zalloc(capacity, sizeof *also);
    for (int i = 0; i < count; i++) names[i] = table[i].name;
    const char *best = text_nearest(name, names, (size_t)count);
    const Option *found = best ? option_find(table, count, best) : NULL;
    for (int i = 0; !found && i < count; i++) {
        rows[words] = &table[i], names[words++] = leaf_of(table[i].name);
        for (int k = 0; k + 1 < WORDS_PER_OPTION && nth_word(also[words], WORD_SIZE, table[i].also, k); k++)
            rows[words] = &table[i], names[words] = also[words], words++;
    }
    best = found ? NULL : text_nearest(leaf, names, words);
    for (size_t i = 0; best && !found && i < words; i++)
        if (names[i] == best) found = rows[i];
    free(also);
    free(rows);
    free(names);
    return found;
}

static bool same_word(const char *a, size_t count, const char *b) {
    for (size_t i = 0; i < count; i++) {
        char x = a[i] == '-' ? '_' : (char)tolower((unsigned char)a[i]);
        char y = b[i] == '-' ? '_' : (char)tolower((unsigned char)b[i]);
        if (x != y) return false; /* also at b's end */
    }
    return b[count] == '\0';
}

int option_word_index(const char *words, const char *word) {
    int index = 0;
    for (const char *at = words; *at;) {
        size_t length = strcspn(at, " |");
        if (same_word(at, length, word)) return index;
        at += length;
        if (*at == ' ') index++;
        if (*at) at++;
    }
    return -1;
}

void option_word(char *out, size_t size, const char *words, int index) {
    if (index < 0 || !nth_word(out, size, words, index)) out[0] = '\0';
    out[strcspn(out, "|")] = '\0';
}

/* ---- dump ---- */

static bool dump_auto(JsonWriter *w, bool is_auto) {
    if (is_auto) json_write_string(w, "auto");
    return is_auto;
}

static void dump_one(JsonWriter *w, const Option *o, const void *at, int i) {
    char word[64];
    switch (o->type) {
    case OPTION_INT: {
        int value = ((const int *)at)[i];
        if (!dump_auto(w, value == AUTO_INT)) json_write_int(w, value);
        break;
    }
    case OPTION_INT64: {
        int64_t value = ((const int64_t *)at)[i];
        if (!dump_auto(w, value == AUTO_INT64)) json_write_int(w, value);
        break;
    }
    case OPTION_FLOAT: {
        double value = ((const double *)at)[i];
        if (!dump_auto(w, isnan(value))) json_write_double(w, value);
        break;
    }
    case OPTION_BOOL:
        json_write_bool(w, *(const bool *)at);
        break;
    case OPTION_STRING: {
        const char *text = *(char *const *)at;
        if (text)
            json_write_string(w, text);
        else
            json_write_null(w);
        break;
    }
    case OPTION_ENUM:
        option_word(word, sizeof word, o->words, ((const int *)at)[i]);
        json_write_string(w, word[0] ? word : "auto");
    }
}

static bool is_auto(const Option *o, const void *at) {
    return o->type == OPTION_FLOAT   ? isnan(*(const double *)at)
           : o->type == OPTION_INT64 ? *(const int64_t *)at == AUTO_INT64
                                     : *(const int *)at == AUTO_INT;
}

/* A list of which one value can stand for all, and does: it is written as that value. */
static bool is_uniform(const Option *o, const void *at) {
    if (o->flags & OPTION_AUTO && is_auto(o, at)) return true;
    size_t item = o->type == OPTION_FLOAT ? sizeof(double) : o->type == OPTION_INT64 ? sizeof(int64_t) : sizeof(int);
    return o->flags & OPTION_SPREAD && /* each equals its neighbour */
           !memcmp(at, (const char *)at + item, item * ((size_t)o->length - 1));
}

void options_dump(const OptionSet *set, JsonWriter *w) {
    const char *section = "";
    size_t length = 0; /* of the open section's name; 0: none is open */
    json_write_object(w);
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        const void *at = (const char *)set->target + o->offset;
        if (o->flags & OPTION_UNSAVED) continue;
        const char *dot = strchr(o->name, '.');
        size_t own = dot ? (size_t)(dot - o->name) : 0;
        if (own != length || strncmp(o->name, section, own) != 0) {
            if (length) json_write_end(w);
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)own, o->name);
            if (own) json_write_key(w, name), json_write_object(w);
            section = o->name, length = own;
        }
        json_write_key(w, leaf_of(o->name));
        if (o->length == 0 || is_uniform(o, at)) {
            dump_one(w, o, at, 0);
            continue;
        }
        json_write_array(w);
        for (int k = 0; k < o->length; k++) dump_one(w, o, at, k);
        json_write_end(w);
    }
    if (length) json_write_end(w);
    json_write_end(w);
}

/* ---- help ---- */

void option_describe(char *out, size_t size, const Option *o) {
    char low[NUMBER_TEXT_SIZE], high[NUMBER_TEXT_SIZE], word[64];
    int n = snprintf(out, size, "%s", o->initial);
    if (o->type == OPTION_INT || o->type == OPTION_INT64 || o->type == OPTION_FLOAT) {
        number_text(low, o->min), number_text(high, o->max);
        snprintf(out + n, size - (size_t)n, "; %s to %s", low, high);
    }
    for (int i = 0; o->type == OPTION_ENUM && (size_t)n < size; i++) {
        option_word(word, sizeof word, o->words, i);
        if (!word[0]) break;
        n += snprintf(out + n, size - (size_t)n, "%s%s", i ? ", " : "; ", word);
    }
}
