#include "app/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "lib/model_file.h"

/* What a run writes. The order is that of moving them away: the config last, so that a run that was only half moved is
 * still seen for one. */
static const char *const files[] = {RUN_BEST,  RUN_LAST,       "results.csv", "metrics.jsonl",
                                    "log.txt", "command.json", "classes.txt", "config.json"};

/* ---- who owns it ---- */

/* Does a folder hold anything but what opening a run leaves: its lock, and a folder for weights with nothing in it?
 * One without permission is somebody else's; any other failure says nothing about what it holds. False: EXIT_IO. */
static bool look_into(const char *path, bool inside, bool *found, Err *err) {
    DIR *dir = opendir(path);
    *found = !dir && errno == EACCES;
    if (!dir) return *found || errno == ENOENT || errno == ENOTDIR || file_fail(err, path, "cannot be read", errno);
    bool ok = true;
    for (struct dirent *entry; ok && !*found && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (!inside && strcmp(name, ".lock") == 0)) continue;
        char *below = path_join(path, name);
        *found = inside || strcmp(name, "weights") != 0;
        ok = *found || look_into(below, true, found, err);
        free(below);
    }
    closedir(dir);
    return ok;
}

static bool is_free(const char *path, Err *err) {
    bool found;
    return look_into(path, false, &found, err) && !found;
}

/* Only EWOULDBLOCK says that another process has it; some network and user file systems know no locks at all. */
static bool take_lock(RunDir *r, Log *log, Err *err) {
    char *name = path_join(r->path, ".lock");
    r->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    bool ok = r->lock >= 0;
    if (!ok) {
        err_set(err, EXIT_IO, "%s: cannot be created (%s) - choose another output directory", name, strerror(errno));
    } else if (flock(r->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            ok = err_set(err, EXIT_LOCKED,
                         "%s: another process is training here - wait for it or choose another output", r->path);
        else
            log_warning(log, "%s: cannot be locked (%s): start no second run here", r->path, strerror(errno));
    }
    free(name);
    return ok;
}

static bool ends_with(const char *text, size_t length, const char *end) {
    size_t count = strlen(end);
    return length >= count && memcmp(text + length - count, end, count) == 0;
}

/* The name that a number is put behind: "runs/mine/" is "runs/mine", and what has no name of its own ("." or "a/..") is
 * asked for the one it has. malloc'd; NULL: EXIT_IO. */
static char *own_name(const char *wanted, Err *err) {
    size_t length = strlen(wanted);
    for (;;) {
        if (length > 1 && wanted[length - 1] == '/')
            length--;
        else if (length > 2 && ends_with(wanted, length, "/."))
            length -= 2;
        else
            break;
    }
    char *name = mem_strdup(wanted);
    name[length] = '\0';
    bool nameless = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || ends_with(name, length, "/..");
    if (!nameless) return name;
    char *real = path_real(name);
    if (!real) file_fail(err, name, "cannot be found", errno);
    free(name);
    return real;
}

static char *numbered(const char *wanted, int number) {
    size_t room = strlen(wanted) + 16;
    char *path = mem_zalloc(room, 1);
    snprintf(path, room, number == 1 ? "%s" : "%s-%d", wanted, number);
    return path;
}

static bool claim(RunDir *r, Log *log, Err *err) {
    char *weights = path_join(r->path, "weights");
    bool ok = dir_make(weights, err) && take_lock(r, log, err);
    free(weights);
    return ok;
}

/* ---- what was there before ---- */

/* A folder earlier-N that is not there yet, made; malloc'd. */
static char *make_earlier(const char *path, Err *err) {
    for (int i = 1;; i++) {
        char name[32];
        snprintf(name, sizeof name, "earlier-%d", i);
        char *folder = path_join(path, name), *weights = path_join(folder, "weights");
        bool taken = access(folder, F_OK) == 0, ok = !taken && dir_make(weights, err);
        free(weights);
        if (ok) return folder;
        free(folder);
        if (!taken) return NULL;
    }
}

/* Under the lock: nobody else writes these. */
static bool move_earlier_run(RunDir *r, Log *log, Err *err) {
    char *earlier = NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < COUNTOF(files); i++) {
        char *from = path_join(r->path, files[i]);
        file_remove_temporaries(from);
        if (access(from, F_OK) == 0) {
            if (!earlier) ok = (earlier = make_earlier(r->path, err)) != NULL;
            char *to = ok ? path_join(earlier, files[i]) : NULL;
            if (ok && rename(from, to) != 0)
                ok = err_set(err, EXIT_IO, "%s: cannot be moved to %s (%s) - choose another output directory", from, to,
                             strerror(errno));
            free(to);
        }
        free(from);
    }
    if (ok && earlier) log_info(log, "%s: the run that was here is now in %s", r->path, earlier);
    r->earlier = earlier;
    return ok;
}

bool rundir_open(RunDir *out, const char *wanted, bool reuse, Log *log, Err *err) {
    *out = (RunDir){.lock = -1};
    char *name = own_name(wanted, err);
    for (int i = 1; name; i++) {
        Err why = {0};
        out->path = numbered(name, i);
        bool ours = (reuse || is_free(out->path, &why)) && claim(out, log, &why);
        if (ours && (reuse || is_free(out->path, &why))) break; /* asked again: now nobody else can come in */
        bool taken = !why.code || (why.code == EXIT_LOCKED && !reuse);
        rundir_close(out);
        if (taken) continue;
        free(name);
        return err_set(err, why.code, "%s", why.text);
    }
    bool ok = name && (!reuse || move_earlier_run(out, log, err));
    free(name);
    if (!ok) rundir_close(out);
    return ok;
}

void rundir_close(RunDir *r) {
    if (r->lock >= 0) close(r->lock);
    free(r->path);
    free(r->earlier);
    *r = (RunDir){.lock = -1};
}

char *rundir_moved(const RunDir *r, const char *path) {
    char *home = r->earlier ? path_real(r->path) : NULL, *above = mem_strdup(path), *now = NULL;
    for (size_t length = strlen(path); home && !now && length > 0; length--) {
        if (above[length] != '/' && path[length] != '\0') continue;
        above[length] = '\0';
        char *real = path_real(above);
        if (real && strcmp(real, home) == 0) now = path_join(r->earlier, path + length);
        free(real);
    }
    if (now && access(now, F_OK) != 0) free(now), now = NULL; /* it was not moved */
    free(home), free(above);
    return now;
}

char *rundir_file(const RunDir *r, const char *name) { return path_join(r->path, name); }

bool rundir_write(const RunDir *r, const char *name, const char *text, Err *err) {
    char *path = rundir_file(r, name);
    bool ok = file_write(path, text, strlen(text), err);
    free(path);
    return ok;
}
