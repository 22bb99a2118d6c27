#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define NAME "mala_test_XXXXXX"

char scratch_folder[SCRATCH_PATH];

void scratch_make(char path[SCRATCH_PATH]) {
    const char *parent = getenv("TMPDIR");
    int n = snprintf(path, SCRATCH_PATH, "%s/" NAME, parent && *parent ? parent : "/tmp");
    CHECK(n < SCRATCH_PATH && mkdtemp(path), "no temporary folder: %s", path);
}

void scratch_remove(const char *path) {
    char command[SCRATCH_PATH + 16];
    CHECK(strstr(path, "mala_test_"), "%s", path);
    snprintf(command, sizeof command, "rm -rf -- '%s'", path);
    CHECK(system(command) == 0, "%s", command);
}

int scratch_set_up(void **state) {
    (void)state;
    scratch_make(scratch_folder);
    return 0;
}

int scratch_tear_down(void **state) {
    (void)state;
    scratch_remove(scratch_folder);
    return 0;
}
