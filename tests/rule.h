/* rule.h - weights and inputs made from names alone, the rule by which the golden numbers were made:
 * FNV-1a of the name starts a splitmix64 stream; the top 24 bits of each number give a value in [-1, 1). */
#ifndef MALA_RULE_H
#define MALA_RULE_H

#include "run/state.h"

void rule_uniform(const char *name, float *out, int64_t count);

/* The value of a parameter by its name and shape: see the comment in rule.c. */
void rule_parameter(const char *name, const Shape *shape, float *out);

/* Sets every parameter and buffer of a state; prefix is left out of the names. */
void rule_state(State *s, const char *prefix);

/* images_by_rule of the reference as (B,H,W,3): uniform(name) * 2, drawn in the reference's order (B,3,H,W). */
void rule_images(const char *name, float *out, int batch, int height, int width);

/* (B,C,H,W) to (B,H,W,C) and back */
void to_nhwc(float *out, const float *in, int64_t batch, int64_t channels, int64_t tokens);
void to_nchw(float *out, const float *in, int64_t batch, int64_t channels, int64_t tokens);

#endif
