/* cudnn.c - convolution.h on cuDNN 9, through its convolution calls of fixed function: they exist for all three passes,
 * in NHWC and in every type, from sm_75 on. (cuDNN's graph interface could fuse bias and GELU into the forward pass;
 * that is for when a GPU can show the gain.) Only algorithms that the library calls deterministic are taken. */
#include <cudnn.h>

#include "backend/cuda/convolution.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/nvidia/dynlib.h"

#include <stdio.h>
#include <stdlib.h>

/* the library marks these calls as those of an older interface */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define FUNCTIONS(X) \
    X(cudnnCreate) X(cudnnDestroy) X(cudnnSetStream) X(cudnnGetErrorString) \
    X(cudnnCreateTensorDescriptor) X(cudnnDestroyTensorDescriptor) X(cudnnSetTensor4dDescriptor) \
    X(cudnnCreateFilterDescriptor) X(cudnnDestroyFilterDescriptor) X(cudnnSetFilter4dDescriptor) \
    X(cudnnCreateConvolutionDescriptor) X(cudnnDestroyConvolutionDescriptor) X(cudnnSetConvolution2dDescriptor) \
    X(cudnnSetConvolutionMathType) \
    X(cudnnGetConvolutionForwardAlgorithm_v7) X(cudnnConvolutionForward) \
    X(cudnnGetConvolutionForwardWorkspaceSize) \
    X(cudnnGetConvolutionBackwardDataAlgorithm_v7) X(cudnnConvolutionBackwardData) \
    X(cudnnGetConvolutionBackwardDataWorkspaceSize) \
    X(cudnnGetConvolutionBackwardFilterAlgorithm_v7) X(cudnnConvolutionBackwardFilter) \
    X(cudnnGetConvolutionBackwardFilterWorkspaceSize)

typedef struct {
#define X(function) __typeof__(&function) function;
    FUNCTIONS(X)
#undef X
    void *library;
    cudnnHandle_t handle;
} Dnn;

struct Convolution {
    Dnn *dnn;
    ConvolutionPass pass;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t desc;
    cudnnMathType_t math;
    int algorithm; /* of the pass's own enumeration */
};

/* ---- the library, opened once for a backend ---- */

static void dnn_close(void *self) {
    Dnn *d = self;
    if (d->handle) d->cudnnDestroy(d->handle);
    dynlib_close(d->library);
    free(d);
}

static bool fail(const Dnn *d, cudnnStatus_t status, const char *what, Err *err) {
    return err_set(err, EXIT_DEVICE, "cuDNN: %s: %s", what, d->cudnnGetErrorString(status));
}

static bool dnn_open(Dnn **out, Backend *backend, Err *err) {
    CudaSession *session = &cuda_of(backend)->library[CUDA_LIBRARY_DNN];
    *out = session->self;
    if (*out) return true;
    static const DynLibrary library = {"cuDNN", "libcudnn.so.9", "cuDNN 9"};
    Dnn *d = mem_zalloc(1, sizeof *d);
    const DynFunction functions[] = {
#define X(function) DYN_FUNCTION(d, function),
        FUNCTIONS(X)
#undef X
    };
    if (!dynlib_open(&d->library, &library, functions, COUNTOF(functions), err)) {
        free(d);
        return false;
    }
    cudnnStatus_t status = d->cudnnCreate(&d->handle);
    if (!status) status = d->cudnnSetStream(d->handle, cuda_compute_stream(backend));
    if (status) {
        fail(d, status, "could not start", err);
        dnn_close(d);
        return false;
    }
    *session = (CudaSession){.self = d, .close = dnn_close};
    *out = d;
    return true;
}

/* ---- one convolution ---- */

static cudnnDataType_t data_type(DType type) {
    return type == DT_BF16 ? CUDNN_DATA_BFLOAT16 : type == DT_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
}

