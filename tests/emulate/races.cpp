/* races.cpp - see races.h. */
#include "backend/cuda/kernel.cuh"

#include <stdio.h>
#include <sys/mman.h>

#include <map>
#include <vector>

#include "races.h"

namespace {

constexpr size_t GRAIN = 2; /* bytes that have a history: no kernel writes fewer */

/* block: of all that ever ran, from 1 on; epoch: barriers of the block before it; warp_epoch: those of the warp. */
struct Access {
    uint32_t block, epoch, warp_epoch;
    int16_t thread;
};

/* The last write; of the reads after it the last, and whether others are as little ordered before what comes next. */
struct History {
    Access write, read;
    bool other_threads, other_warps, other_blocks;
};

struct Region {
    uintptr_t end;
    History *history;
};

History *new_history(size_t bytes) {
    void *p = mmap(NULL, (bytes / GRAIN + 1) * sizeof(History), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED, "emulation: no memory for what was accessed");
    return (History *)p;
}

void drop_history(History *h, size_t bytes) { munmap(h, (bytes / GRAIN + 1) * sizeof(History)); }

bool same(const RaceBarrier &a, const char *file, int line) { return a.line == line && !strcmp(a.file, file); }

struct Races final : EmuWatch {
    std::vector<RaceBarrier> barriers;
    const RaceBarrier *left_out = NULL;
    int found = 0;
    char first[400];

    const char *node = "";
    Access now = {};              /* the block that runs; thread and warp_epoch are those of whoever asks */
    uint32_t first_block = 1;     /* of the launch */
    std::vector<uint32_t> warp_epochs = std::vector<uint32_t>(1024 / WARP);
    uintptr_t shared = 0, shared_end = 0;
    History *shared_history = new_history(SHARED_LIMIT);
    std::map<uintptr_t, Region> device;
    uintptr_t low = 0, high = 0;                      /* of all regions */
    uintptr_t near = 0, near_end = 0;                 /* the region met last */
    History *near_history = NULL;

    ~Races() { drop_history(shared_history, SHARED_LIMIT); }

    void launch(const char *name) override {
        node = name;
        first_block = now.block + 1;
    }

    void block(const char *from, const char *end) override {
        now.block++, now.epoch = 1;
        for (uint32_t &e : warp_epochs) e = 1;
        shared = (uintptr_t)from, shared_end = (uintptr_t)end;
    }

    bool skips(const char *file, int line, bool of_warp) override {
        if (left_out && same(*left_out, file, line)) return true;
        for (const RaceBarrier &b : barriers)
            if (same(b, file, line)) return false;
        barriers.push_back(RaceBarrier{file, line, of_warp});
        return false;
    }

    void barrier_passed() override { now.epoch++; }
    void warp_barrier_passed(int warp) override { warp_epochs[(size_t)warp]++; }

    void memory(const void *at, size_t bytes, bool taken) override {
        const uintptr_t from = (uintptr_t)at;
        near = near_end = 0;
        if (!taken) {
            auto r = device.find(from);
            if (r == device.end()) return;
            drop_history(r->second.history, r->second.end - from);
            device.erase(r);
        } else {
            device[from] = Region{from + bytes, new_history(bytes)};
        }
        low = device.empty() ? 0 : device.begin()->first;
        high = device.empty() ? 0 : device.rbegin()->second.end;
    }

    void read(const void *at, size_t bytes) override { access(at, bytes, false); }

    /* The history of an address; NULL: it is of no memory that threads share. */
    History *history_of(uintptr_t at, bool *of_block) {
        *of_block = at >= shared && at < shared_end;
        if (*of_block) return shared_history + (at - shared) / GRAIN;
        if (at < low || at >= high) return NULL;
        if (at < near || at >= near_end) {
            auto r = device.upper_bound(at);
            if (r == device.begin()) return NULL;
            --r;
            if (at >= r->second.end) return NULL;
            near = r->first, near_end = r->second.end, near_history = r->second.history;
        }
        return near_history + (at - near) / GRAIN;
    }

