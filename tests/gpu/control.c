/* control.c - stands in for tests/emulate/ where tests run on a real GPU: the order of its threads is its own. */
#include "emulate/control.h"

void emu_set_mode(int mode) { (void)mode; }
bool emu_present(void) { return false; }
