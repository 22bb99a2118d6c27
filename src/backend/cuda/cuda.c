/* cuda.c - an NVIDIA GPU as a Backend: memory, streams, marks and capture over device.h. Kernels are elsewhere. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CUDA's current device is the calling thread's own, cuda:0 at first, so every method says which one it means. A
 * failure shows at once in whatever is asked of the device next. */
static void cuda_enter(Backend *b) { (void)device_select(cuda_of(b)->device, &(Err){0}); }

/* ---- memory ---- */

/* The length lies in front of what is handed out, on the host: device memory cannot be read here. */
typedef struct {
    void *memory;
    size_t bytes;
} Piece;

typedef struct {
    Cuda cuda;
    Piece *pieces;
    int n_pieces;
} Self;

static Self *self_of(Backend *b) { return b->self; }

static bool fail_full(const Cuda *c, size_t bytes, const Err *why, Err *err) {
    size_t left = 0;
    (void)device_memory_free(&left, &(Err){0});
    return err_set(
        err, EXIT_DEVICE,
        "cuda:%d: no memory for %.0f MiB beside the %.0f MiB taken, %.0f MiB of %.0f are free (%s) - use a smaller "
        "batch or smaller images, or end other programs on this GPU",
        c->device, (double)bytes / 0x1p20, (double)c->allocated / 0x1p20, (double)left / 0x1p20,
        (double)c->info.memory / 0x1p20, why->text);
}

static bool cuda_alloc(Backend *b, void **memory, size_t bytes, Err *err) {
    Self *s = self_of(b);
    Cuda *c = &s->cuda;
    *memory = NULL;
    if (bytes == 0) return true; /* nobody looks there, and the address 0 says so */
    Err why = {0};
    cuda_enter(b);
    if (!device_alloc(memory, bytes, &why)) return fail_full(c, bytes, &why, err);
    s->pieces = mem_resize(s->pieces, (size_t)s->n_pieces + 1, sizeof *s->pieces);
    s->pieces[s->n_pieces++] = (Piece){*memory, bytes};
    c->allocated += bytes;
    c->most_allocated = MAX(c->most_allocated, c->allocated);
    return device_clear(*memory, bytes, c->stream[STREAM_COMPUTE], err) &&
           device_stream_wait(c->stream[STREAM_COMPUTE], err);
}

static void cuda_free(Backend *b, void *memory) {
    Self *s = self_of(b);
    if (!memory) return;
    int i = 0;
    while (i < s->n_pieces && s->pieces[i].memory != memory) i++;
    CHECK(i < s->n_pieces, "cuda: %p was not handed out", memory);
    s->cuda.allocated -= s->pieces[i].bytes;
    s->pieces[i] = s->pieces[--s->n_pieces];
    device_free(memory);
}

static void cuda_memory_used(Backend *b, size_t *now, size_t *most, size_t *beside) {
    const Cuda *c = cuda_of(b);
    size_t left = c->info.memory;
    cuda_enter(b);
    (void)device_memory_free(&left, &(Err){0});
    *now = c->allocated;
    *most = c->most_allocated;
    *beside = c->info.memory - MIN(c->info.memory, left + c->allocated);
}

static bool cuda_host_alloc(Backend *b, void **memory, size_t bytes, Err *err) {
    *memory = NULL;
    if (bytes == 0) return true;
    cuda_enter(b);
    if (!device_host_alloc(memory, bytes, err)) return false;
    memset(*memory, 0, bytes);
    return true;
}

static void cuda_host_free(Backend *b, void *memory) {
    (void)b;
    if (memory) device_host_free(memory);
}

/* ---- transfers ---- */

static DeviceStream stream_of(Backend *b, int stream) {
    CHECK(stream >= 0 && stream < BACKEND_STREAMS, "stream %d", stream);
    cuda_enter(b);
    return cuda_of(b)->stream[stream];
}

static bool cuda_upload(Backend *b, void *device, const void *host, size_t bytes, int stream, Err *err) {
    return bytes == 0 || device_upload(device, host, bytes, stream_of(b, stream), err);
}

