/* pth_cases.h - pickles of checkpoints (words of pth_build.h) and a part of what the reader must say about each; ids
 * such as PT-22 number the known attacks. Beside them lies data/0 with six float32. */
#ifndef MALA_PTH_CASES_H
#define MALA_PTH_CASES_H

#include "pth_build.h"

typedef struct {
    const char *id, *words, *verdict; /* a part of it; "accepted" is all of it */
} Case;

#define W(tensor) "} 'w' " tensor " s ."
#define VIEW(offset, size, stride) W(TENSOR(SIX, offset, size, stride))
#define OPAQUE(words) "} ( 'w' " MATRIX " 'args' " words " u ." /* beside a weight in the state dict itself */
#define BESIDE(words) "} ( 'model' } 'w' " MATRIX " s 'args' " words " u ."

static const Case cases[] = {
    {"plain", W(MATRIX), "accepted"},
    {"ordered", "collections:OrderedDict ) R 'w' " MATRIX " s } 'meta' 1 s b .", "accepted"},
    {"empty", "} .", "accepted"},
    {"parameter", "} 'w' torch._utils:_rebuild_parameter " MATRIX " T collections:OrderedDict ) R t3 R s .", "accepted"},
    {"size as torch.Size", "} 'w' torch._utils:_rebuild_tensor_v2 ( " SIX " 0 torch:Size 2 3 t2 t1 R 3 1 t2 F N t R s .",
     "accepted"},
    {"seven arguments", W(REBUILT("_rebuild_tensor_v2", SIX, "0", "6", "1", "}")), "accepted"},
    {"typed", W(REBUILT("_rebuild_tensor_v3", STORAGE("Untyped", "0", "24"), "0", "12", "1", "torch:uint16")), "accepted"},

    /* what is not read is stepped over, and refused by name where a weight would need it */
    {"namespace", BESIDE("argparse:Namespace ) new } ( 'x' 1 u b"), "accepted"},
    {"numpy scalar", BESIDE("numpy.core.multiarray:scalar numpy:dtype ( 'f8' F T t R _codecs:encode 'a' 'latin1' t2 R t2 R"),
     "accepted"},
    {"defaultdict", BESIDE("collections:defaultdict __builtin__:list t1 R 'a' 1 s"), "accepted"},
    {"deque", BESIDE("collections:deque ) R 1 a ( 2 3 e"), "accepted"},
    {"long integer", BESIDE("x8a09 x000000000000000001"), "accepted"},
    {"str of Python 2", BESIDE("x5503616263"), "accepted"},
    {"a weight that is an object", OPAQUE("os:system 'true' t1 R"), "\"args\" is os.system where a tensor belongs"},
    {"a weight that is a number", OPAQUE("3"), "\"args\" is an integer where a tensor belongs"},
    {"a weight from an unknown function", W("torch._utils:_rebuild_qtensor ( " SIX " 0 t R"),
     "\"w\" is torch._utils._rebuild_qtensor where a tensor belongs"},
    {"a weight of an unknown type", W(TENSOR(STORAGE("QInt8", "0", "24"), "0", "6", "1")),
     "tensor \"w\" has elements of type torch.QInt8Storage, which is not read"},
    {"model_ema is an object", "} ( 'model' } 'w' " MATRIX " s 'model_ema' timm.utils:ModelEma ) R u .",
     "\"model_ema\" of kind timm.utils.ModelEma is not read"},
    {"whole model", "__main__:MAViT ) new } b .", "a checkpoint that is __main__.MAViT is not read"},
    {"a tensor alone", MATRIX " .", "a checkpoint that is a tensor is not read"},
    {"key is no text", "} 3 " MATRIX " s .", "an integer is no name of a tensor"},
    {"key is empty", "} 'module.' " MATRIX " s .", "the name of a tensor is empty or no text"},
    {"key with control character", "} x580300000077 x0a77 " MATRIX " s .", "the name of a tensor is empty or no text"},
    {"PT-26 duplicate key", "} ( 'w' " MATRIX " 'w' " MATRIX " u .", "two tensors are named \"w\""},
    {"PT-26 duplicate after prefixes", "} ( 'w' " MATRIX " 'module.w' " MATRIX " u .", "two tensors are named \"w\""},
    {"PT-26 two models", "} ( 'model' } 'w' " MATRIX " s 'model' } 'w' " MATRIX " s u .", "key \"model\" appears twice"},

    /* PT-20: nothing is called, whatever calls it; what torch.save never writes is no opcode */
    {"PT-20 os.system", BESIDE("os:system 'touch' t1 R"), "accepted"},
    {"PT-20 eval", BESIDE("__builtin__:eval 'touch' t1 R"), "accepted"},
    {"PT-20 getattr of getattr", BESIDE("__builtin__:getattr posix:system '__call__' t2 R 'touch' t1 R"), "accepted"},
    {"PT-20 setstate", BESIDE("a:B ) new } '__setstate__' os:system s b"), "accepted"},
    {"PT-20 STACK_GLOBAL", BESIDE("'os' 'system' x93"), "opcode 0x93"},
    {"PT-20 INST", BESIDE("( x696f730a73797374656d0a"), "opcode 0x69"},
    {"PT-20 OBJ", BESIDE("( os:system o"), "opcode 0x6f"},
    {"PT-20 NEWOBJ_EX", BESIDE("os:system ) } x92"), "opcode 0x92"},
    {"PT-20 EXT1", BESIDE("x8201"), "opcode 0x82"},
    {"PT-20 EXT2", BESIDE("x830100"), "opcode 0x83"},
    {"PT-20 EXT4", BESIDE("x8401000000"), "opcode 0x84"},
    {"PT-20 PERSID", BESIDE("x50300a"), "opcode 0x50"},

    /* PT-22, PT-23 */
    {"PT-22 no arguments", W("torch._utils:_rebuild_tensor_v2 ) R"), "_rebuild_tensor_v2 with other arguments"},
    {"PT-22 five arguments", W("torch._utils:_rebuild_tensor_v2 ( " SIX " 0 ) ) F t R"), "with other arguments"},
    {"PT-22 eight arguments", W("torch._utils:_rebuild_tensor_v2 ( " SIX " 0 ) ) F N N N t R"), "with other arguments"},
    {"PT-22 offset a string", W("torch._utils:_rebuild_tensor_v2 ( " SIX " '0' ) ) F N t R"), "with other arguments"},
    {"PT-22 storage a tuple", W("torch._utils:_rebuild_tensor_v2 ( ) 0 ) ) F N t R"), "with other arguments"},
    {"PT-22 size a list", W("torch._utils:_rebuild_tensor_v2 ( " SIX " 0 ] ) F N t R"), "with other arguments"},
    {"PT-22 size of strings", W("torch._utils:_rebuild_tensor_v2 ( " SIX " 0 'a' t1 ) F N t R"), "with other arguments"},
    {"PT-22 arguments a list", W("torch._utils:_rebuild_tensor_v2 ] R"), "a list stands where a tuple of arguments belongs"},
    {"PT-22 OrderedDict of pairs", "collections:OrderedDict ] t1 R .", "collections.OrderedDict with other arguments"},
    {"PT-22 parameter of a string", W("torch._utils:_rebuild_parameter 'w' T N t3 R"), "with other arguments"},
    {"PT-22 a string is called", W("'torch._utils._rebuild_tensor_v2' ) R"), "a string is called"},
    {"PT-22 a tensor is called", W(MATRIX " ) R"), "a tensor is called"},
    {"PT-22 a storage type is called", W("torch:FloatStorage ) R"), "torch.FloatStorage is a type and no function"},
    {"PT-22 NEWOBJ of a function", W("torch._utils:_rebuild_tensor_v2 ) new"), "torch._utils._rebuild_tensor_v2 is called"},
    {"PT-23 split elsewhere", W("torch:_utils._rebuild_tensor_v2 ( " SIX " 0 6 t1 1 t1 F N t R"),
     "\"w\" is torch._utils._rebuild_tensor_v2 where a tensor belongs"},
    {"PT-23 homoglyph", W("x63746f726368d00a617a0a"), "a global whose name is no line"},
    {"PT-23 empty name", W("x630a0a"), "a global whose name is no line"},
    {"PT-23 no end", "} 'w' x636f73", "a global whose name is no line"},

    /* PT-24 .. PT-28 */
    {"PT-24 no mark", "} t .", "an opcode without its mark"},
    {"PT-24 mark is no value", "} ( t1 .", "an opcode with nothing to work on"},
    {"PT-24 nothing to pop", "x85", "an opcode with nothing to work on"},
    {"PT-25 memo not set", "get5 .", "memo entry 5 is used before it is set"},
    {"PT-25 memo far away", "} put4294967295 .", "memo entry 4294967295, at most"},
    {"PT-25 memo twice", "} put1 put1 .", "memo entry 1 is set twice"},
    {"PT-25 cycle", BESIDE("] put1 get1 a"), "accepted"},
    {"PT-25 dict in itself", "} put1 'w' get1 s .", "\"w\" is a dict where a tensor belongs"},
    {"PT-26 items set in a tensor", W(MATRIX " 1 2 s"), "items are set in a tensor"},
    {"PT-26 items set in a list", W("] ( 1 2 u"), "items are set in a list"},
    {"PT-26 items set in a number", "1 ( 2 3 u .", "items are set in an integer"},
    {"PT-26 half an item", "} ( 1 2 3 u .", "a key without its value"},
    {"PT-26 append to a dict", "} 1 a .", "items are appended to a dict"},
    {"PT-26 append to a tensor", W(MATRIX " ( 1 e"), "items are appended to a tensor"},
    {"PT-26 a list is a key", "} ] 1 s .", "a list is a key"},
    {"PT-26 attributes of a tensor", W(MATRIX " } b"), "attributes are set in a tensor"},
    {"PT-27 text too long", "x58ffffffff 'w' .", "runs past the end of the pickle"},
    {"PT-27 LONG1 too long", "x8aff 'w' .", "runs past the end of the pickle"},
    {"PT-27 LONG4", "x8bffffffff .", "opcode 0x8b"},
    {"PT-27 BINUNICODE8", "x8dffffffffffffff7f .", "opcode 0x8d"},
    {"PT-27 BYTEARRAY8", "x96ffffffffffffff7f .", "opcode 0x96"},
    {"PT-27 FRAME", "x95ffffffffffffff7f } .", "opcode 0x95"},
    {"PT-28 no STOP", "} ", "the pickle does not end"},
    {"PT-28 after STOP", "} . }", "bytes after the end of the pickle"},
    {"PT-28 two pickles", "} . x8002 } .", "bytes after the end of the pickle"},
    {"PT-28 two values", "} } .", "ends with more than one value"},
    {"PT-28 open mark", "( } .", "ends with more than one value"},
    {"PT-28 nothing", ".", "an opcode with nothing to work on"},
    {"PT-28 PROTO again", "x8002 } .", "opcode 0x80"},

    /* PT-40 .. PT-45 */
    {"PT-40 four parts", W(TENSOR(" ( 'storage' torch:FloatStorage '0' 'cpu' t Q ", "0", "6", "1")), "a persistent id that is not"},
    {"PT-40 not storage", W(TENSOR(" ( 'module' torch:FloatStorage '0' 'cpu' 6 t Q ", "0", "6", "1")), "a persistent id that is not"},
    {"PT-40 a number", W(TENSOR(" 5 Q ", "0", "6", "1")), "a persistent id that is not"},
    {"PT-40 a path", W(TENSOR(STORAGE("Float", "../0", "6"), "0", "6", "1")), "a storage whose key is no number"},
    {"PT-40 leading zero", W(TENSOR(STORAGE("Float", "00", "6"), "0", "6", "1")), "a storage whose key is no number"},
    {"PT-40 empty key", W(TENSOR(STORAGE("Float", "", "6"), "0", "6", "1")), "a storage whose key is no number"},
    {"PT-40 missing", W(TENSOR(STORAGE("Float", "7", "6"), "0", "6", "1")), "needs \"data/7\", which is not in the file"},
    {"PT-40 negative", W(TENSOR(STORAGE("Float", "0", "-6"), "0", "6", "1")), "size is negative"},
    {"PT-40 huge", W(TENSOR(STORAGE("Float", "0", "4611686018427387904"), "0", "6", "1")), "which has 24 bytes"},
    {"PT-40 fewer", W(TENSOR(STORAGE("Float", "0", "5"), "0", "5", "1")), "needs 5 elements in \"data/0\", which has 24 bytes"},
    {"PT-40 more", W(TENSOR(STORAGE("Float", "0", "7"), "0", "7", "1")), "needs 7 elements in \"data/0\", which has 24 bytes"},
    {"PT-40 of another type", W(TENSOR(STORAGE("Double", "0", "6"), "0", "6", "1")), "which has 24 bytes"},
    {"PT-41 offset negative", VIEW("-1", "2", "1"), "reaches outside its storage of 6 elements"},
    {"PT-41 offset at the end", VIEW("6", "1", "1"), "reaches outside its storage of 6 elements"},
    {"PT-41 empty at the end", VIEW("6", "0", "1"), "accepted"},
    {"PT-41 last element", VIEW("5", "1", "1"), "accepted"},
    {"PT-41 one beyond", VIEW("1", "2 3", "3 1"), "reaches outside its storage of 6 elements"},
    {"PT-41 stride beyond", VIEW("0", "2 3", "4 1"), "reaches outside its storage of 6 elements"},
    {"PT-41 overflow", VIEW("0", "3 2", "9223372036854775807 1"), "reaches outside its storage of 6 elements"},
    {"PT-41 sum overflows", VIEW("1", "3 2", "9223372036854775807 1"), "reaches outside its storage of 6 elements"},
    {"PT-42 negative stride", VIEW("5", "6", "-1"), "has a negative stride"},
    {"PT-42 fewer strides", VIEW("0", "2 3", "1"), "has 2 sizes and 1 strides"},
    {"PT-42 negative size", VIEW("0", "-2 3", "3 1"), "a dimension outside 0..2^40"},
    {"PT-42 size product overflows", VIEW("0", "1099511627776 1099511627776", "0 0"), "a shape whose product overflows"},
    {"PT-42 nine dimensions", VIEW("0", "1 1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1 1"), "has 9 sizes and 9 strides, at most 8"},
    {"PT-43 expanded", VIEW("0", "1099511627776", "0"), "repeats elements: 1099511627776 of a storage of 6"},
    {"PT-43 a little", VIEW("0", "7", "0"), "repeats elements: 7 of a storage of 6"},
    {"PT-44 transposed", VIEW("0", "3 2", "1 3"), "accepted"},
    {"PT-44 tied", "} ( 'a' " MATRIX " 'b' " MATRIX " u .", "accepted"},
    {"PT-45 complex", W(TENSOR(STORAGE("ComplexFloat", "0", "3"), "0", "3", "1")), "accepted"},
    {"PT-45 complex double", W(TENSOR(STORAGE("ComplexDouble", "0", "3"), "0", "1", "1")), "torch.ComplexDoubleStorage, which is not read"},
    {"PT-45 bool", W(TENSOR(STORAGE("Bool", "0", "24"), "0", "24", "1")), "BOOL tensor \"w\" holds 128"},
    {"untyped as nothing", W(TENSOR(STORAGE("Untyped", "0", "24"), "0", "6", "1")), "accepted"},
};

#endif
