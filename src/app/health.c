#include "app/health.h"

#include <math.h>

#define MAX_BAD_STEPS 20 /* steps in a row without a finite gradient before the run gives up */

/* That float16 cannot hold a scaled gradient is no fault as long as the scale can fall. */
bool health_step(Health *h, int64_t step, float used, float loss, float norm, Log *log, Err *err) {
    bool finite = isfinite(loss) && isfinite(norm);
    if (h->scaled) loss_scale_update(&h->scale, used, finite);
    if (finite) {
        h->bad_steps = 0;
        return true;
    }
    if (isfinite(loss) && used > LOSS_SCALE_LEAST) {
        log_info(log, "step %lld: a gradient beyond float16 at loss scale %g: step skipped", (long long)step,
                 (double)used);
        return true;
    }
    h->bad_steps++;
    log_warning(log, "step %lld: loss %g, gradient norm %g: step skipped", (long long)step, (double)loss, (double)norm);
    if (h->bad_steps < MAX_BAD_STEPS) return true;
    return err_set(err, EXIT_HEALTH, "training: %d steps in a row gave no finite gradient - lower optim.lr or set "
                   "optim.clip_grad", h->bad_steps);
}
