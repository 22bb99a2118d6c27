/* cli_help.c - help text from the tables: usage, flags, and the config's options by section. */
#include "app/cli.h"
#include "lib/config.h"
#include "base/strings.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_LEAST 70
#define COLUMNS_MOST 100

/* Text from column `at` on, wrapped at spaces and hanging under column `indent`. */
static void print_wrapped(FILE *out, int at, int indent, const char *text, int columns) {
    bool first = true;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (!first && at + 1 + length > columns) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', out), at++;
        }
        fprintf(out, "%.*s", length, text);
        at += length;
        text += length + (text[length] == ' ');
        first = false;
    }
    fputc('\n', out);
}

/* "  left          text" */
static void print_row(FILE *out, const char *left, int left_width, const char *text, int columns) {
    int indent = 2 + left_width + 2, at = 2 + (int)utf8_columns(left);
    fprintf(out, "  %s", left);
    if (at + 2 > indent) fprintf(out, "\n"), at = 0;
    fprintf(out, "%*s", indent - at, "");
    print_wrapped(out, indent, indent, text, columns);
}

/* Whether the command has a flag of this name, or one that the name is another name of. */
static bool has_flag(const CliCommand *c, const char *name) {
    const size_t length = strlen(name);
    for (int i = 0; i < c->flag_count; i++) {
        if (strcmp(c->flags[i].name, name) == 0) return true;
        for (const char *also = c->flags[i].also; also && *also; also += *also == ' ') {
            const size_t word = strcspn(also, " ");
            if (word == length && memcmp(also, name, length) == 0) return true;
            also += word;
        }
    }
    return false;
}

/* Without those to which the command gives a meaning of its own, and those that it does not use. */
static void print_flags(FILE *out, const char *title, const CliFlag *flags, int count, const CliCommand *command,
                        int columns) {
    for (int i = 0, rows = 0; i < count; i++) {
        const CliFlag *f = &flags[i];
        if (flags != command->flags && (has_flag(command, f->name) || (f->key && !cli_uses(command, f->key)))) continue;
        if (rows++ == 0) fprintf(out, "\n%s:\n", title);
        char left[80], letter[8] = "    ", text[400];
        if (f->letter) snprintf(letter, sizeof letter, "-%c, ", f->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, f->name, f->argument ? " " : "",
                 f->argument ? f->argument : "");
        const Option *o = f->key ? option_find(config_table, config_table_count, f->key) : NULL;
        const char *help = f->help ? f->help : o ? o->help : "";
        snprintf(text, sizeof text, o ? "%s (%s)" : "%s", help, f->key);
        print_row(out, left, 26, text, columns);
    }
}

/* Those that the command uses; NULL: all. */
static void print_options(FILE *out, const CliCommand *command, int columns) {
    const char *section = NULL;
    size_t length = 0;
    fputc('\n', out);
    print_wrapped(out, 0, 0, command ? "config options that it uses, in a JSON file or as key=value, with default and "
                  "range (a list of n: xN):" : "Config options, in a JSON file or as key=value, with default and range "
                  "(a list of n: xN):", columns);
    for (int i = 0; i < config_table_count; i++) {
        const Option *o = &config_table[i];
        if (command && !cli_uses(command, o->name)) continue;
        const char *dot = strchr(o->name, '.');
        size_t own = dot ? (size_t)(dot - o->name) : 0;
        if (!section || own != length || strncmp(section, o->name, own) != 0) fputc('\n', out);
        section = o->name, length = own;
        char text[600], details[300], list[16] = "";
        option_describe(details, sizeof details, o);
        if (o->length) snprintf(list, sizeof list, " x%d", o->length);
        snprintf(text, sizeof text, "%s (%s%s)", o->help, details, list);
        print_row(out, o->name, 21, text, columns);
    }
}

static void print_usage(FILE *out, const CliCommand *c, int columns) {
    char text[300];
    snprintf(text, sizeof text, "mala %s%s [flags]%s%s", c->name, c->uses ? " [--config FILE] [key=value ...]" : "",
             c->arguments ? " " : "", c->arguments ? c->arguments : "");
    fputs("usage: ", out);
    print_wrapped(out, 7, 7, text, columns);
}

static void print_program(FILE *out, const CliCommand *commands, int count, int columns) {
    print_wrapped(out, 0, 0, "mala " MALA_VERSION ": trains, evaluates and runs MAViT vision transformers", columns);
    fputs("\nusage: ", out);
    print_wrapped(out, 7, 7, "mala <command> [--config FILE] [key=value ...] [flags] [arguments]", columns);
    fputs("\ncommands:\n", out);
    for (int i = 0; i < count; i++) print_row(out, commands[i].name, 12, commands[i].summary, columns);
    print_row(out, "help", 12, "'mala help train': about a command; 'mala help config': options", columns);
    print_row(out, "version", 12, "the version", columns);
    fputs("\npictures in DIR/train/<class>/ and DIR/val/<class>/, then:\n"
          "  mala train --data DIR --output runs/mine --epochs 30\n"
          "  mala eval runs/mine\n"
          "  mala infer photo.jpg --weights runs/mine\n", out);
}

void cli_help(FILE *out, const Cli *cli, const CliCommand *commands, int count, int columns) {
    columns = MAX(MIN(columns, COLUMNS_MOST), COLUMNS_LEAST);
    const CliCommand *c = cli->command;
    if (cli->help_config) {
        print_options(out, NULL, columns);
        return;
    }
    if (!c) {
        print_program(out, commands, count, columns);
        return;
    }
    print_wrapped(out, 0, 0, c->summary, columns);
    fputc('\n', out);
    print_usage(out, c, columns);
    print_flags(out, "flags", c->flags, c->flag_count, c, columns);
    if (c->uses)
        print_flags(out, "flags that stand for config options", cli_config_flags, cli_config_flag_count, c, columns);
    print_flags(out, "flags of every command", cli_common_flags, cli_common_flag_count, c, columns);
    if (c->uses) print_options(out, c, columns);
}
