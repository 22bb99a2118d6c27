/* device.cpp - backend/cuda/device.h on a machine without a GPU. Streams are queues whose work is done at once, or, for
 * streams a test declares late, at the last moment that their order allows. Every piece of memory lies between pages
 * that fault, is full of 0xff at first, and is looked over for writes behind its end when it is freed. What CUDA
 * refuses during a capture (waiting, taking memory) is refused here. */
#include "backend/cuda/kernel.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <vector>

#include "control.h"

extern "C" {
#include "backend/cuda/device.h"
}

typedef std::function<void()> Work;

struct CUstream_st {
    int device;
    std::deque<Work> queue;
    bool late;
    std::vector<Work> *recording; /* during a capture */
};

struct CUevent_st {
    int device;
    CUstream_st *stream;
    int64_t set, passed; /* how often it was set, and passed */
    double time;
};

struct CUgraphExec_st {
    std::vector<Work> work;
};

/* ---- the device, as the test wants it ---- */

static const EmuGpu usual = {1, true, 9, 0, (size_t)16 << 30, "90"};
static EmuGpu gpu = usual;
static EmuCounts counts;
static EmuFailure failing;
static unsigned held;
static __thread int current; /* each thread's device */
static bool late[2];
/* compute and upload of the device opened last, on which kernels run; then those of one that was open before */
static CUstream_st *streams[4];

void emu_set_gpu(const EmuGpu *g) {
    CHECK(!streams[0], "a device is open");
    gpu = g ? *g : usual;
    held = 0;
    counts.most = counts.now;
}

void emu_hold(unsigned gpus) { held = gpus; }

void emu_set_late(int stream, bool value) {
    late[stream] = value;
    if (streams[stream]) streams[stream]->late = value;
}

void emu_fail_next(EmuFailure what) { failing = what; }
EmuCounts emu_counts(void) { return counts; }

/* Fails when the test asked for it. */
static bool passes(EmuFailure what, const char *doing, const char *words, Err *err) {
    if (failing != what) return true;
    failing = EMU_FAIL_NOTHING;
    return err_set(err, EXIT_DEVICE, "cuda: %s: %s - see nvidia-smi", doing, words);
}

static bool capturing() { return streams[0] && streams[0]->recording; }

static bool not_capturing(const char *doing, Err *err) {
    return !capturing() || err_set(err, EXIT_DEVICE, "cuda: %s: operation not permitted when stream is capturing "
                                   "(cudaErrorStreamCaptureUnsupported)", doing);
}

/* ---- queues ---- */

static void step(CUstream_st *s) {
    Work work = std::move(s->queue.front());
    s->queue.pop_front();
    work();
}

static void drain(CUstream_st *s) {
    while (!s->queue.empty()) step(s);
}

static void submit(CUstream_st *s, Work work) {
    counts.submitted++;
    if (s->recording) {
        s->recording->push_back(std::move(work));
        return;
    }
    s->queue.push_back(std::move(work));
    if (!s->late) drain(s);
}

/* Does what lies in front of the setting number n of an event. */
static void reach(CUevent_st *e, int64_t n) {
    while (e->passed < n) {
        CHECK(!e->stream->queue.empty(), "emulation: an event that is never passed");
        step(e->stream);
    }
}

void emu_submit(Work work) {
    CHECK(!streams[0] || streams[0]->device == current, "emulation: a kernel from a thread that is on device %d", current);
    if (streams[0])
        submit(streams[0], std::move(work));
    else
        work(); /* a test of kernels alone opens no device */
}

/* ---- devices ---- */

bool device_count(int *count, Err *err) {
    *count = gpu.count;
    if (!gpu.driver) return err_set(err, EXIT_DEVICE, "device: no NVIDIA driver found - install one, or use --device cpu");
    return gpu.count > 0 || err_set(err, EXIT_DEVICE, "device: no NVIDIA GPU found - check nvidia-smi, or use --device cpu");
}

bool device_info(DeviceInfo *out, int device, Err *err) {
    *out = DeviceInfo();
    if (device >= gpu.count) return err_set(err, EXIT_DEVICE, "cuda: no device %d", device);
    snprintf(out->name, sizeof out->name, "emulated GPU");
    out->major = gpu.major, out->minor = gpu.minor;
    out->multiprocessors = 4;
    out->memory = gpu.memory;
    out->shared_memory = SHARED_LIMIT;
    out->driver = out->runtime = 13000;
    return true;
}

