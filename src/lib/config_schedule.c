/* config_schedule.c - learning rates and warm-up, as they are for the batch and the epochs at hand. */
#include "lib/config.h"

/* What was given, where it fits; else what auto makes of it. */
static double resolve(double given, bool fits, double otherwise, const char *name, const char *what, double most,
                      Log *log) {
    if (fits) return given;
    if (!isnan(given)) log_warning(log, "%s: %g does not fit %s, %g: %g is taken", name, given, what, most, otherwise);
    return otherwise;
}

Schedule config_schedule(const Config *c, int batch, Log *log) {
    const double epochs = c->sched.epochs, warmup = c->sched.warmup_epochs;
    const double peak = c->optim.lr_base_size ? c->optim.lr * batch / c->optim.lr_base_size : c->optim.lr;
    const char *rate = "the peak learning rate";
    return (Schedule){.peak_lr = peak,
                      .warmup_lr = resolve(c->sched.warmup_lr, c->sched.warmup_lr <= peak, MIN(1e-6, peak / 100),
                                           "sched.warmup_lr", rate, peak, log),
                      .min_lr = resolve(c->sched.min_lr, c->sched.min_lr <= peak, MIN(1e-5, peak / 10), "sched.min_lr",
                                        rate, peak, log),
                      .warmup_epochs = resolve(warmup, warmup < epochs, MIN(5.0, epochs / 10), "sched.warmup_epochs",
                                               "the epochs", epochs, log)};
}
