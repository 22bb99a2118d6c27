/* rng.h - random numbers as a pure function of counters: (seed, purpose, a, b) names a stream and draws are
 * numbered within it, so the same sample gets the same draws whichever thread, rank or resumed run makes them.
 * Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef MALA_RNG_H
#define MALA_RNG_H

#include <stdint.h>

/* The same text draws on a GPU. */
#ifdef __CUDACC__
#define RNG_FUNCTION static inline __host__ __device__
#else
#define RNG_FUNCTION static inline
#endif

/* What a stream is for. New purposes go to the end: the order is part of every recorded run. */
typedef enum { RNG_INIT, RNG_ORDER, RNG_AUGMENT, RNG_DROP_PATH, RNG_SYNTH, RNG_TEST } RngPurpose;

typedef struct {
    uint32_t key[2];     /* seed */
    uint32_t counter[4]; /* draw block, purpose and a (high), a (low), b */
    uint32_t block[4];
    int used; /* words of block already given out; 4: none left */
} Rng;

RNG_FUNCTION void philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t k0 = key[0], k1 = key[1], c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* a: below 2^56 (a sample, a step); b: below 2^32 (an epoch, a node). */
RNG_FUNCTION Rng rng_make(uint64_t seed, RngPurpose purpose, uint64_t a, uint32_t b) {
    Rng r = {.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
             .counter = {0, (uint32_t)purpose << 24 | (uint32_t)(a >> 32 & 0xffffff), (uint32_t)a, b},
             .block = {0},
             .used = 4};
    return r;
}

RNG_FUNCTION uint32_t rng_u32(Rng *r) {
    if (r->used == 4) {
        philox4x32(r->key, r->counter, r->block);
        r->counter[0]++;
        r->used = 0;
    }
    return r->block[r->used++];
}

/* uniform in [0, 1), 24 bits of a word */
RNG_FUNCTION float rng_unit(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }
RNG_FUNCTION float rng_uniform(Rng *r) { return rng_unit(rng_u32(r)); }

/* uniform in [0, n), n > 0; the bias is below n / 2^32 */
RNG_FUNCTION uint32_t rng_below(Rng *r, uint32_t n) { return (uint32_t)((uint64_t)rng_u32(r) * n >> 32); }

#endif
