/* split_shared.c - do two sets share pictures? Lengths and inodes first, which cost no reading; of files as long as one
 * of the other set the ends are compared, where compressed pictures differ, and of those that are equal the whole. */
#include "data/split.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define TRAIN_LOOKS 100000 /* files asked for their length, at most */
#define VAL_LOOKS 10000
#define READS 4000          /* ends read, at most; a whole file counts as WHOLE of them */
#define WHOLE 20
#define END_BYTES 2048
#define FILE_MAX_BYTES ((size_t)1 << 26)

typedef struct {
    int64_t bytes;
    uint64_t device, inode;
    size_t sample;
    uint64_t end; /* a hash of the last bytes; 0: not read yet */
} Facts;

typedef struct {
    const Dataset *train, *val;
    Facts *facts; /* [count] of training pictures, by length, device, inode */
    size_t count;
    int reads; /* left */
} Search;

static bool look(Facts *f, const Dataset *d, size_t sample) {
    char path[DATASET_PATH_MAX];
    struct stat st;
    dataset_path(d, sample, path);
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return false;
    *f = (Facts){.bytes = st.st_size, .device = st.st_dev, .inode = st.st_ino, .sample = sample};
    return true;
}

#define ORDER(a, b) (((a) > (b)) - ((a) < (b)))

static int by_facts(const void *x, const void *y) {
    const Facts *a = x, *b = y;
    int order = ORDER(a->bytes, b->bytes);
    if (!order) order = ORDER(a->device, b->device);
    return order ? order : ORDER(a->inode, b->inode);
}

/* FNV-1a of the file's last bytes into f->end, once; 0 where they cannot be read. */
static void read_end(Search *s, Facts *f, const Dataset *d) {
    char path[DATASET_PATH_MAX];
    uint8_t bytes[END_BYTES];
    if (f->end) return;
    s->reads--;
    dataset_path(d, f->sample, path);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = pread(fd, bytes, sizeof bytes, (off_t)MAX(f->bytes - END_BYTES, 0));
    close(fd);
    uint64_t hash = 1469598103934665603u;
    for (ssize_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    if (n > 0) f->end = hash | 1;
}

static bool same_bytes(Search *s, size_t train, size_t val) {
    char path[DATASET_PATH_MAX];
    uint8_t *a = NULL, *b = NULL;
    size_t na, nb;
    Err err = {0};
    s->reads -= WHOLE;
    dataset_path(s->train, train, path);
    bool same = file_read(&a, &na, path, FILE_MAX_BYTES, &err);
    dataset_path(s->val, val, path);
    same = same && file_read(&b, &nb, path, FILE_MAX_BYTES, &err) && na == nb && memcmp(a, b, na) == 0;
    free(a), free(b);
    return same;
}

/* The first training picture at least as long. */
static size_t first_as_long(const Search *s, int64_t bytes) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->facts[middle].bytes < bytes)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The training picture that is this one, too; NULL: none. */
static const Facts *find(Search *s, Facts *f) {
    const Facts *same = bsearch(f, s->facts, s->count, sizeof *f, by_facts);
    for (size_t i = first_as_long(s, f->bytes); !same && i < s->count && s->facts[i].bytes == f->bytes; i++) {
        Facts *other = &s->facts[i];
        if (s->reads <= 0) break;
        read_end(s, f, s->val), read_end(s, other, s->train);
        if (f->end && f->end == other->end && same_bytes(s, other->sample, f->sample)) same = other;
    }
    return same;
}

SplitShared split_shared(const Dataset *train, const Dataset *val) {
    SplitShared out = {0};
    size_t train_looks = MIN(train->count, TRAIN_LOOKS), val_looks = MIN(val->count, VAL_LOOKS);
    Search s = {.train = train, .val = val, .reads = READS, .facts = mem_zalloc(train_looks, sizeof *s.facts)};
    for (size_t i = 0; i < train_looks; i++)
        s.count += look(&s.facts[s.count], train, i * train->count / train_looks);
    qsort(s.facts, s.count, sizeof *s.facts, by_facts);
    for (size_t i = 0; i < val_looks; i++) {
        Facts f;
        if (!look(&f, val, i * val->count / val_looks)) continue;
        const Facts *same = find(&s, &f);
        if (same && out.shared++ == 0) out.train = same->sample, out.val = f.sample;
        if (!same && s.reads <= 0) break; /* not looked at to the end */
        out.looked++;
    }
    free(s.facts);
    return out;
}

void split_warn_of_shared(const Dataset *train, const Dataset *val, Log *log) {
    SplitShared s = split_shared(train, val);
    char a[DATASET_PATH_MAX], b[DATASET_PATH_MAX];
    if (s.shared == 0) return;
    dataset_path(train, s.train, a), dataset_path(val, s.val, b);
    log_warning(log, "%zu of %zu validation pictures looked at are training pictures, too", s.shared, s.looked);
    log_row(log, LOG_WARNING, "  %s is %s", b, a);
}
