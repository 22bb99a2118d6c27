/* pickle_torch.h - what the few globals that carry weights mean. For pickle.c alone. */
#ifndef MALA_PICKLE_TORCH_H
#define MALA_PICKLE_TORCH_H

#include "io/pickle.h"

/* Has this "module\nname" a meaning here? */
bool pickle_global_known(PickleText text);
/* Fills *out with what calling a known global with a tuple of arguments would give: a dict, a tensor, a tuple. */
bool pickle_reduce(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err);
/* Fills *out with the storage that a persistent id ("storage", type, record, device, elements) stands for. */
bool pickle_persistent(PickleValue *out, const Pickle *p, PickleId id, Err *err);

#endif
