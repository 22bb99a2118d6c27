/* cli.c - parsing. */
#include "app/cli.h"

#include "lib/config.h"
#include "base/strings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const CliFlag cli_common_flags[] = {
    {"help", 'h', NULL, "this text", NULL, NULL, NULL},
    {"quiet", 'q', NULL, "errors and results only", NULL, NULL, NULL},
    {"verbose", 'v', NULL, "more about what is done", NULL, NULL, NULL},
    {"color", 0, "WHEN", "auto, always or never", "colour", NULL, NULL},
    {"no-color", 0, NULL, "the same as --color=never", "no-colour", NULL, NULL},
};
const int cli_common_flag_count = COUNTOF(cli_common_flags);

/* Names as in timm and DeiT; their sister spellings as users of other programs have them in their fingers. */
const CliFlag cli_config_flags[] = {
    {"config", 'c', "FILE", "JSON config; key=value and flags win over it", "cfg config-file", NULL, NULL},
    {"set", 0, "KEY=VALUE", "the same as key=value", NULL, NULL, NULL},
    {"data", 0, "DIR", NULL, "data-path data-dir", "data.path", NULL},
    {"model", 0, "NAME", NULL, "arch", "model.name", NULL},
    {"weights", 0, "FILE", NULL, "pretrained finetune", "model.weights", NULL},
    {"allow-missing", 0, "GLOB,...", NULL, NULL, "model.allow_missing", NULL},
    {"ema", 0, NULL, "of a checkpoint, take the averaged weights", NULL, "model.weights_ema", "yes"},
    {"no-ema", 0, NULL, "of a checkpoint, take the raw weights", NULL, "model.weights_ema", "no"},
    {"num-classes", 0, "N", NULL, "nb-classes", "model.num_classes", NULL},
    {"img-size", 0, "N", NULL, "imgsz input-size", "input.size", NULL},
    {"batch-size", 'b', "N", NULL, "batch", "train.batch_size", NULL},
    {"epochs", 0, "N", NULL, NULL, "sched.epochs", NULL},
    {"warmup-epochs", 0, "N", NULL, NULL, "sched.warmup_epochs", NULL},
    {"lr", 0, "X", NULL, "learning-rate", "optim.lr", NULL},
    {"min-lr", 0, "X", NULL, NULL, "sched.min_lr", NULL},
    {"weight-decay", 0, "X", NULL, "wd", "optim.weight_decay", NULL},
    {"clip-grad", 0, "X", NULL, NULL, "optim.clip_grad", NULL},
    {"drop-path", 0, "X", NULL, NULL, "model.drop_path", NULL},
    {"smoothing", 0, "X", NULL, "label-smoothing", "train.smoothing", NULL},
    {"model-ema", 0, NULL, NULL, NULL, "train.ema", "true"},
    {"no-model-ema", 0, NULL, "keep no moving average", NULL, "train.ema", "false"},
    {"model-ema-decay", 0, "X", NULL, "ema-decay", "train.ema_decay", NULL},
    {"seed", 0, "N", NULL, NULL, "train.seed", NULL},
    {"threads", 't', "N", NULL, NULL, "train.threads", NULL},
    {"workers", 'j', "N", NULL, "num-workers", "data.workers", NULL},
    {"device", 0, "NAME", NULL, NULL, "device", NULL},
    {"precision", 0, "NAME", NULL, "dtype amp-dtype", "train.precision", NULL},
    {"output", 0, "DIR", NULL, "output-dir work-dir", "output", NULL},
    {"exist-ok", 0, NULL, NULL, NULL, "exist_ok", "true"},
};
const int cli_config_flag_count = COUNTOF(cli_config_flags);

/* The flags a command takes, as up to three tables. */
typedef struct {
    const CliFlag *flags;
    int count;
} FlagTable;

static int flag_tables(FlagTable out[3], const CliCommand *command) {
    int n = 0;
    out[n++] = (FlagTable){command->flags, command->flag_count}; /* first: a command may give a name its own meaning */
    if (command->uses) out[n++] = (FlagTable){cli_config_flags, cli_config_flag_count};
    out[n++] = (FlagTable){cli_common_flags, cli_common_flag_count};
    return n;
}

/* Is this one of the words, with '_' and '-' the same? */
static bool word_in(const char *words, const char *text, size_t count) {
    for (const char *at = words; at && *at;) {
        size_t length = strcspn(at, " ");
        bool same = length == count;
        for (size_t i = 0; same && i < count; i++) same = at[i] == (text[i] == '_' ? '-' : text[i]);
        if (same) return true;
        at += length + (at[length] == ' ');
    }
    return false;
}

