/* test_pth.c - every refusal of the reader of PyTorch checkpoints (zip, pickle, tensors), damage at every byte and bit,
 * files that torch wrote, and the writer. scripts/check_pth.py does the same with torch at hand. */
#include "io/pth.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "io/zip.h"
#include "io/zip_format.h"
#include "pth_cases.h"
#include "scratch.h"
#include "stored.h"

/* "accepted", or the message after the file's name. Whatever the bytes: a result, one line, exit code 3. */
static const char *verdict_with(const Buffer *b, EmaChoice ema) {
    static Err err;
    TensorFile f;
    err = (Err){0};
    if (tensor_file_open_memory(&f, "m.pth", b->bytes, b->count, &(TensorFileOptions){.ema = ema}, &err)) {
        tensor_file_close(&f);
        return "accepted";
    }
    assert_int_equal(err.code, EXIT_INPUT);
    if (strncmp(err.text, "m.pth: ", 7) != 0) fail_msg("does not begin with the file: %s", err.text);
    assert_null(strchr(err.text, '\n'));
    return err.text + 7;
}

static const char *verdict(const Buffer *b) { return verdict_with(b, EMA_AUTO); }

static void expect(const char *id, const char *got, const char *wanted) {
    bool fine = strcmp(wanted, "accepted") == 0 ? strcmp(got, wanted) == 0 : strstr(got, wanted) != NULL;
    if (!fine) fail_msg("%s: %s", id, got);
}

static void test_pickles(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Buffer b = {0};
        buffer_put_pth(&b, cases[i].words);
        expect(cases[i].id, verdict(&b), cases[i].verdict);
        buffer_free(&b);
    }
}

/* PT-21: every opcode in the first place, behind a dict, behind a mark, behind a tuple */
static void test_opcodes(void **state) {
    (void)state;
    static const char allowed[] = "(.)]}NJKMGXUcRQqrhjabestu\x81\x85\x86\x87\x88\x89\x8a";
    for (int opcode = 0; opcode < 256; opcode++)
        for (int place = 0; place < 4; place++) {
            static const char *const before[] = {"", "} ", "( ", "1 2 t2 "};
            char words[64];
            snprintf(words, sizeof words, "%sx%02x", before[place], opcode);
            Buffer b = {0};
            buffer_put_pth(&b, words);
            const char *got = verdict(&b);
            bool listed = opcode && memchr(allowed, opcode, sizeof allowed - 1);
            assert_int_equal(strstr(got, "which torch.save does not write") == NULL, listed);
            buffer_free(&b);
        }
}

/* PT-23, PT-24, PT-25: what is deep, long or large in a small file ends quickly */
static void test_bombs(void **state) {
    (void)state;
    enum { MANY = 1000000 };
    static const struct {
        const char *id, *before, *unit, *after, *verdict;
    } bombs[] = {
        {"a million TUPLE1", "} ( 'model' } 'w' " MATRIX " s 'args' )", "\x85", "u .", "values nested deeper than 1000"},
        {"a million marks", "}", "(", ".", "values nested deeper than 1000"},
        {"a million lists", "}", "]", ".", "ends with more than one value"},
        {"a line of a megabyte", "} x63", "a", "x0a x0a .", "a global whose name is no line"},
    };
    for (size_t i = 0; i < COUNTOF(bombs); i++) {
        Buffer b = {0}, pickle = {0};
        Entry entries[PTH_ENTRIES];
        buffer_put(&pickle, "\x80\2", 2);
        buffer_put_pickle(&pickle, bombs[i].before);
        for (int k = 0; k < MANY; k++) buffer_put(&pickle, bombs[i].unit, 1);
        buffer_put_pickle(&pickle, bombs[i].after);
        pth_entries(entries, &pickle);
        buffer_put_zip(&b, NULL, entries, PTH_ENTRIES);
        double start = time_now();
        expect(bombs[i].id, verdict(&b), bombs[i].verdict);
        assert_true(time_now() - start < 2);
        buffer_free(&pickle);
        buffer_free(&b);
    }
    for (int levels = 999; levels <= 1001; levels += 2) /* a tuple of nothing, then tuples and lists around it in turns */
        for (int lists = 0; lists < 2; lists++) {
            Buffer b = {0}, pickle = {0};
            Entry entries[PTH_ENTRIES];
            buffer_put_pickle(&pickle, "x8002 } 'args'");
            for (int k = 0; lists && k < levels; k++) buffer_put_pickle(&pickle, "]");
            buffer_put_pickle(&pickle, ")");
            for (int k = 0; k < levels; k++) buffer_put_pickle(&pickle, lists ? "a" : "t1");
            buffer_put_pickle(&pickle, "s 'model' } 'w' " MATRIX " s s .");
            pth_entries(entries, &pickle);
            buffer_put_zip(&b, NULL, entries, PTH_ENTRIES);
            expect("depth", verdict(&b), levels < 1000 ? "accepted" : "values nested deeper than 1000");
            buffer_free(&pickle);
            buffer_free(&b);
        }
    Buffer words = {0}, b = {0}; /* each level holds the one before twice: 2^60 leaves as a tree */
    buffer_put(&words, "} 'args' ) ", 11);
    for (int level = 0; level < 60; level++) {
        char step[32];
        int n = snprintf(step, sizeof step, "put%d get%d t2 ", level, level);
        buffer_put(&words, step, (size_t)n);
    }
    buffer_put(&words, "s 'model' } 'w' " MATRIX " s s .", sizeof "s 'model' } 'w' " MATRIX " s s .");
    buffer_put_pth(&b, (const char *)words.bytes);
    expect("DAG", verdict(&b), "accepted");
    buffer_free(&words);
    buffer_free(&b);
}

