/* backend.c - what is known of a kernel's call without knowing the device. */
#include "backend/backend.h"

double call_bytes(const KernelCall *c) {
    const Node *n = c->node;
    double bytes = 0;
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        Val v = c->graph->operand[n->first + i];
        bool output = i >= n->n_in, updated = !output && node_def(n)->mutates >> i & 1;
        if (v == NO_VAL || !(output ? c->out[i - n->n_in] : c->in[i])) continue;
        const Value *x = graph_value(c->graph, v);
        bytes += (double)shape_count(&x->shape) * (double)dtype_size(x->dtype) * (updated ? 2 : 1);
    }
    return bytes;
}
