/* test_infer.c - what goes into `mala infer` and what comes out: pipes, files, CSV, names that carry anything; and a
 * run's directory where weights are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "program.h"

#define WEIGHTS "--weights $T/run "

/* Three kinds in $T/data, a run on them in $T/run, and a.jpg beside. */
static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    shell("rm -r data/*/[d-z]* && cp data/val/car/car_00001.jpg a.jpg");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* The output of the last run without what stands before the first ':'. */
static char *answer(void) { return strdup(strchr(output, ':')); }

static void test_piped_picture(void **state) {
    (void)state;
    EXPECT(0, "infer $T/a.jpg " WEIGHTS);
    char *expected = answer();
    EXPECT(0, "infer - " WEIGHTS "<$T/a.jpg");
    assert_int_equal(strncmp(output, "-: ", 3), 0);
    assert_string_equal(strchr(output, ':'), expected);
    EXPECT(0, "infer $T/a.jpg - $T/a.jpg " WEIGHTS "<$T/a.jpg");
    int lines = 0;
    for (const char *line = output; *line; line = strchr(line, '\n') + 1, lines++)
        assert_int_equal(strncmp(strchr(line, ':'), expected, strlen(expected)), 0);
    assert_int_equal(lines, 3);
    free(expected);
    shell("head -c 900 a.jpg >cut.jpg");
    EXPECT(3, "infer - " WEIGHTS "<$T/cut.jpg");
    expect_text(errors, "standard input: ");
    shell("printf 'II*\\000\\020\\000\\000\\000' >a.tif");
    EXPECT(3, "infer - " WEIGHTS "<$T/a.tif");
    expect_text(errors, "mala: error: standard input: is a TIFF picture");
    assert_null(strstr(errors, "named above")); /* one picture, one error */
}

/* Lists whose first bytes are those of a picture format are lists; both separators; the end may lack one. */
static void test_piped_paths(void **state) {
    (void)state;
    shell("cp a.jpg BMW.jpg && cp a.jpg GIF8.jpg && cp a.jpg \"$(printf 'a\\nb.jpg')\"");
    shell("printf '%s/BMW.jpg\\n%s/GIF8.jpg' $PWD $PWD >lines");
    shell("printf '%s/BMW.jpg\\0%s/a\\nb.jpg\\0' $PWD $PWD >nuls");
    EXPECT(0, "infer - " WEIGHTS "<$T/lines");
    expect_text(output, "/BMW.jpg: ");
    expect_text(output, "/GIF8.jpg: ");
    EXPECT(0, "infer - " WEIGHTS "<$T/nuls");
    expect_text(output, "/a\\x0ab.jpg: ");
    shell("printf 'BMW.jpg\\nGIF8.jpg\\n' >lines");
    char command[600], here[400];
    assert_non_null(getcwd(here, sizeof here));
    const char *binary = getenv("MALA");
    const bool absolute = binary && binary[0] == '/';
    snprintf(command, sizeof command, "%s%s%s infer - --weights run -q <lines >out", absolute ? "" : here,
             absolute ? "" : "/", binary ? binary : "mala");
    shell(command); /* in the folder, so that the list begins with "BM" */
    shell("[ $(wc -l <out) = 2 ] && grep -q ^GIF8.jpg: out");
}

static void test_names_stay_in_their_line(void **state) {
    (void)state;
    shell("mkdir -p odd && cp a.jpg \"$(printf 'odd/x\\n\\033[31m\\302\\233,\\042y\\042.jpg')\"");
    EXPECT(0, "infer $T/odd " WEIGHTS "--topk 1");
    expect_text(output, "/odd/x\\x0a\\x1b[31m\\xc2\\x9b,\"y\".jpg: ");
    EXPECT(0, "infer $T/odd " WEIGHTS "--topk 2 --csv");
    assert_int_equal(strncmp(output, "image,rank,class,label,score,error\n\"", 36), 0);
    expect_text(output, "/odd/x\\x0a\\x1b[31m\\xc2\\x9b,\"\"y\"\".jpg\",1,");
    assert_null(strchr(output, '\x1b'));
    EXPECT(0, "infer $T/odd " WEIGHTS "--json");
    expect_text(output, "/odd/x\\n\\u001b[31m");
    /* as the name of a class: in classes.txt, and back from there */
    shell("cp -r data named");
    shell("for s in train val; do mv named/$s/car \"$(printf \"named/$s/c\\na\\\\\\\\x41\")\"; done");
    EXPECT(0, "train data.path=$T/named output=$T/named_run " SMALL "--quiet");
    char path[200], classes[400];
    snprintf(path, sizeof path, "%s/named_run/classes.txt", folder);
    read_text(classes, sizeof classes, path);
    assert_string_equal(classes, "bottle\nc\\x0aa\\x5cx41\nchair\n");
    EXPECT(0, "import $T/named_run/weights/best.safetensors $T/named.safetensors --classes $T/named_run/classes.txt");
    EXPECT(0, "eval $T/named.safetensors --data $T/named --json");
    expect_text(output, "\"c\\na\\\\x41\"");
}

