/* simulated.h - what the tests of half precision share: a small network that has every kind of attention, and it simulated:
 * the double reference with features rounded to their type as they are stored (interpret.h). */
#ifndef MALA_SIMULATED_H
#define MALA_SIMULATED_H

#include "interpret.h"
#include "task/classify.h"

enum { HALF_BATCH = 2, HALF_SIZE = 64, HALF_CLASSES = 10 };

/* As it is trained; and without chance, on pixels that arrive as numbers, for comparisons. */
ClassifySpec half_spec(DType compute);
ClassifySpec half_plain_spec(DType compute);
/* Hyper-parameters of a step. */
void half_hyper(float hyper[HYPER_COUNT], int64_t step, float loss_scale);

/* A network simulated, its parameters those of rule.h. */
typedef struct {
    ClassifyGraph c;
    Interpreter it;
} Simulated;

/* Takes the graph over. */
Simulated simulated_new(ClassifyGraph c);
void simulated_free(Simulated *s);
void simulated_images(Simulated *s, const char *name);
/* The training network after one step on "image" with labels 3 and 7. */
Simulated simulated_step(DType compute, float loss_scale);
/* Logits of "image". */
void simulated_logits(double logits[HALF_CLASSES], DType compute, unsigned fusion);

double relative_l2(const double *want, const double *got, int64_t n);
/* Fails unless least <= error <= most. */
void check_error(const char *what, double error, double least, double most);
/* All gradients together, and each parameter's, in the layout of ROLE_GRAD's buffer. */
void check_gradients(const Simulated *exact, const double *got, const char *what, double least, double all,
                     double each);

#endif
