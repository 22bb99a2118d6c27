#include "task/optimizer.h"

#include <math.h>

float optimizer_lr(const OptimizerConfig *c, int64_t step) {
    if (step < c->warmup_steps)
        return c->warmup_lr + (c->lr - c->warmup_lr) * (float)step / (float)c->warmup_steps;
    if (c->total_steps <= c->warmup_steps) return c->lr;
    double t = (double)(step - c->warmup_steps) / (double)(c->total_steps - c->warmup_steps);
    return (float)(c->min_lr + 0.5 * (c->lr - c->min_lr) * (1 + cos(3.14159265358979323846 * MIN(t, 1.0))));
}

void optimizer_hyper(const OptimizerConfig *c, int64_t step, float hyper[HYPER_COUNT]) {
    for (int i = 0; i < HYPER_COUNT; i++) hyper[i] = 0;
    hyper[HYPER_LR] = optimizer_lr(c, step);
    hyper[HYPER_WEIGHT_DECAY] = c->weight_decay;
    hyper[HYPER_BETA1] = c->beta1;
    hyper[HYPER_BETA2] = c->beta2;
    hyper[HYPER_EPS] = c->eps;
    hyper[HYPER_CORRECTION1] = (float)(1 - pow(c->beta1, (double)(step + 1)));
    hyper[HYPER_CORRECTION2] = (float)(1 - pow(c->beta2, (double)(step + 1)));
    hyper[HYPER_CLIP] = c->clip;
    float ramp = (float)((1.0 + (double)step) / (10.0 + (double)step));
    hyper[HYPER_EMA_DECAY] = c->ema_ramp ? MIN(c->ema_decay, ramp) : c->ema_decay;
    hyper[HYPER_INV_SCALE] = 1;
}

void loss_scale_update(LossScale *s, float used, bool finite) {
    if (used != s->scale) return;
    if (finite && ++s->good < LOSS_SCALE_PATIENCE) return;
    s->scale = finite ? MIN(2 * used, LOSS_SCALE_MOST) : MAX(used / 2, LOSS_SCALE_LEAST);
    s->good = 0;
}

Val optimizer_emit(Graph *g, Val hyper, bool ema) {
    Val norm = op_grad_norm(g, graph_state_group(g, ROLE_GRAD, PARAMS_ALL), hyper);
    for (int group = PARAMS_DECAYED; group <= PARAMS_OTHER; group++)
        op_adamw(g, graph_state_group(g, ROLE_WEIGHT, group), graph_state_group(g, ROLE_GRAD, group),
                 graph_state_group(g, ROLE_MOMENT1, group), graph_state_group(g, ROLE_MOMENT2, group), norm, hyper,
                 group == PARAMS_DECAYED);
    if (ema)
        op_ema(g, graph_state_group(g, ROLE_WEIGHT, PARAMS_ALL), graph_state_group(g, ROLE_EMA, PARAMS_ALL), norm,
               hyper);
    return norm;
}
