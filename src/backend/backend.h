/* backend.h - what a device must offer: memory, transfers, streams, and a table of kernels on the op index.
 *
 * The contract of a kernel: it computes its op for the shapes in the graph and nothing else. It never writes an input
 * (but for those the op's row declares `mutates`), never allocates, locks, synchronises or reads configuration.
 * What depends on shapes alone is found once, in prepare. Every output is fully written, unless it is NULL: nobody
 * reads it, do not compute it. Results never depend on the number of threads. */
#ifndef MALA_BACKEND_H
#define MALA_BACKEND_H

#include "graph/op.h"

typedef struct Backend Backend;

typedef struct {
    const Graph *graph;
    const Node *node;
    void *const *in;  /* one pointer per operand, NULL for an absent one */
    void *const *out; /* NULL for an output that nobody reads */
    void *work;       /* as many bytes as workspace() asked for, 64-byte aligned, shared with other nodes */
    void *prepared;   /* what prepare() made */
    Backend *backend;
} KernelCall;

/* every compute type */
enum { KERNEL_TYPES_ALL = 1 << DT_F32 | 1 << DT_BF16 | 1 << DT_F16 };

typedef struct {
    void (*run)(const KernelCall *call);
    unsigned types; /* bit set of 1 << DType: compute types it takes (graph/op.h); 0: float32 alone */
    /* optional: scratch bytes for this node */
    size_t (*workspace)(const Graph *g, const Node *n);
    /* optional: library handles, chosen algorithms; once per node when a plan is made */
    bool (*prepare)(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err);
    void (*release)(void *prepared);
    /* optional: scratch bytes where only prepare() finds out, instead of workspace() */
    size_t (*prepared_workspace)(const void *prepared);
    /* optional, for reports: bytes that a run moves, where it goes through operands more than once */
    double (*moves)(const KernelCall *call);
} Kernel;

/* Streams: what is queued on one is done in order; between streams only marks order. */
enum {
    STREAM_COMPUTE, /* kernels, and what must be in order with them */
    STREAM_UPLOAD,  /* inputs of the next run */
    BACKEND_STREAMS
};

/* A place in a stream's queue, made once and set again and again; only its last setting counts. */
typedef struct BackendMark BackendMark;

/* Memory handed out by alloc lies on the device; the host reaches it through upload and download alone. Both are
 * queued: the host's memory must stay as it is until wait, or until await of a mark set behind them. On a device whose
 * memory is the host's (host_memory) everything is done when the call returns, and marks are places in time only.
 * A failure of queued work, or of a kernel's launch, is reported by a later call: by wait and await at the latest.
 * Methods marked optional are NULL where a backend has no such thing: the plan then runs step by step. */
struct Backend {
    const char *name;         /* "cpu" */
    char description[160];    /* "cpu: AMD EPYC, avx512, 2 threads" */
    char chosen[160];         /* why, when nobody asked for it by name; else empty */
    const Kernel *const *kernels; /* [OP_COUNT]; NULL: no kernel for that op */
    bool host_memory;             /* the host may write and read device memory itself */
    unsigned types; /* bit set of 1 << DType: compute types of networks, with more than one TF32, too; 0: f32 alone */
    DType best;     /* the one that a precision of "auto" takes */
    /* set by who opened it, before plans are made: */
    DType compute; /* compute type of the networks on it; f32 unless set */
    bool tf32;     /* float32 products may round their factors to 10 bits of fraction (NVIDIA's TF32) */
    bool (*alloc)(Backend *b, void **memory, size_t bytes, Err *err); /* zeroed, 256-byte aligned */
    void (*free)(Backend *b, void *memory);
    /* optional: the contents of a range are no longer wanted; its pages may go back to the system */
    void (*discard)(Backend *b, void *memory, size_t bytes);
    /* optional: bytes of device memory that this backend holds, now and at most so far, and what is taken beside them,
     * by the device's own program state, by libraries, by other programs */
    void (*memory_used)(Backend *b, size_t *now, size_t *most, size_t *beside);
    /* host memory that transfers run fastest from and to, beside other work (page-locked); zeroed, 256-byte aligned */
    bool (*host_alloc)(Backend *b, void **memory, size_t bytes, Err *err);
    void (*host_free)(Backend *b, void *memory);

    bool (*upload)(Backend *b, void *device, const void *host, size_t bytes, int stream, Err *err);
    bool (*download)(Backend *b, void *host, const void *device, size_t bytes, int stream, Err *err);
    bool (*copy)(Backend *b, void *to, const void *from, size_t bytes, int stream, Err *err); /* within the device */
    bool (*wait)(Backend *b, int stream, Err *err); /* the host waits until all work of the stream is done */

    bool (*mark_new)(Backend *b, BackendMark **out, Err *err);
    void (*mark_free)(Backend *b, BackendMark *mark);
    /* Sets the mark behind all that is queued on a stream by now. */
    bool (*mark)(Backend *b, BackendMark *mark, int stream, Err *err);
    /* What is queued on the stream from now on starts when the mark has been passed; one never set is passed. */
    bool (*order)(Backend *b, int stream, BackendMark *mark, Err *err);
    bool (*await)(Backend *b, BackendMark *mark, Err *err); /* the host waits until the mark has been passed */
    /* Time between two marks that have been passed, on the device's own clock. */
    bool (*elapsed)(Backend *b, BackendMark *from, BackendMark *to, double *seconds, Err *err);

    /* optional: record what is launched on STREAM_COMPUTE between begin and end, then replay it as one. Addresses are
     * recorded, contents are not: what a replay reads is what lies there then. Where begin or end fails, nothing was
     * done, nothing is left of it, and launching goes on as before. */
    bool (*capture_begin)(Backend *b, Err *err);
    bool (*capture_end)(Backend *b, void **captured, Err *err);
    bool (*capture_launch)(Backend *b, void *captured, Err *err);
    void (*capture_free)(Backend *b, void *captured);
    /* optional: measures the most float32 arithmetic the device can do, in GFLOP/s; takes a fraction of a second */
    double (*peak_gflops)(void);
    /* optional: the calling thread is about to run kernels, or to prepare them; other methods need no such call */
    void (*enter)(Backend *b);
    void (*close)(Backend *b);
    void *self;
};

/* Opens the CPU backend with that many threads (0: what the process may use) and the best instruction set the
 * processor has, or the one that the environment variable MALA_ISA names. False: EXIT_USAGE, EXIT_MEMORY. */
bool backend_open_cpu(Backend *out, int threads, Err *err);

/* Opens NVIDIA GPU number `device`. False: EXIT_DEVICE, saying what is missing and what to do; also in a program that
 * was built without CUDA (cuda_absent.c). */
bool backend_open_cuda(Backend *out, int device, Err *err);
/* Whether backend_open_cuda would find a usable GPU of that number, without opening it; if not, err has why. */
bool backend_cuda_usable(int device, Err *err);
/* The kernels of the CUDA backend without a device, for plans that are only measured. False: built without CUDA. */
bool backend_kernels_cuda(const Kernel *const **kernels, Err *err);

static inline const Shape *call_in(const KernelCall *c, int i) { return in_shape(c->graph, c->node, i); }
static inline const Shape *call_out(const KernelCall *c, int i) { return out_shape(c->graph, c->node, i); }

/* The fewest bytes that a call can move: every operand once, those that it updates twice; results that nobody reads are
 * none. */
double call_bytes(const KernelCall *c);

#endif
