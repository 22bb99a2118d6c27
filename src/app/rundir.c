#include "app/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"

static bool holds_a_run(const char *path) {
    char *config = path_join(path, "config.json");
    bool found = access(config, F_OK) == 0;
    free(config);
    return found;
}

static bool take_lock(RunDir *r, Err *err) {
    char *name = path_join(r->path, ".lock");
    r->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    bool ok = r->lock >= 0;
    if (!ok)
        err_set(err, EXIT_IO, "%s: cannot be created (%s) - choose another output directory", name, strerror(errno));
    else if (flock(r->lock, LOCK_EX | LOCK_NB) != 0)
        ok = err_set(err, EXIT_LOCKED, "%s: another process is training here - wait for it or choose another output",
                     r->path);
    free(name);
    return ok;
}

bool rundir_open(RunDir *out, const char *wanted, bool reuse, Err *err) {
    *out = (RunDir){.lock = -1};
    for (int i = 1;; i++) {
        size_t room = strlen(wanted) + 16;
        out->path = mem_zalloc(room, 1);
        if (i == 1)
            snprintf(out->path, room, "%s", wanted);
        else
            snprintf(out->path, room, "%s-%d", wanted, i);
        if (reuse || !holds_a_run(out->path)) break;
        free(out->path);
    }
    char *weights = path_join(out->path, "weights");
    bool ok = dir_make(weights, err) && take_lock(out, err);
    free(weights);
    if (!ok) rundir_close(out);
    return ok;
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

bool rundir_append(const RunDir *r, const char *name, const char *line, Err *err) {
    char *path = rundir_file(r, name);
    size_t count = strlen(line);
    char *text = mem_zalloc(count + 2, 1);
    memcpy(text, line, count);
    text[count++] = '\n';
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    size_t done = 0;
    while (fd >= 0 && done < count) {
        ssize_t n = write(fd, text + done, count - done);
        if (n < 0 && errno != EINTR) break;
        done += n > 0 ? (size_t)n : 0;
    }
    bool ok = fd >= 0 && done == count;
    if (!ok) err_set(err, EXIT_IO, "%s: writing failed (%s) - check space and permissions", path, strerror(errno));
    if (fd >= 0 && close(fd) != 0 && ok) ok = err_set(err, EXIT_IO, "%s: closing failed (%s)", path, strerror(errno));
    free(text);
    free(path);
    return ok;
}
