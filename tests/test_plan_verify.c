/* test_plan_verify.c - each rule that plan_verify promises, by a fault planted against it alone in a good plan: what
 * the planner could do wrong in one place, and what would still look right by every other rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/plan.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

enum { ROWS = 16, CHANNELS = 4, BYTES = ROWS * CHANNELS * 4 };

/* Every value has a place of its own: what is planted is the only fault. */
typedef struct {
    Backend backend;
    State state;
    Plan *plan;
} Planned;

static void planned(Planned *p, Graph *g, const Val *keep, int n_keep) {
    OK(backend_open_cpu(&p->backend, 1, &err));
    OK(state_new(&p->state, g, &p->backend, 1u << ROLE_WEIGHT, &err));
    OK(plan_new(&p->plan, g, &p->backend, &p->state, keep, n_keep, (PlanOptions){.no_reuse = true}, &err));
    OK(plan_verify(p->plan, &err));
}

static void done(Planned *p, Graph *g) {
    plan_free(p->plan);
    state_free(&p->state);
    graph_free(g);
    p->backend.close(&p->backend);
}

static void expect_fault(const Plan *p, const char *what) {
    Err found = {0};
    if (plan_verify(p, &found)) fail_msg("nothing was found where \"%s\" was expected", what);
    assert_int_equal(found.code, EXIT_BUG);
    if (!strstr(found.text, what)) fail_msg("\"%s\" where \"%s\" was expected", found.text, what);
}

/* With value v at another address: refused for that; and accepted again with it back in its place. */
static void expect_fault_at(Plan *p, Val v, void *address, const char *what) {
    void *right = p->address[v];
    p->address[v] = address;
    expect_fault(p, what);
    p->address[v] = right;
    OK(plan_verify(p, &err));
}

static void expect_fine_at(Plan *p, Val v, void *address) {
    void *right = p->address[v];
    p->address[v] = address;
    OK(plan_verify(p, &err));
    p->address[v] = right;
}

static Val input(Graph *g) { return graph_input(g, "x", DT_F32, SHAPE(1, 4, 4, CHANNELS)); }

/* a, b and c one behind the other, a read again by the last: (a + c) */
static void test_values_that_stand_together(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, b), d = op_add(g, c, a);
    Planned p;
    planned(&p, g, &d, 1);
    char **at = (char **)p.plan->address;
    static const int shifts[] = {0, 4, -4, BYTES - 4, 4 - BYTES}; /* wholly, and by one number at either end */
    for (size_t i = 0; i < COUNTOF(shifts); i++) {
        p.plan->arena_bytes += BYTES; /* not the limit is what is broken here */
        p.plan->arena -= BYTES;
        p.plan->arena_bytes += BYTES;
        expect_fault_at(p.plan, b, at[a] + shifts[i], "overlap while both must stand");
        expect_fault_at(p.plan, c, at[a] + shifts[i], "overlap while both must stand");
        p.plan->arena += BYTES;
        p.plan->arena_bytes -= 2 * BYTES;
    }
    done(&p, g);
}

static void test_values_apart_in_time_may_share(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, b), d = op_gelu(g, c);
    Planned p;
    planned(&p, g, &d, 1);
    expect_fine_at(p.plan, c, p.plan->address[a]);                   /* read for the last time before */
    expect_fine_at(p.plan, b, p.plan->address[a]);                   /* in place, as the row allows */
    expect_fine_at(p.plan, d, p.plan->address[a]);
    expect_fault_at(p.plan, c, (char *)p.plan->address[b] + 4, "overlap"); /* in place, but not quite */
    expect_fault_at(p.plan, c, (char *)p.plan->address[b] - 4, "overlap");
    done(&p, g);
}

static void test_in_place_only_where_the_row_allows(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(CHANNELS, 1, 3, 3)});
    Val bias = graph_param(g, (ParamSpec){.name = "b", .shape = SHAPE(CHANNELS)});
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_dwconv(g, a, w, bias, 3, false); /* no such row */
    Val d = op_add(g, b, c), e = op_add(g, d, d), f = op_gelu(g, e);
    Planned p;
    planned(&p, g, &f, 1);
    expect_fault_at(p.plan, c, p.plan->address[a], "overlap");
    expect_fine_at(p.plan, d, p.plan->address[b]);            /* input 0 */
    expect_fault_at(p.plan, d, p.plan->address[c], "overlap"); /* input 1 */
    expect_fault_at(p.plan, e, p.plan->address[d], "overlap"); /* input 0, and input 1 as well */
    g->values[d].shape.dim[1] = 2;
    expect_fault_at(p.plan, d, p.plan->address[b], "overlap"); /* input 0, but half as long */
    done(&p, g);
}

/* What is read again later stays. */
static void test_in_place_only_by_the_last_reader(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, a), d = op_add(g, b, c);
    Planned p;
    planned(&p, g, &d, 1);
    expect_fault_at(p.plan, b, p.plan->address[a], "overlap");
    expect_fine_at(p.plan, c, p.plan->address[a]);
    done(&p, g);
}

