/* test_program_data.c - the program on data sets as they are found: validation folders of other names, shared pictures,
 * pictures under odd names, names that are no UTF-8, lists from pipes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "program.h"

#define ONE_EPOCH SMALL "sched.epochs=1 --color never "

static int make_data(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 2 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " ONE_EPOCH);
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

static void expect_no_text(const char *text, const char *part) {
    if (strstr(text, part)) fail_msg("'%s' is in: %s", part, text);
}

static void test_folders_are_said(void **state) {
    (void)state;
    shell("mkdir -p valid && cp -r data/train valid/ && cp -r data/val valid/valid && cp -r data/train valid/test");
    EXPECT(0, "train data.path=$T/valid output=$T/valid_run " ONE_EPOCH);
    expect_text(errors, "validation folder: ");
    expect_text(errors, "/valid/valid\n24 training and 12 validation pictures");
    expect_no_text(errors, "warning");
    EXPECT(0, "eval $T/valid_run/weights/best.safetensors --data $T/valid");
    expect_text(errors, "/valid/valid\n");
    expect_text(output, "12 pictures: ");
    shell("mv valid/valid valid/hidden");
    EXPECT(3, "train data.path=$T/valid output=$T/none " ONE_EPOCH);
    expect_text(errors, "holds no folder \"val\", nor \"valid\", \"validation\", but hidden, test, train");
    EXPECT(3, "eval $T/valid_run/weights/best.safetensors --data $T/valid");
    expect_text(errors, "holds no folder \"val\"");
    EXPECT(0, "train data.path=$T/valid data.val=test output=$T/test_run " ONE_EPOCH);
    expect_text(errors, "/valid/test\n");
    expect_text(errors, "warning: 24 of 24 validation pictures looked at are training pictures, too");
}

static void test_odd_names_and_formats(void **state) {
    (void)state;
    shell("mkdir -p odd && cp -r data/train data/val odd/ && cd odd/train/car && "
          "mv *1.jpg one.jfif && mv *2.jpg two && touch x.heic && printf 'II*\\0' > y");
    EXPECT(0, "train data.path=$T/odd output=$T/odd_run " ONE_EPOCH);
    expect_text(errors, "24 training and 12 validation pictures");
    expect_text(errors, "warning: ");
    expect_text(errors, "odd/train: 2 files are not read, pictures among them:\n  1 .heic, such as ");
    expect_text(errors, "  1 TIFF, such as ");
    EXPECT(0, "infer $T/odd/train/car --weights $T/run/weights/best.safetensors");
    expect_text(errors, "2 files are not read, pictures among them:");
    shell("ln -s /nonexistent/zebra odd/train/zebra");
    EXPECT(3, "train data.path=$T/odd output=$T/none " ONE_EPOCH);
    expect_text(errors, "odd/train/zebra: is a link to what is not there");
}

static void test_names_that_are_no_text(void **state) {
    (void)state;
    shell("mkdir -p latin && cp -r data/train data/val latin/ && "
          "for s in train val; do mv latin/$s/car latin/$s/$(printf 'caf\\351') || exit 1; done");
    EXPECT(3, "train data.path=$T/latin output=$T/none " ONE_EPOCH);
    expect_text(errors, ": the folder's name is not UTF-8, as a class's has to be - rename it");
    shell("mkdir -p $(printf 'd\\351') && cp -r data/train data/val $(printf 'd\\351')/");
    EXPECT(2, "train data.path=$T/$(printf 'd\\351') output=$T/none " ONE_EPOCH);
    expect_text(errors, "data.path: the value is not UTF-8 - rename it, or give a link to it");
    EXPECT(0, "infer $T/$(printf 'd\\351')/val/car --weights $T/run/weights/best.safetensors --json");
    expect_text(output, "\"image_bytes\":\"2f");
}

static void test_picture_by_the_name_of_a_list(void **state) {
    (void)state;
    shell("cp data/val/car/*1.jpg car.txt");
    EXPECT(0, "infer $T/car.txt --weights $T/run/weights/best.safetensors");
    expect_text(output, "/car.txt: ");
}

static void test_lists_from_pipes(void **state) {
    (void)state;
    static const char *const separators[] = {"\\n", "\\r\\n", "\\0"};
    for (int i = 0; i < 3; i++) {
        char command[512];
        snprintf(command, sizeof command, "for p in data/val/*/*.jpg; do printf \"$PWD/%%s%s\" $p; done > list.txt",
                 separators[i]);
        shell(command);
        EXPECT(0, "infer - --weights $T/run/weights/best.safetensors < $T/list.txt");
        int lines = 0;
        for (const char *at = output; (at = strchr(at, '\n')); at++) lines++;
        assert_int_equal(lines, 12);
        char *piped = strdup(output);
        EXPECT(0, "infer $T/list.txt --weights $T/run/weights/best.safetensors");
        assert_string_equal(output, piped);
        free(piped);
    }
}

/* As many pictures of every kind, scenes and sizes as were asked for. */
static void test_synth_makes_what_is_asked(void **state) {
    (void)state;
    EXPECT(0, "synth $T/made --train 2 --val 1 --scenes 9 --size 40 --seed 7");
    expect_text(errors, "made: 47 pictures of 12 kinds in ");
    shell("test $(find made/train/* -name '*.jpg' | wc -l) = 24 && test $(find made/val/* -name '*.jpg' | wc -l) = 12");
    shell("test $(find made -name '*.jpg' | wc -l) = 47");
    EXPECT(0, "synth $T/same --train 2 --val 1 --scenes 9 --size 40 --seed 7 --threads 1 -q");
    shell("diff -r made same");
    EXPECT(0, "synth $T/other --train 2 --val 1 --scenes 9 --size 40 --seed 8 -q");
    shell("! cmp -s made/train/car/car_00001.jpg other/train/car/car_00001.jpg");
    EXPECT(0, "synth $T/large --train 1 --val 1 --scenes 0 --size 96 -q");
    shell("! cmp -s large/train/car/car_00001.jpg made/train/car/car_00001.jpg");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_folders_are_said),
                                       cmocka_unit_test(test_odd_names_and_formats),
                                       cmocka_unit_test(test_names_that_are_no_text),
                                       cmocka_unit_test(test_picture_by_the_name_of_a_list),
                                       cmocka_unit_test(test_lists_from_pipes),
                                       cmocka_unit_test(test_synth_makes_what_is_asked)};
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
