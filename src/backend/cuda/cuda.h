/* cuda.h - an NVIDIA GPU as a backend. What kernels and library layers find behind Backend.self. */
#ifndef MALA_CUDA_H
#define MALA_CUDA_H

#include "backend/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "backend/backend.h"

/* Libraries that are opened when a kernel first needs them (from its prepare), one session for each backend: whoever
 * opens one leaves its session here with the function that ends it, and backend_open_cuda's close calls that. */
typedef enum { CUDA_LIBRARY_BLAS, CUDA_LIBRARY_DNN, CUDA_LIBRARY_COUNT } CudaLibrary;

typedef struct {
    void *self;
    void (*close)(void *self);
} CudaSession;

typedef struct {
    int device;
    DeviceInfo info;
    DeviceStream stream[BACKEND_STREAMS]; /* 0: where kernels are launched */
    size_t allocated, most_allocated;     /* bytes of device memory: now, and at most so far */
    CudaSession library[CUDA_LIBRARY_COUNT];
    Err failed; /* the first launch that the device refused; wait and await report it */
} Cuda;

static inline Cuda *cuda_of(const Backend *b) { return (Cuda *)b->self; }
/* the cudaStream_t that kernels launch on */
void *cuda_compute_stream(const Backend *backend);
/* Keeps what a refused launch of this node says, until the next wait. code: a cudaError_t */
void cuda_launch_failed(Backend *backend, const char *node, int code);
/* The same for a library's call; why: in the library's words. */
void cuda_library_failed(Backend *backend, const char *node, const char *library, const char *why);

#ifdef __cplusplus
}
#endif

#endif
