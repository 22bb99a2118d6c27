/* plan.h - a graph made ready to run on a backend: which nodes are needed, where every value lies, which kernel with
 * which arguments each step calls. Made once per shape; a run is a loop over bound steps.
 *
 * Memory has four owners. Inputs: one buffer each. State: run/state.h. Activations: one arena, offsets found here by
 * lifetime. Constants: what depends on weights alone in a graph that never changes them (folded BatchNorm, transposed
 * weights) is computed by plan_refresh, not by each run.
 *
 * Nodes nobody needs are not run: needed are the values in `keep`, all writes to state, and what they depend on. */
#ifndef MALA_PLAN_H
#define MALA_PLAN_H

#include "base/log.h"
#include "run/state.h"

typedef struct {
    bool no_reuse;   /* every activation its own memory: for tests, and to inspect values after a run */
    bool no_capture; /* launch every step of every run by itself, also where the backend could replay them as one */
    bool measure;    /* find out the sizes and stop: no memory, no device, nothing to run; state may be NULL */
    Log *log;        /* is told what runs do without; NULL: nobody is */
} PlanOptions;

typedef struct {
    KernelCall call;
    const Kernel *kernel;
} Step;

typedef struct {
    int64_t offset;      /* bytes from the start of the arena or of the constants; -1: not an activation, or unused */
    int32_t first, last; /* the steps during which its contents must stand: its producer .. its last reader */
    bool constant;
} Placement;

/* What lets the host work beside a run (plan_run.c): two sets of host memory that take turns, and marks that say when
 * each is free. */
typedef struct {
    char *
        staged; /* on the device, laid out as Plan.inputs: the next run's inputs; NULL: the host writes inputs itself */
    char *inputs[2]; /* on the host: what staged is uploaded from */
    char *kept[2];   /* on the host: kept values of the last run and of the one before, at kept_offset */
    size_t *kept_offset; /* [n_keep] */
    BackendMark *uploaded[2], *fetched[2], *moved; /* moved: staged has gone into inputs and is free */
    struct StagedInput {
        size_t offset, bytes;
    } *pending; /* [n_pending] staged since the last run */
    int n_pending;
    int64_t stages, fetches, runs;
    void *captured; /* a recorded run; NULL: none yet */
    Err failed;     /* what a run met; the next call that can fail says it */
} PlanPipe;

typedef struct Plan {
    const Graph *graph;
    Backend *backend;
    State *state;
    PlanOptions options;
    Step *steps; /* [n_constant_steps] that plan_refresh runs, then [n_steps - n_constant_steps] */
    int32_t n_steps, n_constant_steps;
    Placement *place; /* [n_values] */
    Val *keep;        /* [n_keep] */
    int n_keep;
    void **address;   /* [n_values]; NULL where a value has no memory */
    void **operands;  /* pointers of all calls */
    char *arena, *constants, *work, *inputs;
    char *borrowed; /* where a constant's step finds the weights that the state reads from a source, step after step */
    size_t arena_bytes, constant_bytes, work_bytes, input_bytes, borrowed_bytes;
    size_t naive_bytes; /* what the activations would take without reuse */
    PlanPipe pipe;
} Plan;

/* keep: values to be read after a run. state may be NULL for a graph without parameters.
 * False: EXIT_MEMORY, EXIT_DEVICE, or EXIT_BUG naming an op that this backend has no kernel for in
 * its compute type. */
bool plan_new(Plan **out, const Graph *g, Backend *backend, State *state, const Val *keep, int n_keep,
              PlanOptions options, Err *err);
void plan_free(Plan *p);

/* Recomputes the constants after weights have changed; plan_new does it once. With a state that has a source, weights
 * are read as they are needed, those that only constants are made of into memory that the next ones overwrite. False:
 * what the source says. */
bool plan_refresh(Plan *p, Err *err);
/* Queues a run. From the second on, a backend that can capture replays what it recorded of one; where recording fails,
 * steps are launched one by one from then on, slower and to the same bits, and options.log has a warning. */
void plan_run(Plan *p);

/* False, with what went wrong, when a run has failed. */
bool plan_healthy(const Plan *p, Err *err);

/* Simple transfers: done when they return, and so is everything queued before them. */
bool plan_upload(Plan *p, Val input, const void *host, size_t bytes, Err *err);
bool plan_download(Plan *p, Val kept, void *host, size_t bytes, Err *err);

/* An input for the next run, uploaded while the run before it is still computing. The host's memory is free when this
 * returns. An input that is not staged keeps its value. */
bool plan_stage(Plan *p, Val input, const void *host, size_t bytes, Err *err);
/* Queues copies of all kept values, as the last run leaves them. */
bool plan_fetch_begin(Plan *p, Err *err);
/* A kept value of the last plan_fetch_begin (back 0) or of the one before (back 1): waits for that run alone. */
bool plan_fetch(Plan *p, Val kept, void *host, size_t bytes, int back, Err *err);

/* Time of each step of one run on the device's clock, in seconds, added to seconds[n_steps]. */
bool plan_run_timed(Plan *p, double *seconds, Err *err);

/* Device memory that a plan takes, in bytes; with options.measure, that it would take. */
size_t plan_device_bytes(const Plan *p);
/* Likewise host memory for transfers, which on a GPU is page-locked. */
size_t plan_transfer_bytes(const Plan *p);

/* Whether a step finds this operand in Plan.borrowed. */
bool plan_borrows(const Plan *p, int32_t step, Val operand);

/* For plan.c: whatever thread calls, it is on the plan's backend. */
void plan_enter(Plan *p);
/* For plan.c: host memory and marks of a plan whose sizes are known. */
bool plan_pipe_open(Plan *p, Err *err);
void plan_pipe_close(Plan *p);

/* An independent check of the plan's memory, sharing no code with the planner: no two values that must stand at the
 * same time may touch, every read value was written before, in-place outputs only where the op's row allows it.
 * Returns true, or false with what is wrong in err. Quadratic in the number of values. */
bool plan_verify(const Plan *p, Err *err);

#endif
