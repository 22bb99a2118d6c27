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

#include "run/state.h"

typedef struct {
    bool no_reuse; /* every activation its own memory: for tests, and to inspect values after a run */
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
    size_t arena_bytes, constant_bytes, work_bytes, input_bytes;
    size_t naive_bytes; /* what the activations would take without reuse */
} Plan;

/* keep: values to be read after a run. state may be NULL for a graph without parameters.
 * False: EXIT_MEMORY, EXIT_DEVICE, or EXIT_BUG naming an op that this backend has no kernel for in
 * its compute type. */
bool plan_new(Plan **out, const Graph *g, Backend *backend, State *state, const Val *keep, int n_keep,
              PlanOptions options, Err *err);
void plan_free(Plan *p);

/* Recomputes the constants after weights have changed; plan_new does it once. With a state that has a source, weights
 * are read as they are needed and released when only constants are made of them. False: what the source says. */
bool plan_refresh(Plan *p, Err *err);
void plan_run(Plan *p);

bool plan_upload(Plan *p, Val input, const void *host, size_t bytes, Err *err);
bool plan_download(Plan *p, Val kept, void *host, size_t bytes, Err *err);

/* Time of each step of one run, in seconds, added to seconds[n_steps]. */
void plan_run_timed(Plan *p, double *seconds);

/* An independent check of the plan's memory, sharing no code with the planner: no two values that must stand at the
 * same time may touch, every read value was written before, in-place outputs only where the op's row allows it.
 * Returns true, or false with what is wrong in err. Quadratic in the number of values. */
bool plan_verify(const Plan *p, Err *err);

#endif