/* PT-28 */
static void test_protocol(void **state) {
    (void)state;
    for (int protocol = -1; protocol < 256; protocol++) {
        Buffer b = {0}, pickle = {0};
        Entry entries[PTH_ENTRIES];
        if (protocol >= 0) buffer_put_uint(&pickle, 0x80, 1), buffer_put_uint(&pickle, (uint64_t)protocol, 1);
        buffer_put(&pickle, "}.", 2);
        pth_entries(entries, &pickle);
        buffer_put_zip(&b, NULL, entries, PTH_ENTRIES);
        expect("protocol", verdict(&b), protocol == 2 ? "accepted" : "not a pickle of protocol 2");
        buffer_free(&pickle);
        buffer_free(&b);
    }
}

static void test_choice(void **state) {
    (void)state;
#define DICT(name) "'" name "' } '" name "' " MATRIX " s "
    static const struct {
        const char *words, *part[3]; /* auto, yes, no; NULL: refused */
    } choices[] = {
        {"} ( " DICT("model") DICT("model_ema") "u .", {"model_ema", "model_ema", "model"}},
        {"} ( " DICT("state_dict") DICT("state_dict_ema") "u .", {"state_dict_ema", "state_dict_ema", "state_dict"}},
        {"} ( " DICT("state_dict") DICT("model") "u .", {"model", NULL, "model"}},
        {"} ( " DICT("model") "'model_ema' N u .", {"model", NULL, "model"}},
        {"} ( " DICT("model") "'model_ema' } u .", {"model", NULL, "model"}},
        {"} 'model' " MATRIX " s .", {"", NULL, ""}}, /* a tensor that is called so */
        {"} 'w' " MATRIX " s .", {"", NULL, ""}},
    };
    for (size_t i = 0; i < COUNTOF(choices); i++)
        for (int ema = 0; ema < 3; ema++) {
            Buffer b = {0};
            buffer_put_pth(&b, choices[i].words);
            const char *part = choices[i].part[ema];
            TensorFile f;
            Err err = {0};
            bool ok = tensor_file_open_memory(&f, "m", b.bytes, b.count, &(TensorFileOptions){.ema = (EmaChoice)ema}, &err);
            assert_int_equal(ok, part != NULL);
            if (ok) {
                assert_string_equal(f.part, part);
                assert_int_equal(f.averaged, strstr(part, "ema") != NULL);
                assert_int_equal(f.tensor_count, 1);
                if (part[0]) assert_string_equal(f.tensors[0].name, part);
                tensor_file_close(&f);
            } else {
                assert_non_null(strstr(err.text, "has no averaged weights"));
            }
            buffer_free(&b);
        }
}

/* PT-44: a view is what torch would print of it */
static void test_views(void **state) {
    (void)state;
    static const struct {
        const char *offset, *size, *stride;
        int rank, count;
        float values[6];
        bool in_place;
    } views[] = {
        {"0", "2 3", "3 1", 2, 6, {0, 1, 2, 3, 4, 5}, true},
        {"0", "3 2", "1 3", 2, 6, {0, 3, 1, 4, 2, 5}, false},
        {"1", "2 2", "3 1", 2, 4, {1, 2, 4, 5}, false},
        {"3", "3", "1", 1, 3, {3, 4, 5}, true},
        {"1", "2", "3", 1, 2, {1, 4}, false},
        {"4", "", "", 0, 1, {4}, true},
        {"2", "1 3 1", "99 1 7", 3, 3, {2, 3, 4}, true}, /* strides of single elements mean nothing */
        {"0", "2 3", "0 1", 2, 6, {0, 1, 2, 0, 1, 2}, false},
        {"0", "0 3", "3 1", 2, 0, {0}, true},
    };
    for (size_t i = 0; i < COUNTOF(views); i++) {
        char words[400];
        snprintf(words, sizeof words, "} 'module._orig_mod.w' torch._utils:_rebuild_tensor_v2 ( " SIX
                 " %s ( %s t ( %s t F N t R s .", views[i].offset, views[i].size, views[i].stride);
        Buffer b = {0};
        TensorFile f;
        Err err = {0};
        float values[6];
        buffer_put_pth(&b, words);
        if (!tensor_file_open_memory(&f, "m", b.bytes, b.count, NULL, &err)) fail_msg("%zu: %s", i, err.text);
        const StoredTensor *t = tensor_file_find(&f, "w");
        assert_non_null(t);
        assert_int_equal(t->rank, views[i].rank);
        assert_int_equal(t->count, views[i].count);
        assert_true(tensor_file_read_f32(values, &f, t, &err));
        assert_memory_equal(values, views[i].values, (size_t)views[i].count * sizeof(float));
        assert_int_equal(f.owned_count, !views[i].in_place);
        tensor_file_close(&f);
        buffer_free(&b);
    }
}

/* many strided views of one storage would cost more memory than the file */
static void test_gather_budget(void **state) {
    (void)state;
    static const float zeros[6000];
    for (int views = 1; views <= 3; views += 2) {
        Buffer pickle = {0}, b = {0};
        Entry e[PTH_ENTRIES];
        buffer_put_pickle(&pickle, "x8002 } ( 'w' " TENSOR(STORAGE("Float", "0", "6000"), "0", "2 3000", "1 2") " put1");
        for (int i = 1; i < views; i++) buffer_put_pickle(&pickle, i == 1 ? "'v' get1" : "'u' get1");
        buffer_put_pickle(&pickle, "u .");
        pth_entries(e, &pickle);
        e[2].data = zeros, e[2].bytes = sizeof zeros;
        buffer_put_zip(&b, NULL, e, PTH_ENTRIES);
        expect("views", verdict(&b), views == 1 ? "accepted" : "is one of too many views of the same data");
        buffer_free(&pickle);
        buffer_free(&b);
    }
}

/* ---- the archive ---- */

/* What is done to the good archive of four entries before it is read. */
typedef struct {
    const char *id;
    int entry; /* whose headers; -1: the end record */
    bool central, local;
    size_t at, bytes; /* the field in that header */
    uint64_t value;
    const char *verdict;
} Patch;

