#include "rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void rule_uniform(const char *name, float *out, int64_t count) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    for (int64_t i = 0; i < count; i++) {
        uint64_t x = h + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        out[i] = (float)((double)(x >> 40) / (1 << 23) - 1);
    }
}

/* convolution or linear weight: u sqrt(3 / fan in), a quarter of that in ".pos."; norm weight: 1 + u/4;
 * running_var: 1 + u/2; gamma_1, gamma_2: (1 + u/4) / 8; every bias and running_mean: u/10 */
void rule_parameter(const char *name, const Shape *shape, float *out) {
    int64_t n = shape_count(shape);
    const char *dot = strrchr(name, '.'), *leaf = dot ? dot + 1 : name;
    rule_uniform(name, out, n);
    double a = 0, b = 0.1;
    if (strcmp(leaf, "weight") == 0 && shape->rank > 1) {
        b = sqrt(3.0 * (double)shape->dim[0] / (double)n) / (strstr(name, ".pos.") ? 4 : 1);
    } else if (strcmp(leaf, "weight") == 0) {
        a = 1, b = 0.25;
    } else if (strcmp(leaf, "running_var") == 0) {
        a = 1, b = 0.5;
    } else if (strncmp(leaf, "gamma", 5) == 0) {
        a = 0.125, b = 1.0 / 32;
    }
    for (int64_t i = 0; i < n; i++) out[i] = (float)(a + b * (double)out[i]);
}

void rule_state(State *s, const char *prefix) {
    for (int32_t p = 0; p < s->n_params; p++) {
        const ParamSpec *spec = &s->params[p];
        size_t skip = strncmp(spec->name, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0;
        float *host = mem_zalloc((size_t)shape_count(&spec->shape), sizeof(float));
        rule_parameter(spec->name + skip, &spec->shape, host);
        state_write(s, spec->buffer ? ROLE_BUFFER : ROLE_WEIGHT, p, host, NULL);
        free(host);
    }
}

void to_nhwc(float *out, const float *in, int64_t batch, int64_t channels, int64_t tokens) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t t = 0; t < tokens; t++)
                out[(b * tokens + t) * channels + c] = in[(b * channels + c) * tokens + t];
}

void to_nchw(float *out, const float *in, int64_t batch, int64_t channels, int64_t tokens) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t t = 0; t < tokens; t++)
                out[(b * channels + c) * tokens + t] = in[(b * tokens + t) * channels + c];
}

void rule_images(const char *name, float *out, int batch, int height, int width) {
    int64_t tokens = (int64_t)height * width, n = batch * 3 * tokens;
    float *nchw = mem_zalloc((size_t)n, sizeof(float));
    rule_uniform(name, nchw, n);
    for (int64_t i = 0; i < n; i++) nchw[i] *= 2;
    to_nhwc(out, nchw, batch, 3, tokens);
    free(nchw);
}
