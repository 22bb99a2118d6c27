/* cli.h - the command line: mala <command> [--config FILE] [key=value ...] [flags] [arguments]. Commands describe their
 * flags in tables; parsing, messages and help come from these and from the config's table. A flag is matched whole,
 * with '_' and '-' the same, and never by a beginning of it: "--epoch" is an error that names "--epochs". What a
 * command does not use is refused where it is typed; a config file may hold every option. */
#ifndef MALA_CLI_H
#define MALA_CLI_H

#include "base/base.h"
#include "base/log.h"

#include <stdio.h>

typedef struct {
    const char *name;     /* without dashes: "batch-size" */
    char letter;          /* 'b' for -b; 0: none */
    const char *argument; /* what help calls its value: "N"; NULL: takes none */
    const char *help;     /* NULL: with a key, the config option's own */
    const char *also;     /* other spellings, apart by spaces, accepted in silence */
    const char *key;      /* the config option it sets; NULL: the command asks for it with cli_flag */
    const char *value;    /* key's value where the flag takes no argument */
} CliFlag;

typedef struct Cli Cli;

typedef struct {
    const char *name, *also; /* also: other names, apart by spaces */
    const char *arguments;   /* for the usage line: "IMAGE..."; NULL: takes none */
    const char *summary;     /* one line */
    const CliFlag *flags;
    int flag_count;
    const char *uses; /* the config options it uses: patterns apart by commas. NULL: it takes no config at all */
    bool (*run)(const Cli *cli, Log *log, Err *err);
} CliCommand;

typedef enum { CLI_RUN, CLI_HELP, CLI_VERSION } CliAction;

typedef struct {
    const CliFlag *flag;
    const char *value; /* "" without one */
} CliGiven;

/* Texts belong to argv, except overrides. */
struct Cli {
    int argc; /* as the program was called */
    char **argv;
    CliAction action;
    const CliCommand *command; /* NULL with CLI_HELP: the program's own help */
    bool help_config;          /* "mala help config": the options alone */
    const CliCommand *commands; /* all there are: which of them use what this one does not */
    int command_count;
    const char *config;        /* --config; NULL: none */
    char **overrides;          /* "key=value", in order: for config_load */
    int override_count;
    const char **arguments;
    int argument_count;
    CliGiven *given;
    int given_count;
    LogLevel level;
    LogColor color;
};

/* False: EXIT_USAGE; cli_free in any case. */
bool cli_parse(Cli *out, const CliCommand *commands, int count, int argc, char **argv, Err *err);
void cli_free(Cli *cli);

/* The value of the command's own flag: the last one given, "" when it takes none, NULL when it was not given. */
const char *cli_flag(const Cli *cli, const char *name);
/* The same as a whole number in low .. high; *out stays as it is when the flag was not given. False: EXIT_USAGE. */
bool cli_flag_int(const Cli *cli, const char *name, int64_t *out, int64_t low, int64_t high, Err *err);

/* The same as a number. */
bool cli_flag_double(const Cli *cli, const char *name, double *out, double low, double high, Err *err);

/* The weights that a command with "[WEIGHTS]" was given as its first of `count` arguments; NULL: by model.weights, or
 * not at all. False: EXIT_USAGE, given in both ways. */
bool cli_weights(const Cli *cli, const char **out, int count, Err *err);

/* Whether a command with CLI_FORCE may write a file of this name. False: EXIT_USAGE, there is one and no --force, or it
 * is the config or the value of another flag. */
bool cli_may_write(const Cli *cli, const char *path, Err *err);
#define CLI_FORCE {"force", 'f', NULL, "replace what is there", "overwrite", NULL, NULL}

/* Does the command use this config option? */
bool cli_uses(const CliCommand *command, const char *key);
/* An error that names what the command does not use ("--epochs", "sched.epochs") and which commands do. */
bool cli_fail_unused(const Cli *cli, const char *typed, const char *key, Err *err);

/* Help, as wide as columns within 70 to 100. */
void cli_help(FILE *out, const Cli *cli, const CliCommand *commands, int count, int columns);

/* What every command takes, and what every command with a config takes. */
extern const CliFlag cli_common_flags[];
extern const int cli_common_flag_count;
extern const CliFlag cli_config_flags[];
extern const int cli_config_flag_count;

#endif
