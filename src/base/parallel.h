/* parallel.h - compute threads. A team of threads belongs to whoever makes it (a backend has one); a loop is run by the
 * team that the calling thread uses. Work is cut by shape alone, never by the number of threads, so results do not
 * depend on it. A thread that waits spins for some microseconds, then sleeps: back-to-back ops meet awake threads, and
 * a busy machine is not kept busier. */
#ifndef MALA_PARALLEL_H
#define MALA_PARALLEL_H

#define PARALLEL_MOST 256

typedef struct Team Team;

/* 1 .. PARALLEL_MOST threads, the caller's own among them. Those that are started take no signals. */
Team *team_new(int threads);
/* Not while a loop of it runs. */
void team_free(Team *t);
int team_size(const Team *t);
/* From now on the calling thread's loops are run by this team (NULL: by itself alone). Returns the team it used before.
 */
Team *team_use(Team *t);

/* Threads of the team that the calling thread uses. */
int parallel_threads(void);

/* Runs body(arg, index, thread) for index 0 .. count-1, each once, thread < parallel_threads(). Each thread begins with
 * a share of neighbouring indices, the same one in every call, so that a tile written by one op is in the cache of the
 * thread that reads it next; who is done early takes from the others. A call from within a body, or while another
 * thread of the program has the team, or in a child of fork(), runs in the caller alone. */
void parallel_for(int count, void (*body)(void *arg, int index, int thread), void *arg);

#endif
