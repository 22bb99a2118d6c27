#include "program.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

char output[1 << 20], errors[1 << 20];
char folder[SCRATCH_PATH];

/* A run of the tests below nohup or as a script's background job inherits ignored signals; the program must not. */
__attribute__((constructor)) static void take_signals(void) {
    const int asking[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
    for (size_t i = 0; i < sizeof asking / sizeof asking[0]; i++) signal(asking[i], SIG_DFL);
}

void folder_make(void) { scratch_make(folder); }

void folder_remove(void) { scratch_remove(folder); }

void shell(const char *command) {
    char line[4096];
    snprintf(line, sizeof line, "cd %s && %s", folder, command);
    if (system(line) != 0) fail_msg("%s", line);
}

void read_text(char *text, size_t room, const char *path) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, room - 1, f);
    text[n] = '\0';
    fclose(f);
}

int mala(const char *arguments) {
    char command[4096], path[256];
    const char *binary = getenv("MALA");
    snprintf(command, sizeof command, "T=%s; \"%s\" %s >$T/out 2>$T/err", folder, binary ? binary : "./mala", arguments);
    int status = system(command);
    snprintf(path, sizeof path, "%s/out", folder);
    read_text(output, sizeof output, path);
    snprintf(path, sizeof path, "%s/err", folder);
    read_text(errors, sizeof errors, path);
    if (WIFSIGNALED(status) || WEXITSTATUS(status) >= 128) fail_msg("mala %s: killed: %s", arguments, errors);
    return WEXITSTATUS(status);
}

int mala_failing(const char *faults, const char *arguments) {
    const char *binary = getenv("MALA");
    char tests[256], line[4096];
    snprintf(tests, sizeof tests, "%s", binary ? binary : "build/mala");
    *strrchr(tests, '/') = '\0';
    snprintf(line, sizeof line, "version >/dev/null; LD_PRELOAD=%s/tests/faults_io.so MALA_FAULT='%s' "
             "ASAN_OPTIONS=verify_asan_link_order=0 \"${MALA:-./mala}\" %s", tests, faults, arguments);
    return mala(line);
}

void expect_failing(int code, const char *faults, const char *arguments) {
    int got = mala_failing(faults, arguments);
    if (got != code) fail_msg("%s: mala %s: exit %d instead of %d: %s", faults, arguments, got, code, errors);
}

void expect_text(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("'%s' is not in: %s", part, text);
}

cJSON *json_line(const char *line) {
    const char *end = strchr(line, '\n');
    cJSON *json = cJSON_ParseWithLength(line, end ? (size_t)(end - line) : strlen(line));
    if (!json) fail_msg("not JSON: %s", line);
    return json;
}

double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("no number '%s'", key);
    return item->valuedouble;
}