static void test_patches(void **state) {
    (void)state;
    static const Patch patches[] = {
        {"PT-03 no entries", -1, false, false, 8, 4, 0, "0 entries in a directory"},
        {"PT-03 65535 entries", -1, false, false, 8, 4, UINT32_MAX, "65535 entries in a directory"},
        {"PT-03 fewer entries", -1, false, false, 8, 4, 0x00030003, "more entries in the directory"},
        {"PT-03 more entries", -1, false, false, 8, 4, 0x00050005, "no entry of the directory"},
        {"several disks", -1, false, false, 4, 2, 1, "several disks"},
        {"directory size", -1, false, false, 12, 4, 10, "the directory does not end where"},
        {"directory at", -1, false, false, 16, 4, UINT32_MAX, "the directory does not end where"},
        {"PT-02 comment", -1, false, false, 20, 2, 5, "no end record"},
        {"PT-04 size, directory", 2, true, false, 24, 4, 20, "stored in another size"},
        {"PT-04 both sizes, directory", 2, true, false, 20, 8, 0x1400000014, "another method, size or CRC"},
        {"PT-04 size, local", 2, false, true, 22, 4, 20, "another method, size or CRC"},
        {"PT-04 method, directory", 2, true, false, 10, 2, 8, "is compressed"},
        {"PT-04 method, local", 2, false, true, 8, 2, 8, "another method, size or CRC"},
        {"PT-04 flags, directory", 2, true, false, 8, 2, 8, "another method, size or CRC"},
        {"PT-04 flags, local", 2, false, true, 6, 2, 8, "another method, size or CRC"},
        {"PT-04 offset", 2, true, false, 42, 4, 1, "has no local header"},
        {"PT-04 offset beyond", 2, true, false, 42, 4, 0x7fffffff, "lies beyond the file"},
        {"PT-04 offset of another", 2, true, false, 42, 4, 0, "overlaps another or the directory"},
        {"PT-06 CRC of the pickle", 0, true, true, 0, 0, 1, "entry \"archive/data.pkl\" is damaged"},
        {"PT-06 CRC of a storage", 2, true, true, 0, 0, 1, "entry \"archive/data/0\" is damaged"},
        {"PT-07 encrypted", 2, true, true, 0, 0, 2, "is encrypted"},
        {"PT-07 deflate", 2, true, true, 0, 0, 3, "is compressed"},
        {"PT-07 bzip2", 2, true, true, 0, 0, 4, "is compressed"},
        {"comment of an entry", 2, true, false, 32, 2, 1, "has a comment"},
        {"extra beyond", 3, true, false, 30, 2, 5000, "an entry beyond the directory"},
        {"local name length", 2, false, true, 26, 2, 5000, "has another name in its local header"},
    };
    for (size_t i = 0; i < COUNTOF(patches); i++) {
        const Patch *c = &patches[i];
        Buffer b = {0}, pickle = {0};
        Entry e[PTH_ENTRIES];
        Places places;
        buffer_put(&pickle, "\x80\2", 2);
        buffer_put_pickle(&pickle, W(MATRIX));
        pth_entries(e, &pickle);
        if (c->bytes == 0 && c->value == 1) e[c->entry].crc_change = 0x80;
        if (c->bytes == 0 && c->value == 2) e[c->entry].flags = 1;
        if (c->bytes == 0 && c->value == 3) e[c->entry].method = 8;
        if (c->bytes == 0 && c->value == 4) e[c->entry].method = 12;
        buffer_put_zip(&b, &places, e, PTH_ENTRIES);
        size_t header = c->entry < 0 ? places.end : c->central ? places.central[c->entry] : places.local[c->entry];
        memcpy(b.bytes + header + c->at, &c->value, c->bytes);
        expect(c->id, verdict(&b), c->verdict);
        buffer_free(&pickle);
        buffer_free(&b);
    }
}

/* What lies before the first entry belongs to none, however rightly the directory counts it. */
static void test_bytes_before_the_first_entry(void **state) {
    (void)state;
    for (int hidden = 0; hidden < 2; hidden++) {
        Buffer b = {0}, pickle = {0};
        Entry e[PTH_ENTRIES];
        Places places;
        buffer_put_pickle(&pickle, "x8002 " W(MATRIX));
        pth_entries(e, &pickle);
        if (hidden) buffer_put(&b, "PK\3\4hidden", 10);
        buffer_put_zip(&b, &places, e, PTH_ENTRIES);
        for (int i = 0; i < PTH_ENTRIES; i++) memcpy(b.bytes + places.central[i] + 42, &places.local[i], 4);
        memcpy(b.bytes + places.end + 16, &places.central[0], 4);
        expect("before", verdict(&b), hidden ? "the archive does not begin with its first entry" : "accepted");
        buffer_free(&pickle);
        buffer_free(&b);
    }
}

/* Both headers of a storage say that it is longer than what is there: into the next entry, or into the directory. */
static void test_entries_beyond_the_next(void **state) {
    (void)state;
    for (int entry = 2; entry < PTH_ENTRIES; entry++)
        for (uint32_t more = 0; more < 2; more++) {
            Buffer b = {0}, pickle = {0};
            Entry e[PTH_ENTRIES];
            Places places;
            buffer_put_pickle(&pickle, "x8002 " W(MATRIX));
            pth_entries(e, &pickle);
            buffer_put_zip(&b, &places, e, PTH_ENTRIES);
            const uint32_t sizes[2] = {(uint32_t)e[entry].bytes + more, (uint32_t)e[entry].bytes + more};
            memcpy(b.bytes + places.central[entry] + 20, sizes, 8);
            memcpy(b.bytes + places.local[entry] + 18, sizes, 8);
            expect(e[entry].name, verdict(&b), more ? "overlaps what follows it" : "accepted");
            buffer_free(&pickle);
            buffer_free(&b);
        }
}

