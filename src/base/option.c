/* option.c - values into the struct: from defaults, from a JSON text, from "key=value". The text is checked by the
 * strict reader first; cJSON then only carries values known to be sound, and is read by type, case and exact number. */
#include "base/option.h"
#include "base/strings.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_LIMIT 0x1p53 /* from here on a double no longer tells neighbouring integers apart */

/* Where a value stands: in a JSON text, or, text NULL, in a place with a name. */
typedef struct {
    const char *name, *text;
    size_t count;
    JsonStep steps[3];
    int step_count;
} Place;

static void place_text(char *out, size_t size, const Place *place, bool of_key) {
    JsonPlace p;
    if (!place->text || !json_locate(&p, place->text, place->count, place->steps, place->step_count))
        snprintf(out, size, "%s", place->name);
    else
        snprintf(out, size, "%s:%d:%d", place->name, of_key ? p.key_line : p.line, of_key ? p.key_column : p.column);
}

static bool fail_key(const Place *place, Err *err, const char *format, ...) PRINTF_LIKE(3, 4);
static bool fail_key(const Place *place, Err *err, const char *format, ...) {
    char where[300], what[600];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    place_text(where, sizeof where, place, true);
    return err_set(err, EXIT_USAGE, "%s: %s", where, what);
}

/* ---- one value ---- */

static const char *describe_node(char out[80], const cJSON *node) {
    char number[NUMBER_TEXT_SIZE];
    if (cJSON_IsString(node))
        snprintf(out, 80, "\"%.60s\"", node->valuestring);
    else if (cJSON_IsNumber(node))
        number_text(number, node->valuedouble), snprintf(out, 80, "%s", number);
    else
        snprintf(out, 80, "%s",
                 cJSON_IsObject(node)  ? "an object"
                 : cJSON_IsArray(node) ? "a list"
                 : cJSON_IsNull(node)  ? "null"
                 : cJSON_IsTrue(node)  ? "true"
                                       : "false");
    return out;
}

static const char *expected_text(char out[400], const Option *o) {
    const char *or_auto = o->flags & OPTION_AUTO ? " or auto" : "";
    switch (o->type) {
    case OPTION_INT:
    case OPTION_INT64:
        snprintf(out, 400, "a whole number%s", or_auto);
        break;
    case OPTION_FLOAT:
        snprintf(out, 400, "a number%s", or_auto);
        break;
    case OPTION_BOOL:
        snprintf(out, 400, "true or false");
        break;
    case OPTION_STRING:
        snprintf(out, 400, "a string%s", o->flags & OPTION_NULL ? " or null" : "");
        break;
    case OPTION_ENUM: {
        size_t n = 0;
        char word[64];
        for (int i = 0; option_word(word, sizeof word, o->words, i), word[0] && n < 300; i++)
            n += (size_t)snprintf(out + n, 400 - n, "%s%s", i ? ", " : "one of ", word);
        snprintf(out + n, 400 - n, "%s", o->flags & OPTION_AUTO ? ", auto" : "");
    }
    }
    return out;
}

/* index: in a list; -1: the value as a whole */
static bool fail_value(const Option *o, const Place *place, int index, Err *err, const char *what) {
    char where[300], item_text[24] = "";
    Place item = *place;
    if (item.text && index >= 0) item.steps[item.step_count++] = (JsonStep){.index = (size_t)index};
    if (index >= 0) snprintf(item_text, sizeof item_text, "[%d]", index);
    place_text(where, sizeof where, &item, false);
    return err_set(err, EXIT_USAGE, "%s: %s%s: %s", where, o->name, item_text, what);
}

static bool fail_type(const Option *o, const Place *place, int index, const cJSON *node, Err *err) {
    char what[600], expected[400], found[80];
    snprintf(what, sizeof what, "expected %s, found %s", expected_text(expected, o), describe_node(found, node));
    return fail_value(o, place, index, err, what);
}

static bool fail_range(const Option *o, const Place *place, int index, double value, Err *err) {
    char what[200], number[NUMBER_TEXT_SIZE], low[NUMBER_TEXT_SIZE], high[NUMBER_TEXT_SIZE];
    number_text(number, value), number_text(low, o->min), number_text(high, o->max);
    snprintf(what, sizeof what, "%s is out of range - allowed: %s to %s", number, low, high);
    return fail_value(o, place, index, err, what);
}