static cudnnStatus_t describe(Convolution *c, const ConvolutionSpec *s, bool tf32) {
    const Dnn *d = c->dnn;
    cudnnDataType_t type = data_type(s->type);
    c->math = s->type != DT_F32 ? CUDNN_TENSOR_OP_MATH : tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
    cudnnStatus_t status = d->cudnnCreateTensorDescriptor(&c->x);
    if (!status) status = d->cudnnCreateTensorDescriptor(&c->y);
    if (!status) status = d->cudnnCreateFilterDescriptor(&c->w);
    if (!status) status = d->cudnnCreateConvolutionDescriptor(&c->desc);
    if (!status)
        status = d->cudnnSetTensor4dDescriptor(c->x, CUDNN_TENSOR_NHWC, type, (int)s->batch, (int)s->ins,
                                               (int)s->height, (int)s->width);
    if (!status)
        status = d->cudnnSetTensor4dDescriptor(c->y, CUDNN_TENSOR_NHWC, type, (int)s->batch, (int)s->outs,
                                               (int)s->out_height, (int)s->out_width);
    if (!status)
        status = d->cudnnSetFilter4dDescriptor(c->w, type, CUDNN_TENSOR_NHWC, (int)s->outs, (int)s->ins, s->kernel,
                                               s->kernel);
    if (!status)
        status = d->cudnnSetConvolution2dDescriptor(c->desc, s->pad, s->pad, s->stride, s->stride, 1, 1,
                                                    CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
    return status ? status : d->cudnnSetConvolutionMathType(c->desc, c->math);
}

enum { MOST_ALGORITHMS = 16 };

/* Takes the first of the library's choices, fastest first, that keeps the rules. What the library proposes from its
 * tables it may still refuse: it is asked for the choice's workspace, too. A choice brings its kind of arithmetic with
 * it, but float32 without TF32 stays what it is: to the library, its default allows TF32. The three passes have a type
 * of choice each, alike in all that is read here; workspace is the pass's function and what it takes before the choice.
 */
#define CHOOSE(choices, count, workspace, ...) \
    do { \
        for (int i = 0; i < (count) && !found && !status; i++) { \
            size_t bytes = 0; \
            if ((choices)[i].status || (choices)[i].determinism != CUDNN_DETERMINISTIC || \
                (choices)[i].memory > CONVOLUTION_WORKSPACE) \
                continue; \
            c->algorithm = (int)(choices)[i].algo; \
            if (c->math != CUDNN_FMA_MATH) \
                status = d->cudnnSetConvolutionMathType(c->desc, (choices)[i].mathType); \
            found = !status && !d->workspace(d->handle, __VA_ARGS__, (choices)[i].algo, &bytes) && \
                    bytes <= CONVOLUTION_WORKSPACE; \
        } \
    } while (0)

static cudnnStatus_t choose(Convolution *c) {
    const Dnn *d = c->dnn;
    cudnnStatus_t status;
    bool found = false;
    int count = 0;
    if (c->pass == CONVOLUTION_FORWARD) {
        cudnnConvolutionFwdAlgoPerf_t choice[MOST_ALGORITHMS];
        status = d->cudnnGetConvolutionForwardAlgorithm_v7(d->handle, c->x, c->w, c->desc, c->y, MOST_ALGORITHMS,
                                                           &count, choice);
        CHOOSE(choice, count, cudnnGetConvolutionForwardWorkspaceSize, c->x, c->w, c->desc, c->y);
    } else if (c->pass == CONVOLUTION_DX) {
        cudnnConvolutionBwdDataAlgoPerf_t choice[MOST_ALGORITHMS];
        status = d->cudnnGetConvolutionBackwardDataAlgorithm_v7(d->handle, c->w, c->y, c->desc, c->x, MOST_ALGORITHMS,
                                                                &count, choice);
        CHOOSE(choice, count, cudnnGetConvolutionBackwardDataWorkspaceSize, c->w, c->y, c->desc, c->x);
    } else {
        cudnnConvolutionBwdFilterAlgoPerf_t choice[MOST_ALGORITHMS];
        status = d->cudnnGetConvolutionBackwardFilterAlgorithm_v7(d->handle, c->x, c->y, c->desc, c->w, MOST_ALGORITHMS,
                                                                  &count, choice);
        CHOOSE(choice, count, cudnnGetConvolutionBackwardFilterWorkspaceSize, c->x, c->y, c->desc, c->w);
    }
    return status ? status : found ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

bool convolution_prepare(Convolution **out, ConvolutionPass pass, const ConvolutionSpec *spec, Backend *backend,
                         Err *err) {
    Dnn *dnn;
    *out = NULL;
    if (!dnn_open(&dnn, backend, err)) return false;
    Convolution *c = *out = mem_zalloc(1, sizeof *c);
    c->dnn = dnn;
    c->pass = pass;
    cudnnStatus_t status = describe(c, spec, backend->tf32);
    if (!status) status = choose(c);
    if (!status) return true;
    static const char *const passes[] = {"forward", "input gradient", "weight gradient"};
    char what[160];
    snprintf(what, sizeof what, "%s of a %dx%d convolution of %lldx%lldx%lldx%lld to %lld channels, %s", passes[pass],
             spec->kernel, spec->kernel, (long long)spec->batch, (long long)spec->height, (long long)spec->width,
             (long long)spec->ins, (long long)spec->outs, dtype_name(spec->type));
    convolution_release(c);
    *out = NULL;
    return fail(dnn, status, what, err);
}

void convolution_run(const Convolution *c, const KernelCall *call, void *out, const void *a, const void *b,
                     void *work) {
    const Dnn *d = c->dnn;
    const float one = 1, zero = 0;
    const size_t bytes = CONVOLUTION_WORKSPACE;
    cudnnStatus_t status;
    if (c->pass == CONVOLUTION_FORWARD)
        status = d->cudnnConvolutionForward(d->handle, &one, c->x, a, c->w, b, c->desc,
                                            (cudnnConvolutionFwdAlgo_t)c->algorithm, work, bytes, &zero, c->y, out);
    else if (c->pass == CONVOLUTION_DX)
        status =
            d->cudnnConvolutionBackwardData(d->handle, &one, c->w, b, c->y, a, c->desc,
                                            (cudnnConvolutionBwdDataAlgo_t)c->algorithm, work, bytes, &zero, c->x, out);
    else
        status = d->cudnnConvolutionBackwardFilter(d->handle, &one, c->x, b, c->y, a, c->desc,
                                                   (cudnnConvolutionBwdFilterAlgo_t)c->algorithm, work, bytes, &zero,
                                                   c->w, out);
    if (status) cuda_library_failed(call->backend, call->node->name, "cuDNN", d->cudnnGetErrorString(status));
}

void convolution_release(Convolution *c) {
    const Dnn *d = c->dnn;
    if (c->desc) d->cudnnDestroyConvolutionDescriptor(c->desc);
    if (c->w) d->cudnnDestroyFilterDescriptor(c->w);
    if (c->x) d->cudnnDestroyTensorDescriptor(c->x);
    if (c->y) d->cudnnDestroyTensorDescriptor(c->y);
    free(c);
}