static const CliFlag *find_flag(const CliCommand *command, const char *text, size_t count, char letter) {
    FlagTable tables[3];
    int n = flag_tables(tables, command);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < tables[t].count; i++) {
            const CliFlag *f = &tables[t].flags[i];
            if (letter ? f->letter == letter : word_in(f->name, text, count) || word_in(f->also, text, count)) return f;
        }
    return NULL;
}

static bool fail_unknown_flag(const CliCommand *command, const char *name, Err *err) {
    FlagTable tables[3];
    int n = flag_tables(tables, command), words = 0, capacity = 0;
    const Option *option = command->uses ? option_find(config_table, config_table_count, name) : NULL;
    if (option)
        return err_set(err, EXIT_USAGE, "command line: unknown flag \"--%s\" - config options have no dashes: %s=VALUE",
                       name, name);
    for (int t = 0; t < n; t++) capacity += tables[t].count;
    const char **names = mem_zalloc((size_t)capacity, sizeof *names);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < tables[t].count; i++)
            if (!tables[t].flags[i].key || cli_uses(command, tables[t].flags[i].key))
                names[words++] = tables[t].flags[i].name;
    const char *near = text_nearest(name, names, (size_t)words);
    free(names);
    if (near)
        return err_set(err, EXIT_USAGE, "command line: unknown flag \"--%s\" - did you mean \"--%s\"?", name, near);
    return err_set(err, EXIT_USAGE, "command line: unknown flag \"--%s\" - 'mala help %s' lists what there is", name,
                   command->name);
}

static void add_override(Cli *cli, const char *key, const char *value) {
    size_t size = strlen(key) + strlen(value) + 2;
    char *text = mem_zalloc(size, 1);
    snprintf(text, size, "%s=%s", key, value);
    cli->overrides = mem_resize(cli->overrides, (size_t)cli->override_count + 1, sizeof *cli->overrides);
    cli->overrides[cli->override_count++] = text;
}

/* A flag whose value is a list adds to what it was given before. */
static bool add_to_list(Cli *cli, const CliFlag *f, const char *value) {
    size_t key = strlen(f->key);
    if (!f->argument || !strstr(f->argument, ",...")) return false;
    for (int i = 0; i < cli->override_count; i++) {
        char *old = cli->overrides[i];
        if (strncmp(old, f->key, key) != 0 || old[key] != '=') continue;
        size_t size = strlen(old) + strlen(value) + 2;
        char *text = mem_zalloc(size, 1);
        snprintf(text, size, "%s,%s", old, value);
        free(old);
        cli->overrides[i] = text;
        return true;
    }
    return false;
}

static bool take_color(Cli *cli, const char *when, Err *err) {
    int index = option_word_index("auto always never", when); /* in the order of LogColor */
    if (index < 0)
        return err_set(err, EXIT_USAGE, "command line: --color: \"%s\" is none of auto, always, never", when);
    cli->color = (LogColor)index;
    return true;
}

/* An option that does not exist is left to the config, which knows what may have been meant. */
static bool take_option(Cli *cli, const char *typed, const char *key, const char *value, Err *err) {
    if (option_find(config_table, config_table_count, key) && !cli_uses(cli->command, key))
        return cli_fail_unused(cli, typed, key, err);
    add_override(cli, key, value);
    return true;
}

static bool take_assignment(Cli *cli, const char *text, Err *err) {
    const char *equals = strchr(text, '=');
    if (!equals) return err_set(err, EXIT_USAGE, "command line: --set: \"%s\" is no KEY=VALUE", text);
    char *key = mem_strdup(text);
    key[equals - text] = '\0';
    bool ok = take_option(cli, key, key, equals + 1, err);
    free(key);
    return ok;
}

static bool fail_needs_value(const CliFlag *f, Err *err) {
    return err_set(err, EXIT_USAGE, "command line: --%s needs a value: --%s %s", f->name, f->name, f->argument);
}

static bool names_path(const CliFlag *f) {
    return f->argument && (!strcmp(f->argument, "FILE") || !strcmp(f->argument, "DIR"));
}

