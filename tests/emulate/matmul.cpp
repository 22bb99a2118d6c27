/* matmul.cpp - the host's twin of nvidia/cublaslt.c: refuses what cuBLASLt would, computes the product plainly. */
#include "backend/cuda/kernel.cuh"

#include <stdlib.h>

extern "C" {
#include "backend/cuda/matmul.h"
#include "base/parallel.h"
}

struct Matmul {
    MatmulSpec s;
};

static bool multiple_of_16(const void *p) { return ((uintptr_t)p & 15) == 0; }

extern "C" bool matmul_prepare(Matmul **out, const MatmulSpec *s, Backend *, Err *err) {
    if (s->rows < 1 || s->cols < 1 || s->inner < 1)
        return err_set(err, EXIT_DEVICE, "matmul: %lld x %lld x %lld", (long long)s->rows, (long long)s->cols,
                       (long long)s->inner);
    bool float_types = s->type == DT_F32 || s->type == DT_BF16 || s->type == DT_F16;
    if (!float_types || (s->out_type != DT_F32 && s->out_type != s->type))
        return err_set(err, EXIT_DEVICE, "matmul: %s to %s", dtype_name(s->type), dtype_name(s->out_type));
    *out = new Matmul{*s};
    return true;
}

extern "C" void matmul_release(Matmul *m) { delete m; }

struct Product {
    const Matmul *m;
    void *d;
    const void *a, *b, *bias, *c;
};

template <class T, class D> static void product_row(void *arg, int row, int) {
    const Product *p = (const Product *)arg;
    const MatmulSpec &s = p->m->s;
    const T *a = (const T *)p->a, *b = (const T *)p->b;
    for (int64_t col = 0; col < s.cols; col++) {
        double sum = 0;
        for (int64_t k = 0; k < s.inner; k++)
            sum += (double)to_float(a[s.a_transposed ? k * s.rows + row : row * s.inner + k]) *
                   to_float(b[s.b_transposed ? col * s.inner + k : k * s.cols + col]);
        if (p->bias) sum += to_float(((const D *)p->bias)[col]);
        if (p->c) sum += to_float(((const D *)p->c)[row * s.cols + col]);
        ((D *)p->d)[row * s.cols + col] = from_float<D>((float)sum);
    }
}

extern "C" void matmul_run(const Matmul *m, const KernelCall *call, void *d, const void *a, const void *b,
                           const void *bias, const void *c, void *work) {
    const char *name = call->node->name;
    CHECK(d && a && b && work, "%s: a product without operands or workspace", name);
    CHECK(multiple_of_16(d) && multiple_of_16(a) && multiple_of_16(b) && multiple_of_16(c) && multiple_of_16(work),
          "%s: a product's operands must lie on 16 bytes", name);
    CHECK((bias != NULL) == m->s.bias && (c != NULL) == m->s.add, "%s: bias or C not as prepared", name);
    CHECK(d != a && d != b, "%s: a product cannot write over what it reads", name);
    Product p = {m, d, a, b, bias, c};
    emu_submit([p, work] {
        emu_spoil(work, MATMUL_WORKSPACE);
        bool wide = p.m->s.out_type == DT_F32;
        WITH_FEATURE(p.m->s.type, T, {
            if (wide)
                parallel_for((int)p.m->s.rows, product_row<T, float>, (void *)&p);
            else
                parallel_for((int)p.m->s.rows, product_row<T, T>, (void *)&p);
        });
    });
}
