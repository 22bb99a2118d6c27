/* cpus.c - affinity mask, cgroup quota, environment. */
#include "base/cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cpus_affinity(void) {
    /* the kernel refuses masks smaller than its own: machines beyond 1024 CPUs need a larger one */
    for (int capacity = 1024; capacity <= 1 << 18; capacity *= 2) {
        cpu_set_t *mask = CPU_ALLOC((size_t)capacity);
        if (!mask) return 0;
        size_t size = CPU_ALLOC_SIZE((size_t)capacity);
        bool ok = sched_getaffinity(0, size, mask) == 0;
        bool too_small = !ok && errno == EINVAL;
        int count = ok ? CPU_COUNT_S(size, mask) : 0;
        CPU_FREE(mask);
        if (!too_small) return count;
    }
    return 0;
}

int cpus_environment(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    char *end;
    long count = text ? strtol(text, &end, 10) : 0;
    return text && end != text && (*end == '\0' || *end == ',') && count > 0 && count < 1 << 20 ? (int)count : 0;
}

/* The first line of a small file of the kernel; false: none. */
static bool read_line(char *out, size_t size, const char *path) {
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(out, (int)size, file);
    if (file) fclose(file);
    return ok;
}

/* The quota of one group in CPUs, rounded up; 0: none. Version 2 has "quota period" in one file, version 1 two files.
 */
static int group_quota(const char *folder, bool version1) {
    char path[4200], text[64];
    long long quota = -1, period = 100000;
    char *end;
    snprintf(path, sizeof path, "%s/%s", folder, version1 ? "cpu.cfs_quota_us" : "cpu.max");
    if (!read_line(text, sizeof text, path)) return 0;
    quota = strtoll(text, &end, 10);
    if (end == text) return 0; /* "max" */
    if (version1) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        if (read_line(text, sizeof text, path)) period = strtoll(text, NULL, 10);
    } else {
        period = strtoll(end, NULL, 10);
    }
    if (quota <= 0 || period <= 0) return 0;
    return (int)MIN(CEIL_DIV(quota, period), (long long)1 << 20);
}

static int smaller(int a, int b) { return a == 0 ? b : b == 0 ? a : MIN(a, b); }

/* The strictest quota of a group and all groups above it. */
static int path_quota(const char *mount, const char *group, bool version1) {
    char folder[4096];
    int quota = 0;
    snprintf(folder, sizeof folder, "%s%s", mount, group);
    size_t root = strlen(mount);
    for (;;) {
        quota = smaller(quota, group_quota(folder, version1));
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < root || strlen(folder) <= root) return quota;
        *slash = '\0';
    }
}

/* Is "cpu" one of the comma-separated controllers? */
static bool has_cpu(const char *controllers, size_t count) {
    for (size_t at = 0; at < count;) {
        size_t length = strcspn(controllers + at, ",:");
        if (length == 3 && !memcmp(controllers + at, "cpu", 3)) return true;
        at += length + 1;
    }
    return false;
}

int cpus_quota(const char *proc_cgroup, const char *sys_root) {
    FILE *file = fopen(proc_cgroup, "re");
    if (!file) return 0;
    int quota = 0;
    char line[4096], mount[4096];
    while (fgets(line, sizeof line, file)) { /* hierarchy:controllers:path */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        controllers++;
        size_t count = (size_t)(path++ - controllers);
        if (count == 0) {
            quota = smaller(quota, path_quota(sys_root, path, false));
        } else if (has_cpu(controllers, count)) {
            /* inside a container the path may be the host's: then only the mount itself is there to read */
            snprintf(mount, sizeof mount, "%s/%.*s", sys_root, (int)count, controllers);
            quota = smaller(quota, path_quota(mount, path, true));
            snprintf(mount, sizeof mount, "%s/cpu", sys_root);
            quota = smaller(quota, path_quota(mount, path, true));
        }
    }
    fclose(file);
    return quota;
}

int cpus_usable(void) {
    int count = smaller(cpus_affinity(), cpus_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    count = smaller(count, cpus_environment());
    return MAX(count, 1);
}
