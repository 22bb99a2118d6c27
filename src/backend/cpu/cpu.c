/* cpu.c - the CPU as a backend: which kernel table this processor can run, how many threads, and memory. Everything
 * is done when its call returns, so streams and waiting mean nothing here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "backend/cpu/cpu.h"
#include "base/cpus.h"
#include "base/parallel.h"

/* ---- what belongs to one backend ---- */

typedef struct {
    Team *team;
    CpuLibrary library;
} Cpu;

CpuLibrary *cpu_library(Backend *b) { return &((Cpu *)b->self)->library; }
int cpu_threads(Backend *b) { return team_size(((Cpu *)b->self)->team); }

/* ---- memory ---- */

/* Fresh pages are zero and cost nothing until they are touched, which matters for a large arena; the length lies in
 * front of what is handed out. */
enum { HEADER = 4096, HUGE_FROM = 4 << 20 };

static bool cpu_alloc(Backend *b, void **memory, size_t bytes, Err *err) {
    size_t total;
    (void)b;
    *memory = NULL;
    char *p = MAP_FAILED;
    if (size_add(bytes, HEADER, &total))
        p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_set(err, EXIT_MEMORY, "cpu: no memory for %zu MB - use a smaller batch or smaller images",
                       bytes >> 20);
    if (total >= HUGE_FROM) (void)madvise(p, total, MADV_HUGEPAGE); /* advice: fewer page faults and TLB misses */
    memcpy(p, &total, sizeof total);
    *memory = p + HEADER;
    return true;
}

static void cpu_free(Backend *b, void *memory) {
    (void)b;
    if (!memory) return;
    size_t total;
    char *p = (char *)memory - HEADER;
    memcpy(&total, p, sizeof total);
    (void)munmap(p, total);
}

/* Whole pages inside the range go back to the system and read as zero from then on. */
static void cpu_discard(Backend *b, void *memory, size_t bytes) {
    (void)b;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ROUND_UP((uintptr_t)memory, page), to = ((uintptr_t)memory + bytes) / page * page;
    if (to <= from) return;
    (void)madvise((void *)from, to - from, MADV_DONTNEED);
    (void)madvise((void *)from, to - from, MADV_NOHUGEPAGE); /* what comes back comes in pieces */
}

static bool cpu_upload(Backend *b, void *device, const void *host, size_t bytes, int stream, Err *err) {
    (void)b, (void)stream, (void)err;
    if (bytes) memcpy(device, host, bytes);
    return true;
}

static bool cpu_download(Backend *b, void *host, const void *device, size_t bytes, int stream, Err *err) {
    (void)stream;
    if (bytes) memcpy(host, device, bytes);
    return cpu_library_healthy(cpu_library(b), err);
}

static bool cpu_copy(Backend *b, void *to, const void *from, size_t bytes, int stream, Err *err) {
    return cpu_upload(b, to, from, bytes, stream, err);
}

static bool cpu_wait(Backend *b, int stream, Err *err) {
    (void)stream;
    return cpu_library_healthy(cpu_library(b), err);
}

/* ---- marks: the time at which they were set ---- */

struct BackendMark {
    double time;
};

static bool cpu_mark_new(Backend *b, BackendMark **out, Err *err) {
    (void)b, (void)err;
    *out = mem_zalloc(1, sizeof **out);
    return true;
}

static void cpu_mark_free(Backend *b, BackendMark *mark) {
    (void)b;
    free(mark);
}

static bool cpu_mark(Backend *b, BackendMark *mark, int stream, Err *err) {
    (void)b, (void)stream, (void)err;
    mark->time = time_now();
    return true;
}

static bool cpu_order(Backend *b, int stream, BackendMark *mark, Err *err) {
    (void)b, (void)stream, (void)mark, (void)err;
    return true;
}

static bool cpu_await(Backend *b, BackendMark *mark, Err *err) {
    (void)mark;
    return cpu_library_healthy(cpu_library(b), err);
}

static bool cpu_elapsed(Backend *b, BackendMark *from, BackendMark *to, double *seconds, Err *err) {
    (void)b, (void)err;
    *seconds = to->time - from->time;
    return true;
}

/* ---- opening and closing ---- */

static void cpu_enter(Backend *b) { team_use(((Cpu *)b->self)->team); }

static void cpu_close(Backend *b) {
    Cpu *cpu = b->self;
    cpu_library_close(&cpu->library);
    team_free(cpu->team);
    free(cpu);
    *b = (Backend){0};
}

/* ---- instruction sets ---- */

