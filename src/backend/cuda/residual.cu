/* residual.cu - a branch added to the stream, y = x + keep gamma u, and its gradients. Memory is the limit: 3 features
 * an element forward and backward, backward with dgamma from the same pass. */
#include "backend/cuda/columns.cuh"

/* What a row's branch is multiplied with beside gamma: keep[row / sample_rows], or 1. */
__device__ static inline float keep_of(const float *keep, int64_t row, int64_t sample_rows) {
    return keep ? keep[row / sample_rows] : 1.0f;
}

/* y may be x */
template <class T, int V>
__global__ void residual(T *y, const T *x, const T *u, const float *gamma, const float *keep, int64_t sample_rows,
                         Columns s) {
    ColumnsAt t = columns_at(s, V);
    if (t.row >= t.end) return;
    Vec<float, V> scale = vec_load<V>(gamma + t.channel);
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> a[4], b[4];
        float k[4];
        UNROLL for (int r = 0; r < 4; r++) {
            int64_t at = row + r * s.down;
            if (at >= t.end) continue;
            a[r] = vec_load<V>(x + at * s.channels + t.channel);
            b[r] = vec_load<V>(u + at * s.channels + t.channel);
            k[r] = keep_of(keep, at, sample_rows);
        }
        UNROLL for (int r = 0; r < 4; r++) {
            int64_t at = row + r * s.down;
            if (at >= t.end) continue;
            UNROLL for (int i = 0; i < V; i++)
                a[r].x[i] = from_float<T>(to_float(a[r].x[i]) + k[r] * scale.x[i] * to_float(b[r].x[i]));
            vec_store(y + at * s.channels + t.channel, a[r]);
        }
    }
}

/* the node's row of keep, or NULL */
static const float *keep_operand(const KernelCall *c) {
    const float *keep = c->node->n_in > 3 ? (const float *)c->in[3] : NULL;
    return keep ? keep + c->node->attr.residual.stream * call_in(c, 1)->dim[0] : NULL;
}

static void residual_run(const KernelCall *c) {
    const Shape *u = call_in(c, 1);
    int64_t rows = shape_rows(u), channels = shape_last(u);
    WITH_PACKS(in_type(c, 1), channels, T, V, {
        Columns s = columns_to_map(rows, channels, V);
        launch(c, residual<T, V>, columns_grid(s), dim3(COLUMN_THREADS), 0, (T *)c->out[0], (const T *)c->in[0],
               (const T *)c->in[1], (const float *)c->in[2], keep_operand(c), rows / u->dim[0], s);
    });
}

CUDA_KERNEL(residual, .run = residual_run, .types = FEATURE_TYPES)

/* du = dy keep gamma, unless it is NULL; parts[share][channel] = sum of dy keep u */
template <class T, int V>
__global__ void residual_bwd(T *__restrict__ du, float *parts, const T *__restrict__ dy, const T *__restrict__ u,
                             const float *__restrict__ gamma, const float *__restrict__ keep, int64_t sample_rows,
                             Columns s) {
    SharedMemory shared;
    float *scratch = shared.take<float>(COLUMN_THREADS * V);
    ColumnsAt t = columns_at(s, V);
    Vec<float, V> sum = {}, scale = {};
    if (t.row < t.end) scale = vec_load<V>(gamma + t.channel);
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> a[4], b[4];
        float k[4];
        UNROLL for (int r = 0; r < 4; r++) {
            int64_t at = row + r * s.down;
            if (at >= t.end) continue;
            a[r] = vec_load<V>(dy + at * s.channels + t.channel);
            b[r] = vec_load<V>(u + at * s.channels + t.channel);
            k[r] = keep_of(keep, at, sample_rows);
        }
        UNROLL for (int r = 0; r < 4; r++) {
            int64_t at = row + r * s.down;
            if (at >= t.end) continue;
            UNROLL for (int i = 0; i < V; i++) {
                float d = to_float(a[r].x[i]) * k[r];
                sum.x[i] += d * to_float(b[r].x[i]);
                a[r].x[i] = from_float<T>(d * scale.x[i]);
            }
            if (du) vec_store(du + at * s.channels + t.channel, a[r]);
        }
    }
    columns_block_sum(parts + (int64_t)blockIdx.x * s.channels + t.first_channel, sum, s, t, scratch);
}

static size_t residual_bwd_workspace(const Graph *g, const Node *n) {
    const Shape *u = in_shape(g, n, 1);
    return column_sum_workspace(node_compute_type(g, n), shape_rows(u), shape_last(u));
}

static void residual_bwd_run(const KernelCall *c) {
    const Shape *u = call_in(c, 1);
    int64_t rows = shape_rows(u), channels = shape_last(u);
    WITH_PACKS(in_type(c, 1), channels, T, V, {
        Columns s = columns_to_sum(rows, channels, V);
        launch(c, residual_bwd<T, V>, columns_grid(s), dim3(COLUMN_THREADS), shared_size<float>(COLUMN_THREADS * V),
               (T *)c->out[0], (float *)c->work, (const T *)c->in[0], (const T *)c->in[1], (const float *)c->in[2],
               keep_operand(c), rows / u->dim[0], s);
        if (c->out[1]) run_add_parts(c, c->out[1], channels, NULL, 0, (const float *)c->work, s.shares);
    });
}

CUDA_KERNEL(residual_bwd, .run = residual_bwd_run, .types = FEATURE_TYPES, .workspace = residual_bwd_workspace)
