/* plan_run.c - running a plan: steps one by one, or recorded once and replayed; and what keeps the host and the device
 * busy at the same time.
 *
 *     stream 1   upload inputs t+1 ....            upload inputs t+2 ....
 *     stream 0   move t | run t ............ | fetch t | move t+1 | run t+1 ............
 *     host       stage t+1, read t-1               stage t+2, read t
 *
 * Inputs of the next run are uploaded to a place of their own (staged) and moved, which on a device takes no time worth
 * counting, when the run before has ended. Nothing here allocates, locks or waits for the device in a step, but for a
 * place in host memory that is still being read, and for values of the run before. */
#include <stdlib.h>
#include <string.h>

#include "run/plan.h"

#define ALIGNMENT 64

static size_t value_bytes(const Plan *p, Val v) {
    const Value *x = graph_value(p->graph, v);
    return (size_t)shape_count(&x->shape) * dtype_size(x->dtype);
}

static int kept_index(const Plan *p, Val kept) {
    for (int i = 0; i < p->n_keep; i++)
        if (p->keep[i] == kept) return i;
    CHECK(false, "%s was not kept", graph_value(p->graph, kept)->name);
}

/* ---- what it takes ---- */

static size_t kept_bytes(const Plan *p) {
    size_t bytes = 0;
    for (int i = 0; i < p->n_keep; i++) bytes += ROUND_UP(value_bytes(p, p->keep[i]), (size_t)ALIGNMENT);
    return bytes;
}

size_t plan_transfer_bytes(const Plan *p) {
    return 2 * kept_bytes(p) + (p->backend->host_memory ? 0 : 2 * p->input_bytes);
}

static bool open_marks(Plan *p, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    bool ok = b->mark_new(b, &s->moved, err);
    for (int i = 0; ok && i < 2; i++) ok = b->mark_new(b, &s->uploaded[i], err) && b->mark_new(b, &s->fetched[i], err);
    return ok;
}

bool plan_pipe_open(Plan *p, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    s->kept_offset = mem_zalloc((size_t)p->n_keep, sizeof *s->kept_offset);
    for (int i = 1; i < p->n_keep; i++)
        s->kept_offset[i] = s->kept_offset[i - 1] + ROUND_UP(value_bytes(p, p->keep[i - 1]), (size_t)ALIGNMENT);
    bool ok = open_marks(p, err);
    for (int i = 0; ok && i < 2; i++) ok = b->host_alloc(b, (void **)&s->kept[i], kept_bytes(p), err);
    if (!ok || b->host_memory) return ok;
    int inputs = 0;
    for (Val v = 0; v < p->graph->n_values; v++) inputs += graph_value(p->graph, v)->kind == V_INPUT;
    s->pending = mem_zalloc((size_t)inputs, sizeof *s->pending);
    for (int i = 0; ok && i < 2; i++) ok = b->host_alloc(b, (void **)&s->inputs[i], p->input_bytes, err);
    return ok && b->alloc(b, (void **)&s->staged, p->input_bytes, err);
}

void plan_pipe_close(Plan *p) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    if (s->captured) b->capture_free(b, s->captured);
    for (int i = 0; i < 2; i++) {
        if (s->uploaded[i]) b->mark_free(b, s->uploaded[i]);
        if (s->fetched[i]) b->mark_free(b, s->fetched[i]);
        if (s->inputs[i]) b->host_free(b, s->inputs[i]);
        if (s->kept[i]) b->host_free(b, s->kept[i]);
    }
    if (s->moved) b->mark_free(b, s->moved);
    if (s->staged) b->free(b, s->staged);
    free(s->pending);
    free(s->kept_offset);
    *s = (PlanPipe){0};
}

/* A run cannot fail in its caller's sight; whoever transfers next hears of it. */
bool plan_healthy(const Plan *p, Err *err) {
    const Err *failed = &p->pipe.failed;
    return !failed->code || err_set(err, failed->code, "%s", failed->text);
}

/* ---- steps ---- */

