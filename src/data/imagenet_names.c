#include "data/imagenet_names.h"

#include <stdlib.h>
#include <string.h>

const ImagenetName imagenet_names[] = {
#define X(id, words) {#id, words},
#include "data/imagenet_names.def"
#undef X
};
_Static_assert(COUNTOF(imagenet_names) == IMAGENET_CLASSES, "ImageNet-1k has 1000 classes");

static int compare_id(const void *name, const void *row) { return strcmp(name, ((const ImagenetName *)row)->id); }

const char *imagenet_label(const char *name) {
    const ImagenetName *row = bsearch(name, imagenet_names, IMAGENET_CLASSES, sizeof *row, compare_id);
    return row ? row->words : name;
}
