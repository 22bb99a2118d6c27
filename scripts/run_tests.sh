#!/bin/sh
# Runs test programs side by side, adds up cmocka's own counts, and ends with one line: N passed, N failed. A file
# that is no program is taken as what one has printed.
# Shown are failures, skips with their reason, and a line per program, in the order given however they end.
#   JOBS=N         so many at a time; as many as there are processors unless given
#   SHUFFLE=SEED   starts them in another order, the same for the same seed
#   TEST_TIMES=F   where the seconds of each are kept: next time the longest starts first
set -u
log=$(mktemp -d) || exit 1
trap 'rm -rf "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
times=${TEST_TIMES:-/dev/null}
# as long as nothing is known
longest="test_training gpu_scripts.sh test_models test_exhausted test_program test_library"

# One program, to files of its name: NAME.log is what it printed, NAME.end its status and seconds, there when all is.
run_one='
log=$1 program=$2
name=$(basename "$program") start=$(date +%s)
if [ -x "$program" ]; then
    "$program" >"$log/$name.log" 2>&1 </dev/null
    status=$?
else # a verdict that was written before
    cat "$program" >"$log/$name.log" 2>&1
    status=$?
fi
echo "$status $(($(date +%s) - start))" >"$log/$name.end.new"
mv "$log/$name.end.new" "$log/$name.end"
'

# Longest first, then as given; or by the seed.
in_order() {
    for program in "$@"; do echo "$program"; done | awk -v seed="${SHUFFLE:-}" -v times="$times" -v longest="$longest" '
        BEGIN {
            n = split(longest, name, " ")
            for (i = 1; i <= n; i++) seconds[name[i]] = n + 1 - i
            while ((getline line < times) > 0) { split(line, part, " "); seconds[part[1]] = part[2] }
            srand(seed == "" ? 1 : seed)
        }
        {
            base = $0
            sub(/.*\//, "", base)
            printf "%.9f %d %s\n", seed == "" ? -seconds[base] : rand(), NR, $0
        }' | sort -n -k 1,1 -k 2,2 | cut -d ' ' -f 3-
}

in_order "$@" >"$log/order"
xargs -P "$jobs" -I{} sh -c "$run_one" run "$log" {} <"$log/order" &
runner=$!

count() { sed -n "s/^\[ *$1 *\] \([0-9]*\) test(s).*/\1/p" "$log/$name.log" | awk '{n += $1} END {print n + 0}'; }

passed=0 failed=0 skipped=0
for program in "$@"; do
    name=$(basename "$program")
    while [ ! -e "$log/$name.end" ] && kill -0 $runner 2>/dev/null; do sleep 0.1; done
    [ -e "$log/$name.end" ] || { echo "255 0" >"$log/$name.end"; echo "$name was not run" >>"$log/$name.log"; }
    read -r status seconds <"$log/$name.end"
    echo "$name $seconds" >>"$log/times"
    ok=$(count PASSED) bad=$(count FAILED) skip=$(count SKIPPED)
    # a program that died before its summary has failed, whatever it had counted
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        tail -n 40 "$log/$name.log"
    fi
    grep -vE '^\[ +(RUN|OK) +\]|^\[=+\]|^\[ +(PASSED|SKIPPED) +\] [0-9]+|^ *$' "$log/$name.log"
    echo "$name: $ok passed, $bad failed, $skip skipped in $seconds s"
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
[ "$times" = /dev/null ] || cp "$log/times" "$times"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
