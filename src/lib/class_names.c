#include "lib/class_names.h"

#include <stdlib.h>
#include <string.h>

/* By name, then by place. */
static int by_name(const void *a, const void *b) {
    const char *const *x = *(const char *const *const *)a, *const *y = *(const char *const *const *)b;
    int order = strcmp(*x, *y);
    return order ? order : (x > y) - (x < y);
}

bool class_names_check(char *const *names, int count, const char *where, Err *err) {
    for (int i = 0; i < count; i++)
        if (!names[i][0]) return err_set(err, EXIT_INPUT, "%s: class %d has an empty name - give it one", where, i);
    char *const **sorted = mem_zalloc((size_t)count, sizeof *sorted);
    for (int i = 0; i < count; i++) sorted[i] = &names[i];
    if (count > 1) qsort(sorted, (size_t)count, sizeof *sorted, by_name);
    bool ok = true;
    for (int i = 1; ok && i < count; i++)
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0)
            ok = err_set(err, EXIT_INPUT, "%s: classes %d and %d are both named \"%.100s\" - rename one", where,
                         (int)(sorted[i - 1] - names), (int)(sorted[i] - names), *sorted[i]);
    free(sorted);
    return ok;
}
