/* line_file.h - a file that grows by whole lines over hours: results, metrics, a log. A disk that is full or gone for a
 * while must not end a run: what cannot be written waits in memory, in its order, and goes out with the next line that
 * can. The file is opened for each line, so that no descriptor is held and a file moved away is begun anew. */
#ifndef MALA_LINE_FILE_H
#define MALA_LINE_FILE_H

#include "base/base.h"

typedef struct {
    char *path;
    char *waiting; /* [room] of which count bytes are still to be written */
    size_t count, room;
} LineFile;

void line_file_open(LineFile *f, const char *path);
/* Appends a line (text without '\n') and hands it to the system. False: EXIT_IO; the line waits. */
bool line_file_add(LineFile *f, const char *line, Err *err);
/* Writes what waits. False: EXIT_IO. */
bool line_file_flush(LineFile *f, Err *err);
/* Tries once more; what still waits is lost. */
void line_file_close(LineFile *f);

#endif