/* Errors and warnings show a name as answers do, and so do log.txt and the fields that hold errors. */
static void test_names_are_escaped_once(void **state) {
    (void)state;
    shell("mkdir torn && echo x >\"$(printf 'torn/x\\n\\033\\302\\233.jpg')\"");
    static const char shown[] = "/x\\x0a\\x1b\\xc2\\x9b.jpg";
    static const char *const forms[] = {"", "--csv", "--json"};
    for (size_t i = 0; i < COUNTOF(forms); i++) {
        char line[200];
        snprintf(line, sizeof line, "infer $T/torn %s " WEIGHTS, forms[i]);
        EXPECT(3, line);
        for (const char *at = errors; (at = strstr(at, "/torn/")); at++)
            assert_int_equal(strncmp(at + 5, shown, strlen(shown)), 0);
        if (i == 1) expect_text(strstr(output, ",,,,,"), shown);
        if (i == 2) {
            cJSON *json = json_line(output);
            expect_text(cJSON_GetObjectItemCaseSensitive(json, "error")->valuestring, "/x\n\x1b\xc2\x9b.jpg: ");
            cJSON_Delete(json);
        }
    }
    shell("cp -r data half && cp torn/* half/train/car/");
    EXPECT(0, "train data.path=$T/half output=$T/half-run " SMALL "data.max_bad=0.5");
    char path[200];
    static char log[1 << 14];
    snprintf(path, sizeof path, "%s/half-run/log.txt", folder);
    read_text(log, sizeof log, path);
    expect_text(errors, shown);
    expect_text(log, shown);
}

static void test_csv_and_json_files(void **state) {
    (void)state;
    shell("echo no picture >bad.jpg");
    EXPECT(3, "infer $T/a.jpg $T/bad.jpg " WEIGHTS "--csv --topk 2");
    char *csv = strdup(output);
    expect_text(csv, "/a.jpg,1,");
    expect_text(csv, "/a.jpg,2,");
    expect_text(csv, "/bad.jpg,,,,,");
    EXPECT(3, "infer $T/a.jpg $T/bad.jpg " WEIGHTS "--csv --topk 2 --out $T/answers.csv");
    assert_string_equal(output, "");
    expect_text(errors, "answers.csv: answers for 1 of 2 pictures");
    static char text[1 << 16];
    char path[200];
    snprintf(path, sizeof path, "%s/answers.csv", folder);
    read_text(text, sizeof text, path);
    assert_string_equal(text, csv);
    free(csv);
    /* a comma alone is enough to need quotes, and a name without one has none */
    char field[200];
    shell("cp a.jpg 'a, b.jpg'");
    EXPECT(0, "infer $T/a.jpg \"$T/a, b.jpg\" " WEIGHTS "--csv --topk 1");
    snprintf(field, sizeof field, "\n%s/a.jpg,1,", folder);
    expect_text(output, field);
    snprintf(field, sizeof field, "\n\"%s/a, b.jpg\",1,", folder);
    expect_text(output, field);
    EXPECT(2, "infer $T/a.jpg " WEIGHTS "--json --out $T/answers.csv");
    expect_text(errors, "answers.csv: exists - add --force");
    EXPECT(2, "infer $T/a.jpg --csv --force --out - " WEIGHTS);
    expect_text(errors, "\"-\": standard output is no place to write whole files to - name a file; ./- is one");
    EXPECT(2, "infer $T/a.jpg --out '' " WEIGHTS);
    expect_text(errors, "--out needs a value: --out FILE");
    EXPECT(2, "infer $T/a.jpg --weights ''");
    expect_text(errors, "--weights needs a value: --weights FILE");
    EXPECT(2, "infer '' $T/a.jpg " WEIGHTS);
    expect_text(errors, "an argument is empty - is a variable unset?");
    setenv("ONEDNN_VERBOSE", "1", 1); /* a library that would write among the answers */
    EXPECT(0, "infer $T/a.jpg " WEIGHTS "--json --topk 1");
    unsetenv("ONEDNN_VERBOSE");
    assert_ptr_equal(strchr(output, '\n'), output + strlen(output) - 1);
    EXPECT(0, "infer $T/a.jpg " WEIGHTS "--json --out $T/answers.csv --force");
    read_text(text, sizeof text, path);
    assert_int_equal(strncmp(text, "{\"image\":", 9), 0);
    /* what fails leaves the file of before, and nothing beside it */
    EXPECT(3, "infer $T/a.jpg $T/nowhere.txt " WEIGHTS "--out $T/answers.csv --force");
    char after[400];
    read_text(after, sizeof after, path);
    assert_int_equal(strncmp(text, after, strlen(after)), 0);
    shell("[ $(ls | grep -c answers) = 1 ]");
    EXPECT(4, "infer $T/a.jpg " WEIGHTS "--out $T/nowhere/a.csv");
    EXPECT(2, "infer $T/a.jpg " WEIGHTS "--json --csv");
}