static void run_range(Plan *p, int32_t from, int32_t to) {
    for (int32_t i = from; i < to; i++) p->steps[i].kernel->run(&p->steps[i].call);
}

/* Makes the parameters that a step reads present: in the state, or where the step borrows them. */
static bool require_weights(Plan *p, int32_t step, Err *err) {
    const KernelCall *call = &p->steps[step].call;
    for (int i = 0; i < call->node->n_in; i++) {
        Val v = node_in(p->graph, call->node, i);
        const Value *x = v == NO_VAL ? NULL : graph_value(p->graph, v);
        if (!x || x->kind != V_STATE || x->param < 0) continue;
        int32_t param = state_find(p->state, x->name);
        if (!(plan_borrows(p, step, v) ? state_read_source(p->state, param, call->in[i], err)
                                       : state_require(p->state, param, err)))
            return false;
    }
    return true;
}

void plan_enter(Plan *p) {
    if (p->backend->enter) p->backend->enter(p->backend);
}

bool plan_refresh(Plan *p, Err *err) {
    plan_enter(p);
    for (int32_t i = 0; i < p->n_constant_steps; i++) {
        if (!require_weights(p, i, err)) return false;
        run_range(p, i, i + 1);
    }
    if (p->backend->discard) p->backend->discard(p->backend, p->borrowed, p->borrowed_bytes);
    for (int32_t i = p->n_constant_steps; i < p->n_steps; i++)
        if (!require_weights(p, i, err)) return false;
    return true;
}

/* ---- runs ---- */

/* What was staged becomes the inputs. */
static bool move_staged(Plan *p, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    if (s->n_pending == 0) return true;
    BackendMark *uploaded = s->uploaded[s->stages & 1];
    bool ok = b->mark(b, uploaded, STREAM_UPLOAD, err) && b->order(b, STREAM_COMPUTE, uploaded, err);
    for (int i = 0; ok && i < s->n_pending; i++) {
        const struct StagedInput *in = &s->pending[i];
        ok = b->copy(b, p->inputs + in->offset, s->staged + in->offset, in->bytes, STREAM_COMPUTE, err);
    }
    s->n_pending = 0;
    s->stages++;
    return ok && b->mark(b, s->moved, STREAM_COMPUTE, err);
}

/* Records a run, of which nothing is done yet. Where that cannot be, by a library that does in a step what no recording
 * holds, it is not tried again. */
static void capture(Plan *p) {
    Backend *b = p->backend;
    Err err = {0};
    bool ok = b->capture_begin(b, &err);
    if (ok) {
        run_range(p, p->n_constant_steps, p->n_steps);
        ok = b->capture_end(b, &p->pipe.captured, &err);
    }
    p->options.no_capture = !ok;
    if (!ok && p->options.log)
        log_warning(p->options.log, "steps are launched one by one, which is slower: they cannot be recorded (%s)",
                    err.text);
}

/* The first run is launched step by step: libraries may then set up what a capture could not hold. */
static bool launch(Plan *p, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    if (b->capture_begin && !p->options.no_capture && s->runs > 0) {
        if (!s->captured) capture(p);
        if (s->captured) return b->capture_launch(b, s->captured, err);
    }
    run_range(p, p->n_constant_steps, p->n_steps);
    return true;
}

void plan_run(Plan *p) {
    PlanPipe *s = &p->pipe;
    if (s->failed.code) return;
    plan_enter(p);
    if (move_staged(p, &s->failed) && launch(p, &s->failed)) s->runs++;
}

