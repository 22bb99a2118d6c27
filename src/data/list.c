/* list.c - entries of a list, a byte at a time through the stream's own buffer. Refuses what would be cut or mixed up
 * in silence: entries longer than a path, NULs in a list of lines, UTF-16, where every other byte is a NUL. */
#include "data/list.h"

#include <errno.h>
#include <string.h>

ListReader list_reader(const char *name, const void *bytes, size_t count, FILE *file) {
    return (ListReader){.name = name, .bytes = bytes, .count = bytes ? count : 0, .file = file, .end = -1};
}

/* EOF at the end, and where reading failed. */
static int next_byte(ListReader *r) {
    if (r->at < r->count) return r->bytes[r->at++];
    return r->file ? getc(r->file) : EOF;
}

/* An entry and whether it was ended (not by the end of the list). */
static bool take_entry(ListReader *r, size_t *length, bool *ended, Err *err) {
    int c;
    *length = 0, *ended = false;
    r->entries++;
    while ((c = next_byte(r)) != EOF) {
        if (r->end < 0 && (c == '\n' || c == '\0')) r->end = c;
        if (c == r->end) {
            *ended = true;
            break;
        }
        if (c == '\0')
            return err_set(err, EXIT_INPUT,
                           "%s: line %zu holds a NUL - end all entries with a line end, or all with a NUL", r->name,
                           r->entries);
        if (*length == sizeof r->entry - 1)
            return err_set(err, EXIT_INPUT, "%s: entry %zu is longer than %d bytes - give one path a line", r->name,
                           r->entries, DATASET_PATH_MAX - 1);
        r->entry[(*length)++] = (char)c;
    }
    return c != EOF || !r->file || !ferror(r->file) ||
           err_set(err, EXIT_IO, "%s: cannot be read: %s - check the disk", r->name, strerror(errno));
}

static bool starts_with(const ListReader *r, size_t length, const char *mark) {
    return length >= strlen(mark) && memcmp(r->entry, mark, strlen(mark)) == 0;
}

bool list_next(ListReader *r, const char **out, Err *err) {
    size_t length;
    bool ended = true;
    *out = NULL;
    while (ended) {
        if (!take_entry(r, &length, &ended, err)) return false;
        if (r->entries == 1 && (starts_with(r, length, "\xff\xfe") || starts_with(r, length, "\xfe\xff")))
            return err_set(err, EXIT_INPUT, "%s: is UTF-16 text - save it as UTF-8", r->name);
        size_t mark = r->entries == 1 && starts_with(r, length, "\xef\xbb\xbf") ? 3 : 0;
        if (r->end != '\0' && length > mark && r->entry[length - 1] == '\r') length--;
        r->entry[length] = '\0';
        if (length == mark) continue;
        *out = r->entry + mark;
        break;
    }
    return true;
}