static bool cuda_download(Backend *b, void *host, const void *device, size_t bytes, int stream, Err *err) {
    return bytes == 0 || device_download(host, device, bytes, stream_of(b, stream), err);
}

static bool cuda_copy(Backend *b, void *to, const void *from, size_t bytes, int stream, Err *err) {
    return bytes == 0 || device_copy(to, from, bytes, stream_of(b, stream), err);
}

void *cuda_compute_stream(const Backend *backend) { return cuda_of(backend)->stream[STREAM_COMPUTE]; }

void cuda_launch_failed(Backend *backend, const char *node, int code) {
    (void)device_fail(code, node, &cuda_of(backend)->failed);
}

void cuda_library_failed(Backend *backend, const char *node, const char *library, const char *why) {
    err_set(&cuda_of(backend)->failed, EXIT_DEVICE, "%s: %s: %s - see nvidia-smi, and dmesg for NVRM lines", node,
            library, why);
}

static bool no_launch_failed(const Backend *b, Err *err) {
    const Err *failed = &cuda_of(b)->failed;
    return !failed->code || err_set(err, failed->code, "%s", failed->text);
}

static bool cuda_wait(Backend *b, int stream, Err *err) {
    return no_launch_failed(b, err) && device_stream_wait(stream_of(b, stream), err);
}

/* ---- marks are events ---- */

static DeviceEvent event_of(BackendMark *mark) { return (DeviceEvent)(void *)mark; }

static bool cuda_mark_new(Backend *b, BackendMark **out, Err *err) {
    cuda_enter(b);
    DeviceEvent event = NULL;
    bool ok = device_event_new(&event, err);
    *out = (BackendMark *)(void *)event;
    return ok;
}

static void cuda_mark_free(Backend *b, BackendMark *mark) {
    (void)b;
    if (mark) device_event_free(event_of(mark));
}

static bool cuda_mark(Backend *b, BackendMark *mark, int stream, Err *err) {
    return device_event_record(event_of(mark), stream_of(b, stream), err);
}

static bool cuda_order(Backend *b, int stream, BackendMark *mark, Err *err) {
    return device_event_order(stream_of(b, stream), event_of(mark), err);
}

static bool cuda_await(Backend *b, BackendMark *mark, Err *err) {
    cuda_enter(b);
    return no_launch_failed(b, err) && device_event_wait(event_of(mark), err);
}

static bool cuda_elapsed(Backend *b, BackendMark *from, BackendMark *to, double *seconds, Err *err) {
    (void)b;
    return device_event_elapsed(event_of(from), event_of(to), seconds, err);
}

/* ---- capture ---- */

static bool cuda_capture_begin(Backend *b, Err *err) {
    return no_launch_failed(b, err) && device_capture_begin(stream_of(b, STREAM_COMPUTE), err);
}

/* What a launch met in a recording that failed is its failure alone: nothing was done, and the first such launch says
 * why. In one that succeeds, it is the device's. */
static bool cuda_capture_end(Backend *b, void **captured, Err *err) {
    DeviceGraph graph = NULL;
    Err *launch = &cuda_of(b)->failed, ended = {0};
    bool ok = device_capture_end(stream_of(b, STREAM_COMPUTE), &graph, &ended);
    *captured = graph;
    if (ok) return true;
    if (launch->code) ended = *launch;
    *launch = (Err){0};
    return err_set(err, ended.code, "%s", ended.text);
}

static bool cuda_capture_launch(Backend *b, void *captured, Err *err) {
    return device_graph_launch(captured, stream_of(b, STREAM_COMPUTE), err);
}

static void cuda_capture_free(Backend *b, void *captured) {
    (void)b;
    if (captured) device_graph_free(captured);
}

/* ---- opening and closing ---- */

static void cuda_close(Backend *b) {
    Self *s = self_of(b);
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        if (s->cuda.library[i].close) s->cuda.library[i].close(s->cuda.library[i].self);
    for (int i = 0; i < BACKEND_STREAMS; i++)
        if (s->cuda.stream[i]) device_stream_free(s->cuda.stream[i]);
    free(s->pieces);
    free(s);
    *b = (Backend){0};
}