/* Whatever is read stays: answers have no place in it, not even by force, by a link or from inside a folder or a list. */
static void test_answers_replace_no_input(void **state) {
    (void)state;
    static const char *const commands[] = {
        "infer $T/in/a.jpg " WEIGHTS "--out $T/in/a.jpg",
        "infer $T/in " WEIGHTS "--out $T/in/a.jpg",
        "infer $T/in/all.txt " WEIGHTS "--out $T/in/all.txt",
        "infer $T/in/all.txt " WEIGHTS "--out $T/in/a.jpg",
        "infer - " WEIGHTS "--out $T/in/a.jpg <$T/in/a.jpg",
        "infer - " WEIGHTS "--out $T/in/all.txt <$T/in/all.txt",
        "infer $T/in/a.jpg " WEIGHTS "--out $T/in/link",
        "infer $T/a.jpg --weights $T/in/w.safetensors --out $T/in/w.safetensors",
        "infer $T/a.jpg " WEIGHTS "--config $T/in/c.json --out $T/in/c.json",
        "infer $T/a.jpg --weights $T/in/hub --out $T/in/hub/config.json"};
    EXPECT(0, "export $T/run/weights/best.safetensors $T/hub/");
    shell("mkdir in && mv hub in/ && cp a.jpg in/ && echo a.jpg >in/all.txt && ln -s a.jpg in/link && echo '{}' >in/c.json && "
          "cp run/weights/best.safetensors in/w.safetensors && cp -r in in-before");
    char line[400];
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        EXPECT(2, commands[i]);
        const char *redirected = strchr(commands[i], '<');
        int length = redirected ? (int)(redirected - commands[i]) : (int)strlen(commands[i]);
        snprintf(line, sizeof line, "%.*s --force %s", length, commands[i], redirected ? redirected : "");
        EXPECT(2, line);
        expect_text(errors, ": is read, too");
        shell("diff -r in in-before");
    }
}

/* A file without an answer would look like one. */
static void test_no_answer_is_no_file(void **state) {
    (void)state;
    shell("mkdir bad && echo x >bad/x.jpg && echo y >bad/y.jpg && echo old >old.txt");
    EXPECT(3, "infer $T/bad/x.jpg " WEIGHTS "--out $T/none.txt");
    EXPECT(3, "infer $T/bad " WEIGHTS "--csv --out $T/none.txt");
    assert_null(strstr(errors, "answers for"));
    EXPECT(3, "infer $T/bad " WEIGHTS "--json --out $T/old.txt --force");
    shell("test ! -e none.txt && test $(cat old.txt) = old");
}

/* A list of nothing is an error whichever way it comes: whoever made it expected pictures. */
static void test_an_empty_list(void **state) {
    (void)state;
    static const char *const lists[] = {"", "\\n\\n", "\\357\\273\\277", "\\000"};
    for (size_t i = 0; i < COUNTOF(lists); i++) {
        char command[100];
        snprintf(command, sizeof command, "printf '%s' >empty.txt", lists[i]);
        shell(command);
        EXPECT(3, "infer $T/empty.txt " WEIGHTS);
        expect_text(errors, "empty.txt: holds no picture - give JPEG, PNG, WebP, GIF or BMP files");
        EXPECT(3, "infer - " WEIGHTS "<$T/empty.txt");
        expect_text(errors, "standard input: holds no picture - give JPEG, PNG, WebP, GIF or BMP files");
        EXPECT(3, "infer $T/a.jpg - " WEIGHTS "<$T/empty.txt");
    }
    shell("echo a.jpg >LIST.TXT");
    EXPECT(0, "infer $T/LIST.TXT " WEIGHTS);
    expect_text(output, "/a.jpg: ");
}

