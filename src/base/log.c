/* log.c - lines and the progress bar. Every redraw is one write: carriage return, the line, clear to its end. A line
 * is never as wide as the terminal, so that the cursor never wraps. */
#include "base/log.h"
#include "base/strings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 2048

/* ---- the surroundings ---- */

static bool is_set(const char *name) {
    const char *value = getenv(name);
    return value && value[0];
}

static bool is_switched_on(const char *name) { return is_set(name) && strcmp(getenv(name), "0") != 0; }

static bool terminal_is_dumb(void) { return !is_set("TERM") || !strcmp(getenv("TERM"), "dumb"); }

bool color_wanted(LogColor color, bool is_terminal) {
    if (color != COLOR_AUTO) return color == COLOR_ALWAYS;
    if (is_set("NO_COLOR")) return false;
    if (is_switched_on("CLICOLOR_FORCE") || is_switched_on("FORCE_COLOR")) return true;
    if (is_set("CLICOLOR") && !is_switched_on("CLICOLOR")) return false;
    return is_terminal && !terminal_is_dumb();
}

int terminal_columns(FILE *file) {
    struct winsize size = {0};
    int columns = ioctl(fileno(file), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
    long wanted = is_set("COLUMNS") ? strtol(getenv("COLUMNS"), NULL, 10) : 0;
    if (wanted > 0 && wanted < 10000 && (columns == 0 || wanted < columns)) columns = (int)wanted;
    return columns > 0 ? columns : 80;
}

void log_init(Log *log, FILE *out, LogLevel level, LogColor color) {
    bool is_terminal = isatty(fileno(out));
    bool in_ci = is_set("CI") && strcmp(getenv("CI"), "false") != 0;
    *log = (Log){.out = out, .level = level, .plain_interval = 30};
    log->color = color_wanted(color, is_terminal);
    log->bar = is_terminal && !terminal_is_dumb() && !in_ci;
    log->wrap = is_terminal;
}

bool log_copy_to(Log *log, const char *path, Err *err) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return err_set(err, EXIT_IO, "%s: cannot be opened for writing: %s", path, strerror(errno));
    close(fd);
    line_file_close(&log->copy);
    line_file_open(&log->copy, path);
    return true;
}

void log_close(Log *log) {
    progress_end(log);
    line_file_close(&log->copy);
}

/* ---- lines ---- */

static void clear_bar(Log *log) {
    if (!log->progress.visible) return;
    fputs("\r\x1b[K", log->out);
    log->progress.visible = false;
    log->progress.drawn = 0; /* the next update draws it again */
}

static const char *const marks[] = {"mala: error: ", "mala: warning: ", "", ""}; /* by LogLevel */

/* Words of a line that goes on from column `at`, `columns` wide; a line of its own begins with two spaces. */
static void print_wrapped(FILE *out, const char *text, int at, int columns) {
    for (bool first = true; *text; first = false) {
        int length = (int)strcspn(text, " "), width = 0;
        for (int i = 0; i < length; i++) width += ((unsigned char)text[i] & 0xc0) != 0x80;
        if (!first && at + 1 + width > columns && width + 2 <= columns) {
            fputs("\n  ", out);
            at = 2;
        } else if (!first) {
            fputc(' ', out), at++;
        }
        fwrite(text, 1, (size_t)length, out);
        at += width;
        text += length;
        if (*text == ' ' && *++text == '\0') fputc(' ', out);
    }
}

/* To the terminal. */
static void show(Log *log, LogLevel level, bool mark, const char *line) {
    static const char *const colors[] = {"\x1b[1;31m", "\x1b[1;33m", "", "\x1b[2m"};
    const char *color = log->color && mark ? colors[level] : "", *plain = color[0] ? "\x1b[0m" : "";
    if (level > log->level) return;
    const char *shown = mark ? marks[level] : "";
    clear_bar(log);
    fprintf(log->out, "%s%s%s", color, shown, shown[0] ? plain : "");
    if (log->wrap && mark)
        print_wrapped(log->out, line, (int)strlen(shown), terminal_columns(log->out));
    else
        fputs(line, log->out);
    fprintf(log->out, "%s\n", shown[0] ? "" : plain);
    fflush(log->out);
}

/* To log.txt. A line that cannot be written waits there; that is said once, and not in log.txt. */
static void copy(Log *log, LogLevel level, bool mark, const char *line) {
    char dated[LINE_SIZE + 64];
    time_t now = time(NULL);
    struct tm parts;
    Err err = {0};
    if (!log->copy.path || level >= LOG_DEBUG) return;
    size_t n = strftime(dated, sizeof dated, "%Y-%m-%d %H:%M:%S ", localtime_r(&now, &parts));
    snprintf(dated + n, sizeof dated - n, "%s%s", mark ? marks[level] : "", line);
    bool failed = !line_file_add(&log->copy, dated, &err);
    if (failed && !log->copy_failed) {
        text_printable(dated, sizeof dated, err.text);
        show(log, LOG_WARNING, true, dated);
    }
    log->copy_failed = failed;
}

static void say(Log *log, LogLevel level, bool mark, const char *text) {
    char line[LINE_SIZE];
    text_printable(line, sizeof line, text);
    show(log, level, mark, line);
    copy(log, level, mark, line);
}

