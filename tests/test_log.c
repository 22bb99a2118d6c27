/* test_log.c - log lines, the progress line at every width, what the environment decides, usable CPUs and memory. */
#include "base/cpus.h"
#include "base/file.h"
#include "base/host_memory.h"
#include "base/log.h"
#include "base/strings.h"
#include "scratch.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

static int clear_environment(void **state) {
    (void)state;
    static const char *const names[] = {"NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR",
                                        "CI",       "COLUMNS",  "OMP_NUM_THREADS"};
    for (size_t i = 0; i < COUNTOF(names); i++) unsetenv(names[i]);
    setenv("TERM", "xterm", 1);
    return 0;
}

/* What was written to a temporary file. */
static const char *contents(FILE *file) {
    static char text[8192];
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    return text;
}

static void test_lines(void **state) {
    (void)state;
    FILE *out = tmpfile();
    Log log;
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    log_info(&log, "epoch %d", 3);
    log_debug(&log, "not shown");
    log_warning(&log, "a\x1b[31m\nb");
    Err err = {0};
    err_set(&err, EXIT_INPUT, "x.jpg: broken - replace it");
    log_error(&log, &err);
    assert_string_equal(contents(out), "epoch 3\nmala: warning: a\\x1b[31m\\x0ab\nmala: error: x.jpg: broken - replace "
                                       "it\n");
    log_close(&log);
    fclose(out);

    out = tmpfile();
    log_init(&log, out, LOG_ERROR, COLOR_ALWAYS);
    log_warning(&log, "hidden");
    log_row(&log, LOG_INFO, "hidden");
    log_row(&log, LOG_ERROR, "a  %d", 1);
    log_error(&log, &err);
    assert_string_equal(contents(out), "a  1\n\x1b[1;31mmala: error: \x1b[0mx.jpg: broken - replace it\n");
    log_close(&log);
    fclose(out);
    log_info(NULL, "nobody listens");
    progress_begin(NULL, "", 1, "");
    progress_update(NULL, 1, NULL);
    progress_end(NULL);
}

/* On a terminal no word is cut; columns of a row that fits stay where they are. */
static void test_wrapped(void **state) {
    (void)state;
    clear_environment(NULL);
    setenv("COLUMNS", "40", 1);
    FILE *out = tmpfile();
    Log log;
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    assert_false(log.wrap);
    log.wrap = true;
    log_warning(&log, "a.jpg: is neither JPEG nor PNG - give a JPEG or PNG");
    log_info(&log, "epoch 1/2   0.5   0.25");
    log_info(&log, "a-word-that-is-longer-than-a-whole-line-of-forty next");
    log_row(&log, LOG_INFO, "a row of a table, which is longer than a line");
    assert_string_equal(contents(out), "mala: warning: a.jpg: is neither JPEG\n  nor PNG - give a JPEG or PNG\n"
                                       "epoch 1/2   0.5   0.25\n"
                                       "a-word-that-is-longer-than-a-whole-line-of-forty\n  next\n"
                                       "a row of a table, which is longer than a line\n");
    log_close(&log);
    fclose(out);
    clear_environment(NULL);
}

static void test_copy(void **state) {
    (void)state;
    FILE *out = tmpfile();
    char *path = path_join(scratch_folder, "log.txt"), *nowhere = path_join(scratch_folder, "none/log.txt");
    Err err = {0};
    Log log;
    log_init(&log, out, LOG_ERROR, COLOR_ALWAYS); /* the copy is whole and plain whatever the terminal shows */
    assert_true(log_copy_to(&log, path, &err));
    log_info(&log, "hello");
    log_warning(&log, "careful");
    log_debug(&log, "detail");
    log_close(&log);
    assert_string_equal(contents(out), "");
    uint8_t *text;
    size_t count;
    assert_true(file_read(&text, &count, path, 1000, &err));
    char expected[] = "0000-00-00 00:00:00 hello\n0000-00-00 00:00:00 mala: warning: careful\n";
    assert_int_equal(count, strlen(expected));
    for (size_t i = 0; i < count; i++)
        assert_true(expected[i] == '0' ? text[i] >= '0' && text[i] <= '9' : (char)text[i] == expected[i]);
    free(text);
    assert_false(log_copy_to(&log, nowhere, &err));
    assert_int_equal(err.code, EXIT_IO);
    free(path);
    free(nowhere);
    fclose(out);
}

