/* loss.c - cases of the probabilities and the training loss. */
#include "op_case.h"

enum { ROWS, CLASSES, SMOOTHING, BELOW }; /* SMOOTHING in percent; BELOW: labels are below it */

static void build_softmax(Graph *g, const int *d) {
    op_softmax(g, case_input(g, "x", SHAPE(d[ROWS], d[CLASSES]), -10, 10));
}

static void build_labels(Graph *g, const int *d) {
    Val logits = case_input(g, "logits", SHAPE(d[ROWS], d[CLASSES]), -5, 5);
    op_cross_entropy(g, logits, case_labels(g, "labels", SHAPE(d[ROWS]), DT_I32, d[BELOW]), (float)d[SMOOTHING] / 100);
}

/* targets that do not add up to 1, as nothing demands it */
static void build_targets(Graph *g, const int *d) {
    Shape shape = SHAPE(d[ROWS], d[CLASSES]);
    Val logits = case_input(g, "logits", shape, -5, 5);
    op_cross_entropy(g, logits, case_state(g, "targets", shape, 0, 1), (float)d[SMOOTHING] / 100);
}

const OpCase loss_cases[] = {
    {.name = "softmax 1x1", .build = build_softmax, .d = {1, 1}, .no_grad = true},
    {.name = "softmax 3x17", .build = build_softmax, .d = {3, 17}, .no_grad = true},
    {.name = "softmax 33x1000: many tiles", .build = build_softmax, .d = {33, 1000}, .no_grad = true},
    /* a loss near 0 keeps the rounding error of a sum near 1 */
    {.name = "cross_entropy 1x2", .build = build_labels, .d = {1, 2, 0, 2}, .tolerance = 1e-5},
    {.name = "cross_entropy 7x3", .build = build_labels, .d = {7, 3, 0, 3}},
    {.name = "cross_entropy 17x33 smooth", .build = build_labels, .d = {17, 33, 10, 33}},
    {.name = "cross_entropy 33x10, some labels do not count", .build = build_labels, .d = {33, 10, 10, 20}},
    {.name = "cross_entropy 8x1000 smooth", .build = build_labels, .d = {8, 1000, 10, 1000}},
    {.name = "cross_entropy 40x1000: many tiles", .build = build_labels, .d = {40, 1000, 0, 1000}},
    {.name = "cross_entropy targets 1x3", .build = build_targets, .d = {1, 3, 0}},
    {.name = "cross_entropy targets 5x17 smooth", .build = build_targets, .d = {5, 17, 10}},
    {.name = "cross_entropy targets 17x1000 smooth", .build = build_targets, .d = {17, 1000, 10}},
    {0}};
