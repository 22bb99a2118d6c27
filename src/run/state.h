/* state.h - everything that survives a step: named parameters, gradients, moments, averages and running statistics,
 * each role one flat float32 buffer on the device. One table of names serves every graph of a run. */
#ifndef MALA_STATE_H
#define MALA_STATE_H

#include "backend/backend.h"

typedef struct State State;

/* Where weights come from on demand: an inference plan reads each once, turns it into a constant and gives its memory
 * back, so that a model never stands in memory twice. */
typedef struct {
    bool (*read)(void *self, const State *s, int32_t param, float *host, Err *err); /* host[state_count] */
    void *self;
} StateSource;

struct State {
    Backend *backend;
    ParamSpec *params; /* names owned by the state */
    int32_t n_params;
    FlatLayout layout;
    float *buffer[ROLE_COUNT]; /* NULL: this run does not keep that role; ROLE_CAST holds 16-bit numbers */
    StateSource source;        /* read == NULL: everything is present */
    bool *present;             /* [n_params], with a source only */
};

/* Takes the parameter table of g. roles: bit set of 1 << StateRole to keep. Weights and statistics start at 0. */
bool state_new(State *out, const Graph *g, Backend *backend, unsigned roles, Err *err);
void state_free(State *s);

/* Draws the initial weights as each ParamSpec says: a pure function of (seed, name). */
bool state_init(State *s, uint64_t seed, Err *err);
/* The same as a source of weights on demand; *seed must outlive the state. */
StateSource state_initial_source(const uint64_t *seed);

/* Index of a name; -1 when there is none. */
int32_t state_find(const State *s, const char *name);
int64_t state_count(const State *s, int32_t param); /* elements */
/* Device address of a parameter (buffers live under ROLE_BUFFER, everything else under the other float32 roles). */
float *state_slot(const State *s, StateRole role, int32_t param);
bool state_write(State *s, StateRole role, int32_t param, const float *host, Err *err);
bool state_read(const State *s, StateRole role, int32_t param, float *host, Err *err);
/* Number of trainable scalars, as papers count them (no padding, no running statistics). */
int64_t state_parameter_count(const State *s);

/* Copies a whole role onto another (the average starts as the weights). */
bool state_copy_role(State *s, StateRole to, StateRole from, Err *err);
/* Takes over every weight (from `role` of the other: weights or their average) and statistic by name. */
bool state_copy_model(State *to, const State *from, StateRole role, Err *err);
/* From now on weights and statistics are read from source when a plan requires them. */
void state_attach(State *s, StateSource source);
/* Reads a parameter from the source into device memory that is not the state's. */
bool state_read_source(const State *s, int32_t param, void *device, Err *err);
/* Makes a parameter's value present; nothing to do without a source. */
bool state_require(State *s, int32_t param, Err *err);
/* Gives the memory of a parameter's value back until it is required again; nothing to do without a source. */
void state_release(State *s, int32_t param);
/* Length of a role's flat buffer, in units of 4 bytes: elements, but for ROLE_CAST. */
int64_t state_role_length(const State *s, StateRole role);

#endif
