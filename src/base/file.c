/* file.c - whole files in, whole files out. No stdio: it hides write errors and splits writes as it likes. The order
 * write, fsync, rename, fsync of the directory is what survives a power cut; an fsync that failed is never repeated
 * on the same file, since the kernel may by then have dropped the pages it could not write. Refuses everything that
 * is not a regular file, so that a FIFO cannot hang a reader and no device is ever renamed over. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/unfinished.h"

#define TEMPORARY_TRIES 100

bool file_fail(Err *err, const char *path, const char *what, int code) {
    const char *advice = code == ENOSPC || code == EDQUOT    ? "free some space"
                         : code == EFBIG                     ? "raise the limit of file sizes (ulimit -f)"
                         : code == EACCES || code == EPERM   ? "check its permissions"
                         : code == ENOENT || code == ENOTDIR ? "check the path"
                         : code == EMFILE || code == ENFILE  ? "raise the limit of open files"
                         : code == EEXIST || code == EISDIR  ? "give another name"
                         : code == ENAMETOOLONG              ? "give a shorter name"
                         : code == EROFS                     ? "choose another place"
                         : code == ENOMEM                    ? "close other programs"
                                                             : "check the disk";
    bool first = err && !err->code;
    err_set(err, code == ENOMEM ? EXIT_MEMORY : EXIT_IO, "%s: %s: %s - %s", path, what, strerror(code), advice);
    if (first) err->system = code;
    return false;
}

/* Is it worth another try at reading or looking? What disks and shares report for a moment, and what another thread may give back,
 * is, a few times, after a pause. errno is kept. */
static bool try_again(int *tries) {
    static const long pauses_ms[] = {10, 100, 500};
    static const int passing[] = {EIO, EMFILE, ENFILE, ENOMEM, EAGAIN, ENOBUFS, ESTALE, ETIMEDOUT};
    int code = errno;
    if (*tries == COUNTOF(pauses_ms)) return false;
    for (size_t i = 0; i < COUNTOF(passing); i++) {
        if (code != passing[i]) continue;
        nanosleep(&(struct timespec){.tv_nsec = pauses_ms[(*tries)++] * 1000000}, NULL);
        errno = code;
        return true;
    }
    return false;
}

static int look(const char *path, struct stat *st) {
    int tries = 0, missing;
    while ((missing = stat(path, st)) && try_again(&tries)) continue;
    return missing;
}

/* An open descriptor of a regular file and its state. O_NONBLOCK: opening a FIFO must not wait for a writer. */
static bool open_regular(int *fd, struct stat *st, const char *path, Err *err) {
    int tries = 0;
    do {
        *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    } while (*fd < 0 && try_again(&tries));
    if (*fd < 0) {
        const int code = errno;
        if (code != ENOENT && code != ENOTDIR && code != ELOOP && code != ENAMETOOLONG && code != ENXIO)
            return file_fail(err, path, "cannot be opened", code);
        const bool first = err && !err->code;
        err_set(err, EXIT_INPUT, "%s: cannot be opened: %s - check the path", path, strerror(code));
        if (first) err->system = code;
        return false;
    }
    if (fstat(*fd, st) != 0) {
        file_fail(err, path, "cannot be examined", errno);
    } else if (S_ISDIR(st->st_mode)) {
        err_set(err, EXIT_INPUT, "%s: is a folder, not a file - give a file", path);
    } else if (!S_ISREG(st->st_mode)) {
        err_set(err, EXIT_INPUT, "%s: is not a regular file - give a regular file", path);
    } else if ((uintmax_t)st->st_size >= SIZE_MAX) {
        err_set(err, EXIT_INPUT, "%s: is too large for this machine - give a smaller file", path);
    } else {
        return true;
    }
    close(*fd);
    *fd = -1;
    return false;
}

