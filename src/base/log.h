/* log.h - what the program says about its work: to stderr, and to a run's log.txt. Results go to stdout and not through
 * here. For the main thread only: worker threads report through the values they return. A NULL Log says nothing. */
#ifndef MALA_LOG_H
#define MALA_LOG_H

#include "base/base.h"
#include "base/line_file.h"

#include <stdio.h>

typedef enum { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG } LogLevel;
typedef enum { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER } LogColor;

/* A progress line being shown. */
typedef struct {
    char label[80];
    char unit[24];       /* of what a rate counts: "images" */
    char note[120];      /* the latest figures: "loss 2.31" */
    int64_t total, done; /* total 0: unknown */
    int64_t after_items; /* what comes after this bar and counts for the time left: items at its rate, seconds */
    double after_seconds;
    double begin, drawn; /* seconds on time_now's clock */
    bool active, visible;
} Progress;

typedef struct {
    FILE *out;
    LineFile copy;         /* log.txt; without a path: none */
    bool copy_failed;      /* its latest line waits; said once */
    LogLevel level;        /* of out; the copy always has everything but LOG_DEBUG */
    bool color, bar;       /* escape sequences for colours; a bar that moves */
    bool wrap;             /* lines longer than the terminal's are broken at spaces; elsewhere each stays one */
    double plain_interval; /* seconds between plain progress lines where no bar moves */
    int64_t after_items; /* of the bars to come */
    double after_seconds;
    Progress progress;
} Log;

/* level: LOG_ERROR for --quiet. out is kept and not closed. */
void log_init(Log *log, FILE *out, LogLevel level, LogColor color);
/* Begins log.txt, or goes on at its end. False: EXIT_IO. */
bool log_copy_to(Log *log, const char *path, Err *err);
void log_close(Log *log);

/* One line each; control characters are shown as \xNN. The copy's lines begin with date and time. */
void log_warning(Log *log, const char *format, ...) PRINTF_LIKE(2, 3);
void log_info(Log *log, const char *format, ...) PRINTF_LIKE(2, 3);
void log_debug(Log *log, const char *format, ...) PRINTF_LIKE(2, 3);
/* A line of a table, without a mark: of an error's details with LOG_ERROR, which also --quiet shows. */
void log_row(Log *log, LogLevel level, const char *format, ...) PRINTF_LIKE(3, 4);
/* "mala: error: " and the text; ends a progress line. */
void log_error(Log *log, const Err *err);

/* A bar on a terminal (TERM not dumb, CI not set), elsewhere a plain line every plain_interval seconds. Updates are
 * cheap: ten redraws a second at most. note may be NULL: the last one stays. */
void progress_begin(Log *log, const char *label, int64_t total, const char *unit);
/* From the next bar on, time left means that of a longer work: after the bar come as many items more, at its rate, and
 * `seconds` of other work. 0, 0: of the bar alone. */
void progress_after(Log *log, int64_t items, double seconds);
void progress_update(Log *log, int64_t done, const char *note);
void progress_end(Log *log); /* takes the bar away; the caller says how it went */

/* The line itself, at most `columns` wide: label, bar (0: none), percent, counts, rate, time left, note; what does not
 * fit is left out from the end. elapsed: seconds. */
void progress_line(char *out, size_t size, const Progress *p, double elapsed, int columns, bool bar);
/* "0:07", "12:34", "3:05:00", "2d 4h" */
void duration_text(char out[32], double seconds);

/* NO_COLOR, CLICOLOR_FORCE, FORCE_COLOR, CLICOLOR, TERM; otherwise whether it is a terminal. */
bool color_wanted(LogColor color, bool is_terminal);
/* Width for text on this file: the terminal's, COLUMNS where that is less, 80 where nothing is known. */
int terminal_columns(FILE *file);

#endif
