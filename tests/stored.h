/* stored.h - whether two tensors hold the same bytes, wherever they lie. */
#ifndef MALA_STORED_H
#define MALA_STORED_H

#include <stdlib.h>
#include <string.h>

#include "io/tensor_file.h"

static inline bool stored_same_data(const StoredTensor *x, const StoredTensor *y) {
    Err err = {0};
    StoredTensor a = *x, b = *y;
    const void *of_a, *of_b;
    void *owned_a, *owned_b = NULL;
    CHECK(!stored_tensor_measure(&a) && !stored_tensor_measure(&b), "%s", x->name);
    bool ok = a.bytes == b.bytes && stored_tensor_load(&of_a, &owned_a, &a, &err);
    if (!ok) return false;
    ok = stored_tensor_load(&of_b, &owned_b, &b, &err) && (a.bytes == 0 || memcmp(of_a, of_b, a.bytes) == 0);
    free(owned_a);
    free(owned_b);
    return ok;
}

#endif
