/* cpus.h - how many CPUs this machine lets the process use. Nothing here is cached. Which instructions they have is the
 * CPU backend's business. */
#ifndef MALA_CPUS_H
#define MALA_CPUS_H

#include "base/base.h"

/* CPUs for compute threads, at least 1: the smallest of the affinity mask, the cgroup's CPU quota (rounded up) and
 * OMP_NUM_THREADS. A container with a quota of 2 on a machine of 64 gets 2, not 64 threads that take turns. */
int cpus_usable(void);

/* The parts, for a report; 0: no limit known. */
int cpus_affinity(void);
int cpus_environment(void); /* OMP_NUM_THREADS; of "4,2" the first */
/* proc_cgroup, sys_root: "/proc/self/cgroup" and "/sys/fs/cgroup"; versions 1 and 2, every group up to the root. */
int cpus_quota(const char *proc_cgroup, const char *sys_root);

#endif