bool device_select(int device, Err *err) {
    CHECK(device >= 0 && device < gpu.count, "emulation: no device %d", device);
    if (held >> device & 1)
        return err_set(err, EXIT_DEVICE, "cuda: choosing a GPU: all CUDA-capable devices are busy or unavailable "
                       "(cudaErrorDevicesUnavailable) - another program holds this GPU for itself");
    current = device;
    return true;
}
const char *device_architectures(void) { return gpu.architectures; }

bool device_fail(int code, const char *what, Err *err) {
    return err_set(err, EXIT_DEVICE, "cuda: %s: error %d", what, code);
}

/* ---- memory ---- */

enum { SLACK = 0xa5 };

struct Piece {
    char *map;
    size_t map_bytes, bytes;
    bool device; /* or host memory */
    int number;  /* of the device */
};
static std::map<void *, Piece> &pieces() {
    static std::map<void *, Piece> all;
    return all;
}

/* The end lies against the upper guard page, as near as 256-byte alignment lets it. */
static void *take(size_t bytes, bool device) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = ROUND_UP(bytes, (size_t)256), whole = ROUND_UP(room, page);
    char *map = (char *)mmap(NULL, whole + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(map != MAP_FAILED, "emulation: no memory");
    char *memory = map + page + whole - room;
    memset(memory, 0xff, bytes);
    memset(memory + bytes, SLACK, room - bytes);
    mprotect(map, page, PROT_NONE);
    mprotect(map + page + whole, page, PROT_NONE);
    pieces()[memory] = Piece{map, whole + 2 * page, bytes, device, current};
    if (emu_watch && device) emu_watch->memory(memory, bytes, true);
    return memory;
}

static void give_back(void *memory, bool device) {
    for (CUstream_st *s : streams) /* as cudaFree waits for the device */
        if (s) drain(s);
    auto at = pieces().find(memory);
    CHECK(at != pieces().end() && at->second.device == device, "emulation: %p was never handed out", memory);
    Piece p = at->second;
    for (size_t i = p.bytes; i < ROUND_UP(p.bytes, (size_t)256); i++)
        CHECK(((unsigned char *)memory)[i] == SLACK, "emulation: a write %zu bytes behind an allocation of %zu", i - p.bytes,
              p.bytes);
    if (emu_watch && device) emu_watch->memory(memory, p.bytes, false);
    munmap(p.map, p.map_bytes);
    pieces().erase(at);
    if (device) counts.now -= p.bytes;
}

bool device_alloc(void **memory, size_t bytes, Err *err) {
    if (!not_capturing("taking device memory", err)) return false;
    if (bytes > gpu.memory - counts.now)
        return err_set(err, EXIT_DEVICE, "cuda: taking device memory: out of memory (cudaErrorMemoryAllocation)");
    *memory = take(bytes, true);
    counts.now += bytes;
    counts.most = MAX(counts.most, counts.now);
    counts.allocations++;
    return true;
}

void device_free(void *memory) { give_back(memory, true); }

bool device_memory_free(size_t *bytes, Err *) {
    *bytes = gpu.memory - counts.now;
    return true;
}

bool device_host_alloc(void **memory, size_t bytes, Err *err) {
    if (!not_capturing("taking page-locked host memory", err)) return false;
    *memory = take(bytes, false);
    counts.allocations++;
    return true;
}

void device_host_free(void *memory) { give_back(memory, false); }

/* ---- streams ---- */

bool device_stream_new(DeviceStream *out, Err *) {
    int i = streams[0] && !streams[1];
    if (i == 0) {
        CHECK(!streams[2], "emulation: two devices at a time, closed in reverse order");
        streams[2] = streams[0], streams[3] = streams[1], streams[1] = NULL;
    }
    *out = streams[i] = new CUstream_st{current, {}, late[i], NULL};
    return true;
}

void device_stream_free(DeviceStream stream) {
    drain(stream);
    for (CUstream_st *&s : streams)
        if (s == stream) s = NULL;
    if (!streams[0] && !streams[1]) {
        streams[0] = streams[2], streams[1] = streams[3];
        streams[2] = streams[3] = NULL;
    }
    delete stream;
}

