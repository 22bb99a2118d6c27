#!/bin/sh
# Runs test programs one after another, adds up what cmocka counts, and ends with one line: N passed, N failed.
set -u
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for program in "$@"; do
    echo "== $(basename "$program")"
    "$program" >"$log" 2>&1
    status=$?
    grep -vE '^\[ +(RUN|OK) +\]|^\[=+\] (Running|[0-9]+ test)' "$log" | grep -vE '^\[  PASSED  \]' || true
    ok=$(grep -cE '^\[ +OK +\]' "$log")
    bad=$(grep -cE '^\[  FAILED  \] [a-z_0-9]+$' "$log")
    skip=$(grep -cE '^\[  SKIPPED \] [a-z_0-9]+$' "$log")
    # a program that died before its summary has failed, whatever it had counted
    [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
