#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
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