static void *slot(const OptionSet *set, const Option *o, int index) {
    static const size_t sizes[] = {
        [OPTION_INT] = sizeof(int),   [OPTION_INT64] = sizeof(int64_t), [OPTION_FLOAT] = sizeof(double),
        [OPTION_BOOL] = sizeof(bool), [OPTION_STRING] = sizeof(char *), [OPTION_ENUM] = sizeof(int)};
    return (char *)set->target + o->offset + (size_t)index * sizes[o->type];
}

static void store_auto(void *to, OptionType type) {
    if (type == OPTION_INT64)
        *(int64_t *)to = AUTO_INT64;
    else if (type == OPTION_FLOAT)
        *(double *)to = AUTO_FLOAT;
    else
        *(int *)to = AUTO_INT;
}

static bool store_number(void *to, const Option *o, const Place *place, int index, const cJSON *node, Err *err) {
    double value = node->valuedouble;
    bool whole = value == (double)(int64_t)MAX(MIN(value, EXACT_LIMIT), -EXACT_LIMIT);
    if (o->type != OPTION_FLOAT && !whole && value < EXACT_LIMIT && value > -EXACT_LIMIT)
        return fail_type(o, place, index, node, err);
    if (!(value >= o->min && value <= o->max)) return fail_range(o, place, index, value, err);
    if (o->type == OPTION_FLOAT)
        *(double *)to = value;
    else if (o->type == OPTION_INT64)
        *(int64_t *)to = (int64_t)value;
    else
        *(int *)to = (int)value;
    return true;
}

static bool store_one(void *to, const Option *o, const Place *place, int index, const cJSON *node, Err *err) {
    bool is_string = cJSON_IsString(node);
    if (is_string && (o->flags & OPTION_AUTO) && !strcmp(node->valuestring, "auto")) {
        store_auto(to, o->type);
        return true;
    }
    switch (o->type) {
    case OPTION_INT:
    case OPTION_INT64:
    case OPTION_FLOAT:
        if (cJSON_IsNumber(node)) return store_number(to, o, place, index, node, err);
        break;
    case OPTION_BOOL:
        if (cJSON_IsBool(node)) {
            *(bool *)to = cJSON_IsTrue(node);
            return true;
        }
        break;
    case OPTION_STRING:
        if (is_string || (cJSON_IsNull(node) && (o->flags & OPTION_NULL))) {
            free(*(char **)to);
            *(char **)to = is_string ? mem_strdup(node->valuestring) : NULL;
            return true;
        }
        break;
    case OPTION_ENUM: {
        int word = is_string ? option_word_index(o->words, node->valuestring) : -1;
        if (word < 0) break;
        *(int *)to = word;
        return true;
    }
    }
    return fail_type(o, place, index, node, err);
}

static bool store(OptionSet *set, const Option *o, const Place *place, const cJSON *node, Err *err) {
    if (o->length == 0 && !store_one(slot(set, o, 0), o, place, -1, node, err)) return false;
    bool is_auto = cJSON_IsString(node) && (o->flags & OPTION_AUTO) && !strcmp(node->valuestring, "auto");
    if (o->length > 0 && !cJSON_IsArray(node)) {
        if (!is_auto && !(o->flags & OPTION_SPREAD)) {
            char what[200], found[80];
            snprintf(what, sizeof what, "expected a list of %d, found %s", o->length, describe_node(found, node));
            return fail_value(o, place, -1, err, what);
        }
        for (int i = 0; i < o->length; i++)
            if (!store_one(slot(set, o, i), o, place, -1, node, err)) return false;
    } else if (o->length > 0) {
        if (cJSON_GetArraySize(node) != o->length) {
            char what[100];
            snprintf(what, sizeof what, "expected a list of %d, found %d", o->length, cJSON_GetArraySize(node));
            return fail_value(o, place, -1, err, what);
        }
        int i = 0;
        for (const cJSON *item = node->child; item; item = item->next, i++)
            if (!store_one(slot(set, o, i), o, place, i, item, err)) return false;
    }
    char where[300];
    place_text(where, sizeof where, place, false);
    char **kept = &set->where[o - set->table];
    free(*kept);
    *kept = mem_strdup(where);
    return true;
}

/* ---- a JSON text ---- */

static bool fail_unknown(const OptionSet *set, const Place *place, const char *key, const char *kind, Err *err) {
    const Option *near = option_nearest(set->table, set->count, key);
    if (near) return fail_key(place, err, "unknown %s \"%.100s\" - did you mean \"%s\"?", kind, key, near->name);
    return fail_key(place, err, "unknown %s \"%.100s\" - 'mala help config' lists what there is", kind, key);
}

