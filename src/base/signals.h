/* signals.h - how the program takes signals. No handler ever runs on a thread that computes: generated code of the
 * libraries below may have the stack register point where a signal's frame would destroy data. So nothing is caught.
 * Before there is any other thread, main blocks whatever comes from outside, all threads inherit that, and one small
 * thread, which does nothing else, waits for the signals that mean "stop" or end a program. It leaves the others open:
 * their actions, the default one (Ctrl-Z) or a preloaded profiler's, happen there. A write beyond `ulimit -f` fails
 * with EFBIG, as on a full disk, since its signal is blocked, too, and one to a pipe that nobody reads with EPIPE: for
 * what is only said to a terminal nothing has to end, such as a training whose `| tee` Ctrl-C has ended first.
 *
 * No disposition is changed. A signal that is ignored or blocked when the program starts (nohup, trap '') stays that,
 * and one whose handler is somebody else's stays theirs. SIGINT and SIGQUIT ignored together are a script's background
 * job: Ctrl-C, which a terminal sends to all of the script, is not meant for it; `kill -INT`, sent by somebody, is. */
#ifndef MALA_SIGNALS_H
#define MALA_SIGNALS_H

#include "base/base.h"

/* Call first in main. From then on SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU and all others that end a process, but for
 * SIGKILL and a thread's faults, remove the files that are being written and end it as they would without us, so that
 * whoever started it sees which. False: EXIT_MEMORY, no thread. */
bool signals_begin(Err *err);

/* For work that has something to save: from now on the first of those five only makes signals_stop true. A second one
 * ends the process as above, unless it comes within SIGNALS_SAME seconds: `timeout` and shells that lose their terminal
 * send theirs twice, and mean one. SIGXCPU comes every second from `ulimit -St` on, and never means more than one. */
void signals_listen(bool on);
#define SIGNALS_SAME 0.2

/* The signal that asks to stop, 0: none did. Cheap, for any thread; look at it between steps. */
int signals_stop(void);

/* After a write to this descriptor has failed: where it is a pipe whose reader has gone, ends the process by SIGPIPE,
 * as programs are expected to (`mala infer ... | head`), unless that was ignored or somebody else's at the start. */
void signals_unread(int fd);

#endif
