/* safetensors_cases.h - headers of safetensors files and the beginning of what the reader must say about each; ids
 * such as ST-05 number the known attacks. The data are zeros. */
#ifndef MALA_SAFETENSORS_CASES_H
#define MALA_SAFETENSORS_CASES_H

#include <stddef.h>

typedef struct {
    const char *id, *header;
    size_t header_bytes, data_bytes;
    const char *verdict; /* the beginning of it */
} Case;

#define H(text) text, sizeof(text) - 1
#define W(shape, offsets) "{\"w\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define F(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define T "tensor \"w\" "
#define F4 F("F32", "[1]", "[0,4]")

static const Case cases[] = {
    {"plain", H(W("[2]", "[0,8]")), 8, "accepted"},
    {"no tensors", H("{}"), 0, "accepted"},
    {"no tensors, data", H("{}"), 4, "byte 10: the last 4 bytes belong to no tensor"},
    {"ST-03 space", H(" " W("[2]", "[0,8]")), 8, "accepted"},
    {"ST-03 tab", H("\t" W("[2]", "[0,8]")), 8, "accepted"},
    {"ST-03 array", H("[1]"), 0, "byte 8: 0x5b does not begin a header"},
    {"ST-03 byte order mark", H("\xef\xbb\xbf{}"), 0, "byte 8: 0xef does not begin a header"},
    {"ST-03 NUL", H("\0{}"), 0, "byte 8: 0x00 does not begin a header"},
    {"ST-04 spaces", H("{}   "), 0, "accepted"},
    {"ST-04 white space", H("{}\t\r\n"), 0, "accepted"},
    {"ST-04 NUL", H("{}\0"), 0, "byte 10: expected the end"},
    {"ST-04 garbage", H("{}x"), 0, "byte 10: expected the end"},
    {"ST-05", H("{\"w\":" F("U8", "[4]", "[0,4]") ",\"w\":" F4 "}"), 4,
     "byte 61: key \"w\" appears twice, first at byte 9"},
    {"ST-05 escaped", H("{\"w\":" F4 ",\"\\u0077\":" F4 "}"), 4, "byte 62: key \"w\" appears twice, first at byte 9"},
    {"ST-05 NUL", H("{\"a\\u0000b\":" F4 "}"), 4, "byte 11: "},
    {"control character", H("{\"a\\u001b[2J\":" F4 "}"), 4, "byte 11: control character 0x1b"},
    {"ST-06 metadata twice", H("{\"__metadata__\":{},\"__metadata__\":{}}"), 0,
     "byte 27: key \"__metadata__\" appears twice, first at byte 9"},
    {"ST-06 metadata key twice", H("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}"), 0,
     "byte 33: key \"a\" appears twice, first at byte 25"},
    {"ST-06 dtype twice", H("{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}"), 0, "byte 27: key \"dtype\" appears twice"},
    {"ST-06 extra", H("{\"w\":{\"dtype\":\"U8\",\"stride\":[1]}}"), 0, "byte 27: " T "has an unknown key \"stride\""},
    {"ST-06 no dtype", H("{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}"), 4, "byte 46: " T "has no dtype"},
    {"ST-06 no shape", H("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}"), 4, "byte 48: " T "has no shape"},
    {"ST-06 no offsets", H("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}"), 4, "byte 39: " T "has no data_offsets"},
    {"tensor is a number", H("{\"w\":1}"), 0, "byte 13: expected an object, found a number"},
    {"ST-07 number", H("{\"__metadata__\":1}"), 0, "byte 24: expected an object, found a number"},
    {"ST-07 array", H("{\"__metadata__\":[\"a\"]}"), 0, "byte 24: expected an object, found an array"},
    {"ST-07 nested", H("{\"__metadata__\":{\"a\":{}}}"), 0, "byte 29: expected a string, found an object"},
    {"ST-07 value", H("{\"__metadata__\":{\"a\":1}}"), 0, "byte 29: expected a string, found a number"},
    {"ST-08 lower case", H("{\"w\":" F("f32", "[1]", "[0,4]") "}"), 4, "byte 22: " T "has an unknown dtype \"f32\""},
    {"ST-08 blank", H("{\"w\":" F("F32 ", "[1]", "[0,4]") "}"), 4, "byte 22: " T "has an unknown dtype \"F32 \""},
    {"ST-08 empty", H("{\"w\":" F("", "[1]", "[0,4]") "}"), 4, "byte 22: " T "has an unknown dtype \"\""},
    {"ST-08 number", H("{\"w\":{\"dtype\":32}}"), 0, "byte 22: expected a string, found a number"},
    {"ST-08 unknown", H("{\"w\":" F("F128", "[1]", "[0,16]") "}"), 16, "byte 22: " T "has an unknown dtype \"F128\""},
    {"ST-08 half bytes", H("{\"w\":" F("F4", "[3]", "[0,2]") "}"), 2,
     "byte 59: " T "has a size that is not a whole number of bytes"},
    {"ST-08 whole bytes", H("{\"w\":" F("F4", "[4]", "[0,2]") "}"), 2, "accepted"},
    {"ST-08 six bits", H("{\"w\":" F("F6_E2M3", "[4]", "[0,3]") "}"), 3, "accepted"},
    {"ST-09 -1", H(W("[-1]", "[0,4]")), 4, "byte 37: " T "has a dimension"},
    {"ST-09 2.0", H(W("[2.0]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 2.5", H(W("[2.5]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 1e2", H(W("[1e2]", "[0,400]")), 400, "byte 37: " T "has a dimension"},
    {"ST-09 text", H(W("[\"2\"]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 null", H(W("[null]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 2^53+1", H(W("[9007199254740993]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 2^64", H(W("[18446744073709551616]", "[0,8]")), 8, "byte 37: " T "has a dimension"},
    {"ST-09 2^40", H(W("[0,1099511627776]", "[0,0]")), 0, "accepted"},
    {"ST-09 2^40+1", H(W("[0,1099511627777]", "[0,0]")), 0, "byte 39: " T "has a dimension"},
    {"ST-09 rank 8", H(W("[1,1,1,1,1,1,1,1]", "[0,4]")), 4, "accepted"},
    {"ST-09 rank 9", H(W("[1,1,1,1,1,1,1,1,1]", "[0,4]")), 4, "byte 53: " T "has more than 8 dimensions"},
    {"ST-10", H(W("[2,9223372036854775808]", "[0,0]")), 0, "byte 39: " T "has a dimension"},
    {"ST-10 product", H(W("[1048576,1048576,16777216]", "[0,0]")), 0, "byte 83: " T "has a shape whose product"},
    {"ST-10 bytes", H(W("[1048576,1048576,1048576]", "[0,0]")), 0, "byte 82: " T "has a shape whose size in"},
    {"ST-10 wraps to 8", H(W("[2,1073741824,2147483649]", "[0,8]")), 8, "byte 82: " T "has a shape whose size in"},
    {"ST-10 0 first", H(W("[0,1099511627776,1099511627776]", "[0,0]")), 0, "byte 88: " T "has a shape whose prod"},
    {"ST-10 0 last", H(W("[1099511627776,1099511627776,0]", "[0,0]")), 0, "byte 88: " T "has a shape whose prod"},
    {"ST-11 scalar", H(W("[]", "[0,4]")), 4, "accepted"},
    {"ST-11 [0]", H(W("[0]", "[0,0]")), 0, "accepted"},
    {"ST-11 [2,0]", H(W("[2,0]", "[0,0]")), 0, "accepted"},
    {"ST-12 none", H(W("[1]", "[]")), 4, "byte 56: expected a number, found the end of an array"},
    {"ST-12 one", H(W("[1]", "[0]")), 4, "byte 57: expected a number, found the end of an array"},
    {"ST-12 three", H(W("[1]", "[0,4,4]")), 4, "byte 60: expected the end of an array, found a number"},
    {"ST-12 reversed", H(W("[1]", "[4,0]")), 4, "byte 55: " T "ends before it begins"},
    {"ST-12 negative", H(W("[1]", "[-4,0]")), 4, "byte 56: " T "has an offset that is no integer"},
    {"ST-12 fraction", H(W("[1]", "[0,4.0]")), 4, "byte 58: " T "has an offset that is no integer"},
    {"ST-12 beyond", H(W("[2]", "[0,8]")), 7, "byte 55: " T "ends at byte 8 of the data, the file has 7"},
    {"ST-12 2^64-1", H(W("[1]", "[0,18446744073709551615]")), 4, "byte 55: " T "ends at byte 18446744073709551615"},
    {"ST-13 same range", H("{\"a\":" F4 ",\"b\":" F4 "}"), 4,
     "byte 115: tensor \"b\" overlaps the one before it by 4 bytes"},
    {"ST-13 overlap", H("{\"a\":" F("U8", "[4]", "[0,4]") ",\"b\":" F("U8", "[4]", "[2,6]") "}"), 6,
     "byte 115: tensor \"b\" overlaps the one before it by 2 bytes"},
    {"ST-13 nested", H("{\"a\":" F("U8", "[8]", "[0,8]") ",\"b\":" F("U8", "[2]", "[2,4]") "}"), 8,
     "byte 115: tensor \"b\" overlaps the one before it by 6 bytes"},
    {"ST-14 hole at the start", H(W("[1]", "[4,8]")), 8, "byte 62: the 4 bytes before " T "belong to no tensor"},
    {"ST-14 hole", H("{\"a\":" F("U8", "[2]", "[0,2]") ",\"b\":" F("U8", "[2]", "[4,6]") "}"), 6,
     "byte 115: the 2 bytes before tensor \"b\" belong to no tensor"},
    {"ST-14 hole at the end", H(W("[1]", "[0,4]")), 5, "byte 66: the last 1 bytes belong to no tensor"},
    {"ST-14 any order", H("{\"b\":" F("U8", "[2]", "[2,4]") ",\"a\":" F("U8", "[2]", "[0,2]") "}"), 4, "accepted"},
    {"ST-15 less", H(W("[1]", "[0,3]")), 3, "byte 60: " T "needs 4 bytes, its offsets span 3"},
    {"ST-15 more", H(W("[1]", "[0,5]")), 5, "byte 60: " T "needs 4 bytes, its offsets span 5"},
    {"ST-15 1000x1000", H(W("[1000,1000]", "[0,4]")), 4, "byte 68: " T "needs 4000000 bytes, its offsets span 4"},
    {"ST-16 at a border", H("{\"a\":" F4 ",\"b\":" F("U8", "[0]", "[4,4]") ",\"c\":" F("F32", "[1]", "[4,8]") "}"), 8,
     "accepted"},
    {"ST-16 within", H("{\"a\":" F4 ",\"b\":" F("U8", "[0]", "[2,2]") "}"), 4,
     "byte 116: tensor \"b\" overlaps the one before it by 2 bytes"},
    {"ST-20 path", H("{\"../../x\":" F4 "}"), 4, "accepted"},
    {"ST-20 empty", H("{\"\":" F4 "}"), 4, "accepted"},
    {"not UTF-8", H("{\"\xff\":" F4 "}"), 4, "byte 10: "},
};

#endif
