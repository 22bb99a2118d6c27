/* program.h - runs ./mala as a person does, in a folder of the test's own. MALA names the binary (./mala without it). */
#ifndef MALA_TEST_PROGRAM_H
#define MALA_TEST_PROGRAM_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "scratch.h"

/* What the last run wrote to stdout and stderr. */
extern char output[1 << 20], errors[1 << 20];
extern char folder[SCRATCH_PATH];

void folder_make(void);
void folder_remove(void);
/* A shell command in the folder, which must succeed. */
void shell(const char *command);

/* Runs "mala <arguments>", where $T is the folder; returns the exit code. A signal fails the test. */
int mala(const char *arguments);

#define EXPECT(code, arguments) \
    do { \
        int got_ = mala(arguments); \
        if (got_ != (code)) fail_msg("mala %s: exit %d instead of %d: %s", arguments, got_, code, errors); \
    } while (0)

/* The same with some system calls failing, or sending a signal, as faults/io.c reads it: needs faults_io.so beside the
 * tests (Makefile). The exit code; one that has to be. */
int mala_failing(const char *faults, const char *arguments);
void expect_failing(int code, const char *faults, const char *arguments);

void expect_text(const char *text, const char *part);
void read_text(char *text, size_t room, const char *path);

/* The first line of a text as JSON; a number in an object. */
cJSON *json_line(const char *line);
double number_of(const cJSON *object, const char *key);

/* Flags of a training run that takes a second. */
#define SMALL \
    "model.name=custom 'model.dims=[8,8,16,16]' 'model.depths=[1,1,1,1]' 'model.heads=[1,1,2,2]' model.projection=16 " \
    "input.size=32 train.batch_size=8 sched.epochs=2 sched.warmup_epochs=0 optim.lr_base_size=0 optim.lr=1e-3 "

#endif
