/* imagenet_names.h - the classes of ImageNet-1k, which released weights number and do not name. */
#ifndef MALA_IMAGENET_NAMES_H
#define MALA_IMAGENET_NAMES_H

#include "base/base.h"

#define IMAGENET_CLASSES 1000

typedef struct {
    const char *id;    /* WordNet id, the name of the class's folder: "n01440764" */
    const char *words; /* "tench"; no two classes have the same */
} ImagenetName;

/* By class index, which is the order of the ids. */
extern const ImagenetName imagenet_names[IMAGENET_CLASSES];

/* How a class is called before people: the words of an ImageNet id, any other name as it is. */
const char *imagenet_label(const char *name);

#endif
