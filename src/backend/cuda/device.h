/* device.h - the few things the CUDA backend asks of a device, as plain C functions: the only door to the CUDA runtime
 * for everything but kernels. device.c opens it; tests/emulate/device.cpp is the same door on a machine without a GPU.
 *
 * Work on a stream is queued and done in order; a failure of queued work shows in a later call, as with CUDA itself.
 * All functions answer false with EXIT_DEVICE and one line that carries the runtime's own words. */
#ifndef MALA_CUDA_DEVICE_H
#define MALA_CUDA_DEVICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/base.h"

/* the runtime's own handle types, without its headers */
typedef struct CUstream_st *DeviceStream;
typedef struct CUevent_st *DeviceEvent;
typedef struct CUgraphExec_st *DeviceGraph;

typedef struct {
    char name[96];
    int major, minor; /* compute capability: 9, 0 */
    int multiprocessors;
    size_t memory;        /* bytes in all */
    size_t shared_memory; /* most bytes of shared memory that a block may ask for */
    int driver, runtime;  /* versions as CUDA counts them: 13000 is 13.0 */
} DeviceInfo;

/* How many devices there are; 0 is an error, whose text says what is missing (driver, device, permission). */
bool device_count(int *count, Err *err);
bool device_info(DeviceInfo *out, int device, Err *err);
/* Makes a device current for the calling thread and creates its context. */
bool device_select(int device, Err *err);

/* bytes > 0. Running out is EXIT_DEVICE: host memory alone is EXIT_MEMORY. */
bool device_alloc(void **memory, size_t bytes, Err *err);
void device_free(void *memory);
bool device_memory_free(size_t *bytes, Err *err);
/* page-locked host memory: transfers from and to it run beside other work */
bool device_host_alloc(void **memory, size_t bytes, Err *err);
void device_host_free(void *memory);

bool device_stream_new(DeviceStream *out, Err *err);
void device_stream_free(DeviceStream stream);
bool device_stream_wait(DeviceStream stream, Err *err); /* the host waits */

bool device_upload(void *device, const void *host, size_t bytes, DeviceStream stream, Err *err);
bool device_download(void *host, const void *device, size_t bytes, DeviceStream stream, Err *err);
bool device_copy(void *to, const void *from, size_t bytes, DeviceStream stream, Err *err);
bool device_clear(void *device, size_t bytes, DeviceStream stream, Err *err); /* to zero */

bool device_event_new(DeviceEvent *out, Err *err);
void device_event_free(DeviceEvent event);
bool device_event_record(DeviceEvent event, DeviceStream stream, Err *err);
bool device_event_order(DeviceStream stream, DeviceEvent event, Err *err); /* the stream waits */
bool device_event_wait(DeviceEvent event, Err *err);                       /* the host waits */
bool device_event_elapsed(DeviceEvent from, DeviceEvent to, double *seconds, Err *err);

/* What is queued on the stream between begin and end is recorded instead of done; launch does it all, in order. */
bool device_capture_begin(DeviceStream stream, Err *err);
bool device_capture_end(DeviceStream stream, DeviceGraph *out, Err *err);
bool device_graph_launch(DeviceGraph graph, DeviceStream stream, Err *err);
void device_graph_free(DeviceGraph graph);

/* What the runtime says of one of its error codes; takes it off the runtime's record. False. */
bool device_fail(int code, const char *what, Err *err);

/* The compute capabilities that the kernels in this program were compiled for, as "75 80 90"; the last one also in the
 * portable form that the driver of a newer GPU compiles. */
const char *device_architectures(void);

#ifdef __cplusplus
}
#endif

#endif
