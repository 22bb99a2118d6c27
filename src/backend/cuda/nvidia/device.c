/* device.c - device.h over the CUDA runtime. The runtime is linked in, so that the program starts on machines without
 * a driver; the driver's library is opened by the runtime when the first function here is called. */
#include "backend/cuda/device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

/* What to do about the failures that have an answer. */
static const char *advice(cudaError_t e) {
    switch (e) {
    case cudaErrorInsufficientDriver:
        return "install an NVIDIA driver as new as this build's CUDA, or use --device cpu";
    case cudaErrorNoDevice: return "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu";
    case cudaErrorNoKernelImageForDevice: return "build for this GPU: make CUDA=1";
    case cudaErrorMemoryAllocation: return "use a smaller batch or end other programs on this GPU";
    case cudaErrorDevicesUnavailable: return "another program holds this GPU for itself";
    default: return "see nvidia-smi and the kernel's log (dmesg, NVRM lines)";
    }
}

/* cudaGetLastError also takes the error away where it does not stick to the context. */
static bool done(cudaError_t e, const char *what, Err *err) {
    if (e == cudaSuccess) return true;
    (void)cudaGetLastError();
    return err_set(err, EXIT_DEVICE, "cuda: %s: %s (%s) - %s", what, cudaGetErrorString(e), cudaGetErrorName(e),
                   advice(e));
}

/* ---- devices ---- */

bool device_count(int *count, Err *err) {
    *count = 0;
    int driver = 0;
    cudaError_t e = cudaDriverGetVersion(&driver);
    if (e == cudaSuccess && driver == 0)
        return err_set(err, EXIT_DEVICE, "device: no NVIDIA driver found - install one, or use --device cpu");
    e = cudaGetDeviceCount(count);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && *count == 0))
        return err_set(err, EXIT_DEVICE, "device: no NVIDIA GPU found - %s", advice(cudaErrorNoDevice));
    return done(e, "looking for GPUs", err);
}

bool device_info(DeviceInfo *out, int device, Err *err) {
    struct cudaDeviceProp p;
    *out = (DeviceInfo){0};
    if (!done(cudaGetDeviceProperties(&p, device), "reading a GPU's properties", err)) return false;
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    out->major = p.major, out->minor = p.minor;
    out->multiprocessors = p.multiProcessorCount;
    out->memory = p.totalGlobalMem;
    out->shared_memory = p.sharedMemPerBlockOptin;
    return done(cudaDriverGetVersion(&out->driver), "reading the driver's version", err) &&
           done(cudaRuntimeGetVersion(&out->runtime), "reading the runtime's version", err);
}

bool device_select(int device, Err *err) {
    return done(cudaSetDevice(device), "choosing a GPU", err);
}

/* ---- memory ---- */

bool device_alloc(void **memory, size_t bytes, Err *err) {
    return done(cudaMalloc(memory, bytes), "taking device memory", err);
}

void device_free(void *memory) { (void)cudaFree(memory); }

bool device_memory_free(size_t *bytes, Err *err) {
    size_t total;
    return done(cudaMemGetInfo(bytes, &total), "asking for free memory", err);
}

bool device_host_alloc(void **memory, size_t bytes, Err *err) {
    return done(cudaHostAlloc(memory, bytes, cudaHostAllocDefault), "taking page-locked host memory", err);
}

void device_host_free(void *memory) { (void)cudaFreeHost(memory); }

/* ---- streams ---- */

bool device_stream_new(DeviceStream *out, Err *err) {
    /* not tied to the default stream, which nothing here uses */
    return done(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking), "creating a stream", err);
}

void device_stream_free(DeviceStream stream) { (void)cudaStreamDestroy(stream); }

bool device_stream_wait(DeviceStream stream, Err *err) {
    return done(cudaStreamSynchronize(stream), "waiting for the GPU", err);
}

bool device_upload(void *device, const void *host, size_t bytes, DeviceStream stream, Err *err) {
    return done(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "uploading", err);
}

bool device_download(void *host, const void *device, size_t bytes, DeviceStream stream, Err *err) {
    return done(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "downloading", err);
}

bool device_copy(void *to, const void *from, size_t bytes, DeviceStream stream, Err *err) {
    return done(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copying on the GPU", err);
}

bool device_clear(void *device, size_t bytes, DeviceStream stream, Err *err) {
    return done(cudaMemsetAsync(device, 0, bytes, stream), "clearing memory", err);
}

/* ---- events ---- */

bool device_event_new(DeviceEvent *out, Err *err) { return done(cudaEventCreate(out), "creating an event", err); }

void device_event_free(DeviceEvent event) { (void)cudaEventDestroy(event); }

bool device_event_record(DeviceEvent event, DeviceStream stream, Err *err) {
    return done(cudaEventRecord(event, stream), "setting an event", err);
}

bool device_event_order(DeviceStream stream, DeviceEvent event, Err *err) {
    return done(cudaStreamWaitEvent(stream, event, 0), "ordering streams", err);
}

bool device_event_wait(DeviceEvent event, Err *err) {
    return done(cudaEventSynchronize(event), "waiting for the GPU", err);
}

bool device_event_elapsed(DeviceEvent from, DeviceEvent to, double *seconds, Err *err) {
    float ms = 0;
    bool ok = done(cudaEventElapsedTime(&ms, from, to), "reading the GPU's clock", err);
    *seconds = (double)ms / 1e3;
    return ok;
}

/* ---- capture ---- */

/* Thread-local: the loader's threads may do to the host's memory what they like meanwhile. */
bool device_capture_begin(DeviceStream stream, Err *err) {
    return done(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture", err);
}

bool device_capture_end(DeviceStream stream, DeviceGraph *out, Err *err) {
    cudaGraph_t graph = NULL;
    *out = NULL;
    if (!done(cudaStreamEndCapture(stream, &graph), "ending a capture", err)) return false;
    bool ok = done(cudaGraphInstantiate(out, graph, 0), "making a graph executable", err);
    (void)cudaGraphDestroy(graph);
    return ok;
}

bool device_graph_launch(DeviceGraph graph, DeviceStream stream, Err *err) {
    return done(cudaGraphLaunch(graph, stream), "launching a graph", err);
}

void device_graph_free(DeviceGraph graph) { (void)cudaGraphExecDestroy(graph); }

bool device_fail(int code, const char *what, Err *err) { return done((cudaError_t)code, what, err); }

const char *device_architectures(void) { return MALA_CUDA_ARCHS; }
