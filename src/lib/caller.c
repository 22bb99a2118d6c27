#include "lib/caller.h"

void caller_enter(Caller *c) {
    pthread_sigmask(SIG_BLOCK, NULL, &c->signals);
    (void)feholdexcept(&c->floats);
    (void)fesetenv(FE_DFL_ENV);
}

void caller_leave(const Caller *c) {
    (void)fesetenv(&c->floats);
    pthread_sigmask(SIG_SETMASK, &c->signals, NULL);
}