static void say_list(Log *log, LogLevel level, bool mark, const char *format, va_list args) {
    char text[LINE_SIZE];
    if (!log) return;
    vsnprintf(text, sizeof text, format, args);
    say(log, level, mark, text);
}

void log_warning(Log *log, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(log, LOG_WARNING, true, format, args);
    va_end(args);
}

void log_info(Log *log, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(log, LOG_INFO, true, format, args);
    va_end(args);
}

void log_debug(Log *log, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(log, LOG_DEBUG, true, format, args);
    va_end(args);
}

void log_row(Log *log, LogLevel level, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(log, level, false, format, args);
    va_end(args);
}

void log_error(Log *log, const Err *err) {
    if (!log) return;
    progress_end(log);
    say(log, LOG_ERROR, true, err->text);
}

/* ---- progress ---- */

void duration_text(char out[32], double seconds) {
    int64_t s = (int64_t)(MIN(MAX(seconds, 0), 1e9) + 0.5);
    if (s < 3600)
        snprintf(out, 32, "%d:%02d", (int)(s / 60), (int)(s % 60));
    else if (s < 86400)
        snprintf(out, 32, "%d:%02d:%02d", (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
    else
        snprintf(out, 32, "%dd %dh", (int)(s / 86400), (int)(s / 3600 % 24));
}

/* Cuts text to this many characters. */
static void cut(char *text, int columns) {
    for (; *text; text++)
        if (((unsigned char)*text & 0xc0) != 0x80 && columns-- == 0) break;
    *text = '\0';
}

static void rate_text(char *out, size_t size, double rate, const char *unit) {
    snprintf(out, size, rate < 10 ? "%.1f %s/s" : "%.0f %s/s", rate, unit);
}

void progress_line(char *out, size_t size, const Progress *p, double elapsed, int columns, bool bar) {
    enum { BAR_LEAST = 12, BAR_MOST = 40 };
    char parts[4][160] = {"", "", "", ""}, left[32];
    double rate = elapsed > 0 ? (double)p->done / elapsed : 0;
    double share = p->total > 0 ? MIN((double)p->done / (double)p->total, 1.0) : 0;
    if (p->total > 0)
        snprintf(parts[0], sizeof parts[0], "%3d%% %lld/%lld", (int)(share * 100), (long long)p->done,
                 (long long)p->total);
    else
        snprintf(parts[0], sizeof parts[0], "%lld", (long long)p->done);
    if (rate > 0) rate_text(parts[1], sizeof parts[1], rate, p->unit);
    if (rate > 0 && p->total > 0 && p->total + p->after_items > p->done) {
        duration_text(left, (double)(p->total - p->done + p->after_items) / rate + p->after_seconds);
        snprintf(parts[2], sizeof parts[2], "ETA %s", left);
    }
    snprintf(parts[3], sizeof parts[3], "%s", p->note);

    char text[640] = "";
    size_t n = 0;
    int width = (int)utf8_columns(p->label);
    for (size_t i = 0; i < COUNTOF(parts); i++) {
        int wanted = parts[i][0] ? 2 + (int)utf8_columns(parts[i]) : 0;
        if (wanted == 0 || width + wanted > columns) continue;
        n += (size_t)snprintf(text + n, sizeof text - n, "  %s", parts[i]);
        width += wanted;
    }
    int cells = bar && p->total > 0 ? MIN(columns - width - 4, BAR_MOST) : 0;
    char cells_text[BAR_MOST + 5] = "";
    if (cells >= BAR_LEAST) {
        snprintf(cells_text, sizeof cells_text, "  [%*s]", cells, "");
        memset(cells_text + 3, '#', (size_t)(share * cells));
    }
    snprintf(out, size, "%s%s%s", p->label, cells_text, text);
    cut(out, columns);
}

static void draw(Log *log, double now) {
    char line[800];
    Progress *p = &log->progress;
    p->drawn = now;
    if (log->bar && log->level >= LOG_INFO) {
        progress_line(line, sizeof line, p, now - p->begin, terminal_columns(log->out) - 1, true);
        fprintf(log->out, "\r%s\x1b[K", line);
        fflush(log->out);
        p->visible = true;
    } else if (!log->bar) {
        progress_line(line, sizeof line, p, now - p->begin, 300, false);
        say(log, LOG_INFO, true, line);
    }
}

void progress_begin(Log *log, const char *label, int64_t total, const char *unit) {
    if (!log) return;
    progress_end(log);
    Progress *p = &log->progress;
    *p = (Progress){.total = total, .after_items = log->after_items, .after_seconds = log->after_seconds,
                    .active = true, .begin = time_now()};
    text_printable(p->label, sizeof p->label, label);
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->drawn = p->begin;
    if (log->bar) draw(log, p->begin);
}

void progress_after(Log *log, int64_t items, double seconds) {
    if (log) log->after_items = items, log->after_seconds = seconds;
}

void progress_update(Log *log, int64_t done, const char *note) {
    if (!log || !log->progress.active) return;
    Progress *p = &log->progress;
    p->done = done;
    if (note) text_printable(p->note, sizeof p->note, note);
    double now = time_now();
    if (now - p->drawn >= (log->bar ? 0.1 : log->plain_interval)) draw(log, now);
}

void progress_end(Log *log) {
    if (!log || !log->progress.active) return;
    clear_bar(log);
    fflush(log->out);
    log->progress.active = false;
}
