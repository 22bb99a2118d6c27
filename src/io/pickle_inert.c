/* pickle_inert.c - the globals that real checkpoints name beside their weights. Room io.
 *
 * A value of one of these is stepped over: nothing is imported, made or called, and what it is built with and filled
 * with is skipped. That would hold for any name. The list is short so that a name which is not on it says something: a
 * checkpoint that carries os.system or a class of somebody's program was not written to be read as data, and is refused
 * whole. So here are plain values, containers of them, and settings; no functions that would run, open, import or look
 * up anything, and no models, which would have their weights inside. */
#include <string.h>

#include "io/pickle_torch.h"

#define PYTHON \
    "bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode xrange"
#define PATHS "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
#define SCALARS "bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"

static const struct {
    const char *module, *names; /* names apart by spaces */
} inert[] = {
    /* Python's own values; protocol 2 spells builtins the old way */
    {"__builtin__", PYTHON},
    {"builtins", PYTHON},
    {"_codecs", "encode"}, /* bytes are written as the encoding of a string */
    {"copy_reg", "_reconstructor"}, /* a value of a class, which has to be on this list too */
    {"copyreg", "_reconstructor"},
    {"collections", "Counter defaultdict deque"}, /* milestones of schedules, histories */
    {"datetime", "date datetime time timedelta timezone"},
    {"decimal", "Decimal"},
    {"pathlib", PATHS}, /* never opened: data like any string */
    {"pathlib._local", PATHS},
    {"typing", "Any"}, /* omegaconf's nodes name it */

    /* command lines and configurations of training runs */
    {"argparse", "Namespace"},
    {"types", "SimpleNamespace"},
    {"addict.addict", "Dict"},
    {"easydict", "EasyDict"},
    {"fvcore.common.config", "CfgNode"},
    {"yacs.config", "CfgNode"},
    {"mmcv.utils.config", "Config ConfigDict"},
    {"mmengine.config.config", "Config ConfigDict"},
    {"omegaconf.base", "ContainerMetadata Metadata"},
    {"omegaconf.dictconfig", "DictConfig"},
    {"omegaconf.listconfig", "ListConfig"},
    {"omegaconf.nodes", "AnyNode BooleanNode FloatNode IntegerNode StringNode"},
    {"pytorch_lightning.utilities.parsing", "AttributeDict"},
    {"torchvision.transforms.functional", "InterpolationMode"},

    /* numpy: learning rates, scores, states of random generators */
    {"numpy", "dtype ndarray " SCALARS},
    {"numpy.core.multiarray", "_reconstruct scalar"},
    {"numpy._core.multiarray", "_reconstruct scalar"},

    /* torch: where and of what type a run computed; element types that this program does not read */
    {"torch", "ComplexDoubleStorage complex128 complex32 device float8_e4m3fn float8_e5m2"},
};

bool pickle_global_inert(PickleText text) {
    const char *end = memchr(text.text, '\n', text.count);
    size_t module = (size_t)(end - text.text), name = text.count - module - 1;
    for (size_t i = 0; i < COUNTOF(inert); i++) {
        if (!pickle_text_is((PickleText){text.text, module}, inert[i].module)) continue;
        for (const char *word = inert[i].names; *word; word += strspn(word, " ")) {
            size_t n = strcspn(word, " ");
            if (n == name && memcmp(word, end + 1, n) == 0) return true;
            word += n;
        }
    }
    return false;
}
