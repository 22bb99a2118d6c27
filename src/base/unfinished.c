/* unfinished.c - a list of names, each with its links in front of it. A child of fork() has its parent's list, and
 * leaves its parent's files alone. */
#include "base/unfinished.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

typedef struct Entry {
    struct Entry *next, **link; /* link: what points here; NULL: not in the list */
    pthread_t thread;
    pid_t process;
    char name[];
} Entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Entry *first;

static Entry *entry_of(char *name) { return (Entry *)(name - offsetof(Entry, name)); }

char *unfinished_new(size_t room) {
    Entry *e = mem_zalloc(1, sizeof *e + room);
    return e->name;
}

/* Under the lock. */
static void enter_list(Entry *e) {
    e->thread = pthread_self(), e->process = getpid();
    e->next = first, e->link = &first;
    if (first) first->link = &e->next;
    first = e;
}

int unfinished_create(char *name) {
    pthread_mutex_lock(&lock);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) enter_list(entry_of(name));
    pthread_mutex_unlock(&lock);
    return fd;
}

void unfinished_begin(char *name) {
    pthread_mutex_lock(&lock);
    enter_list(entry_of(name));
    pthread_mutex_unlock(&lock);
}

static void leave_list(Entry *e) {
    if (!e->link) return;
    *e->link = e->next;
    if (e->next) e->next->link = e->link;
    e->link = NULL;
}

void unfinished_free(char *name) {
    if (!name) return;
    pthread_mutex_lock(&lock);
    leave_list(entry_of(name));
    pthread_mutex_unlock(&lock);
    free(entry_of(name));
}

static void remove_files(bool own) {
    for (Entry *e = first, *next; e; e = next) {
        next = e->next;
        if (e->process != getpid() || (own && !pthread_equal(e->thread, pthread_self()))) continue;
        (void)remove(e->name);
        leave_list(e);
    }
}

void unfinished_remove(void) {
    pthread_mutex_lock(&lock);
    remove_files(true);
    pthread_mutex_unlock(&lock);
}

void unfinished_end(void) {
    pthread_mutex_lock(&lock); /* for good */
    remove_files(false);
}
