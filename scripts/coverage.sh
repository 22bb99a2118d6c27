#!/bin/sh
# Branch and line coverage of src/base, src/data, src/io and src/lib from what tests of a build with SAN=--coverage left
# in its folder: coverage.sh FOLDER [-v]. `make coverage` builds, runs and calls it.
#
# A branch is what gcov counts at -O0: each way out of each conditional jump, so that a && b has four. Left out are
# lines that hold CHECK( and lines marked "no cover": what only a programmer's mistake or another platform reaches.
# -v lists the lines with ways that were never taken.
set -eu
folder=$1 verbose=${2:-}
gcov=${GCOV:-gcov}
table=$(mktemp)
trap 'rm -f "$table"' EXIT

for room in base data io lib; do
    for counts in "$folder/$room"/*.gcda; do
        [ -e "$counts" ] || continue
        "$gcov" -t -b -c -r "$counts" 2>/dev/null | awk -v verbose="$verbose" '
            function report() {
                if (missed && verbose)
                    printf "    %s:%s: %d of %d never taken:%s\n", file, line, missed, here, source
                missed = here = 0
            }
            function summary() {
                report()
                if (file) printf "%s %d %d %d %d\n", file, taken, branches, run, lines
                taken = branches = run = lines = 0
            }
            / 0:Source:/ {
                summary()
                file = $0; sub(/.*Source:/, "", file)
                if (file !~ /\.c$/) file = ""
                next
            }
            !file { next }
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
            END { summary() }'
    done
done >"$table"

grep '^ ' "$table" || true
grep -v '^ ' "$table" | awk '
    function row(name, t, b, r, l) {
        printf "%-32s %6d %6d %6.1f %%   %6d %6d %6.1f %%\n", name, t, b, b ? 100 * t / b : 100, r, l,
               l ? 100 * r / l : 100
    }
    BEGIN { printf "%-32s %6s %6s %8s   %6s %6s %8s\n", "", "taken", "of", "branches", "run", "of", "lines" }
    {
        row($1, $2, $3, $4, $5)
        room = $1; sub(/\/[^\/]*$/, "", room)
        t[room] += $2; b[room] += $3; r[room] += $4; l[room] += $5
    }
    END { for (room in t) row(room, t[room], b[room], r[room], l[room]) }'
