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

/* Does a folder hold anything but what opening a run leaves: its lock, and a folder for weights with nothing in it? */
static bool holds_anything(const char *path, bool inside) {
    DIR *dir = opendir(path);
    if (!dir) return errno != ENOTDIR && access(path, F_OK) == 0; /* a folder that cannot be looked into is not ours */
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (!inside && strcmp(name, ".lock") == 0)) continue;
        char *below = path_join(path, name);
        found = inside || strcmp(name, "weights") != 0 || holds_anything(below, true);
        free(below);
    }
    closedir(dir);
    return found;
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
static bool move_earlier_run(const RunDir *r, Log *log, Err *err) {
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
    free(earlier);
    return ok;
}

bool rundir_open(RunDir *out, const char *wanted, bool reuse, Log *log, Err *err) {
    *out = (RunDir){.lock = -1};
    for (int i = 1;; i++) {
        Err why = {0};
        out->path = numbered(wanted, i);
        bool ours = (reuse || !holds_anything(out->path, false)) && claim(out, log, &why);
        if (ours && (reuse || !holds_anything(out->path, false))) break; /* asked again: now nobody else can come in */
        bool taken = !why.code || (why.code == EXIT_LOCKED && !reuse);
        rundir_close(out);
        if (!taken) return err_set(err, why.code, "%s", why.text);
    }
    if (!reuse || move_earlier_run(out, log, err)) return true;
    rundir_close(out);
    return false;
}

void rundir_close(RunDir *r) {
    if (r->lock >= 0) close(r->lock);
    free(r->path);
    *r = (RunDir){.lock = -1};
}

char *rundir_file(const RunDir *r, const char *name) { return path_join(r->path, name); }

bool rundir_write(const RunDir *r, const char *name, const char *text, Err *err) {
    char *path = rundir_file(r, name);
    bool ok = file_write(path, text, strlen(text), err);
    free(path);
    return ok;
}