/* Other entries in place of the usual ones, or beside them. */
static void test_entries(void **state) {
    (void)state;
    static char long_name[70000];
    memset(long_name, 'a', sizeof long_name - 1);
    static const struct {
        const char *id;
        int replaces; /* index, or PTH_ENTRIES: one more */
        Entry entry;
        const char *verdict;
    } entries[] = {
        {"PT-01 TorchScript", 4, {.name = "archive/constants.pkl", .data = "x", .bytes = 1}, "is a TorchScript module"},
        {"PT-01 TorchScript code", 4, {.name = "archive/code/a.py", .data = "x", .bytes = 1}, "is a TorchScript module"},
        {"PT-05 two pickles", 4, {.name = "archive/data.pkl", .data = "x", .bytes = 1}, "is there twice"},
        {"PT-05 two storages", 4, {.name = "archive/data/0", .data = "x", .bytes = 1}, "is there twice"},
        {"PT-05 another pickle", 4, {.name = "archive/other.bin", .data = "x", .bytes = 1}, "is none of a PyTorch checkpoint"},
        {"PT-05 two folders", 4, {.name = "other/data.pkl", .data = "x", .bytes = 1}, "is none of a PyTorch checkpoint"},
        {"PT-05 a folder's name that goes on", 4, {.name = "archivex/data/1", .data = "x", .bytes = 1}, "is none of a"},
        {"PT-08 up", 4, {.name = "archive/../../.bashrc", .data = "x", .bytes = 1}, "a path out of the archive"},
        {"PT-08 absolute", 4, {.name = "/etc/passwd", .data = "x", .bytes = 1}, "a path out of the archive"},
        {"PT-08 drive", 4, {.name = "C:\\x", .data = "x", .bytes = 1}, "a path out of the archive"},
        {"PT-08 NUL", 4, {.name = "archive/data/1\0x", .name_bytes = 16, .data = "x", .bytes = 1}, "a path out of the archive"},
        {"PT-08 control", 4, {.name = "archive/\x1b[2J", .data = "x", .bytes = 1}, "a path out of the archive"},
        {"PT-08 long", 4, {.name = long_name, .name_bytes = 65535, .data = "x", .bytes = 1}, "name is not 1..512 bytes"},
        {"PT-04 name", 2, {.name = "archive/data/0", .local_name = "archive/data/1", .data = "x", .bytes = 1}, "another name"},
        {"PT-09 big", 1, {.name = "archive/byteorder", .data = "big", .bytes = 3}, "the byte order is not \"little\""},
        {"PT-09 middle", 1, {.name = "archive/byteorder", .data = "middle", .bytes = 6}, "the byte order is not \"little\""},
        {"PT-09 empty", 1, {.name = "archive/byteorder", .data = "", .bytes = 0}, "the byte order is not \"little\""},
        {"PT-09 long", 1, {.name = "archive/byteorder", .data = long_name, .bytes = 69999}, "the byte order is not \"little\""},
        {"PT-09 absent", 1, {.name = "archive/.format_version", .data = "1", .bytes = 1}, "accepted"},
        {"PT-10 version 10", 3, {.name = "archive/version", .data = "10", .bytes = 2}, "accepted"},
        {"PT-10 version 0", 3, {.name = "archive/version", .data = "0\n", .bytes = 2}, "version is not stated or not 1..10"},
        {"PT-10 version 11", 3, {.name = "archive/version", .data = "11\n", .bytes = 3}, "version is not stated or not 1..10"},
        {"PT-10 version 999", 3, {.name = "archive/version", .data = "999\n", .bytes = 4}, "version is not stated or not 1..10"},
        {"PT-10 version long", 3, {.name = "archive/version", .data = long_name, .bytes = 69999}, "version is not stated"},
        {"PT-10 version absent", 3, {.name = "archive/data/1", .data = "3\n", .bytes = 2}, "version is not stated or not 1..10"},
        {"no pickle", 0, {.name = "archive/data/1", .data = "3\n", .bytes = 2}, "is a zip archive without a data.pkl"},
        {"another zip", 0, {.name = "word/document.xml", .data = "3\n", .bytes = 2}, "is none of a PyTorch checkpoint"},
        {"hole between entries", 1, {.name = "archive/byteorder", .data = "little", .bytes = 6, .padding = 9}, "does not end where"},
        {"PT-45 no storage needs it", 4, {.name = "archive/data/17", .data = "xyz", .bytes = 3, .crc_change = 1}, "accepted"},
    };
    for (size_t i = 0; i < COUNTOF(entries); i++) {
        Buffer b = {0}, pickle = {0};
        Entry e[PTH_ENTRIES + 1];
        buffer_put(&pickle, "\x80\2", 2);
        buffer_put_pickle(&pickle, W(MATRIX));
        pth_entries(e, &pickle);
        e[entries[i].replaces] = entries[i].entry;
        buffer_put_zip(&b, NULL, e, PTH_ENTRIES + (entries[i].replaces == PTH_ENTRIES));
        expect(entries[i].id, verdict(&b), entries[i].verdict);
        buffer_free(&pickle);
        buffer_free(&b);
    }
}

static void good(Buffer *b) { buffer_put_pth(b, "} ( 'model' } 'w' " MATRIX " s 'epoch' 3 'args' argparse:Namespace ) new u ."); }

