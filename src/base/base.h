/* base.h - what every room leans on: errors, programmer's checks, sizes, checked allocation.
 *
 * Three kinds of failure, three ways out:
 *   a programmer's mistake   CHECK(...): one line with file:line on stderr, then abort
 *   a user's mistake         a function returns false and fills an Err; main prints it and exits with err.code
 *   bad data                 the loader counts it, reports it, and goes on by the stated policy */
#ifndef MALA_BASE_H
#define MALA_BASE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNTOF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
#define ROUND_UP(a, b) (CEIL_DIV(a, b) * (b))

#if defined(__GNUC__)
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#define NORETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(text, first)
#define NORETURN
#endif

/* Exit codes of the program: a contract with scripts, listed in the README. */
typedef enum {
    EXIT_DONE = 0,
    EXIT_BUG = 1,       /* internal error */
    EXIT_USAGE = 2,     /* command line or config */
    EXIT_INPUT = 3,     /* an input file is invalid */
    EXIT_IO = 4,        /* reading or writing failed */
    EXIT_MEMORY = 5,    /* host memory exhausted */
    EXIT_DEVICE = 6,    /* device missing, failed or out of memory */
    EXIT_PEER = 7,      /* a peer process was lost */
    EXIT_HEALTH = 8,    /* training diverged */
    EXIT_LOCKED = 9,    /* run directory in use by another process */
    EXIT_PREEMPTED = 75 /* stopped by a signal after saving */
} ExitCode;

/* One user's mistake: text is "WHERE: what is wrong - what to do". Names in it are as they are, control characters and
 * all: whoever shows it makes a line of it (text_printable), once. Zero-initialise it. */
typedef struct {
    ExitCode code;
    int system; /* the errno behind EXIT_IO; 0: none */
    char text[1024];
} Err;

/* Fills *err and returns false, so that callers write
 * `return err_set(err, EXIT_INPUT, ...)`. An Err that is already set keeps its first text. */
bool err_set(Err *err, ExitCode code, const char *format, ...) PRINTF_LIKE(3, 4);

/* A programmer's mistake: prints "mala: bug: file:line: ..." and aborts. */
#define CHECK(condition, ...) \
    do { \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)
void check_failed(const char *file, int line, const char *condition, const char *format, ...)
    PRINTF_LIKE(4, 5) NORETURN;

/* For a library, which may not end its caller's process: while a thread has a Rescue in use, its failed CHECKs and its
 * exhausted memory jump there (setjmp returns the ExitCode, err says what happened) instead of ending the process. What
 * was held is lost; files that the thread was writing are removed. Returns the Rescue used before; NULL is none. */
typedef struct {
    jmp_buf at;
    Err err;
} Rescue;
Rescue *rescue_use(Rescue *r);

/* count * size zeroed bytes, never NULL: when the host has none left, one line and exit code 5.
 * For bookkeeping; what a user can make arbitrarily large (images, arenas, weights) goes through mem_try. */
void *mem_zalloc(size_t count, size_t size);
/* Resizes to count * size bytes; the same promise. */
void *mem_resize(void *old, size_t count, size_t size);
char *mem_strdup(const char *text);
/* That end, also for memory that a library asked for in vain: "memory: cannot allocate WHAT" and exit code 5, files
 * that are being written removed; or the thread's Rescue. */
void mem_exhausted(const char *what) NORETURN;
/* bytes zeroed, 64-byte aligned; false and EXIT_MEMORY in err when there is not enough. Free with free(). */
bool mem_try(void **out, size_t bytes, Err *err);

/* a * b and a + b in 64 bits; false when they overflow. */
static inline bool size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

/* seconds on a clock that never goes back */
double time_now(void);

#endif
