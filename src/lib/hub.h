/* hub.h - a model as a folder, the way model hubs keep it: model.safetensors, config.json in timm's words (and labels
 * in those of transformers, too), and README.md, which such hubs show. */
#ifndef MALA_HUB_H
#define MALA_HUB_H

#include "base/file.h"
#include "lib/config.h"

#define HUB_WEIGHTS "model.safetensors"

typedef struct {
    ConfigValue *values; /* [value_count] the same as options of mala's, for config_load_values */
    int value_count;
    char *name;     /* of config.json, for messages */
    char **classes; /* [class_count] label_names; none: 0 */
    int class_count;
    int64_t num_classes; /* -1: not stated */
} HubConfig;

/* Reads FOLDER/config.json: architecture, model_args, label_names, num_classes, pretrained_cfg. Whatever says another
 * network or other pixels than mala makes is refused: arguments that are not known, crop_mode other than center, a test
 * size of its own, keys of pretrained_cfg that are neither known nor known to touch no pixel. Beside these, keys are
 * stepped over. False: EXIT_INPUT, EXIT_IO. Free in any case. */
bool hub_read(HubConfig *out, const char *folder, Err *err);
/* The same of a text in memory; name: for messages. */
bool hub_read_text(HubConfig *out, const char *name, const char *text, size_t count, Err *err);
void hub_free(HubConfig *h);
/* Does it say what the weights beside it say: as many classes, of the same names (0: a backbone); the same network and
 * preprocessing? False: EXIT_INPUT with the first that differs. */
bool hub_check_classes(const HubConfig *h, char *const *classes, int class_count, Err *err);
bool hub_check_config(const HubConfig *h, const Config *inner, Err *err);

/* A folder while it is written. Its files are all complete before the first of them has its name; the weights, without
 * which it is no folder of a model, get theirs last. */
typedef struct {
    FileWriter weights, config, page; /* page: closed where somebody has written one */
    char *made;                       /* the folder, where there was none */
} HubWriter;

/* Writes config.json and, unless there is one, README.md; the weights are the caller's, into weights.temporary. license
 * may be NULL; class_count is 0 for a network without a classifier; only_new: weights or a config.json that are there
 * by the time of the commit are not replaced. False: EXIT_IO; nothing stays. */
bool hub_writer_open(HubWriter *w, const char *folder, const Config *c, char *const *classes, int class_count,
                     const char *license, bool only_new, Err *err);
bool hub_writer_commit(HubWriter *w, Err *err); /* closes w, also on failure; EXIT_IO, EXIT_USAGE (only_new) */
bool hub_writer_fail(HubWriter *w, Err *err);   /* nothing stays, but a folder that was there. Returns false */

#endif
