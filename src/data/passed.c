/* passed.c - counts by kind what a walk through folders passes over. */
#include "data/passed.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "data/image.h"

/* Names that promise a picture of a format that is not read. */
static bool promises_picture(const char *extension) {
    static const char *const list[] = {".heic", ".heif", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm",
                                       ".pgm",  ".pbm",  ".jp2",  ".jxl", ".psd", ".ico", ".svg",  ".tga",
                                       ".cr2",  ".nef",  ".arw",  ".dng", ".raw", ".orf", ".rw2",  ".exr"};
    for (size_t i = 0; i < COUNTOF(list); i++)
        if (strcasecmp(extension, list[i]) == 0) return true;
    return false;
}

/* From the last dot of a file's name on, in lower case; of names without one, that. */
static void extension_of(char *out, size_t size, const char *path) {
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash + 1 : path, '.');
    if (!dot || strlen(dot) >= 16) dot = "no extension";
    size_t n = 0;
    for (; dot[n] && n + 1 < size; n++) out[n] = (char)tolower((unsigned char)dot[n]);
    out[n] = '\0';
}

static void count(Passed *p, const char *kind, bool picture, const char *path) {
    int i = 0;
    while (i < p->kinds && strcmp(p->kind[i].kind, kind) != 0) i++;
    if (i >= PASSED_KINDS) i = PASSED_KINDS, kind = "other kinds";
    PassedKind *k = &p->kind[i];
    if (i == p->kinds) {
        p->kinds++;
        snprintf(k->kind, sizeof k->kind, "%s", kind);
        k->example = mem_strdup(path);
    }
    k->picture = k->picture || picture;
    k->count++;
    p->count++;
}

/* What the file is called in the count, and whether it is a picture, and whether of a format that is read. */
static bool examine(char kind[24], bool *picture, bool *readable, const char *path, Err *err) {
    uint8_t start[IMAGE_MAGIC];
    size_t bytes;
    if (!file_read_start(start, sizeof start, &bytes, path, err)) return false;
    const char *format = image_format(start, bytes, readable);
    extension_of(kind, 24, path);
    *picture = format || promises_picture(kind);
    if (format) snprintf(kind, 24, "%s", format);
    return true;
}

bool passed_look(Passed *p, bool *is_picture, const char *path, Err *err) {
    char kind[24];
    bool picture;
    if (!examine(kind, &picture, is_picture, path, err)) return false;
    if (!*is_picture) count(p, kind, picture, path);
    return true;
}

bool passed_stray(Passed *p, const char *path, const char *where, Err *err) {
    char kind[24], both[sizeof p->kind[0].kind];
    bool picture, readable;
    if (!examine(kind, &picture, &readable, path, err)) return false;
    snprintf(both, sizeof both, "%s %s", kind, where);
    count(p, both, picture, path);
    return true;
}

void passed_special(Passed *p, const char *path, const char *where) {
    char kind[sizeof p->kind[0].kind];
    snprintf(kind, sizeof kind, "special files%s", where);
    count(p, kind, false, path);
}

void passed_report(const Passed *p, const char *folder, Log *log) {
    bool pictures = false;
    for (int i = 0; i < p->kinds; i++) pictures = pictures || p->kind[i].picture;
    if (pictures && p->count == 1)
        log_warning(log, "%s: 1 file is not read, a picture:", folder);
    else if (pictures)
        log_warning(log, "%s: %zu files are not read, pictures among them:", folder, p->count);
    else if (p->count == 1)
        log_info(log, "%s: 1 file is no picture:", folder);
    else if (p->count)
        log_info(log, "%s: %zu files are no pictures:", folder, p->count);
    for (int i = 0; i < p->kinds; i++)
        log_row(log, pictures ? LOG_WARNING : LOG_INFO, "  %zu %s, such as %s", p->kind[i].count, p->kind[i].kind,
                p->kind[i].example);
}

void passed_free(Passed *p) {
    for (int i = 0; i < p->kinds; i++) free(p->kind[i].example);
    *p = (Passed){0};
}
