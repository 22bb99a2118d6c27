/* hub.h - a model as a folder, the way model hubs keep it: model.safetensors, config.json in timm's words (and labels
 * in those of transformers, too), and README.md, which such hubs show. */
#ifndef MALA_HUB_H
#define MALA_HUB_H

#include "lib/config.h"

#define HUB_WEIGHTS "model.safetensors"

typedef struct {
    char *config;   /* the same as a config of mala's, for config_load_text */
    char *name;     /* of config.json, for messages */
    char **classes; /* [class_count] label_names; none: 0 */
    int class_count;
} HubConfig;

/* Reads FOLDER/config.json: architecture, model_args, label_names, pretrained_cfg; other keys are stepped over.
 * False: EXIT_INPUT, EXIT_IO. Free in any case. */
bool hub_read(HubConfig *out, const char *folder, Err *err);
void hub_free(HubConfig *h);

/* Writes FOLDER/config.json and, unless there is one, README.md; the folder is made when it is not there. license may
 * be NULL; class_count is 0 for a network without a classifier. False: EXIT_IO. */
bool hub_write(const char *folder, const Config *c, char *const *classes, int class_count, const char *license,
               Err *err);

#endif
