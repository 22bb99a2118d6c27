#!/bin/sh
# Registers, shared memory and spills of every kernel on every architecture, from what `nvcc -Xptxas -v` says (the files
# given). A kernel that is not listed as cold and spills registers to memory counts as a failed test; the last lines are
# what scripts/run_tests.sh counts.
set -eu

# Kernels whose spills are known and stand outside the hot path: parts of their names, apart by '|'.
cold=''

cat "$@" | c++filt | awk -v cold="$cold" '
/Compiling entry function/ {
    arch = $0; sub(/.* for .sm_/, "", arch); sub(/[^0-9].*/, "", arch)
    name = $0; sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
    sub(/^void /, "", name); sub(/\(.*/, "", name)
}
/bytes spill stores/ {
    stack = $1
    for (i = 1; i < NF; i++) { if ($(i + 2) == "spill" && $(i + 3) ~ /stores/) stores = $i; if ($(i + 2) == "spill" && $(i + 3) ~ /loads/) loads = $i }
}
/Used [0-9]+ registers/ {
    registers = shared = 0
    for (i = 1; i <= NF; i++) { if ($(i + 1) ~ /^registers/) registers = $i; if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i }
    spills = stores + loads
    hot = spills > 0 && (cold == "" || name !~ cold)
    printf "%-60s sm_%-4s %4d registers %6d static shared %6d stack %6d spilled%s\n", name, arch, registers, shared, stack, spills, hot ? "  <- spills" : ""
    kernels++; bad += hot; known += spills > 0 && !hot
    if (registers > most) { most = registers; widest = name " on sm_" arch }
    stores = loads = stack = 0
}
END {
    if (!kernels) { print "cuda-check: no kernels found in the compiler'"'"'s output"; exit 1 }
    printf "cuda-check: %d kernels compiled, %d spill, %d more that are listed as cold; most registers %d (%s)\n", kernels, bad, known, most, widest
    printf "[  PASSED  ] %d test(s).\n[  FAILED  ] %d test(s).\n", kernels - bad, bad
}'