/* Does a section of this name exist? */
static bool is_section(const OptionSet *set, const char *name) {
    size_t length = strlen(name);
    for (int i = 0; i < set->count; i++)
        if (!strncmp(set->table[i].name, name, length) && set->table[i].name[length] == '.') return true;
    return false;
}

/* A section is meant that is spelled nearly so, or whose name begins this one: "optimizer" is "optim". */
static bool fail_section(const OptionSet *set, const Place *place, const char *name, Err *err) {
    enum { SECTIONS_MOST = 32, SECTION_SIZE = 40 };
    char sections[SECTIONS_MOST][SECTION_SIZE];
    const char *names[SECTIONS_MOST], *near = NULL;
    size_t count = 0;
    for (int i = 0; i < set->count && count < SECTIONS_MOST; i++) {
        const char *row = set->table[i].name, *dot = strchr(row, '.');
        int length = dot ? (int)(dot - row) : 0;
        bool same = dot && count > 0 && strlen(names[count - 1]) == (size_t)length &&
                    !strncmp(names[count - 1], row, (size_t)length);
        if (!dot || same) continue;
        snprintf(sections[count], SECTION_SIZE, "%.*s", length, row);
        if (!strncmp(name, row, (size_t)length)) near = sections[count];
        names[count] = sections[count], count++;
    }
    if (!near) near = text_nearest(name, names, count);
    if (near) return fail_key(place, err, "unknown section \"%.100s\" - did you mean \"%s\"?", name, near);
    return fail_key(place, err, "unknown section \"%.100s\" - 'mala help config' lists what there is", name);
}

static bool read_member(OptionSet *set, Place place, const char *section, const cJSON *node, Err *err) {
    char name[200];
    snprintf(name, sizeof name, "%s%s%.150s", section ? section : "", section ? "." : "", node->string);
    place.steps[place.step_count++] = (JsonStep){.key = node->string};
    const char *dot = strchr(node->string, '.');
    if (dot && option_find(set->table, set->count, node->string))
        return fail_key(&place, err, "key \"%s\" has a dot - write \"%.*s\": {\"%s\": ...}", node->string,
                        (int)(dot - node->string), node->string, dot + 1);
    const Option *o = dot ? NULL : option_find(set->table, set->count, name);
    if (!o && !section && cJSON_IsObject(node)) return fail_section(set, &place, name, err);
    return o ? store(set, o, &place, node, err) : fail_unknown(set, &place, name, "key", err);
}

static bool read_root(OptionSet *set, Place place, const cJSON *root, Err *err) {
    if (!cJSON_IsObject(root)) {
        char found[80];
        return fail_key(&place, err, "expected an object of sections, found %s", describe_node(found, root));
    }
    for (const cJSON *node = root->child; node; node = node->next) {
        if (!is_section(set, node->string)) {
            if (!read_member(set, place, NULL, node, err)) return false;
            continue;
        }
        Place section = place;
        section.steps[section.step_count++] = (JsonStep){.key = node->string};
        char found[80];
        if (!cJSON_IsObject(node))
            return fail_key(&section, err, "section \"%s\": expected an object, found %s", node->string,
                            describe_node(found, node));
        for (const cJSON *member = node->child; member; member = member->next)
            if (!read_member(set, section, node->string, member, err)) return false;
    }
    return true;
}

#define NUMBER_MOST 63 /* characters of a number that cJSON takes */

/* Is cJSON able to carry all of it? From then on it fails for want of memory alone. */
static bool check_text(const char *text, size_t count, const char *name, Err *err) {
    JsonReader r;
    JsonToken token = {0};
    bool ok = json_open(&r, text, count, (JsonSource){.name = name, .code = EXIT_USAGE}, err);
    do {
        ok = ok && json_next(&r, &token, err);
        if (ok && token.kind == JSON_NUMBER && token.count > NUMBER_MOST)
            ok = json_fail(&r, &token, err, "a number of more than %d characters", NUMBER_MOST);
    } while (ok && token.kind != JSON_END);
    json_close(&r);
    return ok;
}

static cJSON *checked(cJSON *node) {
    if (!node) mem_exhausted("a config value");
    return node;
}

bool options_read_json(OptionSet *set, const char *text, size_t count, const char *name, Err *err) {
    if (!check_text(text, count, name, err)) return false;
    cJSON *root = checked(cJSON_ParseWithLengthOpts(text, count, NULL, false));
    bool ok = read_root(set, (Place){.name = name, .text = text, .count = count}, root, err);
    cJSON_Delete(root);
    return ok;
}

/* ---- key=value ---- */