static int64_t modified_ns(const struct stat *st) {
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* count bytes from `at` on, over short reads and signals */
static bool read_all(int fd, uint8_t *out, size_t at, size_t count, const char *path, Err *err) {
    int tries = 0;
    for (size_t done = 0; done < count;) {
        ssize_t n = pread(fd, out + done, MIN(count - done, (size_t)1 << 30), (off_t)(at + done));
        if (n < 0 && (errno == EINTR || try_again(&tries))) continue;
        if (n < 0) return file_fail(err, path, "cannot be read", errno);
        if (n == 0)
            return err_set(err, EXIT_IO,
                           "%s: ended before byte %zu, it had %zu or more - is another program writing it?", path,
                           at + done, at + count);
        done += (size_t)n;
    }
    return true;
}

bool file_read(uint8_t **out, size_t *count, const char *path, size_t limit, Err *err) {
    int fd;
    struct stat st;
    *out = NULL, *count = 0;
    if (!open_regular(&fd, &st, path, err)) return false;
    size_t size = (size_t)st.st_size;
    uint8_t *bytes = NULL;
    if (size > limit)
        err_set(err, EXIT_INPUT, "%s: has %zu bytes, more than the %zu allowed here - give a smaller file", path, size,
                limit);
    else if (!(bytes = malloc(size + 1)))
        err_set(err, EXIT_MEMORY, "%s: no memory for its %zu bytes - close other programs", path, size);
    bool ok = bytes && read_all(fd, bytes, 0, size, path, err);
    close(fd);
    if (!ok) {
        free(bytes);
        return false;
    }
    bytes[size] = '\0';
    *out = bytes, *count = size;
    return true;
}

bool file_read_start(void *out, size_t room, size_t *count, const char *path, Err *err) {
    int fd;
    struct stat st;
    *count = 0;
    if (!open_regular(&fd, &st, path, err)) return false;
    size_t size = MIN((size_t)st.st_size, room);
    bool ok = read_all(fd, out, 0, size, path, err);
    close(fd);
    if (ok) *count = size;
    return ok;
}

static bool write_all(int fd, const uint8_t *bytes, size_t count, const char *path, Err *err) {
    for (size_t done = 0; done < count;) {
        ssize_t n = write(fd, bytes + done, MIN(count - done, (size_t)1 << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return file_fail(err, path, "cannot be written", n < 0 ? errno : EIO);
        done += (size_t)n;
    }
    return true;
}

/* The folder that holds path, malloc'd. */
static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    size_t length = slash == path ? 1 : (size_t)(slash - path);
    char *parent = mem_zalloc(length + 1, 1);
    memcpy(parent, path, length);
    return parent;
}

/* Makes the names in a folder durable. Some network file systems cannot (EINVAL); they promise nothing anyway. */
static bool sync_folder(const char *folder, Err *err) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return file_fail(err, folder, "cannot be opened", errno);
    bool ok = fsync(fd) == 0 || errno == EINVAL || file_fail(err, folder, "cannot be synced", errno);
    close(fd);
    return ok;
}

static void writer_free(FileWriter *w) {
    free(w->path), free(w->target), unfinished_free(w->temporary);
    *w = (FileWriter){.fd = -1};
}

bool file_writer_open(FileWriter *w, const char *path, Err *err) {
    *w = (FileWriter){.fd = -1};
    struct stat st;
    bool exists = look(path, &st) == 0;
    if (!exists && errno != ENOENT && errno != ENOTDIR) return file_fail(err, path, "cannot be examined", errno);
    if (exists && !S_ISREG(st.st_mode))
        return err_set(err, EXIT_IO, "%s: is not a regular file and will not be replaced - give another path", path);
    /* through a symbolic link to the file it names: the link stays */
    w->target = exists ? path_real(path) : mem_strdup(path);
    if (!w->target) return file_fail(err, path, "cannot be examined", errno);

    size_t capacity = strlen(w->target) + 48;
    w->path = mem_strdup(path);
    w->temporary = unfinished_new(capacity);
    for (int k = 0; k < TEMPORARY_TRIES && w->fd < 0; k++) { /* a run that died may have left names behind */
        snprintf(w->temporary, capacity, "%s.tmp.%ld.%d", w->target, (long)getpid(), k);
        w->fd = unfinished_create(w->temporary);
        if (w->fd < 0 && errno != EEXIST) break;
    }
    if (w->fd >= 0) return true;
    file_fail(err, path, "cannot be created", errno);
    writer_free(w);
    return false;
}

bool file_writer_append(FileWriter *w, const void *bytes, size_t count, Err *err) {
    return write_all(w->fd, bytes, count, w->path, err);
}

void file_writer_discard(FileWriter *w) {
    if (!w->temporary) return;
    if (w->fd >= 0) close(w->fd);
    unlink(w->temporary);
    writer_free(w);
}

bool file_writer_fail(FileWriter *w, Err *err) {
    size_t length = w->temporary ? strlen(w->temporary) : 0;
    if (length > 0 && strncmp(err->text, w->temporary, length) == 0) {
        Err told = {0};
        err_set(&told, err->code, "%s%s", w->path, err->text + length);
        *err = told;
    }
    file_writer_discard(w);
    return false;
}

bool file_writer_finish(FileWriter *w, Err *err) {
    if (w->fd < 0) return true;
    bool ok = w->quick || fsync(w->fd) == 0 || file_fail(err, w->path, "cannot be synced", errno);
    if (close(w->fd) != 0 && ok) /* quotas and NFS report here */
        ok = file_fail(err, w->path, "cannot be closed", errno);
    w->fd = -1;
    return ok;
}

/* As rename(), but what is there stays (EEXIST). Not every file system has the flag; a second name does the same. */
static int rename_to_nothing(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    return link(from, to) == 0 ? unlink(from) : -1;
}

static bool publish(const FileWriter *w, Err *err) {
    if ((w->only_new ? rename_to_nothing : rename)(w->temporary, w->target) == 0) return true;
    if (w->only_new && errno == EEXIST)
        return err_set(err, EXIT_USAGE, "%s: exists, it was written meanwhile - give another name", w->path);
    return file_fail(err, w->path, "cannot be replaced", errno);
}

bool file_writer_commit(FileWriter *w, Err *err) {
    CHECK(w->temporary, "commit of a writer that is not open");
    char *folder = parent_of(w->target); /* once it has its name nothing may be lacking */
    if (!file_writer_finish(w, err) || !publish(w, err)) {
        file_writer_discard(w);
        free(folder);
        return false;
    }
    bool ok = w->quick || sync_folder(folder, err);
    free(folder);
    writer_free(w);
    return ok;
}

/* Is `name` what file_writer_open makes of `base`: base.tmp.PID.NUMBER? */
static bool is_temporary(const char *name, const char *base) {
    size_t length = strlen(base);
    if (strncmp(name, base, length) != 0 || strncmp(name + length, ".tmp.", 5) != 0) return false;
    const char *pid = name + length + 5;
    size_t digits = strspn(pid, "0123456789"), more = 0;
    if (digits > 0 && pid[digits] == '.') more = strspn(pid + digits + 1, "0123456789");
    return more > 0 && pid[digits + 1 + more] == '\0';
}

void file_remove_temporaries(const char *path) {
    char *folder = parent_of(path);
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    DirList list;
    Err ignored = {0};
    if (dir_list(&list, folder, &ignored)) {
        for (size_t i = 0; i < list.count; i++) {
            if (!is_temporary(list.names[i], base)) continue;
            char *left = path_join(folder, list.names[i]);
            (void)unlink(left);
            free(left);
        }
        dir_list_free(&list);
    }
    free(folder);
}

static bool write_whole(const char *path, const void *bytes, size_t count, bool quick, Err *err) {
    FileWriter w;
    if (!file_writer_open(&w, path, err)) return false;
    w.quick = quick;
    /* reserved first, so that a full disk is noticed before anything is written; not every file system can */
    if (count > 0) {
        int code = posix_fallocate(w.fd, 0, (off_t)count);
        if (code == ENOSPC || code == EDQUOT || code == EFBIG) {
            file_writer_discard(&w);
            return file_fail(err, path, "cannot be written", code);
        }
    }
    return file_writer_append(&w, bytes, count, err) ? file_writer_commit(&w, err) : file_writer_fail(&w, err);
}

bool file_write(const char *path, const void *bytes, size_t count, Err *err) {
    return write_whole(path, bytes, count, false, err);
}

bool file_write_quickly(const char *path, const void *bytes, size_t count, Err *err) {
    return write_whole(path, bytes, count, true, err);
}

bool file_reader_open(FileReader *r, const char *path, Err *err) {
    struct stat st;
    *r = (FileReader){.path = path, .fd = -1};
    if (!open_regular(&r->fd, &st, path, err)) return false;
    r->count = (size_t)st.st_size;
    r->modified = modified_ns(&st);
    return true;
}

FileReader file_reader_of(const char *name, const void *bytes, size_t count) {
    return (FileReader){.path = name, .memory = count ? bytes : "", .fd = -1, .count = count};
}

bool file_reader_read(const FileReader *r, void *out, size_t at, size_t count, Err *err) {
    CHECK(at <= r->count && count <= r->count - at, "%s: %zu bytes from %zu on of %zu", r->path, count, at, r->count);
    if (r->memory) {
        if (count > 0) memcpy(out, r->memory + at, count);
        return true;
    }
    struct stat st;
    if (!read_all(r->fd, out, at, count, r->path, err)) return false;
    if (fstat(r->fd, &st) != 0) return file_fail(err, r->path, "cannot be examined", errno);
    return ((uintmax_t)st.st_size == r->count && modified_ns(&st) == r->modified) ||
           err_set(err, EXIT_IO, "%s: was changed while it was read - try again when it has been written", r->path);
}

void file_reader_close(FileReader *r) {
    if (r->fd >= 0) close(r->fd);
    *r = (FileReader){.fd = -1};
}

bool path_kind(PathKind *out, const char *path, Err *err) {
    struct stat st;
    *out = PATH_NOTHING;
    if (look(path, &st) == 0) {
        *out = S_ISDIR(st.st_mode) ? PATH_FOLDER : S_ISREG(st.st_mode) ? PATH_FILE : PATH_OTHER;
        return true;
    }
    int code = errno;
    if (code == ELOOP) return err_set(err, EXIT_INPUT, "%s: is a link that leads in circles - remove it", path);
    if (code != ENOENT && code != ENOTDIR) return file_fail(err, path, "cannot be examined", code);
    if (lstat(path, &st) != 0) return true;
    return err_set(err, EXIT_INPUT, "%s: is a link to what is not there - is a disk missing? Else remove it", path);
}

char *path_real(const char *path) {
    char *real = realpath(path, NULL);
    if (!real && errno == ENOMEM) mem_exhausted("a path");
    return real;
}

bool path_is_dir(const char *path) {
    struct stat st;
    return look(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool dir_make(const char *path, Err *err) {
    if (path_is_dir(path)) return true;
    char *parent = parent_of(path);
    /* "a/" has the parent "a", which is the same folder: made there, it exists here */
    bool ok = (strcmp(parent, path) == 0 || dir_make(parent, err)) &&
              (mkdir(path, 0777) == 0 || (errno == EEXIST && path_is_dir(path)) ||
               file_fail(err, path, "the folder cannot be made", errno)) &&
              sync_folder(parent, err);
    free(parent);
    return ok;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

bool dir_list(DirList *out, const char *path, Err *err) {
    int tries = 0;
    DIR *dir;
    *out = (DirList){0};
    while (!(dir = opendir(path)) && try_again(&tries)) continue;
    if (!dir) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
            return err_set(err, EXIT_INPUT, "%s: is not a folder - check the path", path);
        return file_fail(err, path, "the folder cannot be opened", errno);
    }
    size_t room = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        if (out->count == room) {
            room = room ? 2 * room : 64;
            out->names = mem_resize(out->names, room, sizeof *out->names);
        }
        size_t length = strlen(entry->d_name);
        char *name = mem_zalloc(length + 2, 1); /* behind its end: is it certainly a regular file? */
        memcpy(name, entry->d_name, length);
        name[length + 1] = entry->d_type == DT_REG;
        out->names[out->count++] = name;
    }
    int code = errno;
    closedir(dir);
    if (code) {
        dir_list_free(out);
        return file_fail(err, path, "the folder cannot be read", code);
    }
    if (out->count) qsort(out->names, out->count, sizeof *out->names, by_bytes);
    return true;
}

bool dir_list_regular(const DirList *list, size_t i) { return list->names[i][strlen(list->names[i]) + 1]; }

void dir_list_free(DirList *list) {
    for (size_t i = 0; i < list->count; i++) free(list->names[i]);
    free(list->names);
    *list = (DirList){0};
}

char *path_join(const char *a, const char *b) {
    size_t na = strlen(a);
    while (na > 1 && a[na - 1] == '/') na--;
    while (na > 0 && *b == '/') b++;
    size_t nb = strlen(b);
    char *joined = mem_zalloc(na + nb + 2, 1);
    memcpy(joined, a, na);
    if (na > 0 && a[na - 1] != '/' && nb > 0) joined[na++] = '/';
    memcpy(joined + na, b, nb);
    return joined;
}

char *path_absolute(const char *path) {
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (path[0] != '/' && !here && errno == ENOMEM) mem_exhausted("a path");
    while (here && path[0] == '.' && path[1] == '/') path += 2;
    char *whole = here ? path_join(here, path) : mem_strdup(path);
    free(here);
    return whole;
}