static void test_color_rules(void **state) {
    (void)state;
    clear_environment(NULL);
    assert_true(color_wanted(COLOR_AUTO, true));
    assert_false(color_wanted(COLOR_AUTO, false));
    assert_true(color_wanted(COLOR_ALWAYS, false));
    assert_false(color_wanted(COLOR_NEVER, true));
    setenv("CLICOLOR_FORCE", "1", 1);
    assert_true(color_wanted(COLOR_AUTO, false));
    setenv("NO_COLOR", "1", 1);
    assert_false(color_wanted(COLOR_AUTO, true));
    setenv("NO_COLOR", "", 1); /* empty does not count */
    assert_true(color_wanted(COLOR_AUTO, true));
    setenv("CLICOLOR_FORCE", "0", 1);
    setenv("CLICOLOR", "0", 1);
    assert_false(color_wanted(COLOR_AUTO, true));
    unsetenv("CLICOLOR");
    setenv("TERM", "dumb", 1);
    assert_false(color_wanted(COLOR_AUTO, true));
    clear_environment(NULL);
}

static void test_progress_line(void **state) {
    (void)state;
    Progress p = {.label = "epoch 3/20", .unit = "images", .note = "loss 2.31", .total = 2741, .done = 1234};
    char line[800];
    progress_line(line, sizeof line, &p, 2.5, 300, false);
    assert_string_equal(line, "epoch 3/20   45% 1234/2741  494 images/s  ETA 0:03  loss 2.31");
    p.after_items = 17 * 2741, p.after_seconds = 18 * 10; /* the epochs that are left, and their evaluations */
    progress_line(line, sizeof line, &p, 2.5, 80, false);
    assert_string_equal(line, "epoch 3/20   45% 1234/2741  494 images/s  ETA 4:37  loss 2.31");
    p.after_items = 0, p.after_seconds = 0;
    progress_line(line, sizeof line, &p, 2.5, 80, true);
    assert_string_equal(line, "epoch 3/20  [######         ]   45% 1234/2741  494 images/s  ETA 0:03  loss 2.31");
    progress_line(line, sizeof line, &p, 2.5, 30, true);
    assert_string_equal(line, "epoch 3/20   45% 1234/2741");
    p.total = 0, p.note[0] = '\0';
    progress_line(line, sizeof line, &p, 0, 80, true);
    assert_string_equal(line, "epoch 3/20  1234");

    p = (Progress){.label = "\xc3\xa9poque", .unit = "images", .note = "\xe2\x82\xac 5", .total = 10, .done = 10};
    for (int columns = 1; columns < 150; columns++) {
        progress_line(line, sizeof line, &p, 1, columns, true);
        assert_true((int)utf8_columns(line) <= columns);
        for (size_t at = 0, n = strlen(line), length; at < n; at += length) {
            length = utf8_sequence(line + at, n - at);
            assert_true(length > 0); /* never cut inside a character */
        }
    }
}

