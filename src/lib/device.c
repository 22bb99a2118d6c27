#include "lib/device.h"

#include <stdio.h>
#include <string.h>

/* The middle of "WHERE: what is wrong - what to do". */
static void take_reason(char *out, size_t room, const Err *why) {
    const char *from = strstr(why->text, ": "), *to = strstr(why->text, " - ");
    from = from ? from + 2 : why->text;
    if (!to || to < from) to = from + strlen(from);
    snprintf(out, room, "%.*s", (int)(to - from), from);
}

enum { MOST_GPUS = 16 }; /* that auto looks at */

bool config_open_backend(Backend *out, const Config *c, Err *err) {
    int index;
    switch (config_device(c, &index)) {
    case DEVICE_CUDA: return backend_open_cuda(out, index, err);
    case DEVICE_CPU: return backend_open_cpu(out, config_threads(c), err);
    default: break;
    }
    Err why = {0}; /* keeps the first GPU's reason */
    bool gpu = false;
    for (int i = 0; !gpu && i < MOST_GPUS; i++) gpu = backend_cuda_usable(i, &why) && backend_open_cuda(out, i, &why);
    if (!gpu && !backend_open_cpu(out, config_threads(c), err)) return false;
    if (gpu)
        snprintf(out->chosen, sizeof out->chosen, "the first usable GPU");
    else
        take_reason(out->chosen, sizeof out->chosen, &why);
    return true;
}

bool config_open_measuring(Backend *out, const Config *c, Err *err) {
    int index;
    DeviceKind kind = config_device(c, &index);
    Err why = {0};
    bool gpu = kind == DEVICE_CUDA || (kind == DEVICE_AUTO && backend_cuda_usable(0, &why));
    if (!gpu) return backend_open_cpu(out, 1, err);
    *out = (Backend){.name = "cuda", .types = KERNEL_TYPES_ALL, .best = DT_BF16};
    return backend_kernels_cuda(&out->kernels, err);
}

void device_announce(const Backend *b, Log *log) {
    enum { LINE = 79, BETWEEN = sizeof " (auto: )" - 1 };
    bool chosen = b->chosen[0] != '\0', fits = strlen(b->description) + strlen(b->chosen) + BETWEEN <= LINE;
    if (chosen && fits) {
        log_info(log, "%s (auto: %s)", b->description, b->chosen);
        return;
    }
    log_info(log, "%s", b->description);
    if (chosen) log_info(log, "device auto: %s", b->chosen);
}
