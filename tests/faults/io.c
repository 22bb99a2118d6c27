/* io.c - preloaded into mala: system calls on chosen files fail in a chosen way, as disks and network shares do.
 * MALA_FAULT=CALL:PART:ERRNO:SKIP:TIMES: calls (open, pread, write, fsync, flock, opendir) on paths that contain PART
 * fail with that number, after the first SKIP, TIMES times; several, apart by spaces. A negative number is no error but
 * a signal, sent just then; the call goes on when it has been taken. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RULES 8

static struct {
    char call[16], part[64];
    int code, skip, times;
    atomic_int met;
} rules[RULES];
static int rule_count;

__attribute__((constructor)) static void read_rules(void) {
    const char *text = getenv("MALA_FAULT");
    for (int used = 0; text && rule_count < RULES; text += used)
        if (sscanf(text, " %15[^:]:%63[^:]:%d:%d:%d%n", rules[rule_count].call, rules[rule_count].part,
                   &rules[rule_count].code, &rules[rule_count].skip, &rules[rule_count].times, &used) == 5)
            rule_count++;
        else
            break;
}

/* Sent, and taken by the thread that waits for it. */
static void send(int number) {
    sigset_t pending;
    kill(getpid(), number);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
        sigpending(&pending);
    } while (sigismember(&pending, number));
}

/* The error this call is to end with; 0: none. */
static int fault(const char *call, const char *path) {
    for (int i = 0; i < rule_count; i++) {
        if (strcmp(call, rules[i].call) != 0 || !strstr(path, rules[i].part)) continue;
        int n = atomic_fetch_add(&rules[i].met, 1) - rules[i].skip;
        if (n < 0 || n >= rules[i].times) continue;
        if (rules[i].code > 0) return errno = rules[i].code;
        send(-rules[i].code);
    }
    return 0;
}

static int fault_fd(const char *call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return fault(call, path);
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    return fault("open", path) ? -1 : NEXT(int (*)(const char *, int, ...), open)(path, flags, mode);
}

ssize_t pread(int fd, void *out, size_t count, off_t at) {
    return fault_fd("pread", fd) ? -1 : NEXT(ssize_t (*)(int, void *, size_t, off_t), pread)(fd, out, count, at);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return fault_fd("write", fd) ? -1 : NEXT(ssize_t (*)(int, const void *, size_t), write)(fd, bytes, count);
}

int fsync(int fd) { return fault_fd("fsync", fd) ? -1 : NEXT(int (*)(int), fsync)(fd); }

int flock(int fd, int operation) {
    return fault_fd("flock", fd) ? -1 : NEXT(int (*)(int, int), flock)(fd, operation);
}

DIR *opendir(const char *path) {
    return fault("opendir", path) ? NULL : NEXT(DIR *(*)(const char *), opendir)(path);
}
