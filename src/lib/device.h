/* device.h - which device a run computes on: what --device says, and what "auto" makes of it. */
#ifndef MALA_APP_DEVICE_H
#define MALA_APP_DEVICE_H

#include "lib/config.h"
#include "backend/backend.h"
#include "base/log.h"

/* Opens the device a config asks for. auto takes the first GPU when it is usable, the CPU otherwise, and leaves why in
 * out->chosen; what is asked for by name is never replaced. False: EXIT_DEVICE, EXIT_USAGE, EXIT_MEMORY. */
bool config_open_backend(Backend *out, const Config *c, Err *err);

/* Opens the kernels of that device without the device, for plans that are only measured (PlanOptions.measure). */
bool config_open_measuring(Backend *out, const Config *c, Err *err);

/* Says on stderr what computes and why. */
void device_announce(const Backend *b, Log *log);

#endif
