/* gemm_libs.c - which library multiplies MAViT's matrices fastest on this CPU? One process, three libraries, loaded
 * with dlopen so that their symbols cannot meet: oneDNN (dnnl_sgemm), BLIS and OpenBLAS (cblas_sgemm).
 *
 *   NN  y (M,N) = x (M,K) w (K,N)          NT  the same with w stored (N,K), as checkpoints have it
 *   TN  dw (N,K) = dy (M,N)^T x (M,K)      the gradient of the weight
 *
 * Two tables: whole matrices on all threads; and one thread walking over tiles of at most 392 rows, which is how an
 * engine calls a library that wants each tile to stay in its cache (TN then accumulates over the tiles).
 * GFLOP/s, the best of the rounds; the libraries take turns within a round. Built and run by gemm_libs.sh. */
#include <dlfcn.h>
#include <dnnl.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TILE_ROWS = 392, LIBRARIES = 3, KINDS = 3 };
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of CBLAS */

typedef dnnl_status_t DnnlSgemm(char, char, dnnl_dim_t, dnnl_dim_t, dnnl_dim_t, float, const float *, dnnl_dim_t,
                                const float *, dnnl_dim_t, float, float *, dnnl_dim_t);
typedef void CblasSgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *,
                        int);

typedef struct {
    const char *name, *file;
    void *handle;
    DnnlSgemm *dnnl; /* or */
    CblasSgemm *cblas;
    void (*openblas_threads)(int); /* oneDNN follows OpenMP, the others have their own count */
    void (*blis_threads)(int64_t);
} Library;

/* The pointwise products of MAViT-T at 224x224, batch 8: rows M = batch * height * width, K inputs, N outputs. */
static const int shapes[][3] = {
    {25088, 64, 256}, {25088, 64, 64},  {25088, 64, 224},  {25088, 224, 64}, {6272, 128, 512}, {6272, 128, 128},
    {6272, 128, 448}, {6272, 448, 128}, {1568, 256, 1024}, {1568, 256, 256}, {1568, 256, 896}, {1568, 896, 256},
    {392, 512, 2048}, {392, 512, 512},  {392, 512, 1792},  {392, 1792, 512},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void die(const char *what, const char *why) {
    fprintf(stderr, "gemm_libs: %s: %s\n", what, why);
    exit(1);
}

static void *symbol(const Library *l, const char *name, bool required) {
    void *found = dlsym(l->handle, name);
    if (!found && required) die(l->file, dlerror());
    return found;
}

/* ISO C knows no cast from an object pointer to a function pointer; POSIX promises that the bits are the same. */
#define FUNCTION(out, l, name, required) (*(void **)&(out) = symbol(l, name, required))

static void describe(const Library *l) {
    const char *(*text)(void) = NULL, *(*core)(void) = NULL;
    int (*arch_id)(void) = NULL;
    const char *(*arch_name)(int) = NULL;
    if (l->dnnl) {
        const dnnl_version_t *(*version)(void);
        FUNCTION(version, l, "dnnl_version", true);
        const dnnl_version_t *v = version();
        printf("# %s %d.%d.%d\n", l->name, v->major, v->minor, v->patch);
        return;
    }
    FUNCTION(text, l, "openblas_get_config", false);
    FUNCTION(core, l, "openblas_get_corename", false);
    if (text && core) {
        printf("# %s, kernels: %s\n", text(), core()); /* its text begins with its name */
        return;
    }
    FUNCTION(text, l, "bli_info_get_version_str", true);
    FUNCTION(arch_id, l, "bli_arch_query_id", true);
    FUNCTION(arch_name, l, "bli_arch_string", true);
    printf("# %s %s, kernels: %s\n", l->name, text(), arch_name(arch_id()));
}

static void load(Library *l) {
    l->handle = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);
    if (!l->handle) die(l->file, dlerror());
    if (strstr(l->file, "dnnl"))
        FUNCTION(l->dnnl, l, "dnnl_sgemm", true);
    else
        FUNCTION(l->cblas, l, "cblas_sgemm", true);
    FUNCTION(l->openblas_threads, l, "openblas_set_num_threads", false);
    FUNCTION(l->blis_threads, l, "bli_thread_set_num_threads", false);
    describe(l);
}

/* out (m,n) = beta * out + a b, with a (m,k) and b (k,n), each stored transposed if the flag says so */
static void multiply(const Library *l, float *out, const float *a, const float *b, bool a_t, bool b_t, float beta,
                     int m, int n, int k) {
    int lda = a_t ? m : k, ldb = b_t ? k : n;
    if (l->cblas)
        l->cblas(ROW_MAJOR, a_t ? TRANS : NO_TRANS, b_t ? TRANS : NO_TRANS, m, n, k, 1, a, lda, b, ldb, beta, out, n);
    else if (l->dnnl(a_t ? 'T' : 'N', b_t ? 'T' : 'N', m, n, k, 1, a, lda, b, ldb, beta, out, n) != dnnl_success)
        die(l->name, "dnnl_sgemm failed");
}