/* PT-03: the records for large archives, lying */
static void test_zip64(void **state) {
    (void)state;
    static const struct {
        const char *id;
        size_t at; /* from the zip64 end record, which is followed by its locator */
        uint64_t value;
        const char *verdict;
    } lies[] = {
        {"fine", 0, 0, "accepted"},
        {"entries", 32, UINT64_MAX, "several disks"},
        {"size of the directory", 40, UINT64_MAX, "the directory does not end where"},
        {"its place", 48, UINT64_MAX, "the directory does not end where"},
        {"record size", 4, 1000, "not a zip64 end record"},
        {"locator beyond the file", 56 + 8, UINT64_MAX, "the zip64 locator does not point"},
    };
    for (size_t i = 0; i < COUNTOF(lies); i++) {
        Buffer b = {0}, small = {0};
        good(&small);
        uint64_t end = small.count - ZIP_END_BYTES, bytes = 0, begin = 0;
        memcpy(&bytes, small.bytes + end + 12, 4);
        memcpy(&begin, small.bytes + end + 16, 4);
        buffer_put(&b, small.bytes, end);
        const uint64_t record[][2] = {{ZIP_END64, 4}, {ZIP_END64_BYTES - 12, 8}, {45, 2}, {45, 2}, {0, 8}, {4, 8}, {4, 8},
                                      {bytes, 8}, {begin, 8}, {ZIP_LOCATOR, 4}, {0, 4}, {end, 8}, {1, 4}, {ZIP_END, 4},
                                      {0, 4}, {UINT16_MAX, 2}, {UINT16_MAX, 2}, {UINT32_MAX, 4}, {UINT32_MAX, 4}, {0, 2}};
        for (size_t k = 0; k < COUNTOF(record); k++) buffer_put_uint(&b, record[k][0], (size_t)record[k][1]);
        if (i > 0) memcpy(b.bytes + end + lies[i].at, &lies[i].value, 8);
        expect(lies[i].id, verdict(&b), lies[i].verdict);
        buffer_free(&small);
        buffer_free(&b);
    }
}

/* ---- damage: F-01 to F-05 ---- */

static void test_damage(void **state) {
    (void)state;
    Buffer b = {0};
    good(&b);
    expect("good", verdict(&b), "accepted");
    for (size_t count = 0; count < b.count; count++) { /* a copy, so that a sanitizer sees the end */
        Buffer cut = {.bytes = mem_zalloc(count, 1), .count = count, .capacity = count};
        memcpy(cut.bytes, b.bytes, count);
        assert_string_not_equal(verdict(&cut), "accepted");
        buffer_free(&cut);
    }
    for (size_t bit = 0; bit < 8 * b.count; bit++) {
        b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        verdict(&b);
        b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    const uint64_t words[] = {0, 1, UINT64_MAX, INT64_MAX, (uint64_t)INT64_MIN, 0x7fffffff7fffffff, 0x8000000080000000,
                              b.count + 1};
    for (size_t bytes = 4; bytes <= 8; bytes += 4)
        for (size_t at = 0; at + bytes <= b.count; at += 4)
            for (size_t i = 0; i < COUNTOF(words); i++) {
                uint8_t old[8];
                memcpy(old, b.bytes + at, bytes);
                memcpy(b.bytes + at, &words[i], bytes);
                verdict(&b);
                memcpy(b.bytes + at, old, bytes);
            }
    buffer_free(&b);
}

static void test_appended(void **state) {
    (void)state;
    Buffer b = {0};
    good(&b);
    size_t count = b.count;
    buffer_put_uint(&b, 0, 1);
    expect("PT-02 a byte more", verdict(&b), "no end record");
    b.count = count;
    good(&b);
    expect("F-05 twice", verdict(&b), "the directory does not end where");
    b.count = 0;
    buffer_put(&b, "%PDF", 4);
    good(&b);
    assert_string_not_equal(verdict(&b), "accepted");
    b.count = 0;
    Buffer inner = {0};
    good(&inner);
    Entry e[PTH_ENTRIES];
    Buffer pickle = {0};
    buffer_put_pickle(&pickle, "x8002 " W(MATRIX));
    pth_entries(e, &pickle);
    e[3] = (Entry){.name = "archive/.data/serialization_id", .data = inner.bytes, .bytes = inner.count};
    buffer_put_zip(&b, NULL, e, PTH_ENTRIES);
    expect("PT-02 an end record inside an entry", verdict(&b), "version is not stated");
    buffer_free(&pickle);
    buffer_free(&inner);
    buffer_free(&b);
}

static void test_legacy(void **state) {
    (void)state;
    uint8_t tar[512] = "sys_info";
    memcpy(tar + 257, "ustar", 5);
    Buffer b = {0};
    buffer_put(&b, tar, sizeof tar);
    expect("PT-01 tar", verdict(&b), "is a tar archive");
    b.count = 0;
    buffer_put(&b, "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8", 12);
    expect("PT-01 legacy", verdict(&b), "save it again: torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), NEW)");
    buffer_free(&b);
}

/* F-07: a file that claims to be large is not read from end to end */
static void test_sparse(void **state) {
    (void)state;
    char *path = path_join(scratch_folder, "large");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "PK\3\4", 4), 4);
    bool sparse = ftruncate(fd, (off_t)1 << 40) == 0;
    close(fd);
    TensorFile f;
    Err err = {0};
    double start = time_now();
    if (sparse) assert_false(tensor_file_open(&f, path, NULL, &err));
    unlink(path);
    free(path);
    if (!sparse) skip();
    assert_int_equal(err.code, EXIT_INPUT);
    assert_true(time_now() - start < 1);
}

/* ---- files of torch and for torch ---- */

