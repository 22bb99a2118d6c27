/* attention.c - cases of attention: its four kinds, heads of one vector and of parts of one, maps of one token, maps
 * that are one row or one column, and more tokens than a tile of keys or queries holds. */
#include "op_case.h"

enum { BATCH, HEIGHT, WIDTH, HEADS, HEAD_DIM, KIND };

static void build_between(Graph *g, const int *d, double low, double high) {
    int channels = d[HEADS] * d[HEAD_DIM];
    Val qkvo = case_input(g, "qkvo", SHAPE(d[BATCH], d[HEIGHT], d[WIDTH], 4 * channels), low, high);
    Val w = case_input(g, "w", SHAPE(channels, 1, 5, 5), -0.3, 0.3);
    op_attention(g, qkvo, w, case_input(g, "b", SHAPE(channels), -1, 1), (AttentionKind)d[KIND], d[HEADS]);
}

static void build(Graph *g, const int *d) { build_between(g, d, -2, 2); }

/* phi is about a thousandth, z a few millionths: as small as eps */
static void build_faint(Graph *g, const int *d) { build_between(g, d, -8, -6); }

/* roundings: tensor cores take phi(q), probabilities and sums over keys in 16 bits */
#define CASE(title, ...) {.name = "attention " title, .build = build, .d = {__VA_ARGS__}, .roundings = 3}
#define FAINT(title, ...) {.name = "attention " title, .build = build_faint, .d = {__VA_ARGS__}, .roundings = 3}
#define CASES(title, ...) \
    CASE("mala " title, __VA_ARGS__, ATTN_MALA), CASE("softmax " title, __VA_ARGS__, ATTN_SOFTMAX), \
    CASE("linear " title, __VA_ARGS__, ATTN_LINEAR), CASE("inline " title, __VA_ARGS__, ATTN_INLINE)

const OpCase attention_cases[] = {
    CASES("one token", 1, 1, 1, 1, 4),
    CASES("1x3, three heads of 4", 2, 1, 3, 3, 4),
    CASES("17x1, heads of 12", 2, 17, 1, 2, 12),
    CASES("5x7, heads of 16", 2, 5, 7, 2, 16),
    CASES("3x33, a head of 20", 1, 3, 33, 1, 20),
    CASES("7x7, heads of 64", 2, 7, 7, 2, 64),
    CASES("9x11, a head of 96", 1, 9, 11, 1, 96),
    CASES("16x8, 16 heads of 64: images in two groups", 3, 16, 8, 16, 64),
    CASE("mala 56x14, one head", 1, 56, 14, 1, 64, ATTN_MALA),
    CASE("mala 3x17, 43 pictures, 16 heads of 4: several tiles to a block", 43, 3, 17, 16, 4, ATTN_MALA),
    CASE("softmax 14x14, one head", 1, 14, 14, 1, 64, ATTN_SOFTMAX),
    CASE("softmax 19x29", 1, 19, 29, 1, 8, ATTN_SOFTMAX),
    FAINT("mala faint queries and keys", 2, 3, 5, 2, 12, ATTN_MALA),
    FAINT("linear faint queries and keys", 2, 3, 5, 2, 12, ATTN_LINEAR),
    {0}};