/* What a flag does; value: "" when it has none. A path that is empty comes from a variable that nobody has set. */
static bool take_flag(Cli *cli, const CliFlag *f, const char *value, Err *err) {
    if (names_path(f) && !*value) return fail_needs_value(f, err);
    if (f->key) {
        char typed[64];
        snprintf(typed, sizeof typed, "--%s", f->name);
        return add_to_list(cli, f, value) || take_option(cli, typed, f->key, f->argument ? value : f->value, err);
    }
    if (!strcmp(f->name, "help")) cli->action = CLI_HELP;
    if (!strcmp(f->name, "quiet")) cli->level = LOG_ERROR;
    if (!strcmp(f->name, "verbose")) cli->level = LOG_DEBUG;
    if (!strcmp(f->name, "no-color")) cli->color = COLOR_NEVER;
    if (!strcmp(f->name, "color")) return take_color(cli, value, err);
    if (!strcmp(f->name, "set")) return take_assignment(cli, value, err);
    if (!strcmp(f->name, "config")) {
        if (cli->config)
            return err_set(err, EXIT_USAGE,
                           "command line: --config given twice - a config may name another as its \"base\"");
        cli->config = value;
    }
    cli->given = mem_resize(cli->given, (size_t)cli->given_count + 1, sizeof *cli->given);
    cli->given[cli->given_count++] = (CliGiven){f, value};
    return true;
}

/* The next word as a flag's value; what looks like a flag is none, but "-" and "-1" are. */
static const char *next_value(int *i, int argc, char **argv) {
    if (*i + 1 >= argc) return NULL;
    const char *word = argv[*i + 1];
    bool is_flag = word[0] == '-' && word[1] != '\0' && word[1] != '.' && (word[1] < '0' || word[1] > '9');
    return is_flag ? NULL : argv[++*i];
}

static bool parse_long(Cli *cli, int *i, int argc, char **argv, Err *err) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t count = equals ? (size_t)(equals - name) : strlen(name);
    const CliFlag *f = find_flag(cli->command, name, count, 0);
    if (!f) {
        char text[100];
        snprintf(text, sizeof text, "%.*s", (int)MIN(count, sizeof text - 1), name);
        return fail_unknown_flag(cli->command, text, err);
    }
    if (equals) {
        if (!f->argument) return err_set(err, EXIT_USAGE, "command line: --%s takes no value", f->name);
        return equals[1] ? take_flag(cli, f, equals + 1, err) : fail_needs_value(f, err);
    }
    const char *value = f->argument ? next_value(i, argc, argv) : "";
    return value ? take_flag(cli, f, value, err) : fail_needs_value(f, err);
}

/* "-b64", "-b 64", "-qv" */
static bool parse_short(Cli *cli, int *i, int argc, char **argv, Err *err) {
    for (const char *at = argv[*i] + 1; *at; at++) {
        const CliFlag *f = find_flag(cli->command, NULL, 0, *at);
        if (!f)
            return err_set(err, EXIT_USAGE, "command line: unknown flag \"-%c\" - 'mala help %s' lists what there is",
                           *at, cli->command->name);
        if (!f->argument) {
            if (!take_flag(cli, f, "", err)) return false;
            continue;
        }
        const char *value = at[1] ? at + 1 + (at[1] == '=') : next_value(i, argc, argv);
        return value && value[0] ? take_flag(cli, f, value, err) : fail_needs_value(f, err);
    }
    return true;
}

/* "optim.lr=1e-3": a key of letters, digits, '_' and '.', so that "./a=b.jpg" is a file. */
static bool looks_like_assignment(const char *word) {
    size_t length = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
    return length > 0 && word[length] == '=' && word[0] != '.';
}

static const Option *assigned_option(const char *word, char key[100]) {
    snprintf(key, 100, "%.*s", (int)MIN(strcspn(word, "="), (size_t)99), word);
    return option_find(config_table, config_table_count, key);
}

/* Where a command takes files, one that exists is a file whatever its name, and so is "epoch=3-step=9.ckpt" or
 * "lr=0.1/new.pth", which no option begins. */
static bool is_assignment(const CliCommand *command, const char *word) {
    char key[100];
    if (!command->uses || !looks_like_assignment(word)) return false;
    if (!command->arguments) return true;
    return access(word, F_OK) != 0 && (assigned_option(word, key) || !strpbrk(strchr(word, '='), "/-"));
}

static bool fail_unknown_option(const char *word, const char *key, Err *err) {
    const Option *near = option_nearest(config_table, config_table_count, key);
    if (near)
        return err_set(err, EXIT_USAGE, "command line: unknown option \"%s\" - did you mean \"%s\"? A file: ./%s", key,
                       near->name, word);
    return err_set(err, EXIT_USAGE, "command line: unknown option \"%s\" - 'mala help config' lists them. A file: ./%s",
                   key, word);
}

