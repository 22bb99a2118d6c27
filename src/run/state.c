#include "run/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

bool state_new(State *out, const Graph *g, Backend *backend, unsigned roles, Err *err) {
    *out = (State){.backend = backend, .n_params = g->n_params, .layout = graph_flat_layout(g)};
    out->params = mem_zalloc((size_t)g->n_params, sizeof(ParamSpec));
    for (int32_t p = 0; p < g->n_params; p++) {
        out->params[p] = g->params[p];
        out->params[p].name = mem_strdup(g->params[p].name);
    }
    for (StateRole role = 0; role < ROLE_COUNT; role++) {
        if (!(roles & 1u << role)) continue;
        size_t bytes = (size_t)state_role_length(out, role) * sizeof(float);
        if (!backend->alloc(backend, (void **)&out->buffer[role], bytes, err)) {
            state_free(out);
            return false;
        }
    }
    return true;
}

void state_free(State *s) {
    for (StateRole role = 0; role < ROLE_COUNT; role++)
        if (s->buffer[role]) s->backend->free(s->backend, s->buffer[role]);
    for (int32_t p = 0; p < s->n_params; p++) free((char *)s->params[p].name);
    free(s->params);
    free(s->present);
    free(s->layout.offset);
    *s = (State){0};
}

int64_t state_role_length(const State *s, StateRole role) {
    return role == ROLE_BUFFER ? s->layout.buffers : role == ROLE_CAST ? s->layout.total / 2 : s->layout.total;
}

int32_t state_find(const State *s, const char *name) {
    for (int32_t p = 0; p < s->n_params; p++)
        if (strcmp(s->params[p].name, name) == 0) return p;
    return -1;
}

int64_t state_count(const State *s, int32_t param) { return shape_count(&s->params[param].shape); }

float *state_slot(const State *s, StateRole role, int32_t param) {
    CHECK(s->buffer[role] && role != ROLE_CAST, "role %d is not kept, or not float32", role);
    CHECK(s->params[param].buffer == (role == ROLE_BUFFER), "%s has no such role", s->params[param].name);
    return s->buffer[role] + s->layout.offset[param];
}

bool state_write(State *s, StateRole role, int32_t param, const float *host, Err *err) {
    Backend *b = s->backend;
    size_t bytes = (size_t)state_count(s, param) * sizeof(float);
    return b->upload(b, state_slot(s, role, param), host, bytes, STREAM_COMPUTE, err) &&
           b->wait(b, STREAM_COMPUTE, err);
}

bool state_read(const State *s, StateRole role, int32_t param, float *host, Err *err) {
    Backend *b = s->backend;
    size_t bytes = (size_t)state_count(s, param) * sizeof(float);
    return b->download(b, host, state_slot(s, role, param), bytes, STREAM_COMPUTE, err) &&
           b->wait(b, STREAM_COMPUTE, err);
}

int64_t state_parameter_count(const State *s) {
    int64_t n = 0;
    for (int32_t p = 0; p < s->n_params; p++)
        if (!s->params[p].buffer) n += state_count(s, p);
    return n;
}

bool state_copy_role(State *s, StateRole to, StateRole from, Err *err) {
    size_t bytes = (size_t)state_role_length(s, from) * sizeof(float);
    return s->backend->copy(s->backend, s->buffer[to], s->buffer[from], bytes, STREAM_COMPUTE, err);
}

/* Normal numbers by Box and Muller's polar form, cut at +-2: at the deviations in use hardly anything is, which is what
 * the released initialisation does. */
static float truncated_normal(Rng *r, float deviation) {
    for (;;) {
        float u = 2 * rng_uniform(r) - 1, v = 2 * rng_uniform(r) - 1, q = u * u + v * v;
        if (q >= 1 || q == 0) continue;
        float x = deviation * u * sqrtf(-2 * logf(q) / q);
        if (fabsf(x) <= 2) return x;
    }
}

static uint32_t hash_name(const char *name) { /* FNV-1a, 32 bits */
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
    return h;
}

