/* emulate.cpp - blocks of fibers. One host thread runs a block; its threads take turns, each running until it waits at
 * a barrier or in a warp exchange. Blocks are dealt to the compute threads. */
#include "backend/cuda/kernel.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <memory>
#include <vector>

extern "C" {
#include "base/parallel.h"
#include "control.h"
}

#define MAX_THREADS 1024
#define STACK_BYTES (64 * 1024)
#define STACKS_BYTES ((size_t)MAX_THREADS * STACK_BYTES)

/* ---- switching between fibers ---- */

#if defined(__x86_64__)
/* saves the callee's registers and the stack pointer into *from, continues at to */
extern "C" void emu_switch(void **from, void *to);
asm(".text\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n"
    ".size emu_switch, . - emu_switch\n");
typedef void *Context;
static void context_switch(Context *from, Context *to) { emu_switch(from, *to); }
static void context_make(Context *c, char *stack, void (*entry)()) {
    void **top = (void **)(stack + STACK_BYTES) - 2;
    *top = (void *)entry; /* where ret goes; the stack is then as after a call */
    *c = top - 6;         /* six saved registers below, whatever they hold */
}
#else
typedef ucontext_t Context;
static void context_switch(Context *from, Context *to) { swapcontext(from, to); }
static void context_make(Context *c, char *stack, void (*entry)()) {
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = STACK_BYTES;
    c->uc_link = NULL;
    makecontext(c, entry, 0);
}
#endif

/* ---- one block ---- */

enum Waiting { RUNNING, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    Context context;
    EmuThread seen;
    Waiting waiting;
    int parity;  /* which of the warp's two slots the next exchange uses */
    bool orders; /* the exchange that it waits in is a barrier of the warp: nothing else orders memory among lanes */
};

/* What a lane hands to its warp. */
union Handed {
    float x;
    const char *row;
    struct {
        float a[8], b[4];
    } factors;
};

/* What a warp's exchange makes of it; the first lane to look makes it. */
struct Product {
    bool made;
    float c[16][8];
};

static char *map_pages(size_t bytes, bool guard_behind) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = (char *)mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED, "emulation: no memory for a block");
    if (guard_behind) mprotect(p + bytes, page, PROT_NONE);
    return p;
}

static void unmap_pages(char *p, size_t bytes) { munmap(p, bytes + (size_t)sysconf(_SC_PAGESIZE)); }

/* The block that a thread of the host runs. */
struct Block {
    Context scheduler;
    std::vector<Fiber> fibers = std::vector<Fiber>(MAX_THREADS);
    char *stacks = map_pages(STACKS_BYTES, false);
    char *shared_end = map_pages(SHARED_LIMIT, true) + SHARED_LIMIT, *shared;
    Handed slot[2][MAX_THREADS];
    Product product[2][MAX_THREADS / WARP];
    Fiber *current;
    int count;
    const std::function<void()> *thread;
    const char *name;

    ~Block() {
        unmap_pages(stacks, STACKS_BYTES);
        unmap_pages(shared_end - SHARED_LIMIT, SHARED_LIMIT);
    }
};

__thread const EmuThread *emu_here;
EmuWatch *emu_watch;

static Block *this_block() {
    static thread_local std::unique_ptr<Block> block;
    if (!block) block = std::make_unique<Block>();
    return block.get();
}

static void wait_for(Waiting what) {
    Block *b = this_block();
    Fiber *f = b->current;
    f->waiting = what;
    context_switch(&f->context, &b->scheduler);
}

static void fiber_main() {
    Block *b = this_block();
    (*b->thread)();
    wait_for(DONE);
    abort();
}

char *shared_memory() { return this_block()->shared; }

void barrier(const char *file, int line) {
    if (!emu_watch || !emu_watch->skips(file, line, false)) wait_for(AT_BARRIER);
}

/* What all lanes of the warp hand in; it stands until the next exchange but one. */
static const Handed *exchange(const Handed &mine, Product **product = NULL) {
    Block *b = this_block();
    Fiber *f = b->current;
    Handed *slot = b->slot[f->parity];
    int me = f->seen.index;
    Product *made = &b->product[f->parity][me / WARP];
    f->parity ^= 1;
    slot[me] = mine;
    made->made = false;
    wait_for(IN_WARP);
    if (product) *product = made;
    return slot + me / WARP * WARP;
}

float warp_from(float x, int lane) { return exchange(Handed{x})[lane % WARP].x; }

static int this_lane() { return this_block()->current->seen.index % WARP; }

float warp_xor(float x, int mask) { return warp_from(x, this_lane() ^ mask); }

void warp_barrier(const char *file, int line) {
    if (emu_watch && emu_watch->skips(file, line, true)) return;
    Fiber *f = this_block()->current;
    f->orders = true;
    exchange(Handed());
    f->orders = false;
}

void emu_load_tiles(uint32_t *to, const void *row, bool turned) {
    const Block *b = this_block();
    const char *at = (const char *)row;
    CHECK((uintptr_t)at % 16 == 0 && at >= b->shared && at + 16 <= b->shared_end,
          "%s: tiles are loaded from shared memory, in rows on 16 bytes", b->name);
    Handed mine;
    mine.row = at;
    const Handed *all = exchange(mine);
    const int lane = this_lane(), across = lane % 4 * 2, down = lane / 4;
    for (int tile = 0; tile < 4; tile++) {
        uint16_t x[2];
        for (int i = 0; i < 2; i++) {
            const char *element = all[tile * 8 + (turned ? across + i : down)].row + 2 * (turned ? down : across + i);
            if (emu_watch) emu_watch->read(element, 2);
            memcpy(&x[i], element, 2);
        }
        to[tile] = x[0] | (uint32_t)x[1] << 16;
    }
}

