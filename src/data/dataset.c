/* dataset.c - walks folders and lists. A million paths are one block of text and an offset each. Refuses classes that
 * the model does not know, classes without pictures, folders nested without end, paths too long to open, and entries
 * that cannot be asked what they are: what is missing must not look like what was never there. */
#include "data/dataset.h"

#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "data/list.h"
#include "data/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEPTH_MAX 16 /* folders in each other, from a class on; deeper is a link that leads back */
#define LIST_MAX_BYTES ((size_t)1 << 31)

/* Names that say enough. */
static const char *const EXTENSIONS[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"};

static bool is_picture_name(const char *name) {
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < COUNTOF(EXTENSIONS); i++)
        if (strcasecmp(dot, EXTENSIONS[i]) == 0) return true;
    return false;
}

void dataset_close(Dataset *d) {
    for (int i = 0; i < d->class_count; i++) free(d->classes[i]);
    free(d->classes), free(d->root), free(d->text), free(d->offset), free(d->labels);
    passed_free(&d->passed);
    *d = (Dataset){0};
}

/* path: relative to the root; label -1: none. */
static bool add(Dataset *d, const char *path, int32_t label, Err *err) {
    size_t bytes = strlen(path) + 1;
    if (bytes + (path[0] == '/' ? 0 : strlen(d->root) + 1) > DATASET_PATH_MAX)
        return err_set(err, EXIT_INPUT, "%s/%.200s...: the path is longer than %d bytes - move the folder up", d->root,
                       path, DATASET_PATH_MAX - 1);
    if (d->count == UINT32_MAX) return err_set(err, EXIT_INPUT, "%s: more than 2^32 - 1 files - split them", d->root);
    if (d->count == d->room) {
        d->room = d->room ? 2 * d->room : 1024;
        d->offset = mem_resize(d->offset, d->room, sizeof *d->offset);
        if (label >= 0) d->labels = mem_resize(d->labels, d->room, sizeof *d->labels);
    }
    if (d->text_bytes + bytes > d->text_room) {
        d->text_room = 2 * d->text_room + bytes + 4096;
        d->text = mem_resize(d->text, d->text_room, 1);
    }
    memcpy(d->text + d->text_bytes, path, bytes);
    d->offset[d->count] = d->text_bytes;
    if (label >= 0) d->labels[d->count] = label;
    d->text_bytes += bytes;
    d->count++;
    return true;
}

static bool walk(Dataset *d, const char *below, int32_t label, int depth, Err *err);

/* An entry of a folder that is no file by its listing, or whose name says nothing. */
static bool walk_unsure(Dataset *d, const char *name, const char *path, int32_t label, int depth, Err *err) {
    PathKind kind;
    bool is_picture = is_picture_name(name);
    if (!path_kind(&kind, path, err)) return false;
    if (kind == PATH_FOLDER) return walk(d, name, label, depth + 1, err);
    if (kind == PATH_OTHER) return passed_special(&d->passed, path, ""), true;
    if (kind == PATH_FILE && !is_picture && !passed_look(&d->passed, &is_picture, path, err)) return false;
    return !is_picture || add(d, name, label, err);
}

/* The pictures in and below root/below, in byte order of their names. Files with a picture's extension are not looked
 * at: asking the file system about every picture of a large set takes minutes on a shared disk. Links are, and folders
 * are folders whatever their name. Without labels all else of such a name counts as a picture: who wants answers is
 * told of each that has none, and gets the others. */
static bool walk(Dataset *d, const char *below, int32_t label, int depth, Err *err) {
    char *folder = path_join(d->root, below);
    DirList list;
    bool ok = true;
    if (depth > DEPTH_MAX)
        ok = err_set(err, EXIT_INPUT, "%s: is nested more than %d folders deep - is a link leading back?", folder,
                     DEPTH_MAX);
    else if ((ok = dir_list(&list, folder, err))) {
        for (size_t i = 0; i < list.count && ok; i++) {
            char *name = path_join(below, list.names[i]), *path = path_join(folder, list.names[i]);
            bool sure = is_picture_name(name) && (dir_list_regular(&list, i) || (label < 0 && !path_is_dir(path)));
            ok = sure ? add(d, name, label, err) : walk_unsure(d, name, path, label, depth, err);
            free(name), free(path);
        }
        dir_list_free(&list);
    }
    free(folder);
    return ok;
}

/* The class of that name, looked for from `from` on and around: folders come in the classes' order. -1: none. */
static int find_class(const Dataset *d, const char *name, int from) {
    for (int i = 0; i < d->class_count; i++) {
        int at = (from + i) % d->class_count;
        if (strcmp(d->classes[at], name) == 0) return at;
    }
    return -1;
}

static bool class_unknown(const Dataset *d, const char *name, Err *err) {
    const char *nearest = text_nearest(name, (const char *const *)d->classes, (size_t)d->class_count);
    if (nearest)
        return err_set(err, EXIT_INPUT, "%s/%s: no class of the training set has this name - did you mean \"%s\"?",
                       d->root, name, nearest);
    return err_set(err, EXIT_INPUT,
                   "%s/%s: no class of the training set has this name (it has %d, \"%s\" to \"%s\") - rename or remove "
                   "the folder",
                   d->root, name, d->class_count, d->classes[0], d->classes[d->class_count - 1]);
}

static void set_classes(Dataset *d, const char *const *names, size_t count) {
    d->classes = mem_zalloc(count, sizeof *d->classes);
    for (size_t i = 0; i < count; i++) d->classes[i] = mem_strdup(names[i]);
    d->class_count = (int)count;
}