static bool is_json(const char *text) {
    Err why = {0};
    bool ok = check_text(text, strlen(text), "", &why);
    if (why.code == EXIT_MEMORY) mem_exhausted("a config value");
    return ok;
}

/* A string option takes a text as it is, so that a directory may be called 2024 or true. */
static cJSON *parse_word(const Option *o, const char *text) {
    bool literal = o->type == OPTION_STRING || o->type == OPTION_ENUM;
    bool quoted = text[0] == '"' || (!strcmp(text, "null") && (o->flags & OPTION_NULL));
    return checked((!literal || quoted) && is_json(text) ? cJSON_Parse(text) : cJSON_CreateString(text));
}

/* "a,b" or "[a,b]" without quotes, as a shell leaves it; whole numbers also as "512x2048". */
static cJSON *parse_list(const Option *o, const char *text) {
    const char *separators = o->type == OPTION_INT ? ",x" : ",";
    if (text[0] == '[' && is_json(text)) return checked(cJSON_Parse(text));
    if (text[0] != '[' && !strpbrk(text, separators)) return parse_word(o, text);
    char *copy = mem_strdup(text + (text[0] == '[')), *rest = copy;
    size_t length = strlen(copy);
    if (text[0] == '[' && length > 0 && copy[length - 1] == ']') copy[length - 1] = '\0';
    cJSON *list = checked(cJSON_CreateArray());
    for (char *item; (item = strsep(&rest, separators)) != NULL;) {
        while (*item == ' ') item++;
        cJSON_AddItemToArray(list, parse_word(o, item));
    }
    free(copy);
    return list;
}

bool options_set(OptionSet *set, const char *key, const char *value, const char *where, Err *err) {
    Place place = {.name = where};
    const Option *o = option_find(set->table, set->count, key);
    if (!o) return fail_unknown(set, &place, key, "option", err);
    if (!json_utf8_valid(value, strlen(value))) /* a path, too: the config that is written has to say the same */
        return fail_value(o, &place, -1, err,
                          o->type == OPTION_STRING ? "the value is not UTF-8 - rename it, or give a link to it"
                                                   : "the value is not UTF-8");
    cJSON *node = o->length > 0 ? parse_list(o, value) : parse_word(o, value);
    bool ok = store(set, o, &place, node, err);
    cJSON_Delete(node);
    return ok;
}

bool options_assign(OptionSet *set, const char *assignment, const char *where, Err *err) {
    const char *equals = strchr(assignment, '=');
    char key[128];
    if (!equals) return err_set(err, EXIT_USAGE, "%s: \"%s\" is no key=value", where, assignment);
    snprintf(key, sizeof key, "%.*s", (int)MIN(equals - assignment, 120), assignment);
    return options_set(set, key, equals + 1, where, err);
}

/* ---- the set ---- */

void options_init(OptionSet *set, const Option *table, int count, void *target) {
    *set = (OptionSet){.table = table, .count = count, .target = target};
    set->where = mem_zalloc((size_t)count, sizeof *set->where);
    for (int i = 0; i < count; i++) {
        if (table[i].type == OPTION_STRING) *(char **)slot(set, &table[i], 0) = NULL;
        CHECK(table[i].length == 0 || table[i].type != OPTION_STRING, "%s: lists of strings", table[i].name);
        options_reset(set, table[i].name);
    }
}

void options_free(OptionSet *set) {
    for (int i = 0; i < set->count; i++) {
        free(set->where[i]);
        if (set->table[i].type == OPTION_STRING) free(*(char **)slot(set, &set->table[i], 0));
    }
    free(set->where);
    *set = (OptionSet){0};
}

static int index_of(const OptionSet *set, const char *name) {
    const Option *o = option_find(set->table, set->count, name);
    CHECK(o, "no option \"%s\"", name);
    return (int)(o - set->table);
}

void options_reset(OptionSet *set, const char *name) {
    const int i = index_of(set, name);
    Err err = {0};
    CHECK(options_set(set, name, set->table[i].initial, "default", &err), "%s", err.text);
    free(set->where[i]);
    set->where[i] = NULL;
}

const char *options_where(const OptionSet *set, const char *name) { return set->where[index_of(set, name)]; }
bool options_given(const OptionSet *set, const char *name) { return options_where(set, name) != NULL; }

bool options_fail(const OptionSet *set, const char *name, Err *err, const char *format, ...) {
    char what[600];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const char *where = set->where[index_of(set, name)];
    return err_set(err, EXIT_USAGE, "%s: %s: %s", where ? where : "config", name, what);
}
