#!/bin/sh
# Runs test programs one after another, adds up cmocka's own counts, and ends with one line: N passed, N failed. A file
# that is no program is taken as what one has printed.
# Shown are failures, skips with their reason, and a line per program.
set -u
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

count() { sed -n "s/^\[ *$1 *\] \([0-9]*\) test(s).*/\1/p" "$log" | awk '{n += $1} END {print n + 0}'; }

for program in "$@"; do
    start=$(date +%s)
    if [ -x "$program" ]; then
        "$program" >"$log" 2>&1
        status=$?
    else # a verdict that was written before
        cat "$program" >"$log"
        status=$?
    fi
    ok=$(count PASSED) bad=$(count FAILED) skip=$(count SKIPPED)
    # a program that died before its summary has failed, whatever it had counted
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        tail -n 40 "$log"
    fi
    grep -vE '^\[ +(RUN|OK) +\]|^\[=+\]|^\[ +(PASSED|SKIPPED) +\] [0-9]+|^ *$' "$log"
    echo "$(basename "$program"): $ok passed, $bad failed, $skip skipped in $(($(date +%s) - start)) s"
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
