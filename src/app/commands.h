/* commands.h - what can be typed after "mala". Each command is a table row in its own file. */
#ifndef MALA_COMMANDS_H
#define MALA_COMMANDS_H

#include "app/cli.h"

extern const CliCommand command_train, command_eval, command_infer, command_info, command_synth, command_bench,
    command_export, command_import, command_verify, command_plan;

#endif