extern const Kernel *const cpu_kernels_generic[OP_COUNT];
#if defined(__x86_64__)
extern const Kernel *const cpu_kernels_v3[OP_COUNT], *const cpu_kernels_v4[OP_COUNT];
extern double cpu_peak_v3(void), cpu_peak_v4(void);
#endif
extern double cpu_peak_generic(void);

typedef struct {
    const char *name, *extension; /* the value of MALA_ISA, and what people call it */
    const Kernel *const *kernels;
    double (*peak)(void);
    bool usable;
} Isa;

#if defined(__aarch64__)
#define GENERIC_EXTENSION "neon"
#elif defined(__x86_64__)
#define GENERIC_EXTENSION "sse2"
#else
#define GENERIC_EXTENSION "no extension"
#endif

#if defined(__x86_64__)
/* The levels of the processor supplement to the System V ABI, AVX's with the system's consent. By name
 * __builtin_cpu_supports knows them since gcc 12 and clang 18 only, and these three instructions not even there. */
static bool has_v3(void) {
    unsigned a, b, basic, extended, d;
    if (!__get_cpuid(1, &a, &b, &basic, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d)) return false;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && basic & bit_MOVBE && basic & bit_F16C && extended & bit_LZCNT;
}

static bool has_v4(void) {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* Fills isa[], best last, with what was built and whether this processor has it; returns how many. */
static int list_isas(Isa isa[3]) {
    int n = 0;
    isa[n++] = (Isa){"generic", GENERIC_EXTENSION, cpu_kernels_generic, cpu_peak_generic, true};
#if defined(__x86_64__)
    isa[n++] = (Isa){"v3", "avx2", cpu_kernels_v3, cpu_peak_v3, has_v3()};
    isa[n++] = (Isa){"v4", "avx512", cpu_kernels_v4, cpu_peak_v4, has_v4()};
#endif
    return n;
}

/* The best one, or the one that MALA_ISA asks for. */
static bool choose_isa(Isa *out, Err *err) {
    Isa isa[3];
    int n = list_isas(isa);
    const char *wanted = getenv("MALA_ISA");
    char usable[64] = "";
    size_t at = 0;
    bool found = false;
    for (int i = 0; i < n; i++) {
        if (!isa[i].usable) continue;
        at += (size_t)snprintf(usable + at, sizeof usable - at, "%s%s", at ? ", " : "", isa[i].name);
        if (wanted && *wanted && strcmp(wanted, isa[i].name) != 0) continue;
        *out = isa[i];
        found = true;
    }
    if (!found)
        return err_set(err, EXIT_USAGE,
                       "MALA_ISA: \"%s\" is no instruction set of this processor - use one of %s, or unset it",
                       wanted, usable);
    return true;
}

/* ---- description ---- */

/* the processor's name, as the system tells it */
static void read_model_name(char *name, size_t capacity) {
    snprintf(name, capacity, "unnamed processor");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        const char *text = colon + 1 + strspn(colon + 1, " \t");
        size_t length = strcspn(text, "\n");
        while (length > 0 && text[length - 1] == ' ') length--;
        snprintf(name, capacity, "%.*s", (int)length, text);
        break;
    }
    (void)fclose(f);
}

bool backend_open_cpu(Backend *out, int threads, Err *err) {
    Isa isa = {0};
    if (!choose_isa(&isa, err)) return false;
    Cpu *cpu = mem_zalloc(1, sizeof *cpu);
    cpu->team = team_new(threads > 0 ? threads : cpus_usable());
    cpu_library_open(&cpu->library, team_size(cpu->team));
    *out = (Backend){.name = "cpu",
                     .kernels = isa.kernels,
                     .alloc = cpu_alloc,
                     .host_memory = true,
                     .peak_gflops = isa.peak,
                     .free = cpu_free,
                     .discard = cpu_discard,
                     .host_alloc = cpu_alloc,
                     .host_free = cpu_free,
                     .upload = cpu_upload,
                     .download = cpu_download,
                     .copy = cpu_copy,
                     .wait = cpu_wait,
                     .mark_new = cpu_mark_new,
                     .mark_free = cpu_mark_free,
                     .mark = cpu_mark,
                     .order = cpu_order,
                     .await = cpu_await,
                     .elapsed = cpu_elapsed,
                     .enter = cpu_enter,
                     .close = cpu_close,
                     .self = cpu};
    cpu_enter(out);
    char model[96];
    read_model_name(model, sizeof model);
    snprintf(out->description, sizeof out->description, "cpu: %s, %s, %d thread%s", model, isa.extension,
             team_size(cpu->team), team_size(cpu->team) == 1 ? "" : "s");
    return true;
}
