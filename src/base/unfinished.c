/* unfinished.c - a list of names, each with its links in front of it. A child of fork() has its parent's list, and leaves
 * its parent's files alone. */
#include "base/unfinished.h"

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

void unfinished_begin(char *name) {
    Entry *e = entry_of(name);
    e->thread = pthread_self(), e->process = getpid();
    pthread_mutex_lock(&lock);
    e->next = first, e->link = &first;
    if (first) first->link = &e->next;
    first = e;
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

void unfinished_remove(bool own) {
    pthread_mutex_lock(&lock);
    for (Entry *e = first, *next; e; e = next) {
        next = e->next;
        if (e->process != getpid() || (own && !pthread_equal(e->thread, pthread_self()))) continue;
        (void)remove(e->name);
        leave_list(e);
    }
    pthread_mutex_unlock(&lock);
}