/* Machine code runs on its own generation from its own minor version on; beyond the last one listed, the driver
 * translates what the build keeps of that in portable form. The list is the Makefile's, "75 80 86". */
static bool architecture_built(int capability) {
    int last = 0;
    for (const char *at = device_architectures(); *at;) {
        char *end;
        int built = (int)strtol(at, &end, 10);
        if (end == at) break;
        if (built <= capability && built / 10 == capability / 10) return true;
        last = built;
        at = end;
    }
    return capability >= last;
}

bool backend_cuda_usable(int device, Err *err) {
    int count;
    if (!device_count(&count, err)) return false;
    if (device < 0 || device >= count)
        return err_set(err, EXIT_DEVICE, "device: there is no cuda:%d - this machine has %d GPU%s, cuda:0 to cuda:%d",
                       device, count, count == 1 ? "" : "s", count - 1);
    DeviceInfo info;
    if (!device_info(&info, device, err)) return false;
    if (info.major * 10 + info.minor < 75)
        return err_set(err, EXIT_DEVICE,
                       "cuda:%d: %s has compute capability %d.%d, mala needs 7.5 (Turing) or newer - use --device cpu",
                       device, info.name, info.major, info.minor);
    if (!architecture_built(info.major * 10 + info.minor))
        return err_set(err, EXIT_DEVICE,
                       "cuda:%d: this build has no code for %s (compute capability %d.%d), only for %s - build it with "
                       "`make CUDA=1 CUDA_ARCHS=%d%d`, or use --device cpu",
                       device, info.name, info.major, info.minor, device_architectures(), info.major, info.minor);
    return true;
}

static const Backend methods = {.name = "cuda",
                                .kernels = cuda_kernels,
                                .types = KERNEL_TYPES_ALL,
                                .best = DT_BF16,
                                .alloc = cuda_alloc,
                                .free = cuda_free,
                                .memory_used = cuda_memory_used,
                                .host_alloc = cuda_host_alloc,
                                .host_free = cuda_host_free,
                                .upload = cuda_upload,
                                .download = cuda_download,
                                .copy = cuda_copy,
                                .wait = cuda_wait,
                                .mark_new = cuda_mark_new,
                                .mark_free = cuda_mark_free,
                                .mark = cuda_mark,
                                .order = cuda_order,
                                .await = cuda_await,
                                .elapsed = cuda_elapsed,
                                .capture_begin = cuda_capture_begin,
                                .capture_end = cuda_capture_end,
                                .capture_launch = cuda_capture_launch,
                                .capture_free = cuda_capture_free,
                                .enter = cuda_enter,
                                .close = cuda_close};

bool backend_open_cuda(Backend *out, int device, Err *err) {
    *out = (Backend){0};
    if (!backend_cuda_usable(device, err)) return false;
    Self *s = mem_zalloc(1, sizeof *s);
    *out = methods;
    out->self = s;
    s->cuda.device = device;
    bool ok = device_info(&s->cuda.info, device, err) && device_select(device, err);
    for (int i = 0; ok && i < BACKEND_STREAMS; i++) ok = device_stream_new(&s->cuda.stream[i], err);
    if (!ok) {
        cuda_close(out);
        return false;
    }
    const DeviceInfo *info = &s->cuda.info;
    if (info->major < 8) { /* tensor cores for float16 alone, and cuDNN has no bfloat16 */
        out->types &= ~(1u << DT_BF16);
        out->best = DT_F16;
    }
    snprintf(out->description, sizeof out->description, "cuda:%d: %s, %.0f GiB, compute capability %d.%d, CUDA %d.%d",
             device, info->name, (double)info->memory / 0x1p30, info->major, info->minor, info->runtime / 1000,
             info->runtime % 1000 / 10);
    return true;
}

bool backend_kernels_cuda(const Kernel *const **kernels, Err *err) {
    (void)err;
    *kernels = cuda_kernels;
    return true;
}