static bool parse_word(Cli *cli, const char *word, bool assignments, Err *err) {
    char key[100];
    if (assignments && is_assignment(cli->command, word)) {
        bool unknown = cli->command->arguments && !assigned_option(word, key);
        return unknown ? fail_unknown_option(word, key, err) : take_assignment(cli, word, err);
    }
    if (!cli->command->arguments)
        return err_set(err, EXIT_USAGE, "command line: unexpected \"%s\" - 'mala help %s' shows what it takes", word,
                       cli->command->name);
    if (!*word) return err_set(err, EXIT_USAGE, "command line: an argument is empty - is a variable unset?");
    cli->arguments = mem_resize(cli->arguments, (size_t)cli->argument_count + 1, sizeof *cli->arguments);
    cli->arguments[cli->argument_count++] = word;
    return true;
}

static const CliCommand *find_command(const CliCommand *commands, int count, const char *name, Err *err) {
    for (int i = 0; i < count; i++)
        if (!strcmp(commands[i].name, name) || word_in(commands[i].also, name, strlen(name))) return &commands[i];
    const char **names = mem_zalloc((size_t)count + 2, sizeof *names);
    for (int i = 0; i < count; i++) names[i] = commands[i].name;
    names[count] = "help", names[count + 1] = "version";
    const char *near = text_nearest(name, names, (size_t)count + 2);
    free(names);
    if (near)
        err_set(err, EXIT_USAGE, "command line: unknown command \"%s\" - did you mean \"%s\"?", name, near);
    else
        err_set(err, EXIT_USAGE, "command line: unknown command \"%s\" - 'mala help' lists them", name);
    return NULL;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c) {
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

static bool asks_version(const char *word) { return is_one_of(word, "version", "--version", "-V"); }
static bool asks_help(const char *word) { return is_one_of(word, "help", "--help", "-h"); }

/* "help", "help train", "help config", "version": the two are commands of the list, and have no help but the list. */
static bool parse_question(Cli *out, int argc, char **argv, Err *err) {
    const char *about = argc > 2 ? argv[2] : "help";
    if (asks_version(argv[1]) && (argc == 2 || !asks_help(about))) out->action = CLI_VERSION;
    int most = out->action == CLI_VERSION ? 2 : 3;
    if (argc > most)
        return err_set(err, EXIT_USAGE, "command line: unexpected \"%s\" - 'mala help' lists the commands", argv[most]);
    out->help_config = !strcmp(about, "config");
    if (out->action == CLI_VERSION || out->help_config || asks_help(about) || asks_version(about)) return true;
    out->command = find_command(out->commands, out->command_count, about, err);
    return out->command != NULL;
}

bool cli_parse(Cli *out, const CliCommand *commands, int count, int argc, char **argv, Err *err) {
    *out = (Cli){.argc = argc, .argv = argv, .level = LOG_INFO, .color = COLOR_AUTO, .action = CLI_HELP,
                 .commands = commands, .command_count = count};
    if (argc < 2) return err_set(err, EXIT_USAGE, "command line: no command - 'mala help' lists them");
    if (asks_version(argv[1]) || asks_help(argv[1])) return parse_question(out, argc, argv, err);
    if (argv[1][0] == '-')
        return err_set(err, EXIT_USAGE, "command line: \"%s\" where a command belongs - 'mala help' lists them",
                       argv[1]);
    out->command = find_command(commands, count, argv[1], err);
    if (!out->command) return false;
    out->action = CLI_RUN;
    bool flags = true;
    for (int i = 2; i < argc; i++) {
        const char *word = argv[i];
        bool ok = true;
        if (flags && !strcmp(word, "--"))
            flags = false;
        else if (flags && word[0] == '-' && word[1] == '-')
            ok = parse_long(out, &i, argc, argv, err);
        else if (flags && word[0] == '-' && word[1] != '\0')
            ok = parse_short(out, &i, argc, argv, err);
        else
            ok = parse_word(out, word, flags, err);
        if (!ok) return false;
    }
    return true;
}

void cli_free(Cli *cli) {
    for (int i = 0; i < cli->override_count; i++) free(cli->overrides[i]);
    free(cli->overrides);
    free(cli->arguments);
    free(cli->given);
    *cli = (Cli){0};
}