/* A run's directory is its best weights, wherever weights are taken. */
static void test_run_directory(void **state) {
    (void)state;
    EXPECT(0, "eval $T/run/weights/best.safetensors --data $T/data --json");
    char *expected = strdup(output);
    EXPECT(0, "eval $T/run --data $T/data --json");
    assert_string_equal(output, expected);
    EXPECT(0, "eval --weights $T/run/ --data $T/data --json");
    assert_string_equal(output, expected);
    EXPECT(0, "verify $T/run");
    EXPECT(0, "info $T/run --json");
    EXPECT(0, "export $T/run $T/run.pth");
    EXPECT(0, "import $T/run $T/run.safetensors");
    EXPECT(0, "train data.path=$T/data output=$T/tuned --weights $T/run " SMALL "--quiet --epochs 1");
    shell("cp -r run other && echo >other/weights/last.safetensors"); /* whatever the last ones are */
    EXPECT(0, "eval $T/other --data $T/data --json");
    assert_string_equal(output, expected);
    free(expected);
    shell("cp -r run stopped && rm stopped/weights/best.safetensors");
    EXPECT(3, "eval $T/stopped --data $T/data");
    expect_text(errors, "stopped: has no weights/best.safetensors yet - weights/last.safetensors in it are the latest");
    shell("rm stopped/weights/last.safetensors");
    EXPECT(3, "verify $T/stopped");
    EXPECT(3, "eval $T/data --data $T/data");
    expect_text(errors, "data: holds no weights: neither weights/best.safetensors, as a run's folder, nor "
                "model.safetensors, as a hub's - ");
}

/* What some editors put before a text is no part of it, nor of where its errors are. */
static void test_configs_with_a_byte_order_mark(void **state) {
    (void)state;
    EXPECT(0, "export $T/run $T/hub --to hf");
    shell("for f in right.json wrong.json hub/new.json; do printf '\\357\\273\\277' >$f; done && "
          "cat hub/config.json >>hub/new.json && mv hub/new.json hub/config.json && "
          "echo '{\"model\": {\"name\": \"mavit_s\"}}' >>right.json && echo '{\"modell\": 1}' >>wrong.json");
    EXPECT(0, "infer $T/a.jpg --weights $T/hub");
    EXPECT(0, "info --config $T/right.json");
    EXPECT(2, "info --config $T/wrong.json");
    expect_text(errors, "wrong.json:1:2: ");
}

/* Of three classes the five best are always right, which says nothing. */
static void test_top5_of_three(void **state) {
    (void)state;
    EXPECT(0, "eval $T/run --data $T/data");
    expect_text(output, "6 pictures: top-1 ");
    assert_null(strstr(output, "top-5"));
    EXPECT(0, "eval $T/run --data $T/data --json");
    assert_null(strstr(output, "top5"));
    EXPECT(0, "train data.path=$T/data output=$T/three " SMALL);
    expect_text(errors, "epoch 2/2");
    assert_null(strstr(errors, "top-5"));
    for (char *rest = errors, *line; (line = strsep(&rest, "\n"));)
        if (strlen(line) > 80) fail_msg("wider than 80 columns: %s", line);
    shell("head -n 1 three/results.csv | grep -q accuracy_top5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_piped_picture),            cmocka_unit_test(test_piped_paths),
        cmocka_unit_test(test_names_stay_in_their_line), cmocka_unit_test(test_csv_and_json_files),
        cmocka_unit_test(test_names_are_escaped_once),
        cmocka_unit_test(test_answers_replace_no_input), cmocka_unit_test(test_no_answer_is_no_file),
        cmocka_unit_test(test_an_empty_list), cmocka_unit_test(test_configs_with_a_byte_order_mark),
        cmocka_unit_test(test_run_directory),            cmocka_unit_test(test_top5_of_three),
    };
    return cmocka_run_group_tests_name("infer", tests, make_run, remove_run);
}
