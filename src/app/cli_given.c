/* cli_given.c - what commands ask of a parsed line, and what they do not use of it. */
#include "app/cli.h"

#include "lib/config.h"
#include "base/strings.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *cli_flag(const Cli *cli, const char *name) {
    for (int i = cli->given_count - 1; i >= 0; i--)
        if (!strcmp(cli->given[i].flag->name, name)) return cli->given[i].value;
    return NULL;
}

bool cli_flag_int(const Cli *cli, const char *name, int64_t *out, int64_t low, int64_t high, Err *err) {
    const char *text = cli_flag(cli, name);
    if (!text) return true;
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0')
        return err_set(err, EXIT_USAGE, "command line: --%s: expected a whole number, found \"%s\"", name, text);
    if (value < low || value > high)
        return err_set(err, EXIT_USAGE, "command line: --%s: %s is out of range - allowed: %lld to %lld", name, text,
                       (long long)low, (long long)high);
    *out = value;
    return true;
}

bool cli_flag_double(const Cli *cli, const char *name, double *out, double low, double high, Err *err) {
    const char *text = cli_flag(cli, name);
    if (!text) return true;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0')
        return err_set(err, EXIT_USAGE, "command line: --%s: expected a number, found \"%s\"", name, text);
    if (!(value >= low && value <= high))
        return err_set(err, EXIT_USAGE, "command line: --%s: %s is out of range - allowed: %g to %g", name, text, low,
                       high);
    *out = value;
    return true;
}

bool cli_weights(const Cli *cli, const char **out, int count, Err *err) {
    const char *name = cli->command->name;
    *out = NULL;
    if (cli->argument_count > count)
        return err_set(err, EXIT_USAGE, "command line: %s takes one weights file, got %d - 'mala help %s' shows how",
                       name, cli->argument_count, name);
    if (cli->argument_count < count) return true;
    *out = cli->arguments[0];
    for (int i = 0; i < cli->override_count; i++)
        if (!strncmp(cli->overrides[i], "model.weights=", 14))
            return err_set(err, EXIT_USAGE, "command line: weights are given twice, as %s and by --weights - leave one "
                           "out", *out);
    return true;
}

/* A file that the command line names to be read, beside the one to be converted. */
static bool is_named(const Cli *cli, const char *path, const struct stat *st) {
    struct stat other;
    for (int i = -1; i < cli->given_count; i++) {
        const char *name = i < 0 ? cli->config : cli->given[i].value;
        if (name && name != path && stat(name, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino)
            return true;
    }
    return false;
}

/* Pipes and devices are left to the writer, which refuses them. */
bool cli_may_write(const Cli *cli, const char *path, Err *err) {
    struct stat st;
    if (!strcmp(path, "-"))
        return err_set(err, EXIT_USAGE, "command line: \"-\": standard output is no place to write whole files to - "
                       "name a file; ./- is one");
    if (stat(path, &st) == 0 && is_named(cli, path, &st))
        return err_set(err, EXIT_USAGE, "%s: is read, too - give another name", path);
    if (cli_flag(cli, "force") || lstat(path, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))) return true;
    return err_set(err, EXIT_USAGE, "%s: exists - add --force to replace it, or give another name", path);
}

bool cli_uses(const CliCommand *command, const char *key) {
    return command->uses && text_matches_any(command->uses, key);
}

bool cli_fail_unused(const Cli *cli, const char *typed, const char *key, Err *err) {
    char others[120] = "";
    size_t n = 0;
    for (int i = 0; i < cli->command_count && n < sizeof others; i++)
        if (cli_uses(&cli->commands[i], key))
            n += (size_t)snprintf(others + n, sizeof others - n, "%s%s", n ? ", " : "", cli->commands[i].name);
    return err_set(err, EXIT_USAGE, "command line: %s does not use %s - it is for %s", cli->command->name, typed,
                   n ? others : "config files");
}
