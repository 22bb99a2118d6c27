/* cpu.h - what kernels ask of the CPU backend that runs them. */
#ifndef MALA_CPU_H
#define MALA_CPU_H

#include "backend/backend.h"
#include "backend/cpu/library.h"

CpuLibrary *cpu_library(Backend *b);
/* Threads that run its kernels: what each needs for itself is not taken for more. */
int cpu_threads(Backend *b);

#endif
