/* cublaslt.c - matmul.h on cuBLASLt. The library counts matrices by columns: a row-major matrix is its transpose there,
 * so D = A B is asked for as D' = B' A', with B first. Products that are split along the inner dimension are added up
 * in a step of their own, never by atomics: the same bits on every run. */
#include <cublasLt.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/matmul.h"
#include "backend/cuda/nvidia/dynlib.h"

#include <stdio.h>
#include <stdlib.h>

#define FUNCTIONS(X) \
    X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtMatmul) X(cublasLtMatmulAlgoGetHeuristic) \
    X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) \
    X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtGetStatusString)

typedef struct {
#define X(function) __typeof__(&function) function;
    FUNCTIONS(X)
#undef X
    void *library;
    cublasLtHandle_t handle;
} Blas;

struct Matmul {
    Blas *blas;
    MatmulSpec spec;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t first, second, out; /* the library's A, B and C = D */
    cublasLtMatmulAlgo_t algorithm;
};

/* ---- the library, opened once for a backend ---- */

static void blas_close(void *self) {
    Blas *b = self;
    if (b->handle) b->cublasLtDestroy(b->handle);
    dynlib_close(b->library);
    free(b);
}

static bool fail(const Blas *b, cublasStatus_t status, const char *what, Err *err) {
    return err_set(err, EXIT_DEVICE, "cuBLASLt: %s: %s", what, b->cublasLtGetStatusString(status));
}

static bool blas_open(Blas **out, Backend *backend, Err *err) {
    CudaSession *session = &cuda_of(backend)->library[CUDA_LIBRARY_BLAS];
    *out = session->self;
    if (*out) return true;
    static const DynLibrary library = {"cuBLASLt", "libcublasLt.so.13 libcublasLt.so.12 libcublasLt.so",
                                       "cuBLAS of the CUDA Toolkit 12 or 13"};
    Blas *b = mem_zalloc(1, sizeof *b);
    const DynFunction functions[] = {
#define X(function) DYN_FUNCTION(b, function),
        FUNCTIONS(X)
#undef X
    };
    if (!dynlib_open(&b->library, &library, functions, COUNTOF(functions), err)) {
        free(b);
        return false;
    }
    cublasStatus_t status = b->cublasLtCreate(&b->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        fail(b, status, "could not start", err);
        blas_close(b);
        return false;
    }
    *session = (CudaSession){.self = b, .close = blas_close};
    *out = b;
    return true;
}

/* ---- one product ---- */

static cudaDataType_t cuda_type(DType type) {
    return type == DT_BF16 ? CUDA_R_16BF : type == DT_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* A row-major (rows, cols) matrix, as the library sees it: cols x rows, its columns one after the other. */
static cublasStatus_t layout_new(const Blas *b, cublasLtMatrixLayout_t *out, DType type, int64_t rows, int64_t cols) {
    return b->cublasLtMatrixLayoutCreate(out, cuda_type(type), (uint64_t)cols, (uint64_t)rows, cols);
}

static cublasStatus_t describe(Matmul *m, bool tf32) {
    const Blas *b = m->blas;
    const MatmulSpec *s = &m->spec;
    cublasComputeType_t compute = s->type == DT_F32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t status = b->cublasLtMatmulDescCreate(&m->desc, compute, CUDA_R_32F);
    cublasOperation_t first = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = s->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = s->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    struct {
        cublasLtMatmulDescAttributes_t attribute;
        const void *value;
        size_t bytes;
    } set[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first},
               {CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second},
               {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue}};
    for (size_t i = 0; !status && i < COUNTOF(set); i++)
        status = b->cublasLtMatmulDescSetAttribute(m->desc, set[i].attribute, set[i].value, set[i].bytes);
    if (!status)
        status = s->b_transposed ? layout_new(b, &m->first, s->type, s->cols, s->inner)
                                 : layout_new(b, &m->first, s->type, s->inner, s->cols);
    if (!status)
        status = s->a_transposed ? layout_new(b, &m->second, s->type, s->inner, s->rows)
                                 : layout_new(b, &m->second, s->type, s->rows, s->inner);
    return status ? status : layout_new(b, &m->out, s->out_type, s->rows, s->cols);
}

/* The library's first choice among algorithms that keep to the workspace, to 16-byte addresses, and to sums in order.
 */
static cublasStatus_t choose(Matmul *m) {
    const Blas *b = m->blas;
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status = b->cublasLtMatmulPreferenceCreate(&preference);
    const size_t workspace = MATMUL_WORKSPACE;
    const uint32_t alignment = 16, reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } set[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
               {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment}};
    for (size_t i = 0; !status && i < COUNTOF(set); i++)
        status = b->cublasLtMatmulPreferenceSetAttribute(preference, set[i].attribute, set[i].value, set[i].bytes);
    cublasLtMatmulHeuristicResult_t result = {0};
    int found = 0;
    if (!status)
        status = b->cublasLtMatmulAlgoGetHeuristic(b->handle, m->desc, m->first, m->second, m->out, m->out, preference,
                                                   1, &result, &found);
    if (!status) status = found ? result.state : CUBLAS_STATUS_NOT_SUPPORTED;
    m->algorithm = result.algo;
    if (preference) b->cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

bool matmul_prepare(Matmul **out, const MatmulSpec *spec, Backend *backend, Err *err) {
    Blas *blas;
    *out = NULL;
    if (!blas_open(&blas, backend, err)) return false;
    Matmul *m = *out = mem_zalloc(1, sizeof *m);
    m->blas = blas;
    m->spec = *spec;
    cublasStatus_t status = describe(m, backend->tf32);
    if (!status) status = choose(m);
    if (!status) return true;
    char what[128];
    snprintf(what, sizeof what, "%lld x %lld x %lld, %s", (long long)spec->rows, (long long)spec->cols,
             (long long)spec->inner, dtype_name(spec->type));
    matmul_release(m);
    *out = NULL;
    return fail(blas, status, what, err);
}

void matmul_run(const Matmul *m, const KernelCall *call, void *d, const void *a, const void *b, const void *bias,
                const void *c, void *work) {
    const Blas *blas = m->blas;
    const float one = 1, beta = m->spec.add ? 1 : 0;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    /* a captured launch keeps the address it was recorded with */
    if (m->spec.bias)
        status = blas->cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!status)
        status = blas->cublasLtMatmul(blas->handle, m->desc, &one, b, m->first, a, m->second, &beta,
                                      m->spec.add ? c : d, m->out, d, m->out, &m->algorithm, work, MATMUL_WORKSPACE,
                                      cuda_compute_stream(call->backend));
    if (status) cuda_library_failed(call->backend, call->node->name, "cuBLASLt", blas->cublasLtGetStatusString(status));
}

void matmul_release(Matmul *m) {
    if (m->desc) m->blas->cublasLtMatmulDescDestroy(m->desc);
    cublasLtMatrixLayout_t layouts[] = {m->first, m->second, m->out};
    for (size_t i = 0; i < COUNTOF(layouts); i++)
        if (layouts[i]) m->blas->cublasLtMatrixLayoutDestroy(layouts[i]);
    free(m);
}
