#define _POSIX_C_SOURCE 200809L
#include "base/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/unfinished.h"

bool err_set(Err *err, ExitCode code, const char *format, ...) {
    if (!err || err->code != EXIT_DONE) return false;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = code;
    return false;
}

static _Thread_local Rescue *rescue;

Rescue *rescue_use(Rescue *r) {
    Rescue *before = rescue;
    rescue = r;
    return before;
}

/* Never returns when there is a rescue. */
static void try_rescue(ExitCode code, const char *text) {
    if (!rescue) return;
    Rescue *r = rescue;
    rescue = NULL;
    unfinished_remove();
    r->err = (Err){0};
    err_set(&r->err, code, "%s", text);
    longjmp(r->at, (int)code);
}

void check_failed(const char *file, int line, const char *condition, const char *format, ...) {
    if (rescue) {
        char what[256], text[512];
        va_list what_args;
        va_start(what_args, format);
        vsnprintf(what, sizeof what, format, what_args);
        va_end(what_args);
        snprintf(text, sizeof text, "bug: %s:%d: %s: %s", file, line, condition, what);
        try_rescue(EXIT_BUG, text);
    }
    fprintf(stderr, "mala: bug: %s:%d: %s: ", file, line, condition);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* Here and now: exit() would take down libraries under other threads that still compute. The first to end speaks. */
static void end_program(ExitCode code, const char *text) NORETURN;
static void end_program(ExitCode code, const char *text) {
    static atomic_flag ending = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&ending)) (void)pause();
    unfinished_end();
    fprintf(stderr, "mala: error: %s\n", text);
    fflush(stdout);
    _exit((int)code);
}

void mem_exhausted(const char *what) {
    char text[128];
    snprintf(text, sizeof text, "memory: cannot allocate %s - close other programs or use a smaller batch", what);
    try_rescue(EXIT_MEMORY, text);
    end_program(EXIT_MEMORY, text);
}

static void *or_exit(void *memory, size_t bytes) {
    if (memory) return memory;
    char what[32];
    snprintf(what, sizeof what, "%zu bytes", bytes);
    mem_exhausted(what);
}

/* SIZE_MAX, which no allocator gives, where a number cannot hold it. */
static size_t product(size_t count, size_t size) {
    size_t bytes;
    return size_mul(count, size, &bytes) ? bytes : SIZE_MAX;
}

void *mem_zalloc(size_t count, size_t size) {
    size_t bytes = product(count, size);
    return or_exit(calloc(MAX(bytes, 1), 1), bytes);
}

void *mem_resize(void *old, size_t count, size_t size) {
    size_t bytes = product(count, size);
    return or_exit(realloc(old, MAX(bytes, 1)), bytes);
}

char *mem_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(mem_zalloc(bytes, 1), text, bytes);
}

bool mem_try(void **out, size_t bytes, Err *err) {
    size_t padded;
    *out = NULL;
    if (size_add(bytes, 63, &padded)) *out = aligned_alloc(64, MAX(padded & ~(size_t)63, (size_t)64));
    if (!*out)
        return err_set(err, EXIT_MEMORY, "memory: cannot allocate %zu bytes - use a smaller batch or input size",
                       bytes);
    memset(*out, 0, bytes);
    return true;
}

double time_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
