#include "app/epoch_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "epoch 7/300", padded to the widest of the run */
static int label_text(char *out, size_t size, int epoch, int epochs) {
    char widest[48];
    int width = snprintf(widest, sizeof widest, "epoch %d/%d", epochs, epochs);
    int used = snprintf(out, size, "epoch %d/%d", epoch, epochs);
    return snprintf(out + used, size - (size_t)used, "%*s", width - used, "") + used;
}

void epoch_report_heading(Log *log, int epochs, bool has_top5) {
    char label[48];
    int width = label_text(label, sizeof label, 1, epochs);
    log_info(log, "%*s  train loss  val loss     top-1%s  images/s     left", width, "", has_top5 ? "     top-5" : "");
}

/* What is not finite is no result. */
static const char *loss_text(char out[24], double loss) {
    snprintf(out, 24, isfinite(loss) ? "%.4f" : "none", loss);
    return out;
}

void epoch_report(Log *log, const EpochReport *r) {
    char label[48], top5[16] = "", rate[32], left[32], train[24], val[24];
    label_text(label, sizeof label, r->epoch, r->epochs);
    if (r->has_top5) snprintf(top5, sizeof top5, "  %6.2f %%", 100 * r->top5);
    snprintf(rate, sizeof rate, r->images_per_second < 10 ? "%.1f" : "%.0f", r->images_per_second);
    duration_text(left, r->seconds_left);
    log_info(log, "%s  %10s  %8s  %6.2f %%%s  %8s  %7s%s", label, loss_text(train, r->train_loss),
             loss_text(val, r->val_loss), 100 * r->top1, top5, rate, left, r->best ? " *" : "");
}