bool plan_run_timed(Plan *p, double *seconds, Err *err) {
    Backend *b = p->backend;
    int32_t first = p->n_constant_steps, count = p->n_steps - first;
    BackendMark **marks = mem_zalloc((size_t)count + 1, sizeof *marks);
    plan_enter(p);
    bool ok = plan_healthy(p, err);
    for (int32_t i = 0; ok && i <= count; i++) ok = b->mark_new(b, &marks[i], err);
    ok = ok && b->mark(b, marks[0], STREAM_COMPUTE, err);
    for (int32_t i = 0; ok && i < count; i++) {
        run_range(p, first + i, first + i + 1);
        ok = b->mark(b, marks[i + 1], STREAM_COMPUTE, err);
    }
    ok = ok && b->await(b, marks[count], err);
    for (int32_t i = 0; ok && i < count; i++) {
        double time;
        ok = b->elapsed(b, marks[i], marks[i + 1], &time, err);
        if (ok) seconds[first + i] += time;
    }
    for (int32_t i = 0; i <= count; i++)
        if (marks[i]) b->mark_free(b, marks[i]);
    free(marks);
    return ok;
}

/* ---- transfers ---- */

bool plan_upload(Plan *p, Val input, const void *host, size_t bytes, Err *err) {
    Backend *b = p->backend;
    CHECK(bytes <= value_bytes(p, input), "%s takes %zu bytes", graph_value(p->graph, input)->name,
          value_bytes(p, input));
    return plan_healthy(p, err) && b->upload(b, p->address[input], host, bytes, STREAM_COMPUTE, err) &&
           b->wait(b, STREAM_COMPUTE, err);
}

bool plan_download(Plan *p, Val kept, void *host, size_t bytes, Err *err) {
    Backend *b = p->backend;
    CHECK(p->address[kept] && bytes <= value_bytes(p, kept), "%s was not kept or is smaller",
          graph_value(p->graph, kept)->name);
    return plan_healthy(p, err) && b->download(b, host, p->address[kept], bytes, STREAM_COMPUTE, err) &&
           b->wait(b, STREAM_COMPUTE, err);
}

bool plan_stage(Plan *p, Val input, const void *host, size_t bytes, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    if (b->host_memory) return plan_upload(p, input, host, bytes, err);
    CHECK(bytes <= value_bytes(p, input), "%s takes %zu bytes", graph_value(p->graph, input)->name,
          value_bytes(p, input));
    if (!plan_healthy(p, err)) return false;
    int slot = s->stages & 1;
    /* the first of a round: is what the round before last uploaded gone, and what the last one staged moved? */
    if (s->n_pending == 0 && (!b->await(b, s->uploaded[slot], err) || !b->order(b, STREAM_UPLOAD, s->moved, err)))
        return false;
    size_t offset = (size_t)((char *)p->address[input] - p->inputs);
    memcpy(s->inputs[slot] + offset, host, bytes);
    int i = 0; /* staged twice in a round: the last one counts */
    while (i < s->n_pending && s->pending[i].offset != offset) i++;
    s->pending[i] = (struct StagedInput){offset, bytes};
    if (i == s->n_pending) s->n_pending++;
    return b->upload(b, s->staged + offset, s->inputs[slot] + offset, bytes, STREAM_UPLOAD, err);
}

bool plan_fetch_begin(Plan *p, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    int slot = (int)(s->fetches & 1);
    bool ok = plan_healthy(p, err);
    for (int i = 0; ok && i < p->n_keep; i++)
        ok = b->download(b, s->kept[slot] + s->kept_offset[i], p->address[p->keep[i]], value_bytes(p, p->keep[i]),
                         STREAM_COMPUTE, err);
    s->fetches++;
    return ok && b->mark(b, s->fetched[slot], STREAM_COMPUTE, err);
}

bool plan_fetch(Plan *p, Val kept, void *host, size_t bytes, int back, Err *err) {
    Backend *b = p->backend;
    PlanPipe *s = &p->pipe;
    CHECK(back >= 0 && back < 2 && s->fetches > back, "%lld fetches, %d back", (long long)s->fetches, back);
    CHECK(bytes <= value_bytes(p, kept), "%s is smaller", graph_value(p->graph, kept)->name);
    int slot = (int)((s->fetches - 1 - back) & 1);
    if (!plan_healthy(p, err) || !b->await(b, s->fetched[slot], err)) return false;
    memcpy(host, s->kept[slot] + s->kept_offset[kept_index(p, kept)], bytes);
    return true;
}
