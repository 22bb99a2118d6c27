/* split.c - folders of a data set by the names that people give them. Refuses to guess: what judges a network is never
 * taken from folders of another meaning. */
#include "data/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define NAMES 3
static const char *const SPLITS[][NAMES] = {{"train", "training", NULL}, {"val", "valid", "validation"}};

/* The names of a split, best first. */
static void names_of(const char *split, const char *names[NAMES]) {
    memset(names, 0, NAMES * sizeof *names);
    names[0] = split;
    for (size_t i = 0; i < COUNTOF(SPLITS); i++)
        if (strcmp(SPLITS[i][0], split) == 0) memcpy(names, SPLITS[i], sizeof SPLITS[i]);
}

/* *folder: root/name, malloc'd; NULL where that is no folder. */
static bool try_folder(char **folder, const char *root, const char *name, Err *err) {
    char *path = path_join(root, name);
    PathKind kind;
    bool ok = path_kind(&kind, path, err);
    *folder = ok && kind == PATH_FOLDER ? path : NULL;
    if (!*folder) free(path);
    return ok;
}

bool split_find(char **folder, const char *root, const char *split, Err *err) {
    *folder = NULL;
    if (!split) {
        *folder = mem_strdup(root);
        return true;
    }
    const char *names[NAMES];
    names_of(split, names);
    for (int i = 0; i < NAMES && names[i] && !*folder; i++)
        if (!try_folder(folder, root, names[i], err)) return false;
    return true;
}

/* "train, test" - the first folders in root. */
static void list_folders(char *out, size_t size, const char *root, const DirList *list) {
    size_t used = 0;
    int met = 0;
    out[0] = '\0';
    for (size_t i = 0; i < list->count && used < size; i++) {
        char *path = path_join(root, list->names[i]);
        if (path_is_dir(path) && met++ < 6)
            used += (size_t)snprintf(out + used, size - used, "%s%s", met > 1 ? ", " : "", list->names[i]);
        free(path);
    }
    if (met > 6 && used < size) snprintf(out + used, size - used, ", ...");
    if (met == 0) snprintf(out, size, "no folder");
}

bool split_missing(const char *root, const char *split, Err *err) {
    const char *names[NAMES];
    char tried[128] = "", found[256];
    DirList list;
    if (!dir_list(&list, root, err)) return false;
    list_folders(found, sizeof found, root, &list);
    dir_list_free(&list);
    names_of(split, names);
    for (int i = 1; i < NAMES && names[i]; i++)
        snprintf(tried + strlen(tried), sizeof tried - strlen(tried), "%s\"%s\"", i > 1 ? ", " : ", nor ", names[i]);
    char other[64] = "";
    if (strcmp(split, "train") == 0 || strcmp(split, "val") == 0)
        snprintf(other, sizeof other, "; data.%s=NAME takes another", split);
    return err_set(err, EXIT_INPUT, "%s: holds no folder \"%s\"%s, but %s - expected %s/%s/CLASS/*.jpg%s", root, split,
                   tried, found, root, split, other);
}

bool split_to_judge(const char **split, const char *root, const char *val, const char *train,
                    const char *const *classes, int class_count, Err *err) {
    char *folder, *trained;
    *split = val;
    if (!split_find(&folder, root, val, err) || !split_find(&trained, root, train, err)) return false;
    bool found = folder != NULL, is_class = false;
    const char *name = trained ? strrchr(trained, '/') : NULL;
    for (int i = 0; name && i < class_count; i++) is_class = is_class || strcmp(classes[i], name + 1) == 0;
    bool refused = !found && trained && !is_class;
    free(folder), free(trained);
    if (refused) return split_missing(root, val, err);
    if (!found) *split = NULL;
    return true;
}

/* The other names of the split whose folder this is, where there is one beside it. */
static void find_unused(char *out, size_t size, const char *folder) {
    const char *slash = strrchr(folder, '/'), *own = slash ? slash + 1 : folder;
    out[0] = '\0';
    for (size_t i = 0; i < COUNTOF(SPLITS); i++) {
        bool mine = false;
        for (int k = 0; k < NAMES && SPLITS[i][k]; k++) mine = mine || strcmp(SPLITS[i][k], own) == 0;
        for (int k = 0; mine && k < NAMES && SPLITS[i][k]; k++) {
            char path[DATASET_PATH_MAX];
            snprintf(path, sizeof path, "%.*s%s", (int)(own - folder), folder, SPLITS[i][k]);
            if (strcmp(SPLITS[i][k], own) == 0 || !path_is_dir(path)) continue;
            snprintf(out + strlen(out), size - strlen(out), "%s%s", out[0] ? ", " : "", SPLITS[i][k]);
        }
    }
}

/* Classes of which a set holds no picture: allowed in validation, but it then says nothing about them. */
static void report_missing(const Dataset *d, Log *log) {
    if (!d->labels) return;
    bool *met = mem_zalloc((size_t)d->class_count, sizeof *met);
    int missing = 0, first = 0;
    for (size_t i = 0; i < d->count; i++) met[d->labels[i]] = true;
    for (int c = d->class_count; c-- > 0;)
        if (!met[c]) missing++, first = c;
    free(met);
    if (missing)
        log_warning(log, "%s: holds no picture of %d of %d classes, such as \"%s\"", d->root, missing, d->class_count,
                    d->classes[first]);
}

void split_announce(const Dataset *d, const char *what, Log *log) {
    char unused[64];
    find_unused(unused, sizeof unused, d->root);
    log_info(log, "%s folder: %s", what, d->root);
    if (unused[0]) log_warning(log, "%s: lies beside %s, which is not used", d->root, unused);
    report_missing(d, log);
    passed_report(&d->passed, d->root, log);
}