/* a: of each lane's row lane / 4, and the one 8 below, pairs lane % 4 of columns, and those 8 to the right; b: the same
 * of columns and pairs of rows */
static void make_product(Product *p, const Handed *all) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < WARP; lane++) {
        const int line = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 8; i++) a[line + i / 2 % 2 * 8][pair + i / 4 * 8 + i % 2] = all[lane].factors.a[i];
        for (int i = 0; i < 4; i++) b[pair + i / 2 * 8 + i % 2][line] = all[lane].factors.b[i];
    }
    memset(p->c, 0, sizeof p->c);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) p->c[row][column] += a[row][k] * b[k][column];
    p->made = true;
}

void emu_mma(float *c, const float *a, const float *b) {
    Handed mine;
    memcpy(mine.factors.a, a, sizeof mine.factors.a);
    memcpy(mine.factors.b, b, sizeof mine.factors.b);
    Product *p;
    const Handed *all = exchange(mine, &p);
    if (!p->made) make_product(p, all);
    const int lane = this_lane();
    for (int i = 0; i < 4; i++) c[i] += p->c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

/* Lets go the warp that begins at `first` when all of it waits in an exchange. */
static bool release_warp(Block *b, int first) {
    for (int i = 0; i < WARP; i++)
        if (b->fibers[first + i].waiting != IN_WARP) return false;
    if (emu_watch && b->fibers[first].orders) emu_watch->warp_barrier_passed(first / WARP);
    for (int i = 0; i < WARP; i++) b->fibers[first + i].waiting = RUNNING;
    return true;
}

/* Lets go the block when all of it waits at a barrier. */
static bool release_block(Block *b) {
    for (int i = 0; i < b->count; i++)
        if (b->fibers[i].waiting != AT_BARRIER) return false;
    if (emu_watch) emu_watch->barrier_passed();
    for (int i = 0; i < b->count; i++) b->fibers[i].waiting = RUNNING;
    return true;
}

static int emu_mode;
void emu_set_mode(int mode) { emu_mode = mode; }
bool emu_present(void) { return true; }

/* As far as it goes without the others: what one warp writes before a barrier that is missing, another reads before
 * or after, by the mode. */
static void run_warp(Block *b, int first) {
    do {
        for (int i = 0; i < WARP; i++) {
            Fiber *f = &b->fibers[first + (emu_mode ? WARP - 1 - i : i)];
            if (f->waiting != RUNNING) continue;
            b->current = f;
            emu_here = &f->seen;
            context_switch(&b->scheduler, &f->context);
        }
    } while (release_warp(b, first));
}

static void run_block(Block *b, dim3 block_index, dim3 grid, dim3 size, size_t shared_bytes) {
    b->count = (int)(size.x * size.y * size.z);
    b->shared = b->shared_end - (shared_bytes + 15) / 16 * 16;
    memset(b->shared, emu_mode ? 0x5a : 0xff, (size_t)(b->shared_end - b->shared));
    if (emu_watch) emu_watch->block(b->shared, b->shared_end);
    for (int i = 0; i < b->count; i++) {
        unsigned t = (unsigned)i;
        Fiber *f = &b->fibers[i];
        f->seen = {dim3(t % size.x, t / size.x % size.y, t / size.x / size.y), block_index, size, grid, i};
        f->waiting = RUNNING;
        f->parity = 0;
        f->orders = false;
        context_make(&f->context, b->stacks + (size_t)i * STACK_BYTES, fiber_main);
    }
    do {
        for (int first = 0; first < b->count; first += WARP) run_warp(b, emu_mode ? b->count - WARP - first : first);
    } while (release_block(b));
    for (int i = 0; i < b->count; i++)
        CHECK(b->fibers[i].waiting == DONE, "%s: thread %d waits at a %s that others never reach", b->name, i,
              b->fibers[i].waiting == AT_BARRIER ? "barrier" : "warp exchange");
}

struct Grid {
    dim3 grid, block;
    size_t shared_bytes;
    const std::function<void()> *thread;
    const char *name;
};

static void run_grid_block(void *arg, int index, int) {
    const Grid *g = (const Grid *)arg;
    unsigned count = g->grid.x * g->grid.y * g->grid.z, i = emu_mode ? count - 1 - (unsigned)index : (unsigned)index;
    Block *b = this_block();
    b->thread = g->thread;
    b->name = g->name;
    dim3 at(i % g->grid.x, i / g->grid.x % g->grid.y, i / g->grid.x / g->grid.y);
    run_block(b, at, g->grid, g->block, g->shared_bytes);
}

void emu_run_grid(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread) {
    unsigned threads = block.x * block.y * block.z;
    CHECK(threads >= WARP && threads <= MAX_THREADS && threads % WARP == 0 && block.z <= 64, "%s: a block of %u x %u x %u",
          name, block.x, block.y, block.z);
    CHECK(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x < 1u << 31 && grid.y < 65536 && grid.z < 65536,
          "%s: a grid of %u x %u x %u", name, grid.x, grid.y, grid.z);
    CHECK(shared_bytes <= SHARED_LIMIT, "%s: %zu bytes of shared memory", name, shared_bytes);
    if (emu_watch) emu_watch->launch(name);
    Grid g = {grid, block, shared_bytes, &thread, name};
    parallel_for((int)(grid.x * grid.y * grid.z), run_grid_block, &g);
}
