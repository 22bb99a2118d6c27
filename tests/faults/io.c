/* io.c - preloaded into mala, or linked into a test (io.h): system calls on chosen files fail in a chosen way, as disks
 * and network shares do. MALA_FAULT=CALL:PART:ERRNO:SKIP:TIMES: calls on paths that contain PART fail with that number,
 * after the first SKIP, TIMES times; several, apart by spaces. A negative number is no error but a signal, sent just
 * then; the call goes on when it has been taken. 0 is a read or write that is cut short, 1000 one of nothing.
 * Nothing is really synced. MALA_FAULT_HURRY=1: nobody waits between tries.
 * MALA_FAULT_MET=FILE: how often each call was met is written there at the end, a line for each.
 * Calls: open read pread write close fsync flock rename stat lstat fstat mkdir posix_fallocate opendir readdir, and
 * getrlimit setrlimit sched_getaffinity on "process". */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io.h"

#define RULES 32
#define OF_NOTHING 1000

static struct {
    char call[24], part[64];
    int code, skip, times;
    atomic_int met;
} rules[RULES];
static int rule_count;
static bool hurry;

void io_fail(const char *text) {
    rule_count = 0;
    for (int used = 0; text && rule_count < RULES; text += used) {
        rules[rule_count].met = 0;
        if (sscanf(text, " %23[^:]:%63[^:]:%d:%d:%d%n", rules[rule_count].call, rules[rule_count].part,
                   &rules[rule_count].code, &rules[rule_count].skip, &rules[rule_count].times, &used) != 5)
            break;
        rule_count++;
    }
}

/* Sent, and taken by the thread that waits for it. */
static void send(int number) {
    sigset_t pending;
    kill(getpid(), number);
    do {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
        sigpending(&pending);
    } while (sigismember(&pending, number));
}

int io_met(int rule) { return atomic_load(&rules[rule].met); }

void io_hurry(void) { hurry = true; }

__attribute__((constructor)) static void begin(void) {
    io_fail(getenv("MALA_FAULT"));
    hurry = getenv("MALA_FAULT_HURRY") != NULL;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("MALA_FAULT_MET");
    FILE *f = path ? fopen(path, "w") : NULL;
    for (int i = 0; f && i < rule_count; i++) fprintf(f, "%d\n", io_met(i));
    if (f) fclose(f);
}

/* The error this call is to end with; 0: none. *count, if there is one, may come back smaller. */
static int fault_of(const char *call, const char *path, size_t *count) {
    for (int i = 0; i < rule_count; i++) {
        if (strcmp(call, rules[i].call) != 0 || !strstr(path, rules[i].part)) continue;
        int n = atomic_fetch_add(&rules[i].met, 1) - rules[i].skip;
        if (n < 0 || n >= rules[i].times) continue;
        if (rules[i].code == OF_NOTHING && count) {
            *count = 0;
            continue;
        }
        if (rules[i].code > 0) return errno = rules[i].code;
        if (rules[i].code < 0) send(-rules[i].code);
        if (rules[i].code == 0 && count && *count > 1) *count /= 2;
    }
    return 0;
}

static int fault(const char *call, const char *path) { return fault_of(call, path, NULL); }

static int fault_fd(const char *call, int fd, size_t *count) {
    if (rule_count == 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return fault_of(call, path, count);
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    return fault("open", path) ? -1 : NEXT(int (*)(const char *, int, ...), open)(path, flags, mode);
}

ssize_t read(int fd, void *out, size_t count) {
    return fault_fd("read", fd, &count) ? -1 : NEXT(ssize_t (*)(int, void *, size_t), read)(fd, out, count);
}

ssize_t pread(int fd, void *out, size_t count, off_t at) {
    return fault_fd("pread", fd, &count) ? -1
                                         : NEXT(ssize_t (*)(int, void *, size_t, off_t), pread)(fd, out, count, at);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return fault_fd("write", fd, &count) ? -1 : NEXT(ssize_t (*)(int, const void *, size_t), write)(fd, bytes, count);
}

/* As on Linux: the descriptor is gone all the same. */
int close(int fd) {
    int code = fault_fd("close", fd, NULL), result = NEXT(int (*)(int), close)(fd);
    return code ? (errno = code, -1) : result;
}

int fsync(int fd) { return fault_fd("fsync", fd, NULL) ? -1 : 0; }

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (hurry) return 0;
    return NEXT(int (*)(const struct timespec *, struct timespec *), nanosleep)(wanted, left);
}

int getrlimit(__rlimit_resource_t which, struct rlimit *out) {
    return fault("getrlimit", "process") ? -1
                                         : NEXT(int (*)(__rlimit_resource_t, struct rlimit *), getrlimit)(which, out);
}

int setrlimit(__rlimit_resource_t which, const struct rlimit *to) {
    return fault("setrlimit", "process")
               ? -1
               : NEXT(int (*)(__rlimit_resource_t, const struct rlimit *), setrlimit)(which, to);
}

int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *out) {
    return fault("sched_getaffinity", "process")
               ? -1
               : NEXT(int (*)(pid_t, size_t, cpu_set_t *), sched_getaffinity)(process, bytes, out);
}

int flock(int fd, int operation) {
    return fault_fd("flock", fd, NULL) ? -1 : NEXT(int (*)(int, int), flock)(fd, operation);
}

int rename(const char *from, const char *to) {
    return fault("rename", to) ? -1 : NEXT(int (*)(const char *, const char *), rename)(from, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    return fault("rename", to) ? -1
                               : NEXT(int (*)(int, const char *, int, const char *, unsigned), renameat2)(
                                     from_folder, from, to_folder, to, flags);
}

int stat(const char *path, struct stat *out) {
    return fault("stat", path) ? -1 : NEXT(int (*)(const char *, struct stat *), stat)(path, out);
}

int lstat(const char *path, struct stat *out) {
    return fault("lstat", path) ? -1 : NEXT(int (*)(const char *, struct stat *), lstat)(path, out);
}

int fstat(int fd, struct stat *out) {
    return fault_fd("fstat", fd, NULL) ? -1 : NEXT(int (*)(int, struct stat *), fstat)(fd, out);
}

int mkdir(const char *path, mode_t mode) {
    return fault("mkdir", path) ? -1 : NEXT(int (*)(const char *, mode_t), mkdir)(path, mode);
}

int posix_fallocate(int fd, off_t at, off_t bytes) {
    int code = fault_fd("posix_fallocate", fd, NULL);
    return code ? code : NEXT(int (*)(int, off_t, off_t), posix_fallocate)(fd, at, bytes);
}

DIR *opendir(const char *path) {
    return fault("opendir", path) ? NULL : NEXT(DIR *(*)(const char *), opendir)(path);
}

struct dirent *readdir(DIR *dir) {
    return fault_fd("readdir", dirfd(dir), NULL) ? NULL : NEXT(struct dirent *(*)(DIR *), readdir)(dir);
}
