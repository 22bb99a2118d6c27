/* pickle_torch.h - the globals that a checkpoint may name: those that carry weights, which mean something here, and
 * those that are stepped over. For pickle.c alone. */
#ifndef MALA_PICKLE_TORCH_H
#define MALA_PICKLE_TORCH_H

#include "io/pickle.h"

/* Has this "module\nname" a meaning here? */
bool pickle_global_known(PickleText text);
/* Is it one that checkpoints carry beside the weights, harmless and of no use here? */
bool pickle_global_inert(PickleText text);
/* Fills *out with what calling a known global with a tuple of arguments would give: a dict, a tensor, a tuple. */
bool pickle_reduce(PickleValue *out, const Pickle *p, PickleId global, PickleId arguments, Err *err);
/* Fills *out with the storage that a persistent id ("storage", type, record, device, elements) stands for. */
bool pickle_persistent(PickleValue *out, const Pickle *p, PickleId id, Err *err);

#endif
