/* emulate.h - the host's side of backend/cuda/kernel.cuh: the same kernels, compiled by the host's C++ compiler, with a
 * fiber for every thread of a block. It finds what a GPU would forgive on a good day:
 *   - reads and writes beyond shared memory fault (a guard page behind it), and beyond device memory (tests/emulate/
 *     device.cpp puts guard pages around each allocation);
 *   - shared memory that is read before it is written, and a barrier that is missing, change the results between the
 *     two modes: mode 0 runs threads and blocks in order and fills shared memory with 0xff, mode 1 runs them backwards
 *     and fills it with 0x5a; in both a warp runs on to the next barrier before another begins, so that what a barrier
 *     should keep apart happens in either order. A kernel that keeps the rules gives the same bits in both.
 *     races.h finds all that no barrier orders, also among the lanes of a warp;
 *   - a barrier or a warp_*() that not all reach, a block that is no multiple of 32 or too large, too much shared
 *     memory, a grid beyond the limits: abort, naming the node. */
#ifndef MALA_EMULATE_H
#define MALA_EMULATE_H

#include <string.h>

#include <functional>
#include <tuple>

#include "base/half.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- features ---- */

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) { return bf16_to_f32(x.bits); }
static inline float to_float(f16 x) { return f16_to_f32(x.bits); }
template <class T> inline T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline bf16 from_float<bf16>(float x) { return bf16{bf16_from_f32(x)}; }
template <> inline f16 from_float<f16>(float x) { return f16{f16_from_f32(x)}; }

template <class T> static inline void floats_of_word(float *out, uint32_t word) {
    out[0] = to_float(T{(uint16_t)word}), out[1] = to_float(T{(uint16_t)(word >> 16)});
}

/* ---- what a thread of a kernel sees ---- */

struct EmuThread {
    dim3 thread, block, block_size, grid_size;
    int index; /* in its block */
};
extern __thread const EmuThread *emu_here;
#define threadIdx (emu_here->thread)
#define blockIdx (emu_here->block)
#define blockDim (emu_here->block_size)
#define gridDim (emu_here->grid_size)

void barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE());
void warp_barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE());
/* hands x to the warp and returns what `lane` handed in */
float warp_from(float x, int lane);
float warp_xor(float x, int mask);
char *shared_memory();

/* ---- tensor cores, as mma.cuh says and PTX's ldmatrix and mma.sync are written down ---- */

void emu_load_tiles(uint32_t *to, const void *row, bool turned);
template <bool TURNED> inline void warp_load_tiles(uint32_t (&to)[4], const void *row) {
    emu_load_tiles(to, row, TURNED);
}

/* c (16, 8) += a (16, 16) b (16, 8); a: 8 numbers of the lane, b: 4 */
void emu_mma(float *c, const float *a, const float *b);
template <class T> inline void warp_mma(float *c, const uint32_t (&a)[4], uint32_t above, uint32_t below) {
    const uint32_t words[] = {a[0], a[1], a[2], a[3], above, below};
    float x[12];
    for (int i = 0; i < 12; i++) x[i] = to_float(T{(uint16_t)(words[i / 2] >> i % 2 * 16)});
    emu_mma(c, x, x + 8);
}

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float exp2_near(float x) { return exp2f(x); }

/* ---- who looks on (races.cpp); with a team of one thread alone ---- */

struct EmuWatch {
    virtual ~EmuWatch() {}
    virtual void launch(const char *node) = 0;
    virtual void block(const char *shared, const char *shared_end) = 0;
    /* Whether this barrier is to be left out. */
    virtual bool skips(const char *file, int line, bool of_warp) = 0;
    virtual void barrier_passed() = 0;
    virtual void warp_barrier_passed(int warp) = 0;
    virtual void read(const void *at, size_t bytes) = 0;
    virtual void memory(const void *at, size_t bytes, bool taken) = 0; /* of the device */
};
extern EmuWatch *emu_watch; /* NULL: nobody */

/* ---- launching ---- */

/* Device work on the compute stream (device.cpp): done now, later, or recorded by a capture, as a GPU would. */
void emu_submit(std::function<void()> work);

/* What a library does to its scratch: rubbish at both ends of it. */
static inline void emu_spoil(void *work, size_t bytes) {
    memset(work, 0xff, MIN(bytes, 4096));
    memset((char *)work + bytes - MIN(bytes, 4096), 0xff, MIN(bytes, 4096));
}

void emu_run_grid(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread);

template <class... P, class... A>
void launch(const KernelCall *call, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
    std::tuple<P...> values(args...);
    const char *name = call->node->name;
    emu_submit([=] { emu_run_grid(name, grid, block, shared_bytes, [=] { std::apply(kernel, values); }); });
}

#endif
