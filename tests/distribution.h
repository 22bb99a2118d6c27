/* distribution.h - counts of what was drawn against what they should come to; a test fails that is beyond 4.5 standard
 * deviations. */
#ifndef MALA_DISTRIBUTION_H
#define MALA_DISTRIBUTION_H

#include <stdint.h>

/* `met` of `count` draws, each with this probability */
void expect_share(int64_t met, int64_t count, double probability, const char *what);

enum { BINS = 8 };

typedef struct {
    int64_t met[BINS], count, below, above;
} Histogram;

/* x of [0, 1], but for what measuring adds: 0.05 at most at either end */
void histogram_add(Histogram *h, double x);
/* As many in each bin, and none beyond the ends. */
void expect_even(const Histogram *h, const char *what);

#endif
