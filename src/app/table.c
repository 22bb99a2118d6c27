#include "app/table.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

int table_name_width(int longest, int rest) {
    enum { LEAST = 12 };
    return MIN(longest, MAX(terminal_columns(stdout) - rest, LEAST));
}

void table_name(const char *name, int width) {
    if ((int)strlen(name) > width)
        printf("%s\n%*s", name, width, "");
    else
        printf("%-*s", width, name);
}
