/* optim.c - cases of stochastic depth and the optimizer. */
#include "op_case.h"

#include <math.h>

enum { COUNT, DECAY, NORM, STREAMS = 1 }; /* NORM: the gradient's norm in percent; -1: not a number */

static void build_drop_path(Graph *g, const int *d) {
    op_drop_path(g, case_labels(g, "counter", SHAPE(2), DT_U64, 1000000), d[COUNT], 0.3f, d[STREAMS]);
}

static Val hyper(Graph *g, double low, double high) {
    return case_state(g, "hyper", SHAPE(HYPER_COUNT), low, high);
}

static void build_grad_norm(Graph *g, const int *d) {
    op_grad_norm(g, case_state(g, "g", SHAPE(d[COUNT]), -1, 1), hyper(g, 0.2, 0.9));
}

/* squares that a float32 cannot hold */
static void build_grad_norm_huge(Graph *g, const int *d) {
    op_grad_norm(g, case_state(g, "g", SHAPE(d[COUNT]), -1e25, 1e25), hyper(g, 0.2, 0.9));
}

/* Hyper-parameters between 0.2 and 0.9: no rule of AdamW cares which is which. A norm above them is clipped, one
 * below is not. */
static void build_adamw(Graph *g, const int *d) {
    Shape flat = SHAPE(d[COUNT]);
    double norm = d[NORM] < 0 ? NAN : d[NORM] / 100.0;
    Val w = case_state(g, "w", flat, -1, 1), grad = case_state(g, "g", flat, -1, 1);
    Val m = case_state(g, "m", flat, -1, 1), v = case_state(g, "v", flat, 0, 1);
    op_adamw(g, w, grad, m, v, case_state(g, "norm", SHAPE(1), norm, norm), hyper(g, 0.2, 0.9), d[DECAY]);
}

static void build_ema(Graph *g, const int *d) {
    Val w = case_state(g, "w", SHAPE(d[COUNT]), -1, 1), average = case_state(g, "average", SHAPE(d[COUNT]), -1, 1);
    double norm = d[NORM] < 0 ? NAN : 1;
    op_ema(g, w, average, case_state(g, "norm", SHAPE(1), norm, norm), hyper(g, 0.9, 1));
}

const OpCase optim_cases[] = {
    {.name = "drop_path 2x1", .build = build_drop_path, .d = {1, 2}, .no_grad = true},
    {.name = "drop_path 6x33", .build = build_drop_path, .d = {33, 6}, .no_grad = true},
    {.name = "drop_path 22x255: many tiles", .build = build_drop_path, .d = {255, 22}, .no_grad = true},
    {.name = "grad_norm 1", .build = build_grad_norm, .d = {1}, .no_grad = true},
    {.name = "grad_norm 33", .build = build_grad_norm, .d = {33}, .no_grad = true},
    {.name = "grad_norm 200003: many tiles", .build = build_grad_norm, .d = {200003}, .no_grad = true},
    {.name = "grad_norm 300001: more tiles than threads", .build = build_grad_norm, .d = {300001}, .no_grad = true},
    {.name = "grad_norm huge", .build = build_grad_norm_huge, .d = {1000}, .no_grad = true},
    {.name = "adamw 1", .build = build_adamw, .d = {1, 1, 300}, .no_grad = true},
    {.name = "adamw 33, clipped", .build = build_adamw, .d = {33, 1, 300}, .no_grad = true},
    {.name = "adamw 33, no decay, not clipped", .build = build_adamw, .d = {33, 0, 1}, .no_grad = true},
    {.name = "adamw 17, bad norm changes nothing", .build = build_adamw, .d = {17, 1, -1}, .no_grad = true},
    {.name = "adamw 140003: many tiles", .build = build_adamw, .d = {140003, 1, 50}, .no_grad = true},
    {.name = "ema 1", .build = build_ema, .d = {1}, .no_grad = true},
    {.name = "ema 17, bad norm changes nothing", .build = build_ema, .d = {17, 0, -1}, .no_grad = true},
    {.name = "ema 140003: many tiles", .build = build_ema, .d = {140003}, .no_grad = true},
    {0}};
