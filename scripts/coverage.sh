#!/bin/sh
# Branch and line coverage of src/base, src/data, src/io and src/lib from what tests of a build with SAN=--coverage left
# in its folder: coverage.sh FOLDER [-v]. `make coverage` builds, runs and calls it.
#
# A branch is what gcov counts at -O0: each way out of each conditional jump, so that a && b has four. Left out are
# lines that hold CHECK( and lines marked "no cover": what only a programmer's mistake or another platform reaches.
# -v lists the lines with ways that were never taken.
set -eu
folder=$1 verbose=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$(pwd)
gcov=${GCOV:-gcov}

for room in base data io lib; do
    mkdir "$work/$room"
    for counts in "$folder/$room"/*.gcda; do
        [ -e "$counts" ] || continue
        (cd "$work/$room" && "$gcov" -b -c -r -s "$root" "$root/$counts" >/dev/null 2>&1)
    done
    for text in "$work/$room"/*.c.gcov; do
        [ -e "$text" ] || continue
        awk -v room="$room" -v verbose="$verbose" '
            function report() {
                if (missed && verbose)
                    printf "    src/%s/%s:%s: %d of %d never taken:%s\n", room, file, line, missed, here, source
                missed = here = 0
            }
            BEGIN { file = ARGV[1]; sub(/.*\//, "", file); sub(/\.gcov$/, "", file) }
            /^branch/ {
                if (skip) next
                branches++; here++
                if (/taken 0/ || /never executed/) missed++; else taken++
                next
            }
            /^ *[-#=0-9*]+:/ {
                report()
                count = $0; sub(/:.*/, "", count); gsub(/[ *]/, "", count)
                rest = $0; sub(/^[^:]*: */, "", rest)
                line = rest; sub(/:.*/, "", line)
                source = rest; sub(/^[0-9]+:/, "", source)
                skip = source ~ /CHECK\(|no cover/
                if (count != "-" && !skip) { lines++; if (count !~ /^[#=]/) run++ }
            }
            END { report(); printf "%s %s %d %d %d %d\n", room, file, taken, branches, run, lines }' "$text"
    done
done >"$work/table"

grep '^ ' "$work/table" || true
grep -v '^ ' "$work/table" | awk '
    function row(name, t, b, r, l) {
        printf "%-32s %6d %6d %6.1f %%   %6d %6d %6.1f %%\n", name, t, b, b ? 100 * t / b : 100, r, l,
               l ? 100 * r / l : 100
    }
    BEGIN { printf "%-32s %6s %6s %8s   %6s %6s %8s\n", "", "taken", "of", "branches", "run", "of", "lines" }
    { row("src/" $1 "/" $2, $3, $4, $5, $6); t[$1] += $3; b[$1] += $4; r[$1] += $5; l[$1] += $6 }
    END { for (room in t) row("src/" room, t[room], b[room], r[room], l[room]) }'
