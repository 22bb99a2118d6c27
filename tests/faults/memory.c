/* memory.c - preloaded into mala, or linked into a test (memory.h): allocations are counted from 1, and chosen ones
 * fail, whoever makes them: mala, its libraries, the C library.
 *   MALA_NO_MEMORY=N      the N-th fails
 *   MALA_NO_MEMORY=N+     the N-th and all that follow
 *   MALA_MEMORY_SITES=F   none fails; at the end F has a line for each: a hash of the calls that led to it, so that a
 *                         sweep can take each way to an allocation once
 * What counts: malloc, calloc, realloc, aligned_alloc, posix_memalign, memalign, mmap of fresh memory, pthread_create.
 * glibc only. A sanitizer has an allocator of its own: there nothing is counted and nothing fails. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"

#define EXPORT __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)
#define MOST_SITES (1 << 20)

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

static atomic_long first, last, met; /* last 0: nothing is counted */
static const char *sites_path;
static atomic_uint *sites;
static _Thread_local int inside __attribute__((tls_model("initial-exec"))); /* backtrace allocates, too */

__attribute__((constructor)) static void start(void) {
    const char *which = getenv("MALA_NO_MEMORY");
    char *end = NULL;
    sites_path = getenv("MALA_MEMORY_SITES");
    if (!sites_path && !which) return;
    if (sites_path) {
        sites = (atomic_uint *)syscall(SYS_mmap, NULL, MOST_SITES * sizeof *sites, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        last = -1;
    } else {
        long number = strtol(which, &end, 10);
        memory_fail(number, *end == '+');
    }
}

void memory_fail(long number, bool ever_after) {
    atomic_store(&met, 0);
    atomic_store(&first, number);
    atomic_store(&last, ever_after ? INT64_MAX : number);
}

long memory_stop(void) {
    atomic_store(&last, 0);
    return atomic_load(&met);
}

__attribute__((destructor)) static void finish(void) {
    FILE *f = sites_path ? fopen(sites_path, "w") : NULL;
    long count = atomic_load(&met);
    inside = 1;
    for (long i = 1; f && i <= count && i < MOST_SITES; i++) fprintf(f, "%u\n", sites[i]);
    if (f) fclose(f);
}

static void note(long n) {
    void *callers[12];
    uint32_t hash = 2166136261u;
    inside = 1;
    int depth = backtrace(callers, 12);
    for (int i = 2; i < depth; i++) hash = (hash ^ (uint32_t)(uintptr_t)callers[i]) * 16777619u;
    inside = 0;
    if (n < MOST_SITES) atomic_store(&sites[n], hash);
}

static const char *spared;

void memory_spare(const char *library) { spared = library; }

/* Is this the one? */
static int fails(const void *caller) {
    Dl_info of;
    if (last == 0 || inside) return 0;
    if (spared && dladdr(caller, &of) && strstr(of.dli_fname, spared)) return 0;
    long n = atomic_fetch_add(&met, 1) + 1;
    if (sites) note(n);
    if (n < first || n > last) return 0;
    errno = ENOMEM;
    return 1;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
bool memory_can_fail(void) { return (void)fails, false; }
#else
bool memory_can_fail(void) { return true; }

EXPORT void *malloc(size_t bytes) { return fails(CALLER) ? NULL : __libc_malloc(bytes); }
EXPORT void *calloc(size_t count, size_t size) { return fails(CALLER) ? NULL : __libc_calloc(count, size); }
EXPORT void *realloc(void *old, size_t bytes) { return fails(CALLER) ? NULL : __libc_realloc(old, bytes); }
EXPORT void *memalign(size_t alignment, size_t bytes) {
    return fails(CALLER) ? NULL : __libc_memalign(alignment, bytes);
}
EXPORT void *aligned_alloc(size_t alignment, size_t bytes) {
    return fails(CALLER) ? NULL : __libc_memalign(alignment, bytes);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t bytes) {
    void *p = fails(CALLER) ? NULL : __libc_memalign(alignment, bytes);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

EXPORT void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if ((flags & MAP_ANONYMOUS) && fails(CALLER)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg) {
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return fails(CALLER) ? EAGAIN : next(thread, attributes, run, arg);
}
#endif
