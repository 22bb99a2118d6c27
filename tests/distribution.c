#include "distribution.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"

void expect_share(int64_t met, int64_t count, double probability, const char *what) {
    double expected = probability * (double)count, deviation = sqrt(expected * (1 - probability));
    if (!(fabs((double)met - expected) <= 4.5 * deviation))
        fail_msg("%s: %lld of %lld where %.0f +- %.0f were expected", what, (long long)met, (long long)count, expected,
                 deviation);
}

void histogram_add(Histogram *h, double x) {
    int bin = (int)floor(x * BINS);
    h->below += x < -0.05, h->above += x > 1.05;
    h->met[MAX(0, MIN(bin, BINS - 1))]++;
    h->count++;
}

void expect_even(const Histogram *h, const char *what) {
    if (h->below || h->above) fail_msg("%s: %lld below, %lld above", what, (long long)h->below, (long long)h->above);
    for (int i = 0; i < BINS; i++) expect_share(h->met[i], h->count, 1.0 / BINS, what);
}
