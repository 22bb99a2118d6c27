/* test_messages.c - what the sources say to people, read from the sources: no message sends anybody to a script that is
 * not there, and the library, which programs use, does not speak of a command line. Run from the root of the tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Calls see() with each line that a shell command prints; returns how many there were. */
static int each_line(const char *command, void see(const char *line)) {
    char line[4096];
    int count = 0;
    FILE *lines = popen(command, "r");
    assert_non_null(lines);
    for (; fgets(line, sizeof line, lines); count++) {
        line[strcspn(line, "\n")] = '\0';
        see(line);
    }
    pclose(lines);
    return count;
}

static void expect_file(const char *name) {
    if (access(name, F_OK) != 0) fail_msg("%s is named, but there is no such file", name);
}

static void test_named_scripts_exist(void **state) {
    (void)state;
    int count = each_line("grep -rhoE '(scripts|tests|configs)/[A-Za-z0-9_./-]+\\.(sh|py|cpp|c|json)\\b' "
                          "src README.md Makefile --include=*.c --include=*.h --include=*.md --include=Makefile | "
                          "sort -u",
                          expect_file);
    assert_true(count > 10);
}

static void refuse(const char *line) { fail_msg("a message of the library speaks of the command line: %s", line); }

/* COMMAND_LINE in config.h is the place of the commands' own settings, and is not the library's to say. */
static void test_library_knows_no_command_line(void **state) {
    (void)state;
    const char *search = "grep -rnE '\"[^\"]*command line[^\"]*\"' src --include=*.c | grep -v '^src/app/'";
    assert_int_equal(each_line(search, refuse), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_named_scripts_exist),
                                       cmocka_unit_test(test_library_knows_no_command_line)};
    return cmocka_run_group_tests_name("messages", tests, NULL, NULL);
}
