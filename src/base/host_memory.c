#include "base/host_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* The beginning of a small file of the kernel's; empty where there is none. */
static void read_start(char *out, size_t size, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = '\0';
}

/* The number after a word at the beginning of a line; 0 where there is none. */
static size_t number_after(const char *text, const char *word) {
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, word, strlen(word)) == 0) return strtoull(line + strlen(word), NULL, 10);
    }
    return 0;
}

/* What one group leaves: its limit, less what is in use, but for pages that only cache files. */
static size_t group_left(const char *folder, const char *limit_name, const char *used_name, const char *file_prefix) {
    char path[4400], text[8192], word[64];
    snprintf(path, sizeof path, "%s/%s", folder, limit_name);
    read_start(text, sizeof text, path);
    if (text[0] < '0' || text[0] > '9') return SIZE_MAX; /* "max", or no such file */
    size_t limit = strtoull(text, NULL, 10);
    if (limit >= SIZE_MAX / 4) return SIZE_MAX; /* how version 1 writes no limit */
    snprintf(path, sizeof path, "%s/%s", folder, used_name);
    read_start(text, sizeof text, path);
    size_t used = strtoull(text, NULL, 10);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    read_start(text, sizeof text, path);
    size_t cache = 0;
    for (int active = 0; active < 2; active++) {
        snprintf(word, sizeof word, "%s%s ", file_prefix, active ? "active_file" : "inactive_file");
        cache += number_after(text, word);
    }
    used -= MIN(used, cache);
    return limit - MIN(limit, used);
}

/* The least that a group and those around it leave. Inside a container the path may be one of the host's: what of it
 * is not there is passed over, down to the root of the mount. */
static size_t groups_left(const char *mount, char *path, bool unified) {
    size_t left = SIZE_MAX;
    for (;;) {
        char folder[4300];
        snprintf(folder, sizeof folder, "%s%s", mount, path);
        size_t one = unified ? group_left(folder, "memory.max", "memory.current", "")
                             : group_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_");
        left = MIN(left, one);
        char *slash = strrchr(path, '/');
        if (!slash) return left;
        *slash = '\0';
    }
}

static size_t all_groups_left(const char *root) {
    char path[4200], text[4096], mount[4200];
    size_t left = SIZE_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    read_start(text, sizeof text, path);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) { /* "0::/a/b", "7:cpu,memory:/a/b" */
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        bool unified = names[1] == '\0';
        if (!unified && !strstr(names, "memory")) continue;
        if (strcmp(group, "/") == 0) *group = '\0';
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, unified ? "" : "/memory");
        size_t one = groups_left(mount, group, unified);
        left = MIN(left, one);
    }
    return left;
}

size_t host_memory_left(const char *root, const char **limited_by) {
    char path[4200], text[8192];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    read_start(text, sizeof text, path);
    size_t machine = number_after(text, "MemAvailable:") << 10, groups = all_groups_left(root);
    if (machine == 0) machine = SIZE_MAX;
    *limited_by = groups < machine ? "the control group's limit" : "this machine";
    return MIN(machine, groups);
}

/* A number without sign or exponent; *end is what follows it, text itself where there is none. */
static double plain_number(const char *text, const char **end) {
    double value = 0, place = 1;
    size_t whole = strspn(text, "0123456789"), part = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
    *end = text + (whole ? whole + (part ? part + 1 : 0) : 0);
    for (size_t i = 0; i < whole; i++) value = 10 * value + (text[i] - '0');
    for (size_t i = 0; whole && i < part; i++) value += (place /= 10) * (text[whole + 1 + i] - '0');
    return value;
}

/* "4096", "512M", "4GiB" */
static bool parse_bytes(size_t *out, const char *text) {
    static const char letters[] = "kmgt";
    const char *end;
    double bytes = plain_number(text, &end);
    const char *letter = *end ? strchr(letters, *end | 0x20) : NULL;
    if (letter) bytes *= (double)((size_t)1 << 10 * (letter - letters + 1)), end++;
    bool ends = !*end || strcasecmp(end, "b") == 0 || (letter && strcasecmp(end, "ib") == 0);
    if (end == text || !ends || !(bytes >= 1 && bytes < 0x1p63)) return false;
    *out = (size_t)bytes;
    return true;
}

bool host_memory_allowed(size_t *out, const char **limited_by, Err *err) {
    const char *text = getenv("MALA_MEMORY");
    if (!text || !text[0]) {
        *out = host_memory_left("", limited_by);
        return true;
    }
    *limited_by = "MALA_MEMORY";
    return parse_bytes(out, text) ||
           err_set(err, EXIT_USAGE, "MALA_MEMORY: \"%s\" is no number of bytes - for example 4G or 512M", text);
}
