/* commands.h - what can be typed after "mala". Each command is a table row in its own file. */
#ifndef MALA_COMMANDS_H
#define MALA_COMMANDS_H

#include "app/cli.h"

/* Config options, as patterns for CliCommand.uses: the network, where its weights come from, where it runs. */
#define USES_NETWORK \
    "model.name,model.dims,model.depths,model.heads,model.mlp_ratio,model.projection,model.attention,model.num_classes"
#define USES_WEIGHTS "model.weights,model.weights_ema,model.allow_missing"
#define USES_DEVICE "device,train.threads"

extern const CliCommand command_train, command_eval, command_infer, command_info, command_synth, command_bench,
    command_export, command_import, command_verify, command_plan;

#endif