/* scripts/make_pth_golden.py says what is in them */
static void test_golden(void **state) {
    (void)state;
    TensorFile f;
    Err err = {0};
    float v[12];
    if (!tensor_file_open(&f, "tests/golden/checkpoint.pth", NULL, &err)) fail_msg("%s", err.text);
    assert_string_equal(f.part, "model_ema");
    assert_true(f.averaged);
    assert_non_null(strstr(f.stepped_over, "argparse.Namespace"));
    tensor_file_close(&f);
    if (!tensor_file_open(&f, "tests/golden/checkpoint.pth", &(TensorFileOptions){.ema = EMA_NO}, &err)) fail_msg("%s", err.text);
    assert_string_equal(f.part, "model");
    static const struct {
        const char *name;
        StoredType dtype;
        float first;
    } wanted[] = {{"f32", STORED_F32, 0},    {"f16", STORED_F16, 0.5f},       {"bf16", STORED_BF16, -1},
                  {"f64", STORED_F64, 1e-3f}, {"transposed", STORED_F32, 0}, {"row", STORED_F32, 4}};
    for (size_t i = 0; i < COUNTOF(wanted); i++) {
        const StoredTensor *t = tensor_file_find(&f, wanted[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, wanted[i].dtype);
        assert_true(t->count <= COUNTOF(v) && tensor_file_read_f32(v, &f, t, &err));
        assert_float_equal(v[0], wanted[i].first, 0);
    }
    const StoredTensor *t = tensor_file_find(&f, "transposed");
    assert_int_equal(t->shape[0], 4);
    assert_true(tensor_file_read_f32(v, &f, t, &err));
    assert_float_equal(v[1], 4, 0);
    const int64_t steps = 12345678901;
    const StoredTensor counter = {.dtype = STORED_I64, .data = &steps},
                       mask = {.dtype = STORED_BOOL, .rank = 1, .shape = {3}, .data = "\1\0\1"};
    assert_true(stored_same_data(tensor_file_find(&f, "num_batches_tracked"), &counter));
    assert_true(stored_same_data(tensor_file_find(&f, "mask"), &mask));
    tensor_file_close(&f);
    if (!tensor_file_open(&f, "tests/golden/state_dict.pth", NULL, &err)) fail_msg("%s", err.text);
    assert_string_equal(f.part, "");
    assert_non_null(tensor_file_find(&f, "weight"));
    tensor_file_close(&f);
}

/* What verdicts do not tell: which metadata come in. */
static void test_metadata(void **state) {
    (void)state;
    static const struct {
        const char *words;
        size_t count;
    } dicts[] = {{"} ( 'a' 'b' '' '' 'c' 'd' u", 3}, {"} ( 'a' 'b' 'c' 1 u", 0}, {"} 'a' x580100000000 s", 0}, {"}", 0}};
    for (size_t i = 0; i < COUNTOF(dicts); i++) {
        char words[2048];
        TensorFile f;
        Err err = {0};
        Buffer b = {0};
        snprintf(words, sizeof words, "} ( 'model' } 'w' " MATRIX " s 'metadata' %s u .", dicts[i].words);
        buffer_put_pth(&b, words);
        if (!tensor_file_open_memory(&f, "m.pth", b.bytes, b.count, NULL, &err)) fail_msg("%s", err.text);
        assert_int_equal(f.metadata_count, dicts[i].count);
        if (i == 0) assert_string_equal(tensor_file_metadata(&f, "c"), "d");
        if (i == 0) assert_string_equal(tensor_file_metadata(&f, ""), "");
        tensor_file_close(&f);
        buffer_free(&b);
    }
    /* more than anybody has to say: not taken, and no time lost in comparing them */
    Buffer many = {0};
    char words[64];
    buffer_put(&many, "\x80\2", 2);
    buffer_put_pickle(&many, "} ( 'model' } 'w' " MATRIX " s 'metadata' } (");
    for (int i = 0; i < 100000; i++) {
        snprintf(words, sizeof words, "'%d' 'x'", i);
        buffer_put_pickle(&many, words);
    }
    buffer_put_pickle(&many, "u u .");
    Buffer b = {0};
    Entry entries[PTH_ENTRIES];
    pth_entries(entries, &many);
    buffer_put_zip(&b, NULL, entries, PTH_ENTRIES);
    expect("many", verdict(&b), "accepted");
    buffer_free(&b);
    buffer_free(&many);
}

static const StoredTensor sample[] = {
    {.name = "layers.0.weight", .dtype = STORED_F32, .rank = 2, .shape = {1, 2}, .data = "\0\0\x80\x3f\1\0\x80\x7f"},
    {.name = "scalar", .dtype = STORED_I64, .data = "\1\2\3\4\5\6\7\x88"},
    {.name = "empty", .dtype = STORED_F16, .rank = 2, .shape = {0, 4}},
    {.name = "n\xc3\xa4me", .dtype = STORED_BOOL, .rank = 3, .shape = {1, 3, 1}, .data = "\1\0\1"},
};

static void test_write(void **state) {
    (void)state;
    char *path = path_join(scratch_folder, "written.pth");
    static const char *const keys[] = {NULL, "model", "model_ema"};
    static const StoredPair pairs[] = {{"format", "pt"}, {"n\xc3\xa4me", ""}};
    for (size_t k = 0; k < COUNTOF(keys); k++) {
        TensorFile f;
        Err err = {0};
        uint8_t *first, *second;
        size_t first_bytes, second_bytes;
        const size_t pair_count = k; /* for no key none */
        if (!pth_write(path, keys[k], sample, COUNTOF(sample), pairs, pair_count, &err)) fail_msg("%s", err.text);
        if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
        assert_string_equal(f.part, keys[k] ? keys[k] : "");
        assert_null(f.stepped_over);
        assert_int_equal(f.tensor_count, COUNTOF(sample));
        assert_int_equal(f.metadata_count, pair_count);
        for (size_t i = 0; i < pair_count; i++) {
            assert_string_equal(f.metadata[i].key, pairs[i].key);
            assert_string_equal(f.metadata[i].value, pairs[i].value);
        }
        for (size_t i = 0; i < COUNTOF(sample); i++) {
            const StoredTensor *t = &f.tensors[i];
            assert_string_equal(t->name, sample[i].name);
            assert_int_equal(t->dtype, sample[i].dtype);
            assert_int_equal(t->rank, sample[i].rank);
            assert_memory_equal(t->shape, sample[i].shape, sizeof t->shape);
            assert_true(stored_same_data(t, &sample[i]));
            assert_int_equal(t->at % 64, 0);
        }
        assert_true(file_read(&first, &first_bytes, path, 1 << 20, &err));
        assert_true(pth_write(path, keys[k], f.tensors, f.tensor_count, f.metadata, f.metadata_count, &err)); /* over itself */
        assert_true(file_read(&second, &second_bytes, path, 1 << 20, &err));
        assert_int_equal(first_bytes, second_bytes);
        assert_memory_equal(first, second, first_bytes);
        free(first);
        free(second);
        tensor_file_close(&f);
    }
    static const StoredTensor bad[][2] = {
        {{.name = "w", .dtype = STORED_U8, .data = "x"}, {.name = "w", .dtype = STORED_U8, .data = "y"}},
        {{.name = "", .dtype = STORED_U8, .data = "x"}},
        {{.name = "\xff", .dtype = STORED_U8, .data = "x"}},
        {{.name = "w", .dtype = STORED_F8_E4M3, .data = "x"}},
    };
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        Err err = {0};
        assert_false(pth_write(path, NULL, bad[i], bad[i][1].name ? 2 : 1, NULL, 0, &err));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_non_null(strstr(err.text, "not written"));
    }
    unlink(path);
    free(path);
}

