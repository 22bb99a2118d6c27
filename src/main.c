/* mala - trains, evaluates and runs MAViT. This file only finds the command and turns its error into an exit code. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/commands.h"
#include "backend/cpu/library.h"
#include "base/descriptors.h"
#include "base/signals.h"
#include "base/thread.h"

static bool finished;

/* A library that ends the program does so for want of memory or threads: OpenMP's knows no other way. */
static void ended_by_library(void) {
    if (!finished) mem_exhausted("what a library asks for");
}

int main(int argc, char **argv) {
    const CliCommand commands[] = {command_train, command_eval,   command_infer,  command_info,  command_synth,
                                   command_bench, command_export, command_import, command_verify, command_plan};
    Err err = {0};
    Cli cli;
    Log log;
    cpu_library_crash_is_memory();
    (void)unsetenv("ONEDNN_VERBOSE"), (void)unsetenv("DNNL_VERBOSE"); /* it would talk into the results */
    (void)atexit(ended_by_library);
    bool started = descriptors_secure(&err) && thread_stack_suffices(&err) && signals_begin(&err);
    bool ok = cli_parse(&cli, commands, COUNTOF(commands), argc, argv, &err) && started;
    log_init(&log, stderr, cli.level, cli.color);
    if (ok && cli.action == CLI_HELP) {
        cli_help(stdout, &cli, commands, COUNTOF(commands), terminal_columns(stdout));
    } else if (ok && cli.action == CLI_VERSION) {
        puts("mala " MALA_VERSION);
    } else if (ok) {
        ok = cli.command->run(&cli, &log, &err);
    }
    ok = ok && standard_output_write(NULL, 0, &err);
    if (ferror(stdout)) signals_unread(STDOUT_FILENO);
    if (argc < 2) cli_help(stderr, &cli, commands, COUNTOF(commands), terminal_columns(stderr));
    if (!ok) log_error(&log, &err);
    log_close(&log);
    cli_free(&cli);
    finished = true;
    return ok ? EXIT_DONE : (int)err.code;
}