static bool draw_initial(void *self, const State *s, int32_t param, float *host, Err *err) {
    (void)err;
    const ParamSpec *spec = &s->params[param];
    Rng r = rng_make(*(const uint64_t *)self, RNG_INIT, hash_name(spec->name), 0);
    for (int64_t i = 0; i < state_count(s, param); i++) {
        switch (spec->init) {
        case INIT_ZERO: host[i] = 0; break;
        case INIT_ONE: host[i] = 1; break;
        case INIT_CONST: host[i] = spec->init_value; break;
        case INIT_TRUNC_NORMAL: host[i] = truncated_normal(&r, spec->init_value); break;
        }
    }
    return true;
}

StateSource state_initial_source(const uint64_t *seed) {
    return (StateSource){.read = draw_initial, .self = (void *)seed};
}

bool state_init(State *s, uint64_t seed, Err *err) {
    int64_t most = 0;
    for (int32_t p = 0; p < s->n_params; p++) most = MAX(most, state_count(s, p));
    float *host;
    if (!mem_try((void **)&host, (size_t)most * sizeof(float), err)) return false;
    bool ok = true;
    for (int32_t p = 0; ok && p < s->n_params; p++)
        ok = draw_initial(&seed, s, p, host, err) &&
             state_write(s, s->params[p].buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, err);
    free(host);
    return ok;
}

void state_attach(State *s, StateSource source) {
    s->source = source;
    free(s->present);
    s->present = mem_zalloc((size_t)s->n_params, sizeof *s->present);
    /* few of them will ever stand here: those that runs read as they are */
    static const StateRole roles[] = {ROLE_WEIGHT, ROLE_BUFFER};
    for (size_t i = 0; i < COUNTOF(roles); i++)
        if (s->backend->discard && s->buffer[roles[i]])
            s->backend->discard(s->backend, s->buffer[roles[i]],
                                (size_t)state_role_length(s, roles[i]) * sizeof(float));
}

bool state_read_source(const State *s, int32_t param, void *device, Err *err) {
    if (s->backend->host_memory) return s->source.read(s->source.self, s, param, device, err);
    float *host;
    size_t bytes = (size_t)state_count(s, param) * sizeof(float);
    if (!mem_try((void **)&host, bytes, err)) return false;
    bool ok = s->source.read(s->source.self, s, param, host, err) &&
              s->backend->upload(s->backend, device, host, bytes, STREAM_COMPUTE, err) &&
              s->backend->wait(s->backend, STREAM_COMPUTE, err);
    free(host);
    return ok;
}

bool state_require(State *s, int32_t param, Err *err) {
    if (!s->source.read || s->present[param]) return true;
    StateRole role = s->params[param].buffer ? ROLE_BUFFER : ROLE_WEIGHT;
    return s->present[param] = state_read_source(s, param, state_slot(s, role, param), err);
}

void state_release(State *s, int32_t param) {
    if (!s->source.read || !s->backend->discard) return;
    StateRole role = s->params[param].buffer ? ROLE_BUFFER : ROLE_WEIGHT;
    s->backend->discard(s->backend, state_slot(s, role, param), (size_t)state_count(s, param) * sizeof(float));
    s->present[param] = false;
}

bool state_copy_model(State *to, const State *from, StateRole role, Err *err) {
    CHECK(to->backend == from->backend, "two states of one device");
    bool ok = true;
    for (int32_t p = 0; ok && p < to->n_params; p++) {
        bool buffer = to->params[p].buffer;
        int32_t source = state_find(from, to->params[p].name);
        CHECK(source >= 0, "%s: not in the other state", to->params[p].name);
        ok = to->backend->copy(to->backend, state_slot(to, buffer ? ROLE_BUFFER : ROLE_WEIGHT, p),
                               state_slot(from, buffer ? ROLE_BUFFER : role, source),
                               (size_t)state_count(to, p) * sizeof(float), STREAM_COMPUTE, err);
    }
    return ok;
}
