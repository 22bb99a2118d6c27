#!/bin/sh
# Builds and runs gemm_libs.c: gemm_libs.sh [THREADS [ROUNDS]]. Needs oneDNN with its header, BLIS and OpenBLAS;
# on Debian: libdnnl-dev libblis4-openmp libopenblas0-openmp.
set -eu
cd "$(dirname "$0")"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wshadow -fopenmp -o "$program" gemm_libs.c -ldl -lm

cpu() { sed -n "s/^$1[^:]*: //p" /proc/cpuinfo | head -n 1; }
echo "# $(date +%F)  $(cpu 'model name') (family $(cpu 'cpu family'), model $(cpu 'model[[:space:]]')), $(nproc) cores" \
    "seen, load average before: $(cut -d' ' -f1 /proc/loadavg)"
"$program" "$@"