    void access(const void *p, size_t bytes, bool write) {
        bool of_block;
        History *h = history_of((uintptr_t)p, &of_block);
        if (!h) return;
        now.thread = (int16_t)emu_here->index;
        now.warp_epoch = warp_epochs[(size_t)now.thread / WARP];
        for (size_t i = 0; i < (bytes + GRAIN - 1) / GRAIN; i++) {
            if (is_unordered(h[i].write, of_block))
                race(write ? "writes what was written" : "reads what was written", h[i].write, p, of_block);
            if (write)
                take_write(&h[i], p, of_block);
            else
                take_read(&h[i], of_block);
        }
    }

    bool is_past(const Access &a, bool of_block) const {
        return of_block ? a.block != now.block : a.block < first_block;
    }

    /* Of a single access: does nothing order it before the one now? */
    bool is_unordered(const Access &a, bool of_block) const {
        if (is_past(a, of_block)) return false;
        if (a.block != now.block) return true;
        if (a.epoch < now.epoch || a.thread == now.thread) return false;
        return a.thread / WARP != now.thread / WARP || a.warp_epoch == now.warp_epoch;
    }

    void take_write(History *h, const void *p, bool of_block) {
        const Access &r = h->read;
        bool past = is_past(r, of_block);
        bool unordered = is_unordered(r, of_block);
        if (!past && h->other_blocks) unordered = true;
        if (!past && r.block == now.block && r.epoch == now.epoch) {
            if (h->other_warps) unordered = true;
            if (h->other_threads && r.warp_epoch == now.warp_epoch && r.thread / WARP == now.thread / WARP)
                unordered = true;
        }
        if (unordered) race("writes what was read", r, p, of_block);
        *h = History{};
        h->write = now;
    }

    void take_read(History *h, bool of_block) {
        Access &r = h->read;
        if (is_past(r, of_block)) {
            h->other_threads = h->other_warps = h->other_blocks = false;
        } else if (r.block != now.block) {
            h->other_blocks = true, h->other_threads = h->other_warps = false;
        } else if (r.epoch < now.epoch) {
            h->other_threads = h->other_warps = false;
        } else if (r.thread / WARP != now.thread / WARP) {
            h->other_warps = true;
        } else if (r.warp_epoch < now.warp_epoch) {
            h->other_threads = false;
        } else if (r.thread != now.thread) {
            h->other_threads = true;
        }
        r = now;
    }

    void race(const char *does, const Access &before, const void *p, bool of_block) {
        if (found++ > 0) return;
        snprintf(first, sizeof first, "%s: thread %d of block %u %s by thread %d of block %u, with no barrier between: %s memory, byte %zu", node,
                 now.thread, now.block - first_block, does, before.thread, before.block - first_block,
                 of_block ? "shared" : "device", (size_t)((uintptr_t)p - (of_block ? shared : near)));
    }
};

Races *races;

} // namespace

void races_begin(void) {
    CHECK(!races, "races are looked for already");
    emu_watch = races = new Races();
}

void races_end(void) {
    delete races;
    emu_watch = races = NULL;
}

int races_found(const char **first) {
    int found = races->found;
    races->found = 0;
    *first = found ? races->first : NULL;
    return found;
}

int races_barriers(const RaceBarrier **out) {
    *out = races->barriers.data();
    return (int)races->barriers.size();
}

void races_leave_out(const RaceBarrier *barrier) { races->left_out = barrier; }

/* ---- what the instrumentation calls ---- */

#define ACCESSES(n) \
    void __tsan_read##n(void *p) { if (races) races->access(p, n, false); } \
    void __tsan_write##n(void *p) { if (races) races->access(p, n, true); } \
    void __tsan_unaligned_read##n(void *p) { if (races) races->access(p, n, false); } \
    void __tsan_unaligned_write##n(void *p) { if (races) races->access(p, n, true); }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *p, size_t n) { if (races) races->access(p, n, false); }
void __tsan_write_range(void *p, size_t n) { if (races) races->access(p, n, true); }
}
