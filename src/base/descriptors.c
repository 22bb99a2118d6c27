#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool descriptors_secure(Err *err) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
        /* the lowest free one is this one, since those before it are there */
        if (open("/dev/null", O_RDWR) != fd)
            return err_set(err, EXIT_IO, "/dev/null: cannot be opened for descriptor %d, which is closed: %s - give it",
                           fd, strerror(errno));
    }
    return true;
}

bool standard_output_write(const char *text, size_t count, Err *err) {
    errno = 0;
    if (!ferror(stdout) && (count == 0 || fwrite(text, 1, count, stdout) == count) && fflush(stdout) == 0) return true;
    if (errno == 0) /* an earlier write's, which nobody has asked for the reason */
        return err_set(err, EXIT_IO, "standard output: writing failed - is there space, and does anybody read it?");
    return err_set(err, EXIT_IO, "standard output: writing failed: %s - %s", strerror(errno),
                   errno == EPIPE ? "whoever reads it has gone" : "check space on the device");
}
