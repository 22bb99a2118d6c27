/* golden.h - two inputs made by a rule and the logits they gave where the file was written, kept in its metadata: any
 * machine can tell whether this file, this build and this processor still compute what was meant. */
#ifndef MALA_GOLDEN_H
#define MALA_GOLDEN_H

#include "lib/model_file.h"

#define GOLDEN_INPUTS 2
#define GOLDEN_KEY "mala.golden"
/* Of the largest logit. Differences between instruction sets are some 1e-6 of it; a wrong weight or kernel shows more.
 */
#define GOLDEN_LIMIT 1e-4

/* Writes the file, safetensors or .pth, again with its golden logits, computed from what it holds by the
 * device and threads of `machine`, or with NULL by what is there. False: as opening,
 * running and writing; EXIT_INPUT, too, where a logit is not finite. */
bool golden_add(const char *path, const Config *machine, Err *err);

typedef struct {
    int inputs, classes;
    double difference; /* largest, of a logit */
    double magnitude;  /* largest, of the logits in the file */
    bool agree;        /* difference <= limit * magnitude; never with a NaN */
} GoldenResult;

/* Computes the logits here. False: EXIT_INPUT when the file carries none or damaged ones; that they differ is no error.
 */
bool golden_check(GoldenResult *out, ModelFile *model, double limit, Err *err);

/* Input `index` of generator 1, u8 (height, width, 3): 0 is noise, 1 is 8 x 8 blocks of one colour each. Bytes are the
 * tops of splitmix64 numbers, whose stream starts at the FNV-1a hash of "noise" or "blocks". */
void golden_input(uint8_t *pixels, int index, int height, int width);

#endif
