#include "app/answers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/descriptors.h"
#include "base/json.h"
#include "base/strings.h"
#include "data/imagenet_names.h"

static void put(Answers *a, const char *text) {
    size_t count = strlen(text);
    if (a->used + count > a->room) {
        a->room = 2 * (a->used + count) + 1024;
        a->text = mem_resize(a->text, a->room, 1);
    }
    memcpy(a->text + a->used, text, count);
    a->used += count;
}

static void put_format(Answers *a, const char *format, ...) PRINTF_LIKE(2, 3);
static void put_format(Answers *a, const char *format, ...) {
    char text[64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(a, text);
}

/* RFC 4180: in quotes where it holds a comma or a quote, which is doubled then. */
static void put_field(Answers *a, const char *value) {
    char *text = text_printable_new(value);
    bool quoted = strpbrk(text, ",\"") != NULL;
    if (quoted) put(a, "\"");
    for (char *rest = text, *part; (part = strsep(&rest, "\"")) != NULL;) {
        put(a, part);
        if (rest) put(a, "\"\"");
    }
    if (quoted) put(a, "\"");
    free(text);
}

static const char *label(const Answers *a, int32_t index) { return imagenet_label(a->classes[index]); }

static void add_text(Answers *a, const char *image, const Err *bad, const int32_t *top, const float *prob) {
    if (bad->code) return;
    char *name = text_printable_new(image);
    size_t at = utf8_columns(name);
    put(a, name);
    free(name);
    for (int k = 0; k < a->topk; k++) {
        char *class = text_printable_new(label(a, top[k])), share[16];
        snprintf(share, sizeof share, " %.1f %%", 100 * (double)prob[top[k]]);
        at += 2 + utf8_columns(class) + strlen(share);
        bool fits = k == 0 || a->columns == 0 || at <= (size_t)a->columns;
        if (fits) put(a, k ? ", " : ": "), put(a, class), put(a, share);
        free(class);
        if (!fits) break;
    }
    put(a, "\n");
}

static void add_json(Answers *a, const char *image, const Err *bad, const int32_t *top, const float *prob) {
    JsonWriter w = {0};
    json_write_object(&w);
    json_write_path(&w, "image", image);
    if (bad->code) {
        json_write_key(&w, "error"), json_write_string(&w, bad->text);
    } else {
        json_write_key(&w, "predictions");
        json_write_array(&w);
        for (int k = 0; k < a->topk; k++) {
            json_write_object(&w);
            json_write_key(&w, "class"), json_write_int(&w, top[k]);
            json_write_key(&w, "label"), json_write_string(&w, label(a, top[k]));
            json_write_key(&w, "score"), json_write_float(&w, prob[top[k]]);
            json_write_end(&w);
        }
        json_write_end(&w);
    }
    json_write_end(&w);
    put(a, json_writer_text(&w));
    put(a, "\n");
    json_writer_free(&w);
}

static void add_csv(Answers *a, const char *image, const Err *bad, const int32_t *top, const float *prob) {
    if (bad->code) {
        put_field(a, image);
        put(a, ",,,,,");
        put_field(a, bad->text);
        put(a, "\n");
        return;
    }
    for (int k = 0; k < a->topk; k++) {
        char score[NUMBER_TEXT_SIZE];
        number_text_float(score, prob[top[k]]);
        put_field(a, image);
        put_format(a, ",%d,%d,", k + 1, top[k]);
        put_field(a, label(a, top[k]));
        put_format(a, ",%s,\n", score);
    }
}

bool answers_open(Answers *a, AnswersFormat format, const char *out, char *const *classes, int topk, Err *err) {
    *a = (Answers){.format = format, .classes = classes, .topk = topk, .to_file = out != NULL};
    if (out && !file_writer_open(&a->file, out, err)) return false;
    if (format == ANSWERS_CSV) put(a, "image,rank,class,label,score,error\n");
    return true;
}

void answers_add(Answers *a, const char *image, const Err *bad, const int32_t *top, const float *prob) {
    static void (*const add[])(Answers *, const char *, const Err *, const int32_t *, const float *) = {
        [ANSWERS_TEXT] = add_text, [ANSWERS_JSON] = add_json, [ANSWERS_CSV] = add_csv};
    add[a->format](a, image, bad, top, prob);
}

bool answers_flush(Answers *a, Err *err) {
    size_t count = a->used;
    a->used = 0;
    if (a->to_file) return file_writer_append(&a->file, a->text, count, err);
    return standard_output_write(a->text, count, err);
}

bool answers_commit(Answers *a, Err *err) {
    bool ok = answers_flush(a, err) && (!a->to_file || file_writer_commit(&a->file, err));
    a->to_file = a->to_file && !ok && a->file.fd >= 0; /* a failed commit has discarded it */
    answers_discard(a);
    return ok;
}

void answers_discard(Answers *a) {
    if (a->to_file) file_writer_discard(&a->file);
    free(a->text);
    *a = (Answers){0};
}