/* Keeps of a listing what is a folder, and counts the files. */
static bool keep_folders(Dataset *d, DirList *list, Err *err) {
    size_t kept = 0;
    bool ok = true;
    for (size_t i = 0; i < list->count; i++) {
        char *path = path_join(d->root, list->names[i]);
        PathKind kind = PATH_NOTHING;
        ok = ok && path_kind(&kind, path, err) &&
             (kind != PATH_FILE || passed_stray(&d->passed, path, "beside the class folders", err));
        if (kind == PATH_OTHER) passed_special(&d->passed, path, " beside the class folders");
        if (kind == PATH_FOLDER)
            list->names[kept++] = list->names[i];
        else
            free(list->names[i]);
        free(path);
    }
    list->count = kept;
    return ok;
}

/* Class names are kept as text, in weights and lists: two that differ in bytes that are none would become one. */
static bool check_names(const Dataset *d, const DirList *folders, Err *err) {
    for (size_t i = 0; i < folders->count; i++)
        if (!json_utf8_valid(folders->names[i], strlen(folders->names[i])))
            return err_set(err, EXIT_INPUT, "%s/%s: the folder's name is not UTF-8, as a class's has to be - rename it",
                           d->root, folders->names[i]);
    return true;
}

static bool class_empty(const Dataset *d, const char *name, size_t others, Err *err) {
    char note[64] = "";
    if (others) snprintf(note, sizeof note, " that can be read, but %zu other file%s", others, others > 1 ? "s" : "");
    return err_set(err, EXIT_INPUT, "%s/%s: this class holds no picture%s - add some or remove the folder", d->root,
                   name, note);
}

static bool add_classes(Dataset *d, const DirList *folders, Err *err) {
    int label = -1;
    for (size_t i = 0; i < folders->count; i++) {
        const char *name = folders->names[i];
        if ((label = find_class(d, name, label + 1)) < 0) return class_unknown(d, name, err);
        size_t before = d->count, passed = d->passed.count;
        if (!walk(d, name, label, 1, err)) return false;
        if (d->count == before) return class_empty(d, name, d->passed.count - passed, err);
    }
    return true;
}

bool dataset_open_folder(Dataset *out, const char *root, const char *split, const char *const *classes, int class_count,
                         Err *err) {
    CHECK(!classes || class_count > 0, "a list of no classes");
    *out = (Dataset){0};
    DirList folders = {0};
    if (!split_find(&out->root, root, split, err)) return false;
    if (!out->root) return split_missing(root, split, err);
    bool ok = dir_list(&folders, out->root, err) && keep_folders(out, &folders, err) &&
              (folders.count > 0 ||
               err_set(err, EXIT_INPUT, "%s: holds no class folders - expected CLASS/*.jpg below it", out->root)) &&
              (classes || check_names(out, &folders, err));
    if (ok && classes)
        set_classes(out, classes, (size_t)class_count);
    else if (ok)
        set_classes(out, (const char *const *)folders.names, folders.count);
    ok = ok && add_classes(out, &folders, err);
    dir_list_free(&folders);
    if (!ok) dataset_close(out);
    return ok;
}

/* The end of every opening without labels. */
static bool finish_unlabelled(Dataset *d, bool ok, const char *where, Err *err) {
    if (ok && d->count == 0)
        ok = err_set(err, EXIT_INPUT, "%s: " DATASET_NO_PICTURE, where);
    if (!ok) dataset_close(d);
    return ok;
}

bool dataset_open_pictures(Dataset *out, const char *folder, Err *err) {
    *out = (Dataset){.root = mem_strdup(folder)};
    return finish_unlabelled(out, walk(out, "", -1, 1, err), folder, err);
}

bool dataset_open_paths(Dataset *out, const char *const *paths, size_t count, Err *err) {
    *out = (Dataset){.root = mem_strdup("")}; /* paths stay as they were typed */
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++)
        ok = path_is_dir(paths[i]) ? walk(out, paths[i], -1, 1, err) : add(out, paths[i], -1, err);
    return finish_unlabelled(out, ok, count > 0 ? paths[0] : "the list of paths", err);
}

bool dataset_open_list(Dataset *out, const char *list, Err *err) {
    uint8_t *bytes;
    size_t count;
    *out = (Dataset){0};
    if (!file_read(&bytes, &count, list, LIST_MAX_BYTES, err)) return false;
    out->root = mem_strdup(list);
    char *slash = strrchr(out->root, '/');
    if (slash)
        slash[slash == out->root ? 1 : 0] = '\0';
    else
        out->root[0] = '\0';
    ListReader reader = list_reader(list, bytes, count, NULL);
    const char *path;
    bool ok;
    while ((ok = list_next(&reader, &path, err)) && path && (ok = add(out, path, -1, err))) {}
    free(bytes);
    return finish_unlabelled(out, ok, list, err);
}

void dataset_path(const Dataset *d, size_t index, char out[DATASET_PATH_MAX]) {
    CHECK(index < d->count, "sample %zu of %zu", index, d->count);
    const char *path = d->text + d->offset[index];
    bool whole = path[0] == '/' || d->root[0] == '\0';
    const char *between = d->root[0] && d->root[strlen(d->root) - 1] == '/' ? "" : "/";
    int length = whole ? snprintf(out, DATASET_PATH_MAX, "%s", path)
                       : snprintf(out, DATASET_PATH_MAX, "%s%s%s", d->root, between, path);
    CHECK(length >= 0 && length < DATASET_PATH_MAX, "path of %d bytes", length);
}

void dataset_sha256(const Dataset *d, char out[SHA256_TEXT_SIZE]) {
    Sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < d->count; i++) {
        const char *path = d->text + d->offset[i];
        sha256_add(&s, path, strlen(path));
        sha256_add(&s, "\n", 1);
    }
    sha256_text(&s, out);
}
