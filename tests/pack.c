/* pack.c - unpacks archives into a temporary folder by running tar. */
#include "pack.h"

#include "base/base.h"
#include "base/file.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *pack_open(const char *name) {
    const char *data = getenv("MALA_DATA");
    char archive[1024], command[4096], folder[SCRATCH_PATH];
    snprintf(archive, sizeof archive, "%s/%s.tar.gz", data ? data : "", name);
    if (!data || access(archive, R_OK) != 0) {
        printf("%s is not at hand: set MALA_DATA to the folder of packs\n", data ? archive : name);
        return NULL;
    }
    scratch_make(folder);
    snprintf(command, sizeof command, "tar xzf '%s' -C '%s'", archive, folder);
    CHECK(system(command) == 0, "%s", command);
    return path_join(folder, name);
}

void pack_close(char *folder) {
    if (!folder) return;
    *strrchr(folder, '/') = '\0';
    scratch_remove(folder);
    free(folder);
}