/* Every type that torch knows comes back as it was. */
static void test_write_types(void **state) {
    (void)state;
    static const StoredType types[] = {STORED_F32, STORED_F64, STORED_F16, STORED_BF16, STORED_U8, STORED_I8,
                                       STORED_I16, STORED_I32, STORED_I64, STORED_BOOL, STORED_C64};
    static const uint8_t bytes[16] = {1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0};
    StoredTensor t[COUNTOF(types)];
    char names[COUNTOF(types)][8], *path = path_join(scratch_folder, "types.pth");
    for (size_t i = 0; i < COUNTOF(types); i++) {
        snprintf(names[i], sizeof names[i], "t%02zu", i);
        t[i] = (StoredTensor){.name = names[i], .dtype = types[i], .rank = 1, .shape = {2}, .data = bytes};
    }
    TensorFile f;
    Err err = {0};
    if (!pth_write(path, NULL, t, COUNTOF(t), NULL, 0, &err)) fail_msg("%s", err.text);
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(f.tensor_count, COUNTOF(t));
    for (size_t i = 0; i < COUNTOF(types); i++) {
        uint8_t got[16] = {0};
        const StoredTensor *is = tensor_file_find(&f, names[i]);
        assert_non_null(is);
        assert_int_equal(is->dtype, types[i]);
        assert_true(is->bytes <= sizeof got);
        if (!file_reader_read(f.reader, got, is->at, is->bytes, &err)) fail_msg("%s", err.text);
        assert_memory_equal(got, bytes, is->bytes);
    }
    tensor_file_close(&f);
    unlink(path);
    free(path);
}

/* From 65,535 entries on an archive says their number in 64 bits. */
static void test_write_many_entries(void **state) {
    (void)state;
    enum { COUNT = 65537 };
    char(*names)[8] = mem_zalloc(COUNT, sizeof *names), *path = path_join(scratch_folder, "many.zip");
    ZipWriter w;
    FileReader r;
    Zip z;
    Err err = {0};
    if (!zip_writer_open(&w, path, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        if (!zip_writer_add(&w, names[i], names[i], 1, &err)) fail_msg("%s", err.text);
    }
    if (!zip_writer_finish(&w, &err) || !file_reader_open(&r, path, &err)) fail_msg("%s", err.text);
    if (!zip_open(&z, &r, &err)) fail_msg("%s", err.text);
    assert_int_equal(z.count, COUNT);
    char last = 0;
    if (!zip_read(&z, zip_find(&z, "65536"), &last, &err)) fail_msg("%s", err.text);
    assert_int_equal(last, '6');
    zip_close(&z);
    file_reader_close(&r);
    unlink(path);
    free(names), free(path);
}

/* What is written can be read: as many tensors as an archive of the reader's holds, and none more. */
static void test_write_as_many_as_are_read(void **state) {
    (void)state;
    const size_t most = ZIP_MAX_ENTRIES - 3; /* pickle, byte order and version are entries, too */
    char(*names)[8] = mem_zalloc(most + 1, sizeof *names), *path = path_join(scratch_folder, "most.pth");
    StoredTensor *t = mem_zalloc(most + 1, sizeof *t);
    for (size_t i = 0; i <= most; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i);
        t[i] = (StoredTensor){.name = names[i], .dtype = STORED_U8, .rank = 1, .shape = {1}, .data = names[i]};
    }
    TensorFile f;
    Err err = {0};
    assert_false(pth_write(path, NULL, t, most + 1, NULL, 0, &err));
    if (!strstr(err.text, "most.pth: not written: more than 199997 tensors")) fail_msg("%s", err.text);
    assert_int_equal(access(path, F_OK), -1);
    err = (Err){0};
    if (!pth_write(path, NULL, t, most, NULL, 0, &err)) fail_msg("%s", err.text);
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(f.tensor_count, most);
    tensor_file_close(&f);
    unlink(path);
    free(names), free(path), free(t);
}

/* Entries "0", "1", ... of so many bytes; limit 0: the writer's own. The whole file, which the reader opens in *z. */
static uint8_t *written(Zip *z, FileReader *r, const char *path, const size_t *sizes, int count, size_t limit) {
    static const char names[][2] = {"0", "1", "2", "3", "4", "5"};
    static uint8_t data[4000];
    ZipWriter w;
    Err err = {0};
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i >> 3);
    if (!zip_writer_open(&w, path, &err)) fail_msg("%s", err.text);
    assert_true(w.limit == UINT32_MAX);
    if (limit) w.limit = limit;
    for (int i = 0; i < count; i++)
        if (!zip_writer_add(&w, names[i], data, sizes[i], &err)) fail_msg("%s", err.text);
    uint8_t *bytes, got[sizeof data];
    size_t held;
    if (!zip_writer_finish(&w, &err) || !file_read(&bytes, &held, path, 1 << 20, &err) ||
        !file_reader_open(r, path, &err) || !zip_open(z, r, &err))
        fail_msg("%s", err.text);
    assert_int_equal(z->count, count);
    for (int i = 0; i < count; i++) {
        if (!zip_read(z, &z->entries[i], got, &err)) fail_msg("%s", err.text);
        assert_int_equal(z->entries[i].bytes, sizes[i]);
        assert_memory_equal(got, data, sizes[i]);
        assert_int_equal(z->entries[i].data % ZIP_ALIGNMENT, 0);
    }
    return bytes;
}