/* Output 0 alone: a norm's statistics may not lie on its input, nor outputs of one step on each other, read or not. */
static void test_outputs_of_one_step(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val gain = graph_param(g, (ParamSpec){.name = "g", .shape = SHAPE(CHANNELS)});
    Val bias = graph_param(g, (ParamSpec){.name = "b", .shape = SHAPE(CHANNELS)});
    Val x = op_gelu(g, input(g)), y = op_layer_norm(g, x, gain, bias, 1e-6f), z = op_gelu(g, y);
    const Val mean = y + 1, rstd = y + 2;
    Planned p;
    planned(&p, g, (Val[]){z, mean, rstd}, 3);
    char **at = (char **)p.plan->address;
    expect_fault_at(p.plan, mean, at[x], "overlap");
    expect_fault_at(p.plan, rstd, at[mean], "overlap");
    expect_fault_at(p.plan, mean, at[y], "overlap");
    done(&p, g);

    g = graph_new();
    gain = graph_param(g, (ParamSpec){.name = "g", .shape = SHAPE(CHANNELS)});
    bias = graph_param(g, (ParamSpec){.name = "b", .shape = SHAPE(CHANNELS)});
    x = op_gelu(g, input(g)), y = op_layer_norm(g, x, gain, bias, 1e-6f), z = op_gelu(g, y);
    planned(&p, g, &z, 1);
    at = (char **)p.plan->address;
    assert_null(at[y + 1]); /* nobody reads it, so nobody writes it; if it were written: */
    Val unread = y + 1;
    at[unread] = at[y];
    expect_fault(p.plan, "overlap");
    at[unread] = NULL;
    OK(plan_verify(p.plan, &err));
    done(&p, g);
}

static void test_what_is_kept_stands_to_the_end(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, b), d = op_gelu(g, c);
    Planned p;
    planned(&p, g, (Val[]){a, d}, 2);
    expect_fault_at(p.plan, b, p.plan->address[a], "overlap"); /* else in place */
    expect_fault_at(p.plan, c, p.plan->address[a], "overlap"); /* else apart in time */
    expect_fault_at(p.plan, d, p.plan->address[a], "overlap"); /* both kept */
    done(&p, g);

    g = graph_new();
    a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, b);
    planned(&p, g, &b, 1); /* c is not run */
    p.plan->keep[0] = c;
    expect_fault(p.plan, "is kept and never written");
    p.plan->keep[0] = b;
    OK(plan_verify(p.plan, &err));
    done(&p, g);
}

static void test_nothing_is_read_before_it_is_written(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val a = op_gelu(g, input(g)), b = op_gelu(g, a), c = op_gelu(g, b);
    Planned p;
    planned(&p, g, &c, 1);
    expect_fault_at(p.plan, a, NULL, "before it is written");
    expect_fault_at(p.plan, b, NULL, "before it is written");
    for (int i = 0; i < 2; i++) { /* neighbours change places */
        Step step = p.plan->steps[i];
        p.plan->steps[i] = p.plan->steps[i + 1], p.plan->steps[i + 1] = step;
        expect_fault(p.plan, "before it is written");
        p.plan->steps[i + 1] = p.plan->steps[i], p.plan->steps[i] = step;
    }
    OK(plan_verify(p.plan, &err));
    p.plan->steps++, p.plan->n_steps--; /* the first one is forgotten */
    expect_fault(p.plan, "before it is written");
    p.plan->steps--, p.plan->n_steps++;
    done(&p, g);
}

static void test_values_lie_inside_their_memory(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(1, 4, 4, CHANNELS)});
    Val k = op_gelu(g, w), a = op_gelu(g, input(g)), b = op_add(g, a, k), c = op_gelu(g, b);
    Planned p;
    planned(&p, g, &c, 1);
    char *arena = p.plan->arena, *constants = p.plan->constants;
    assert_int_equal(p.plan->constant_bytes, BYTES);
    expect_fault_at(p.plan, a, arena - 4, "outside its memory");
    expect_fault_at(p.plan, c, arena + p.plan->arena_bytes - BYTES + 4, "outside its memory");
    expect_fault_at(p.plan, k, constants - 4, "outside its memory");
    expect_fault_at(p.plan, k, constants + 4, "outside its memory");
    expect_fault_at(p.plan, k, p.plan->address[b], "outside its memory"); /* a constant in the arena */
    expect_fault_at(p.plan, c, constants + BYTES, "outside its memory");  /* an activation behind the constants */
    done(&p, g);
}

/* Written once, read by every run: what a run writes may not touch a constant, not even after its last reader. */
static void test_constants_stand_from_run_to_run(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(1, 4, 4, CHANNELS)});
    Val j = op_silu(g, w), k = op_gelu(g, j), a = op_add(g, input(g), k), b = op_gelu(g, a), c = op_gelu(g, b);
    Planned p;
    planned(&p, g, &c, 1);
    Plan *plan = p.plan;
    /* one memory for both, as far as limits go */
    char *arena = plan->arena, *constants = plan->constants;
    size_t arena_bytes = plan->arena_bytes, constant_bytes = plan->constant_bytes;
    char *low = MIN(arena, constants), *high = MAX(arena + arena_bytes, constants + constant_bytes);
    plan->arena = plan->constants = low;
    plan->arena_bytes = plan->constant_bytes = (size_t)(high - low);
    OK(plan_verify(plan, &err));
    expect_fault_at(plan, a, plan->address[k], "overlap"); /* the step that reads it */
    expect_fault_at(plan, b, plan->address[k], "overlap"); /* and one behind it */
    expect_fault_at(plan, c, plan->address[k], "overlap");
    expect_fine_at(plan, k, plan->address[j]); /* which only k is made of */
    expect_fine_at(plan, b, plan->address[j]);
    plan->arena = arena, plan->constants = constants;
    plan->arena_bytes = arena_bytes, plan->constant_bytes = constant_bytes;
    done(&p, g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_that_stand_together),
        cmocka_unit_test(test_values_apart_in_time_may_share),
        cmocka_unit_test(test_in_place_only_where_the_row_allows),
        cmocka_unit_test(test_in_place_only_by_the_last_reader),
        cmocka_unit_test(test_outputs_of_one_step),
        cmocka_unit_test(test_what_is_kept_stands_to_the_end),
        cmocka_unit_test(test_nothing_is_read_before_it_is_written),
        cmocka_unit_test(test_values_lie_inside_their_memory),
        cmocka_unit_test(test_constants_stand_from_run_to_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
