/* workflow.h - ways through the program that tests disturb, each with all it writes below $T/now, and what is left of
 * it then: the same bytes, other bytes, temporaries. */
#ifndef MALA_TEST_WORKFLOW_H
#define MALA_TEST_WORKFLOW_H

#include "base/base.h"
#include "program.h"

typedef struct {
    const char *name, *arguments; /* everything it writes lies in $T/now */
    bool timed;                   /* its stdout differs from run to run */
    bool warns;                   /* what cannot be written may be warned of */
} Workflow;

extern const Workflow workflows[];
extern const int workflow_count;
const Workflow *workflow_find(const char *name);

/* The folder with a data set, weights and a checkpoint; preload: which of tests/faults goes along with runs, "io". */
void workflows_open(const char *preload);
/* Runs it in an empty $T/now with settings of the environment, NAME=VALUE ...: the exit code; a signal's is 128 and
 * more, a run without end has 124. */
int workflow_run(const Workflow *w, const char *settings);
/* A digest of stdout and of all files in $T/now but logs and tables of times. temporary: "", or one that is left. */
uint64_t workflow_outcome(const Workflow *w, const char **temporary);
/* Lines of "mala: error: " that it wrote. */
int workflow_errors(void);

#endif