static void test_durations(void **state) {
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{-1, "0:00"},        {7, "0:07"},        {59.6, "1:00"},
                 {754, "12:34"},      {11100, "3:05:00"}, {86400 * 2 + 3600 * 4, "2d 4h"},
                 {1e300, "11574d 1h"}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        char text[32];
        duration_text(text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_bar(void **state) {
    (void)state;
    clear_environment(NULL);
    setenv("COLUMNS", "40", 1);
    FILE *out = tmpfile();
    Log log;
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    assert_false(log.bar); /* a file is no terminal */
    log.bar = true;
    progress_begin(&log, "work", 10, "images");
    log_info(&log, "a line between");
    progress_update(&log, 5, "x");
    progress_update(&log, 6, "x"); /* too soon to be drawn */
    progress_end(&log);
    const char *text = contents(out);
    assert_int_equal(strncmp(text, "\rwork  ", 7), 0);
    assert_non_null(strstr(text, "\x1b[K\r\x1b[Ka line between\n\rwork  "));
    assert_non_null(strstr(text, "5/10"));
    assert_null(strstr(text, "6/10"));
    assert_string_equal(text + strlen(text) - 7, "\x1b[K\r\x1b[K");
    log_close(&log);
    fclose(out);

    out = tmpfile();
    log_init(&log, out, LOG_INFO, COLOR_NEVER);
    progress_begin(&log, "work", 10, "images");
    progress_update(&log, 5, NULL); /* 30 seconds have not passed */
    assert_string_equal(contents(out), "");
    log.plain_interval = 0;
    progress_update(&log, 6, NULL);
    progress_end(&log);
    text = contents(out);
    assert_int_equal(strncmp(text, "work   60% 6/10  ", 17), 0);
    assert_null(strchr(text, '\r'));
    assert_null(strchr(text, '\x1b'));
    fclose(out);
    clear_environment(NULL);
}

/* A terminal of so many columns; 0: it does not say. */
static FILE *terminal(int *master, int columns) {
    struct winsize size = {.ws_row = 25, .ws_col = (unsigned short)columns};
    *master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(*master >= 0 && grantpt(*master) == 0 && unlockpt(*master) == 0);
    assert_int_equal(ioctl(*master, TIOCSWINSZ, &size), 0);
    int slave = open(ptsname(*master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    return fdopen(slave, "r+");
}

static void test_terminals(void **state) {
    (void)state;
    static const struct {
        int columns;
        const char *environment;
        int expected;
    } widths[] = {{100, NULL, 100}, {0, NULL, 80},     {100, "60", 60},  {100, "160", 100}, {0, "160", 160},
                  {100, "0", 100},  {100, "-5", 100},  {0, "10000", 80}, {0, "9999", 9999}, {100, "x", 100}};
    for (size_t i = 0; i < COUNTOF(widths); i++) {
        int master;
        FILE *out = terminal(&master, widths[i].columns);
        if (widths[i].environment) setenv("COLUMNS", widths[i].environment, 1);
        assert_int_equal(terminal_columns(out), widths[i].expected);
        clear_environment(NULL);
        fclose(out), close(master);
    }
    static const struct {
        const char *name, *value; /* NULL: not set */
        bool bar, color;
    } rules[] = {{"CI", NULL, true, true},       {"CI", "true", false, true},   {"CI", "false", true, true},
                 {"TERM", "dumb", false, false}, {"TERM", NULL, false, false},  {"TERM", "", false, false},
                 {"NO_COLOR", "1", true, false}, {"CLICOLOR", "0", true, false}, {"CLICOLOR", "1", true, true}};
    for (size_t i = 0; i < COUNTOF(rules); i++) {
        int master;
        FILE *out = terminal(&master, 100);
        Log log;
        if (rules[i].value)
            setenv(rules[i].name, rules[i].value, 1);
        else
            unsetenv(rules[i].name);
        log_init(&log, out, LOG_INFO, COLOR_AUTO);
        assert_true(log.wrap);
        assert_int_equal(log.bar, rules[i].bar);
        assert_int_equal(log.color, rules[i].color);
        log_close(&log);
        fclose(out), close(master);
        clear_environment(NULL);
    }
    setenv("FORCE_COLOR", "1", 1);
    assert_true(color_wanted(COLOR_AUTO, false));
    clear_environment(NULL);
}

/* Whatever is not asked for is not drawn, whoever listens. */
static void test_nothing_to_draw(void **state) {
    (void)state;
    FILE *out = tmpfile();
    Log log;
    log_init(&log, out, LOG_WARNING, COLOR_NEVER);
    log.bar = true;
    progress_update(&log, 1, NULL); /* nothing has begun */
    progress_end(&log);
    progress_begin(&log, "work", 10, "images");
    progress_after(&log, 5, 1);
    progress_update(&log, 10, NULL);
    progress_end(&log);
    assert_string_equal(contents(out), "");
    log_close(&log);
    fclose(out);
    progress_after(NULL, 5, 1);
    Progress p = {.label = "work", .unit = "images", .total = 10, .done = 10};
    char line[200];
    progress_line(line, sizeof line, &p, 5, 80, false);
    assert_string_equal(line, "work  100% 10/10  2.0 images/s"); /* nothing is left: no time is, either */
}

/* ---- memory ---- */

static void test_memory_that_is_allowed(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double bytes;
    } sizes[] = {{"4096", 4096},         {"512M", 0x1p29},  {"4g", 0x1p32},   {"4GB", 0x1p32}, {"4gib", 0x1p32},
                 {"1.5K", 1536},         {"2T", 0x1p41},    {"7b", 7},        {"010", 10},     {"0.5k", 512},
                 {"9007199254740991", 0x1p53 - 1}};
    static const char *const wrong[] = {"abc", "M", "-5M", "0", "0G", "0x10", "1M1", "4Gi", "4ib", "+4G", " 4G", "4 G",
                                        "1e3", "4.", ".5G", "8388608T", "99999999999999999999", "inf", "nan"};
    const char *limit;
    size_t bytes;
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        setenv("MALA_MEMORY", sizes[i].text, 1);
        if (!host_memory_allowed(&bytes, &limit, NULL) || (double)bytes != sizes[i].bytes)
            fail_msg("%s: %zu", sizes[i].text, bytes);
        assert_string_equal(limit, "MALA_MEMORY");
    }
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        Err err = {0};
        setenv("MALA_MEMORY", wrong[i], 1);
        if (host_memory_allowed(&bytes, &limit, &err)) fail_msg("%s: %zu", wrong[i], bytes);
        assert_int_equal(err.code, EXIT_USAGE);
        assert_int_equal(strncmp(err.text, "MALA_MEMORY: ", 13), 0);
    }
    for (int empty = 0; empty < 2; empty++) {
        Err err = {0};
        if (empty) setenv("MALA_MEMORY", "", 1);
        if (!empty) unsetenv("MALA_MEMORY");
        assert_true(host_memory_allowed(&bytes, &limit, &err));
        assert_true(bytes > 0 && strcmp(limit, "MALA_MEMORY") != 0);
    }
    unsetenv("MALA_MEMORY");
}

static void write_file(const char *name, const char *text);

/* Machines and containers, by the kernel's own files. */
static void test_the_least_limit_counts(void **state) {
    (void)state;
    char *root = path_join(scratch_folder, "root");
    const char *limit;
    assert_true(host_memory_left(root, &limit) == SIZE_MAX); /* nothing is known */
    write_file("root/proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 100 kB\nMemAvailable:    8000000 kB\n");
    assert_true(host_memory_left(root, &limit) == (size_t)8000000 << 10);
    assert_string_equal(limit, "this machine");
    /* version 2: the group has no limit, the one around it has */
    write_file("root/proc/self/cgroup", "0::/box/inner\n");
    write_file("root/sys/fs/cgroup/box/inner/memory.max", "max\n");
    write_file("root/sys/fs/cgroup/box/memory.max", "4294967296\n");
    write_file("root/sys/fs/cgroup/box/memory.current", "1073741824\n");
    write_file("root/sys/fs/cgroup/box/memory.stat",
               "anon 5\nfile 6\ninactive_file 500000000\nactive_file 500000000\n");
    assert_true(host_memory_left(root, &limit) == 4294967296u - (1073741824u - 1000000000u));
    assert_string_equal(limit, "the control group's limit");
    /* version 1, and a container that sees its group at the root of the mount */
    write_file("root/proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n0::/x\n");
    write_file("root/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
    write_file("root/sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483649\n");
    write_file("root/sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n");
    assert_true(host_memory_left(root, &limit) == 999);
    write_file("root/sys/fs/cgroup/memory/memory.usage_in_bytes", "3000000000\n"); /* a limit that was lowered */
    assert_true(host_memory_left(root, &limit) == 0);
    write_file("root/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    assert_true(host_memory_left(root, &limit) == (size_t)8000000 << 10);
    free(root);
}

/* ---- CPUs ---- */

static void write_file(const char *name, const char *text) {
    Err err = {0};
    char *path = path_join(scratch_folder, name), *slash = strrchr(path, '/');
    *slash = '\0';
    assert_true(dir_make(path, &err));
    *slash = '/';
    assert_true(file_write(path, text, strlen(text), &err));
    free(path);
}

static int quota(const char *cgroups) {
    write_file("cgroup", cgroups);
    char *proc = path_join(scratch_folder, "cgroup"), *sys = path_join(scratch_folder, "sys");
    int count = cpus_quota(proc, sys);
    free(proc);
    free(sys);
    return count;
}

static void test_quota(void **state) {
    (void)state;
    write_file("sys/a/b/cpu.max", "250000 100000\n");
    write_file("sys/a/cpu.max", "max 100000\n");
    write_file("sys/strict/cpu.max", "100000 100000\n");
    write_file("sys/strict/loose/cpu.max", "800000 100000\n");
    write_file("sys/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
    write_file("sys/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    write_file("sys/cpu/cpu.cfs_quota_us", "50000\n");
    write_file("sys/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota("0::/a/b\n"), 3); /* 2.5, rounded up */
    assert_int_equal(quota("0::/a\n"), 0);
    assert_int_equal(quota("0::/strict/loose\n"), 1); /* a group above is stricter */
    assert_int_equal(quota("0::/\n"), 0);
    assert_int_equal(quota("3:memory:/x\n4:cpu,cpuacct:/job\n0::/\n"), 1);
    assert_int_equal(quota("2:cpuacct:/x\n"), 0);
    assert_int_equal(quota("2:cpu:/of/the/host\n"), 1);
    assert_int_equal(quota("nonsense\n"), 0);
    assert_int_equal(cpus_quota("/none", "/none"), 0);
    /* what the kernel does not write, and what it may */
    write_file("sys/empty/cpu.max", "");
    write_file("sys/none/cpu.max", "0 100000\n");
    write_file("sys/no_period/cpu.max", "100000 0\n");
    write_file("sys/huge/cpu.max", "9000000000000000 1\n");
    write_file("sys/cpu/short/cpu.cfs_quota_us", "30000\n");
    write_file("sys/cpu/cpu.cfs_quota_us", "-1\n");
    write_file("sys/cpu,cpuacct/wide/cpu.cfs_quota_us", "250000\n"); /* no period: that of the kernel, 100000 */
    assert_int_equal(quota("0::/empty\n"), 0);
    assert_int_equal(quota("0::/none\n"), 0);
    assert_int_equal(quota("0::/no_period\n"), 0);
    assert_int_equal(quota("0::/huge\n"), 1 << 20);
    assert_int_equal(quota("2:cpu:/short\n"), 1);
    assert_int_equal(quota("2:cpu,cpuacct:/wide\n"), 3);
    assert_int_equal(quota("2:net:/short\n2:cpx:/short\n"), 0);
    assert_int_equal(quota("2:cpuset\n"), 0);
}

static void test_usable(void **state) {
    (void)state;
    clear_environment(NULL);
    int all = cpus_usable();
    assert_in_range(all, 1, cpus_affinity());
    static const struct {
        const char *text;
        int count;
    } cases[] = {{"1", 1}, {"4,2", 4}, {"0", 0}, {"-3", 0}, {"x", 0}, {"3x", 0}, {"", 0}, {"99999999999", 0}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        setenv("OMP_NUM_THREADS", cases[i].text, 1);
        assert_int_equal(cpus_environment(), cases[i].count);
        assert_int_equal(cpus_usable(), cases[i].count == 1 ? 1 : cases[i].count ? MIN(all, cases[i].count) : all);
    }
    clear_environment(NULL);
}

/* What is shown of a name reads back as the name. */
static void test_printable(void **state) {
    (void)state;
    static const struct {
        const char *name, *shown;
    } cases[] = {{"plain.jpg", "plain.jpg"},
                 {"a\nb\r\tc\x7f", "a\\x0ab\\x0d\\x09c\\x7f"},
                 {"\x1b[31mred", "\\x1b[31mred"},
                 {"\xc2\x9b" "31m \xc3\xbc \xe2\x82\xac", "\\xc2\\x9b" "31m \xc3\xbc \xe2\x82\xac"},
                 {"latin \xfc \x9b", "latin \xfc \\x9b"},
                 {"\xc2\xa0 \xc3\x80", "\xc2\xa0 \xc3\x80"},
                 {"\\xAB \\xa \\x1g \\xg1 \\x:0 \\xf`", "\\xAB \\xa \\x1g \\xg1 \\x:0 \\xf`"},
                 {"\\xff \\y0a", "\\x5cxff \\y0a"},
                 {"C:\\x0a\\new", "C:\\x5cx0a\\new"}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        char *text = text_printable_new(cases[i].name), cut[6];
        assert_string_equal(text, cases[i].shown);
        text_unprintable(text);
        assert_string_equal(text, cases[i].name);
        free(text);
        text_printable(cut, sizeof cut, cases[i].name);
        assert_int_equal(strncmp(cut, cases[i].shown, strlen(cut)), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_wrapped), cmocka_unit_test(test_printable),
        cmocka_unit_test(test_copy), cmocka_unit_test(test_color_rules), cmocka_unit_test(test_progress_line),
        cmocka_unit_test(test_durations), cmocka_unit_test(test_bar), cmocka_unit_test(test_quota),
        cmocka_unit_test(test_usable), cmocka_unit_test(test_terminals), cmocka_unit_test(test_nothing_to_draw),
        cmocka_unit_test(test_memory_that_is_allowed), cmocka_unit_test(test_the_least_limit_counts),
    };
    clear_environment(NULL);
    return cmocka_run_group_tests_name("log", tests, scratch_set_up, scratch_tear_down);
}