/* kind 0 NN, 1 NT, 2 TN; x (m,k); other: w, or dy (m,n) for TN; rows per call */
static void product(const Library *l, float *out, const float *x, const float *other, int kind, int m, int k, int n,
                    int rows) {
    for (int at = 0; at < m; at += rows) {
        int r = m - at < rows ? m - at : rows;
        if (kind == 2)
            multiply(l, out, other + (size_t)at * n, x + (size_t)at * k, true, false, at > 0, n, k, r);
        else
            multiply(l, out + (size_t)at * n, x + (size_t)at * k, other, false, kind == 1, 0, r, n, k);
    }
}

/* One thread is timed by its own CPU time, which other programs on the machine hardly change. For several only the
 * wall clock will do: a thread that waits for another one burns CPU time. */
static double now(int threads) {
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *filled(size_t count) {
    float *x = aligned_alloc(64, (count * sizeof *x + 63) / 64 * 64);
    if (!x) die("memory", "not enough");
    uint32_t state = 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return x;
}

/* A fast wrong product would win: element (row, column) of the result against a sum in double. */
static void check(const Library *l, const float *out, const float *x, const float *other, int kind, int m, int k,
                  int n) {
    int height = kind == 2 ? n : m, width = kind == 2 ? k : n, terms = kind == 2 ? m : k;
    for (int probe = 0; probe < 16; probe++) {
        int i = (int)((long)probe * 7919 % height), j = (int)((long)probe * 104729 % width);
        double want = 0;
        for (int p = 0; p < terms; p++)
            want += kind == 2   ? (double)other[(size_t)p * n + i] * x[(size_t)p * k + j]
                    : kind == 1 ? (double)x[(size_t)i * k + p] * other[(size_t)j * k + p]
                                : (double)x[(size_t)i * k + p] * other[(size_t)p * n + j];
        if (!(fabs(want - out[(size_t)i * width + j]) < 1e-3 * sqrt(terms))) die(l->name, "a wrong product");
    }
}

static void table(Library *libraries, int threads, int rows, int rounds) {
    double time_sum[LIBRARIES][KINDS] = {{0}}, flop_sum = 0;
    printf("%6s %6s %6s", "M", "K", "N");
    for (int l = 0; l < LIBRARIES; l++) printf("  |%8s%8s%8s", "NN", "NT", "TN");
    printf("\n");
    omp_set_num_threads(threads);
    for (int l = 0; l < LIBRARIES; l++) {
        if (libraries[l].openblas_threads) libraries[l].openblas_threads(threads);
        if (libraries[l].blis_threads) libraries[l].blis_threads(threads);
    }
    for (int s = 0; s < SHAPES; s++) {
        int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2];
        float *x = filled((size_t)m * k), *dy = filled((size_t)m * n), *w = filled((size_t)k * n);
        float *y = filled((size_t)m * n), *dw = filled((size_t)k * n);
        double best[LIBRARIES][KINDS], flop = 2.0 * m * k * n;
        for (int round = -1; round < rounds; round++) /* round -1 warms up and checks */
            for (int l = 0; l < LIBRARIES; l++)
                for (int kind = 0; kind < KINDS; kind++) {
                    float *out = kind == 2 ? dw : y;
                    const float *other = kind == 2 ? dy : w;
                    double start = now(threads);
                    product(&libraries[l], out, x, other, kind, m, k, n, rows ? rows : m);
                    double took = now(threads) - start;
                    if (round < 0) check(&libraries[l], out, x, other, kind, m, k, n);
                    if (round <= 0 || took < best[l][kind]) best[l][kind] = took;
                }
        printf("%6d %6d %6d", m, k, n);
        for (int l = 0; l < LIBRARIES; l++) {
            printf("  |");
            for (int kind = 0; kind < KINDS; kind++) {
                printf("%8.0f", flop / best[l][kind] * 1e-9);
                time_sum[l][kind] += best[l][kind];
            }
        }
        printf("\n");
        fflush(stdout);
        flop_sum += flop;
        free(x), free(dy), free(w), free(y), free(dw);
    }
    printf("%-20s", "all of them");
    for (int l = 0; l < LIBRARIES; l++) {
        printf("  |");
        for (int kind = 0; kind < KINDS; kind++) printf("%8.0f", flop_sum / time_sum[l][kind] * 1e-9);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 2;
    int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 15;
    if (threads < 1 || rounds < 1) die("usage", "gemm_libs [THREADS [ROUNDS]]");
    Library libraries[LIBRARIES] = {
        {.name = "oneDNN", .file = "libdnnl.so.2"},
        {.name = "BLIS", .file = "libblis.so.4"},
        {.name = "OpenBLAS", .file = "libopenblas.so.0"},
    };
    for (int l = 0; l < LIBRARIES; l++) load(&libraries[l]);
    printf("# GFLOP/s, best of %d rounds; columns: oneDNN | BLIS | OpenBLAS\n", rounds);
    printf("\nwhole matrices, %d thread%s\n", threads, threads == 1 ? ", CPU time" : "s, wall clock");
    table(libraries, threads, 0, rounds);
    printf("\ntiles of at most %d rows, 1 thread, CPU time\n", TILE_ROWS);
    table(libraries, 1, TILE_ROWS, rounds);
    return 0;
}
