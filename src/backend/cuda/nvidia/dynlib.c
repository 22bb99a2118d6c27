#include "backend/cuda/nvidia/dynlib.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 512 };

/* RTLD_LOCAL: nothing of ours may bind to a library's symbols by accident. RTLD_NODELETE: code of the GPU's vendor
 * stays once it is there, since it leaves threads and exit handlers behind, and a second device finds it ready. */
static void *open_file(const char *directory, const char *file) {
    char path[PATH_ROOM];
    int n = snprintf(path, sizeof path, "%s%s", directory, file);
    return n > 0 && n < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
}

static void *open_any(const char *files) {
    const char *home = getenv("CUDA_HOME");
    char of_home[PATH_ROOM] = "";
    if (home && *home) snprintf(of_home, sizeof of_home, "%s/lib64/", home);
    const char *directories[] = {"", of_home, "/usr/local/cuda/lib64/"};
    for (const char *at = files; *at;) {
        size_t length = strcspn(at, " ");
        char file[64];
        snprintf(file, sizeof file, "%.*s", (int)length, at);
        for (size_t i = 0; i < COUNTOF(directories); i++) {
            if (i == 1 && !of_home[0]) continue;
            void *handle = open_file(directories[i], file);
            if (handle) return handle;
        }
        at += length + (at[length] == ' ');
    }
    return NULL;
}

bool dynlib_open(void **out, const DynLibrary *library, const DynFunction *functions, int count, Err *err) {
    void *handle = *out = open_any(library->files);
    if (!handle) {
        const char *why = dlerror(); /* of the last file tried: "cannot open shared object file", or what it lacks */
        return err_set(err, EXIT_DEVICE,
                       "%s: could not be opened, tried %s in the system's directories, $CUDA_HOME/lib64 and "
                       "/usr/local/cuda/lib64 (%s) - install %s, or add its directory to LD_LIBRARY_PATH",
                       library->title, library->files, why ? why : "no reason given", library->package);
    }
    for (int i = 0; i < count; i++) {
        void *function = dlsym(handle, functions[i].name);
        if (!function) {
            dynlib_close(handle);
            *out = NULL;
            return err_set(err, EXIT_DEVICE, "%s: has no function %s - it is too old, install %s", library->title,
                           functions[i].name, library->package);
        }
        memcpy(functions[i].pointer, &function,
               sizeof function); /* ISO C has no cast from object to function pointer */
    }
    return true;
}

void dynlib_close(void *handle) {
    if (handle) (void)dlclose(handle);
}
