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
} Kernel;

/* Memory handed out by a backend lies on its device; the host reaches it through upload and download alone.
 * Methods marked optional are NULL where a backend has no such thing: the plan then runs step by step. */
struct Backend {
    const char *name;         /* "cpu" */
    char description[160];    /* "cpu: AMD EPYC, avx512, 2 threads" */
    const Kernel *const *kernels; /* [OP_COUNT]; NULL: no kernel for that op */
    bool host_memory;             /* the host may write and read device memory itself */
    bool (*alloc)(Backend *b, void **memory, size_t bytes, Err *err); /* zeroed, 256-byte aligned */
    void (*free)(Backend *b, void *memory);
    /* optional: the contents of a range are no longer wanted; its pages may go back to the system */
    void (*discard)(Backend *b, void *memory, size_t bytes);
    /* ordered with the runs of the same stream; stream 0 computes, stream 1 uploads in the background */
    bool (*upload)(Backend *b, void *device, const void *host, size_t bytes, int stream, Err *err);
    bool (*download)(Backend *b, void *host, const void *device, size_t bytes, int stream, Err *err);
    bool (*wait)(Backend *b, int stream, Err *err); /* until all work of the stream is done */
    /* optional: record what is launched between begin and end, then replay it as one */
    bool (*capture_begin)(Backend *b, Err *err);
    bool (*capture_end)(Backend *b, void **captured, Err *err);
    bool (*capture_launch)(Backend *b, void *captured, Err *err);
    void (*capture_free)(Backend *b, void *captured);
    /* optional: measures the most float32 arithmetic the device can do, in GFLOP/s; takes a fraction of a second */
    double (*peak_gflops)(void);
    void (*close)(Backend *b);
    void *self;
};

/* Opens the CPU backend with that many threads (0: what the process may use) and the best instruction set the
 * processor has, or the one that the environment variable MALA_ISA names. False: EXIT_USAGE, EXIT_MEMORY. */
bool backend_open_cpu(Backend *out, int threads, Err *err);

static inline const Shape *call_in(const KernelCall *c, int i) { return in_shape(c->graph, c->node, i); }
static inline const Shape *call_out(const KernelCall *c, int i) { return out_shape(c->graph, c->node, i); }

#endif