static size_t number_at(const uint8_t *bytes, size_t count) {
    size_t value = 0;
    memcpy(&value, bytes, count);
    return value;
}

/* A size or place that 32 bits cannot say stands in 64, and only that one: with the limit at 2000 in place of 4 GiB. */
static void test_write_what_32_bits_cannot_say(void **state) {
    (void)state;
    enum { LIMIT = 2000 };
    static const size_t sizes[] = {LIMIT - 1, 7, LIMIT, 3 * LIMIT / 2, 0, 11}; /* all but the first lie beyond it */
    Zip z;
    FileReader r;
    char *path = path_join(scratch_folder, "far.zip");
    uint8_t *bytes = written(&z, &r, path, sizes, COUNTOF(sizes), LIMIT);
    size_t at = z.entries[COUNTOF(sizes) - 1].end; /* the directory */
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        bool large = sizes[i] >= LIMIT, far = i > 0;
        const uint8_t *local = bytes + z.entries[i].begin, *central = bytes + at;
        assert_int_equal(z.entries[i].begin >= LIMIT, far);
        assert_int_equal(number_at(local + 18, 4), large ? UINT32_MAX : sizes[i]);
        assert_int_equal(number_at(central + 20, 4), large ? UINT32_MAX : sizes[i]);
        assert_int_equal(number_at(central + 24, 4), large ? UINT32_MAX : sizes[i]);
        assert_int_equal(number_at(central + 42, 4), far ? UINT32_MAX : z.entries[i].begin);
        size_t extra = large || far ? 4 + 16 * (size_t)large + 8 * (size_t)far : 0;
        assert_int_equal(number_at(central + 30, 2), extra);
        if (extra) assert_int_equal(number_at(central + 49, 2), extra - 4);
        at += ZIP_CENTRAL_BYTES + 1 + extra;
    }
    assert_int_equal(number_at(bytes + at, 4), ZIP_END64);
    assert_int_equal(number_at(bytes + at + 48, 8), z.entries[COUNTOF(sizes) - 1].end);
    at += ZIP_END64_BYTES + ZIP_LOCATOR_BYTES;
    assert_int_equal(number_at(bytes + at, 4), ZIP_END);
    assert_int_equal(number_at(bytes + at + 16, 4), UINT32_MAX);
    assert_int_equal(at + ZIP_END_BYTES, r.count);
    free(bytes), zip_close(&z), file_reader_close(&r);

    /* the directory's end decides over the second record */
    uint8_t *plain = written(&z, &r, path, sizes, 2, 0);
    const size_t count = r.count, end = count - ZIP_END_BYTES;
    zip_close(&z), file_reader_close(&r);
    for (size_t limit = end; limit <= end + 1; limit++) {
        bytes = written(&z, &r, path, sizes, 2, limit);
        assert_int_equal(r.count, limit == end ? count + ZIP_END64_BYTES + ZIP_LOCATOR_BYTES : count);
        assert_memory_equal(bytes, plain, limit == end ? end : count);
        free(bytes), zip_close(&z), file_reader_close(&r);
    }
    free(plain);
    unlink(path);
    free(path);
}

/* Wherever the disk is full: an I/O error, and nothing stays, neither the file nor its beginning. */
static void test_write_to_a_full_disk(void **state) {
    (void)state;
    static const float values[40];
    const StoredTensor t[] = {{.name = "a", .dtype = STORED_F32, .rank = 1, .shape = {40}, .data = values},
                              {.name = "b", .dtype = STORED_F32, .rank = 1, .shape = {3}, .data = values}};
    char *path = path_join(scratch_folder, "full.pth");
    Err err = {0};
    struct stat st;
    assert_true(pth_write(path, NULL, t, 2, NULL, 0, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(path), 0);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 0; bytes < (rlim_t)st.st_size; bytes++) {
        limit = (struct rlimit){bytes, before.rlim_max};
        err = (Err){0};
        setrlimit(RLIMIT_FSIZE, &limit);
        bool written = pth_write(path, NULL, t, 2, NULL, 0, &err);
        setrlimit(RLIMIT_FSIZE, &before);
        if (written || err.code != EXIT_IO || access(path, F_OK) == 0)
            fail_msg("%zu bytes: %s", (size_t)bytes, written ? "written" : err.text);
    }
    (void)signal(SIGXFSZ, handler);
    DirList left;
    assert_true(dir_list(&left, scratch_folder, &err));
    for (size_t i = 0; i < left.count; i++) assert_null(strstr(left.names[i], "full.pth"));
    dir_list_free(&left);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pickles),  cmocka_unit_test(test_opcodes),       cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_protocol), cmocka_unit_test(test_choice),        cmocka_unit_test(test_views),
        cmocka_unit_test(test_patches),  cmocka_unit_test(test_gather_budget), cmocka_unit_test(test_entries),
        cmocka_unit_test(test_zip64),    cmocka_unit_test(test_damage),        cmocka_unit_test(test_appended),
        cmocka_unit_test(test_legacy),   cmocka_unit_test(test_sparse),        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_metadata), cmocka_unit_test(test_write),
        cmocka_unit_test(test_bytes_before_the_first_entry), cmocka_unit_test(test_entries_beyond_the_next),
        cmocka_unit_test(test_write_types), cmocka_unit_test(test_write_many_entries),
        cmocka_unit_test(test_write_as_many_as_are_read),
        cmocka_unit_test(test_write_what_32_bits_cannot_say),
        cmocka_unit_test(test_write_to_a_full_disk),
    };
    return cmocka_run_group_tests(tests, scratch_set_up, scratch_tear_down);
}
