/* test_cuda_gelu.c - how far the CUDA kernels' GELU and its slope are off, over every bfloat16 and every 2,000th float32;
 * with MALA_SOAK every 40th, a hundred million. The exponential is the host's: a GPU's is another 4e-8 off. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "emulate/control.h"

static double value_off, slope_off;

static void check(uint32_t bits) {
    float x, alone, value, slope;
    memcpy(&x, &bits, sizeof x);
    emu_gelu(x, &alone, &value, &slope);
    if (!isfinite(x)) {
        if (isnan(x) && !(isnan(alone) && isnan(value) && isnan(slope))) fail_msg("of no number: %g %g", value, slope);
        return;
    }
    const double z = x, phi = 0.5 * erfc(-z * M_SQRT1_2), density = exp(-0.5 * z * z) / sqrt(2 * M_PI);
    const double of_value = fabs(value - z * phi) / fmax(1, fabs(z)), of_slope = fabs(slope - (phi + z * density));
    if (!(of_value <= 2e-7) || !(of_slope <= 4e-7) || memcmp(&alone, &value, sizeof value) != 0)
        fail_msg("x %.9g: %.9g, %.9g: off by %.3g and %.3g", x, value, slope, of_value, of_slope);
    value_off = fmax(value_off, of_value), slope_off = fmax(slope_off, of_slope);
}

static void test_every_bfloat16(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) check(bits << 16);
}

static void test_float32_with_even_steps(void **state) {
    (void)state;
    const uint32_t step = getenv("MALA_SOAK") ? 40 : 2000;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += step) check((uint32_t)bits);
    printf("at most off: value %.3g max(1, |x|), slope %.3g\n", value_off, slope_off);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_bfloat16),
                                       cmocka_unit_test(test_float32_with_even_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
