/* caller.h - a call of the library leaves its caller's thread as it was, and computes the same whatever it finds there.
 */
#ifndef MALA_CALLER_H
#define MALA_CALLER_H

#include <fenv.h>
#include <signal.h>

typedef struct {
    fenv_t floats;
    sigset_t signals;
} Caller;

/* From here on numbers are rounded to nearest, subnormals count and no exception traps; threads that are started
 * inherit that. */
void caller_enter(Caller *c);
/* Rounding, masks and flags of the floating-point unit are as they were, and the signal mask, also where the call was
 * given up in the middle (Rescue). */
void caller_leave(const Caller *c);

#endif