bool device_stream_wait(DeviceStream stream, Err *err) {
    if (!not_capturing("waiting for the GPU", err)) return false;
    counts.waits++;
    drain(stream);
    return passes(EMU_FAIL_WAIT, "waiting for the GPU", "an illegal memory access was encountered "
                  "(cudaErrorIllegalAddress)", err);
}

/* Both ends of a transfer must be whole pieces' insides: CUDA would fault or corrupt, here it is said. */
static void check_device_range(const void *memory, size_t bytes, const CUstream_st *stream) {
    auto at = pieces().upper_bound((void *)memory);
    CHECK(at != pieces().begin(), "emulation: a transfer outside device memory");
    --at;
    CHECK(at->second.device && (const char *)memory + bytes <= (char *)at->first + at->second.bytes,
          "emulation: a transfer of %zu bytes beyond device memory", bytes);
    CHECK(at->second.number == stream->device, "emulation: memory of device %d, a stream of %d", at->second.number,
          stream->device);
}

bool device_upload(void *device, const void *host, size_t bytes, DeviceStream stream, Err *err) {
    check_device_range(device, bytes, stream);
    submit(stream, [=] { memcpy(device, host, bytes); });
    return passes(EMU_FAIL_UPLOAD, "uploading", "unspecified launch failure (cudaErrorLaunchFailure)", err);
}

bool device_download(void *host, const void *device, size_t bytes, DeviceStream stream, Err *) {
    check_device_range(device, bytes, stream);
    submit(stream, [=] { memcpy(host, device, bytes); });
    return true;
}

bool device_copy(void *to, const void *from, size_t bytes, DeviceStream stream, Err *) {
    check_device_range(to, bytes, stream);
    check_device_range(from, bytes, stream);
    submit(stream, [=] { memcpy(to, from, bytes); });
    return true;
}

bool device_clear(void *device, size_t bytes, DeviceStream stream, Err *) {
    check_device_range(device, bytes, stream);
    submit(stream, [=] { memset(device, 0, bytes); });
    return true;
}

/* ---- events ---- */

bool device_event_new(DeviceEvent *out, Err *) {
    *out = new CUevent_st{current, NULL, 0, 0, 0};
    return true;
}

void device_event_free(DeviceEvent event) {
    for (CUstream_st *s : streams)
        if (s) drain(s);
    delete event;
}

bool device_event_record(DeviceEvent event, DeviceStream stream, Err *) {
    CHECK(event->device == stream->device, "emulation: an event of device %d on a stream of %d", event->device,
          stream->device);
    event->stream = stream;
    int64_t n = ++event->set;
    submit(stream, [=] { event->passed = MAX(event->passed, n), event->time = time_now(); });
    return true;
}

bool device_event_order(DeviceStream stream, DeviceEvent event, Err *) {
    int64_t n = event->set;
    if (n > 0) submit(stream, [=] { reach(event, n); });
    return true;
}

bool device_event_wait(DeviceEvent event, Err *err) {
    if (!not_capturing("waiting for the GPU", err)) return false;
    counts.waits++;
    if (event->set > 0) reach(event, event->set);
    return passes(EMU_FAIL_WAIT, "waiting for the GPU", "an illegal memory access was encountered "
                  "(cudaErrorIllegalAddress)", err);
}

bool device_event_elapsed(DeviceEvent from, DeviceEvent to, double *seconds, Err *err) {
    *seconds = to->time - from->time;
    return (from->passed && to->passed) || err_set(err, EXIT_DEVICE, "cuda: reading the GPU's clock: device not ready");
}

/* ---- capture ---- */

bool device_capture_begin(DeviceStream stream, Err *err) {
    if (!not_capturing("beginning a capture", err)) return false;
    stream->recording = new std::vector<Work>;
    return true;
}

bool device_capture_end(DeviceStream stream, DeviceGraph *out, Err *err) {
    std::vector<Work> *work = stream->recording;
    stream->recording = NULL;
    *out = NULL;
    bool ok = work != NULL && passes(EMU_FAIL_CAPTURE, "ending a capture", "operation would make the legacy stream depend on "
                                     "a capturing blocking stream (cudaErrorStreamCaptureImplicit)", err);
    if (ok) *out = new CUgraphExec_st{*work};
    delete work;
    return ok;
}

bool device_graph_launch(DeviceGraph graph, DeviceStream stream, Err *) {
    counts.graph_launches++;
    for (const Work &work : graph->work) submit(stream, work);
    return true;
}

void device_graph_free(DeviceGraph graph) { delete graph; }
