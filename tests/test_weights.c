/* test_weights.c - names to tensors: the classes of ImageNet, and loads that account for every tensor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/imagenet_names.h"

/* ---- ImageNet ---- */

static int compare_words(const void *a, const void *b) {
    return strcmp((*(const ImagenetName *const *)a)->words, (*(const ImagenetName *const *)b)->words);
}

static void test_imagenet_names(void **state) {
    (void)state;
    const ImagenetName *sorted[IMAGENET_CLASSES];
    for (int i = 0; i < IMAGENET_CLASSES; i++) {
        const ImagenetName *n = sorted[i] = &imagenet_names[i];
        assert_int_equal(strlen(n->id), 9);
        assert_true(n->id[0] == 'n' && strspn(n->id + 1, "0123456789") == 8);
        assert_true(i == 0 || strcmp(imagenet_names[i - 1].id, n->id) < 0);
        assert_true(strlen(n->words) > 1);
    }
    qsort(sorted, IMAGENET_CLASSES, sizeof *sorted, compare_words);
    for (int i = 1; i < IMAGENET_CLASSES; i++) assert_string_not_equal(sorted[i - 1]->words, sorted[i]->words);
}

static void test_imagenet_facts(void **state) {
    (void)state;
    static const struct {
        int index;
        const char *id, *words;
    } known[] = {{0, "n01440764", "tench"},          {7, "n01514668", "cock"},
                 {134, "n02012849", "crane (bird)"}, {207, "n02099601", "golden retriever"},
                 {281, "n02123045", "tabby"},        {517, "n03126707", "crane (machine)"},
                 {817, "n04285008", "sports car"},   {954, "n07753592", "banana"},
                 {999, "n15075141", "toilet tissue"}};
    for (size_t i = 0; i < COUNTOF(known); i++) {
        assert_string_equal(imagenet_names[known[i].index].id, known[i].id);
        assert_string_equal(imagenet_names[known[i].index].words, known[i].words);
        assert_string_equal(imagenet_label(known[i].id), known[i].words);
    }
    assert_string_equal(imagenet_label("tulip"), "tulip");
    assert_string_equal(imagenet_label("n00000001"), "n00000001");
    assert_string_equal(imagenet_label(""), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_imagenet_names),
        cmocka_unit_test(test_imagenet_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
