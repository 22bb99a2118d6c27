#include "base/line_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void line_file_open(LineFile *f, const char *path) { *f = (LineFile){.path = mem_strdup(path)}; }

static void keep(LineFile *f, const char *line) {
    size_t count = strlen(line);
    if (f->room - f->count < count + 1) {
        f->room = 2 * f->room + count + 256;
        f->waiting = mem_resize(f->waiting, f->room, 1);
    }
    memcpy(f->waiting + f->count, line, count);
    f->count += count;
    f->waiting[f->count++] = '\n';
}

bool line_file_flush(LineFile *f, Err *err) {
    if (f->count == 0) return true;
    int fd = open(f->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644), code = fd < 0 ? errno : 0;
    size_t done = 0; /* a disk that fills up takes a part of a line: the rest follows it, and nothing stands twice */
    while (code == 0 && done < f->count) {
        ssize_t n = write(fd, f->waiting + done, f->count - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            code = n == 0 ? EIO : errno;
    }
    if (fd >= 0 && close(fd) != 0 && code == 0) code = errno;
    f->count -= done;
    if (f->count) memmove(f->waiting, f->waiting + done, f->count);
    if (code == 0) return true;
    return err_set(err, EXIT_IO, "%s: writing failed (%s) - check space and permissions", f->path, strerror(code));
}

bool line_file_add(LineFile *f, const char *line, Err *err) {
    keep(f, line);
    return line_file_flush(f, err);
}

void line_file_close(LineFile *f) {
    Err ignored = {0};
    if (f->path) (void)line_file_flush(f, &ignored);
    free(f->path);
    free(f->waiting);
    *f = (LineFile){0};
}
