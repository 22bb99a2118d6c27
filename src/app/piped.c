#include "app/piped.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 30) /* as of a picture's file */

/* What no list of paths begins with: bytes that begin no UTF-8 text, control characters, NULs side by side. "BMW.jpg"
 * and "P5.png" are paths, though pictures begin with BM and P5, too. */
static bool is_binary(const uint8_t *head, size_t count) {
    if (count > 0 && (head[0] == 0xff || head[0] == 0x89)) return true;
    for (size_t i = 0; i < count; i++) {
        bool blank = head[i] == '\t' || head[i] == '\n' || head[i] == '\r';
        if (head[i] == 0 ? i > 0 && head[i - 1] == 0 : head[i] < 0x20 && !blank) return true;
    }
    return false;
}

bool piped_more(FILE *file) {
    struct pollfd ready = {.fd = fileno(file), .events = POLLIN};
    return poll(&ready, 1, 0) != 0;
}

bool piped_is_picture(uint8_t head[IMAGE_MAGIC], size_t *count, FILE *file) {
    int c;
    bool readable;
    *count = 0;
    while (*count < IMAGE_MAGIC && (c = getc(file)) != EOF) {
        head[(*count)++] = (uint8_t)c;
        if (c == '\n' && !is_binary(head, *count)) break;
    }
    return is_binary(head, *count) && image_format(head, *count, &readable) != NULL;
}

bool piped_read(Piped *out, const uint8_t *head, size_t count, FILE *file, Err *err) {
    size_t room = 1 << 16, more;
    *out = (Piped){.bytes = mem_zalloc(room, 1), .count = count};
    memcpy(out->bytes, head, count);
    while ((more = fread(out->bytes + out->count, 1, room - out->count, file)) > 0) {
        out->count += more;
        if (out->count > MOST_BYTES)
            return err_set(err, EXIT_INPUT, PIPED_NAME ": more than %zu bytes - give one picture", MOST_BYTES);
        if (out->count == room) room *= 2, out->bytes = mem_resize(out->bytes, room, 1);
    }
    return !ferror(file) || err_set(err, EXIT_IO, PIPED_NAME ": cannot be read: %s - check the disk", strerror(errno));
}

void piped_free(Piped *p) {
    free(p->bytes);
    *p = (Piped){0};
}
