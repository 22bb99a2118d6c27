/* convolution.cpp - the host's twin of nvidia/cudnn.c: refuses what cuDNN would, computes the convolution plainly. */
#include "backend/cuda/kernel.cuh"

#include <vector>

extern "C" {
#include "backend/cuda/convolution.h"
}

struct Convolution {
    ConvolutionPass pass;
    ConvolutionSpec s;
};

static bool multiple_of_16(const void *p) { return ((uintptr_t)p & 15) == 0; }

extern "C" bool convolution_prepare(Convolution **out, ConvolutionPass pass, const ConvolutionSpec *s, Backend *, Err *err) {
    bool fits = s->out_height == (s->height + 2 * s->pad - s->kernel) / s->stride + 1 &&
                s->out_width == (s->width + 2 * s->pad - s->kernel) / s->stride + 1;
    if (!fits || s->batch < 1 || s->ins < 1 || s->outs < 1) return err_set(err, EXIT_DEVICE, "convolution: sizes");
    if (s->type != DT_F32 && s->type != DT_BF16 && s->type != DT_F16)
        return err_set(err, EXIT_DEVICE, "convolution: %s", dtype_name(s->type));
    *out = new Convolution{pass, *s};
    return true;
}

extern "C" void convolution_release(Convolution *c) { delete c; }

/* Every triple that is multiplied: an element of y, one of x under it, their weight. */
template <class F> static void each_product(const ConvolutionSpec &s, F visit) {
    int64_t y = 0;
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t p = 0; p < s.out_height; p++)
            for (int64_t q = 0; q < s.out_width; q++)
                for (int64_t o = 0; o < s.outs; o++, y++)
                    for (int r = 0; r < s.kernel; r++)
                        for (int t = 0; t < s.kernel; t++) {
                            int64_t row = p * s.stride + r - s.pad, column = q * s.stride + t - s.pad;
                            if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
                            int64_t x = ((b * s.height + row) * s.width + column) * s.ins;
                            int64_t w = ((o * s.kernel + r) * s.kernel + t) * s.ins;
                            for (int64_t i = 0; i < s.ins; i++) visit(y, x + i, w + i);
                        }
}

template <class T> static void compute(const Convolution *c, T *out, const T *a, const T *b) {
    const ConvolutionSpec &s = c->s;
    size_t sizes[] = {(size_t)(s.batch * s.out_height * s.out_width * s.outs), (size_t)(s.batch * s.height * s.width * s.ins),
                      (size_t)(s.outs * s.kernel * s.kernel * s.ins)};
    std::vector<double> sum(sizes[c->pass]);
    if (c->pass == CONVOLUTION_FORWARD)
        each_product(s, [&](int64_t y, int64_t x, int64_t w) { sum[y] += (double)to_float(a[x]) * to_float(b[w]); });
    else if (c->pass == CONVOLUTION_DX)
        each_product(s, [&](int64_t y, int64_t x, int64_t w) { sum[x] += (double)to_float(a[y]) * to_float(b[w]); });
    else
        each_product(s, [&](int64_t y, int64_t x, int64_t w) { sum[w] += (double)to_float(a[y]) * to_float(b[x]); });
    for (size_t i = 0; i < sum.size(); i++) out[i] = from_float<T>((float)sum[i]);
}

extern "C" void convolution_run(const Convolution *c, const KernelCall *call, void *out, const void *a, const void *b,
                                void *work) {
    const char *name = call->node->name;
    CHECK(out && a && b && work, "%s: a convolution without operands or workspace", name);
    CHECK(multiple_of_16(out) && multiple_of_16(a) && multiple_of_16(b) && multiple_of_16(work),
          "%s: a convolution's operands must lie on 16 bytes", name);
    CHECK(out != a && out != b, "%s: a convolution cannot write over what it reads", name);
    emu_submit([=] {
        emu_spoil(work, CONVOLUTION_WORKSPACE);
        WITH_FEATURE(c->s.type, T, compute(c, (T *)out, (const T *)a, (const T *)b));
    });
}
